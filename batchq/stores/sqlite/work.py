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

from batchq.core.job import Answers, Extended, Extension, Group, Receipt
from batchq.core.tallying import Counting
from batchq.stores.sqlite.claiming import claim
from batchq.stores.sqlite.connect import Writer
from batchq.stores.sqlite.counting import write_counts
from batchq.stores.sqlite.enqueuing import enqueue
from batchq.stores.sqlite.settling import settle

__all__ = ["Work"]

# (id, attempt) is the receipt: an attempt that lost its lease matches no row.
_EXTEND: Final = """
    UPDATE batchq_jobs
       SET due_at = :due_at
      FROM json_each(:receipts) AS held
     WHERE batchq_jobs.id = held.value ->> 0
       AND attempt = held.value ->> 1
       AND state = 'processing'
    RETURNING batchq_jobs.id, attempt, cancel IS NOT NULL
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
            counting = Counting(self.clock())
            before = connection.total_changes
            # Extend before claim, or a claim takes this process's own late leases.
            answers = Answers(
                settle=settle(connection, group.settle, counting=counting),
                extend=[_extend(connection, extension, counting.now) for extension in group.extend],
                enqueue=enqueue(connection, group.enqueue, counting=counting),
                claim=[claim(connection, request, counting=counting) for request in group.claim],
            )
            write_counts(connection, counting)
            if group.worker and (group.batches or connection.total_changes != before):
                _count(connection, group, counting.now)
        return answers


def _extend(connection: sqlite3.Connection, extension: Extension, now: float) -> Sequence[Extended]:
    """Hold leases for longer; one answer per receipt, in order."""
    receipts = msgspec.json.encode(extension.receipts).decode()
    rows = connection.execute(_EXTEND, {"receipts": receipts, "due_at": now + extension.lease})
    held = {
        Receipt(id_, attempt): Extended.CANCEL if asked else Extended.OK
        for id_, attempt, asked in rows.fetchall()
    }
    return [held.get(receipt, Extended.STALE) for receipt in extension.receipts]


def _count(connection: sqlite3.Connection, group: Group, now: float) -> None:
    connection.execute(_COUNT, {"worker": group.worker, "batches": group.batches, "now": now})
