"""Snapshots as files: one per key, in one directory.

    batchq snapshot 1, 2 records
    5c1e2a47 {"id":7,...}
    09f3b1d0 {"id":8,...}

Rule 1: a file is replaced whole: written beside it, synced, renamed, and the directory
synced, in this order. A crash at any point leaves the old one or the new one.
Rule 2: a line that its checksum does not confirm is handed on as it is. It decodes as
nothing, so whoever reads the records sets it aside, and loads the others.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

import attrs

from batchq.persistence.lock import Owners

__all__ = ["FileStorage"]

_HEADER: Final = re.compile(rb"batchq snapshot 1, (\d+) records")
_LINE: Final = re.compile(rb"([0-9a-f]{8}) (.*)", re.DOTALL)


@attrs.define(eq=False)
class FileStorage:
    """Keeps snapshots in files of a directory, which is made if it is not there.

    Attributes:
        directory: where; of this machine, for the locks of network file systems differ.
    """

    directory: Path = attrs.field(converter=Path)
    _owners: Owners = attrs.field(factory=Owners, init=False, repr=False)

    def acquire(self, key: str) -> None:
        """Become the owner of a key.

        Raises:
            StorageInUse: it has another live owner.
            OSError: the directory can't be made or written, or anybody may write to it.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._owners.acquire(key, self._path(key, "lock"))

    def release(self, key: str) -> None:
        """Give a key up, once nothing is being saved; never waits, idempotent."""
        self._owners.release(key)

    def save(self, key: str, records: Sequence[bytes]) -> None:
        """Replace the snapshot of `key`, whole or not at all.

        Raises:
            ValueError: a record has a line break; JSON needs none.
            OSError: it could not be written; the old one is as it was.
        """
        if any(b"\n" in record for record in records):
            raise ValueError("a record must be one line; JSON needs no line break")
        header = b"batchq snapshot 1, %d records" % len(records)
        lines = [header, *(b"%08x %s" % (zlib.crc32(record), record) for record in records), b""]
        with self._owners.saving():
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._replace(self._path(key, "snapshot"), b"\n".join(lines))

    def load(self, key: str) -> list[bytes]:
        """Return the records of a snapshot, in order; none if there is no snapshot.

        Raises:
            OSError: it can't be read.
        """
        try:
            content = self._path(key, "snapshot").read_bytes()
        except FileNotFoundError:
            return []
        header, *lines = content.split(b"\n")
        found = _HEADER.fullmatch(header)
        if found is None:
            return [line for line in (header, *lines) if line] or [b"torn: the file is empty"]
        if lines and not lines[-1]:  # the last line is whole
            lines.pop()
        records = [_record(line) for line in lines]
        if len(records) != int(found[1]):
            records.append(b"torn: %s records were saved, %d found" % (found[1], len(records)))
        return records

    def _path(self, key: str, kind: str) -> Path:
        return self.directory / f"{quote(key, safe='')}.{kind}"

    def _replace(self, path: Path, content: bytes) -> None:
        beside = path.with_name(f"{path.name}.tmp")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(beside, flags, 0o600), "wb") as file:  # noqa: PTH123 - a descriptor
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        directory = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _record(line: bytes) -> bytes:
    found = _LINE.fullmatch(line)
    if found is not None and int(found[1], 16) == zlib.crc32(found[2]):
        return found[2]
    return line
