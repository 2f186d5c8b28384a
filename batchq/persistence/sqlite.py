"""Snapshots as rows: one table in one SQLite file, which may have others.

Rule 1: a snapshot is replaced in one transaction: a crash leaves the old one or the new one.
Rule 2: a connection lives as long as one call: calls come from any thread, and seldom.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

import attrs

from batchq.errors import OptionError
from batchq.persistence.lock import Owners

__all__ = ["SqliteStorage"]

_PATIENCE: Final = 10.0  # seconds to wait while others write to the file
_TABLE: Final = """
    CREATE TABLE IF NOT EXISTS batchq_snapshots (
        key TEXT NOT NULL,
        position INTEGER NOT NULL,
        record BLOB NOT NULL,
        PRIMARY KEY (key, position)
    ) STRICT, WITHOUT ROWID
"""
_IS_THERE: Final = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'batchq_snapshots'"
_READ: Final = "SELECT record FROM batchq_snapshots WHERE key = :key ORDER BY position"
_FORGET: Final = "DELETE FROM batchq_snapshots WHERE key = :key"
_WRITE: Final = "INSERT INTO batchq_snapshots (key, position, record) VALUES (?, ?, ?)"


def _a_file(path: str | Path) -> Path:
    if str(path) in {"", ":memory:"}:
        raise OptionError(
            f"path must name a file: what is in memory does not survive; got {path!r}"
        )
    return Path(path)


@attrs.define(eq=False)
class SqliteStorage:
    """Keeps snapshots in a SQLite file, which is made if it is not there.

    Attributes:
        path: the file; lock files named after it lie beside it.

    Raises:
        OptionError: the path names no file.
    """

    path: Path = attrs.field(converter=_a_file)
    _owners: Owners = attrs.field(factory=Owners, init=False, repr=False)

    def acquire(self, key: str) -> None:
        """Become the owner of a key.

        Raises:
            StorageInUse: it has another live owner.
            OSError: the lock file can't be made.
        """
        # A file of its own: to open the database's behind SQLite's back drops SQLite's locks.
        beside = self.path.with_name(f"{self.path.name}-{quote(key, safe='')}.lock")
        self._owners.acquire(key, beside)

    def release(self, key: str) -> None:
        """Give a key up, once nothing is being saved; never waits, idempotent."""
        self._owners.release(key)

    def save(self, key: str, records: Sequence[bytes]) -> None:
        """Replace the snapshot of `key`, whole or not at all.

        Raises:
            sqlite3.Error: it could not be written; the old one is as it was.
        """
        rows = [(key, position, record) for position, record in enumerate(records)]
        with self._owners.saving(), self._opened() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_TABLE)
            connection.execute(_FORGET, {"key": key})
            connection.executemany(_WRITE, rows)
            connection.execute("COMMIT")  # before it, closing takes all of it back

    def load(self, key: str) -> list[bytes]:
        """Return the records of a snapshot, in order; none if there is no snapshot.

        Raises:
            sqlite3.Error: it can't be read, or the file is no database.
        """
        if not self.path.exists():
            return []
        with self._opened() as connection:
            if connection.execute(_IS_THERE).fetchone() is None:
                return []
            return [record for (record,) in connection.execute(_READ, {"key": key})]

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        with closing(
            sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None)
        ) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            yield connection
