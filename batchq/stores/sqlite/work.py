"""The hot path of the SQLite store: a group's four parts, as one transaction.

Synchronous on purpose: the ledger hands `commit` a whole group, from any thread, under
its own lock.

Rule 1: the parts of a group never begin or commit.
Rule 2: no statement in a loop over jobs: many go in, one statement is prepared. A claim
makes one seek per handler and level.
Rule 3: what changed nothing writes nothing, so that it costs no fsync.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Final

import attrs
import msgspec

from batchq.core.job import Answers, Extended, Extension, Group, NewJob, Receipt
from batchq.stores.sqlite.claiming import claim
from batchq.stores.sqlite.connect import Writer
from batchq.stores.sqlite.settling import settle

__all__ = ["Work"]

_LAST_ID: Final = "SELECT seq FROM sqlite_sequence WHERE name = 'batchq_jobs'"

# The cast keeps bytes as they are, and makes them readable in any tool.
_ROW: Final = "(?, ?, ?, 'pending', ?, ?, 0, 0, ?, 0, ?, CAST(? AS TEXT))"
_COLUMNS: Final = 8
_INSERT: Final = """
    INSERT INTO batchq_jobs
           (id, queue, handler, state, priority, due_at,
            attempt, refunds, max_attempts, crashes, enqueued_at, payload)
    VALUES """
# Many rows per statement take half the time of one each; more than these gain nothing.
_AT_ONCE: Final = 100
_INSERT_ONE: Final = _INSERT + _ROW
_INSERT_MANY: Final = _INSERT + ", ".join([_ROW] * _AT_ONCE)

# (id, attempt) is the receipt: an attempt that lost its lease matches no row.
_EXTEND: Final = """
    UPDATE batchq_jobs
       SET due_at = :due_at
      FROM json_each(:receipts) AS held
     WHERE batchq_jobs.id = held.value ->> 0
       AND attempt = held.value ->> 1
       AND state = 'processing'
    RETURNING batchq_jobs.id, attempt
"""

_COUNT: Final = """
    INSERT INTO batchq_workers (worker, commits, batches, seen_at)
    VALUES (:worker, 1, :batches, :now)
        ON CONFLICT (worker) DO UPDATE
       SET commits = commits + 1,
           batches = batches + excluded.batches,
           seen_at = excluded.seen_at
"""


@attrs.frozen
class Work:
    """Commits groups over one connection."""

    writer: Writer
    clock: Callable[[], float]

    def commit(self, group: Group) -> Answers:
        """Carry out the whole group as one transaction, or none of it."""
        connection = self.writer.connection
        with self.writer.transaction():
            now = self.clock()
            before = connection.total_changes
            # Extend before claim, or a claim takes this process's own late leases.
            answers = Answers(
                settle=settle(connection, group.settle, now=now),
                extend=[_extend(connection, extension, now) for extension in group.extend],
                enqueue=_enqueue(connection, group.enqueue, now),
                claim=[claim(connection, request, now=now) for request in group.claim],
            )
            if group.worker and (group.batches or connection.total_changes != before):
                _count(connection, group, now)
        return answers


def _extend(connection: sqlite3.Connection, extension: Extension, now: float) -> Sequence[Extended]:
    """Hold leases for longer; one answer per receipt, in order."""
    receipts = msgspec.json.encode(extension.receipts).decode()
    rows = connection.execute(_EXTEND, {"receipts": receipts, "due_at": now + extension.lease})
    held = {Receipt(*row) for row in rows.fetchall()}
    return [Extended.OK if receipt in held else Extended.STALE for receipt in extension.receipts]


def _enqueue(connection: sqlite3.Connection, jobs: Sequence[NewJob], now: float) -> Sequence[int]:
    """Store jobs; return their ids, which rise in order."""
    if not jobs:
        return ()
    row = connection.execute(_LAST_ID).fetchone()
    first = 1 if row is None else row[0] + 1
    rows = [
        (id_, job.queue, job.handler, job.priority, now + job.delay, job.max_attempts, now,
         job.payload)
        for id_, job in enumerate(jobs, first)
    ]  # fmt: skip
    whole = len(rows) - len(rows) % _AT_ONCE
    for start in range(0, whole, _AT_ONCE):
        values = [value for row in rows[start : start + _AT_ONCE] for value in row]
        connection.execute(_INSERT_MANY, values)
    connection.executemany(_INSERT_ONE, rows[whole:])
    return list(range(first, first + len(jobs)))


def _count(connection: sqlite3.Connection, group: Group, now: float) -> None:
    connection.execute(_COUNT, {"worker": group.worker, "batches": group.batches, "now": now})
