"""A disk that loses power: what it may hold after a cut, from what was written down before.

What was fsynced is there: a file's bytes by its own fsync, its name by its folder's. What
was not is there as the mode says:

    none    nothing of it                      all     all of it, in order
    some    each write by the toss of a coin   torn    all, but the last write: its first sectors

Names that were not fsynced are there up to some moment: file systems keep their order. This
takes fsync as honest and sectors as whole; a disk can be worse.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import attrs

from tests.crash.shim import Change, Record

__all__ = ["MODES", "Disk"]

MODES: Final = ("none", "all", "some", "torn")
_SECTORS: Final = (512, 4096)


@attrs.define(eq=False)
class _File:
    """One file's bytes.

    Attributes:
        safe: as they were at its last fsync.
        loose: changes since, in order.
    """

    safe: bytearray = attrs.field(factory=bytearray)
    loose: list[Record] = attrs.field(factory=list)


def _apply(content: bytearray, change: Record, size: int | None = None) -> None:
    """Carry out a change; of a write its first `size` bytes only."""
    if change.change is Change.CUT:
        del content[change.offset :]
        content.extend(bytes(change.offset - len(content)))
        return
    data = change.data if size is None else change.data[:size]
    content.extend(bytes(max(0, change.offset - len(content))))
    content[change.offset : change.offset + len(data)] = data


Names = dict[str, _File]


@attrs.define(eq=False)
class Disk:
    """A folder on a disk, brought from change to change."""

    _safe: Names = attrs.field(factory=dict, init=False)
    _loose: list[tuple[Record, _File | None]] = attrs.field(factory=list, init=False)
    _now: Names = attrs.field(factory=dict, init=False)
    _files: dict[int, _File] = attrs.field(factory=dict, init=False)
    _last: _File | None = attrs.field(default=None, init=False)

    def take(self, record: Record) -> None:
        """Let one change happen."""
        match record.change:
            case Change.WROTE | Change.CUT:
                file = self._last = self._files[record.inode]
                file.loose.append(record)
            case Change.SYNCED:
                self._files[record.inode] = file = self._files[record.inode]
                for change in file.loose:
                    _apply(file.safe, change)
                file.loose.clear()
            case Change.SYNCED_FOLDER:
                self._safe = dict(self._now)
                self._loose.clear()
            case _:
                self._rename(record)

    def _rename(self, record: Record) -> None:
        file = None
        if record.change is Change.MADE:
            file = self._files[record.inode] = _File()  # the number may have been another's
        self._loose.append((record, file))
        _name(self._now, record, file)

    def image(self, mode: str, draw: random.Random) -> dict[str, bytes]:
        """Return a folder that may be found after a power cut right now: name -> content."""
        names = self._names(mode, draw)
        contents: dict[int, bytes] = {}
        for file in names.values():
            if id(file) not in contents:
                contents[id(file)] = bytes(self._content(file, mode, draw))
        return {name: contents[id(file)] for name, file in names.items()}

    def _names(self, mode: str, draw: random.Random) -> Names:
        if mode == "all":
            return self._now
        kept = 0 if mode == "none" else draw.randint(0, len(self._loose))
        names = dict(self._safe)
        for record, file in self._loose[:kept]:
            _name(names, record, file)
        return names

    def _content(self, file: _File, mode: str, draw: random.Random) -> bytearray:
        content = bytearray(file.safe)
        for change, size in self._survivors(file, mode, draw):
            _apply(content, change, size)
        return content

    def _survivors(
        self, file: _File, mode: str, draw: random.Random
    ) -> Iterable[tuple[Record, int | None]]:
        if mode == "none":
            return ()
        if mode == "some":
            return _some(file.loose, draw)
        kept: list[tuple[Record, int | None]] = [(change, None) for change in file.loose]
        if mode == "torn" and kept and file is self._last:
            change = kept[-1][0]
            sector = draw.choice(_SECTORS)
            kept[-1] = (change, sector * draw.randint(0, len(change.data) // sector))
        return kept


def _some(loose: Iterable[Record], draw: random.Random) -> Iterator[tuple[Record, int | None]]:
    for change in loose:
        if draw.random() < 0.5:
            yield change, None


def _name(names: Names, record: Record, file: _File | None) -> None:
    """Let a change of names happen; one whose own beginning was lost changes nothing."""
    other = record.data.decode(errors="replace")
    match record.change:
        case Change.MADE if file is not None:
            names[record.name] = file
        case Change.LINKED if record.name in names:
            names[other] = names[record.name]
        case Change.UNLINKED:
            names.pop(record.name, None)
        case Change.RENAMED if record.name in names:
            names[other] = names.pop(record.name)


def write(image: dict[str, bytes], folder: Path) -> None:
    """Put an image down as files."""
    for name, content in image.items():
        (folder / name).write_bytes(content)
