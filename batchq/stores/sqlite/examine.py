"""What a person should know of a database file: is it whole, and is anything odd about it?"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from batchq.stores.sqlite.connect import LARGE_WAL
from batchq.stores.sqlite.look import SCHEMA
from batchq.stores.sqlite.rows import READERS
from batchq.stores.sqlite.trouble import RESCUE
from batchq.stores.sqlite.version import has_reset_bug
from batchq.stores.upkeep import Finding

__all__ = ["examine"]

_BESIDE: Final = ("", "-wal", "-shm", "-lock")
_MOST: Final = 20  # of what is broken, to be named one by one
# What batchq/stores/sqlite/rows.py's READERS read, in their order.
_JOBS: Final = """
    SELECT id, state NOT IN ('pending', 'processing') OR due_at IS NOT NULL,
           state, tags, key_scope, CAST(payload AS BLOB), CAST(value AS BLOB)
      FROM batchq_jobs
"""


def examine(connection: sqlite3.Connection, path: str) -> Iterator[Finding]:
    """Look at a file through a connection that reads; it may take a while if it is large."""
    yield _version()
    yield _modes(path)
    yield _wal(path)
    content = _content(connection)
    yield content
    if content.ok:  # else there is no telling what its rows are
        yield _jobs(connection)
    yield Finding("schema", ok=True, text=f"{SCHEMA}, as this batchq writes it")


def _version() -> Finding:
    text = f"SQLite {sqlite3.sqlite_version}"
    if has_reset_bug():
        text += (
            ": can corrupt a file, if rarely, when two connections write at one instant; mended"
            " in 3.51.3. batchq's own processes take turns: let nothing else write to it"
        )
    return Finding("sqlite", ok=not has_reset_bug(), text=text, harmless=True)


def _modes(path: str) -> Finding:
    odd = []
    for suffix in _BESIDE:
        file = Path(path + suffix)
        if file.exists() and (mode := stat.S_IMODE(os.stat(file).st_mode)) & 0o077:  # noqa: PTH116
            odd.append(f"{file.name} is {mode:04o}")
    if odd:
        text = f"others than the owner may use it: {', '.join(odd)}; chmod 600 mends it"
        return Finding("files", ok=False, text=text, harmless=True)
    return Finding("files", ok=True, text="for their owner only")


def _wal(path: str) -> Finding:
    wal = Path(path + "-wal")
    size = wal.stat().st_size if wal.exists() else 0
    text = f"{Path(path).stat().st_size / 2**20:.1f} MiB, and {size / 2**20:.1f} MiB in its WAL"
    if size > LARGE_WAL:
        text += ": somebody reads without an end, so that it can't be emptied"
    return Finding("size", ok=size <= LARGE_WAL, text=text, harmless=True)


def _content(connection: sqlite3.Connection) -> Finding:
    found = [row[0] for row in connection.execute(f"PRAGMA quick_check({_MOST})")]
    if found == ["ok"]:
        return Finding("content", ok=True, text="quick_check finds nothing wrong")
    text = f"the file is corrupt: {'; '.join(found)}. What to do: {RESCUE}"
    return Finding("content", ok=False, text=text)


def _jobs(connection: sqlite3.Connection) -> Finding:
    seen, spoiled, told = 0, 0, list[str]()
    for id_, due, *columns in connection.execute(_JOBS):
        seen += 1
        wrong = [] if due else ["due_at"]
        for (name, read), content in zip(READERS.items(), columns, strict=True):
            try:
                _ = None if content is None else read(content)
            except (ValueError, RecursionError):
                wrong.append(name)
        if wrong:
            spoiled += 1
            told += [f"{id_} ({', '.join(wrong)})"] if spoiled <= _MOST else []
    if not spoiled:
        return Finding("jobs", ok=True, text=f"all {seen} can be read")
    text = (
        f"{spoiled} of {seen} can't be read, for something else has written them:"
        f" {', '.join(told)}{', ...' if spoiled > _MOST else ''}. No other job is concerned;"
        " mend or delete them by SQL"
    )
    return Finding("jobs", ok=False, text=text)
