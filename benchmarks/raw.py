"""SQLite by hand: batchq's own tables, pragmas and transactions, and the least that does it.

Rule 1: the rows are batchq's: every column that it fills is filled, both indexes are kept.
Rule 2: what a user would notice is there: order, delays, leases, and an attempt that fences
a settlement.
Rule 3: nothing else is: one handler, one level; no totals, no counts of workers, no failures,
no attempts used up, no answer per job, no lock beside SQLite's own.
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from batchq.stores.sqlite import SqliteStore

__all__ = ["HANDLER", "LEASE", "QUEUE", "WORKER", "RawStore", "a_file", "a_raw_store", "payload"]

QUEUE: Final = "letters"
HANDLER: Final = "letters"
WORKER: Final = "worker-1"
LEASE: Final = 30.0  # seconds

Row = tuple[int, int, str]  # id, attempt, payload

_PRAGMAS: Final = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    "secure_delete = OFF",
    "cache_size = -64000",
)
_INSERT: Final = """
    INSERT INTO batchq_jobs
           (queue, handler, state, priority, due_at,
            attempt, refunds, max_attempts, crashes, enqueued_at, payload)
    VALUES ('letters', 'letters', 'pending', 2, ?, 0, 0, 4, 0, ?, ?)
"""
# Two statements are faster than one UPDATE ... RETURNING, and keep the order.
_FIND: Final = """
    SELECT id, attempt + 1, payload
      FROM batchq_jobs
     WHERE queue = 'letters'
       AND handler = 'letters'
       AND priority = 2
       AND state IN ('pending', 'processing')
       AND due_at <= ?
     ORDER BY due_at, id
     LIMIT ?
"""
_TAKE: Final = """
    UPDATE batchq_jobs
       SET state = 'processing', attempt = attempt + 1, due_at = ?, worker = ?, started_at = ?
     WHERE id IN (SELECT value FROM json_each(?))
"""
# As fast as executemany, or faster.
_SETTLE: Final = """
    UPDATE batchq_jobs
       SET state = 'completed', due_at = NULL, finished_at = ?
      FROM json_each(?) AS held
     WHERE batchq_jobs.id = held.value ->> 0
       AND attempt = held.value ->> 1
       AND state = 'processing'
"""


def payload(number: int) -> bytes:
    """Return a job's payload: about 100 bytes of JSON."""
    return (
        b'{"id":%d,"to":"somebody@example.com","subject":"The news of today",'
        b'"text":"There is little."}' % number
    )


class RawStore:
    """Jobs by hand, in one file."""

    def __init__(self, path: str) -> None:
        SqliteStore(path).close()  # makes the tables
        self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in _PRAGMAS:
            self.connection.execute(f"PRAGMA {pragma}")

    def enqueue(self, payloads: Iterable[str]) -> None:
        """Store jobs in one transaction."""
        now = time.time()
        with self._transaction():
            self.connection.executemany(_INSERT, [(now, now, each) for each in payloads])

    def claim(self, limit: int) -> list[Row]:
        """Take due jobs in one transaction."""
        with self._transaction():
            return self._claim(limit)

    def settle(self, rows: Sequence[Row]) -> None:
        """Complete jobs in one transaction."""
        with self._transaction():
            self._settle(rows)

    def cycle(self, rows: Sequence[Row], limit: int) -> list[Row]:
        """Complete jobs and take the next in one transaction."""
        with self._transaction():
            self._settle(rows)
            return self._claim(limit)

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self.connection.execute("BEGIN IMMEDIATE")
        yield
        self.connection.execute("COMMIT")

    def _claim(self, limit: int) -> list[Row]:
        now = time.time()
        rows = self.connection.execute(_FIND, (now, limit)).fetchall()
        ids = msgspec.json.encode([row[0] for row in rows]).decode()
        self.connection.execute(_TAKE, (now + LEASE, WORKER, now, ids))
        return rows

    def _settle(self, rows: Sequence[Row]) -> None:
        receipts = msgspec.json.encode([row[:2] for row in rows]).decode()
        self.connection.execute(_SETTLE, (time.time(), receipts))


@contextmanager
def a_file() -> Iterator[str]:
    """Give the name of a file for as long as the block lasts; $TMPDIR says on which disk."""
    with tempfile.TemporaryDirectory(prefix="batchq-benchmark-") as folder:
        yield str(Path(folder) / "jobs.db")


@contextmanager
def a_raw_store() -> Iterator[RawStore]:
    """Give a store made by hand, empty."""
    with a_file() as path, closing(RawStore(path)) as store:
        yield store
