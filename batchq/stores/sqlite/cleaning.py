"""Cleaning in SQL: one step of a walk over all jobs, from the oldest up."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Final

import attrs

from batchq.core.lifecycle import JobState
from batchq.core.record import Cleaned
from batchq.core.tallying import KEEP_TALLIES, Counting
from batchq.stores.sqlite.rows import ROW, Row, any_texts, forget

__all__ = ["Step"]

_WALK: Final = ROW + "WHERE id > :after ORDER BY id LIMIT :limit"
_FORGET_TALLIES: Final = "DELETE FROM batchq_tallies WHERE minute < :before"
_FORGET_MINUTE: Final = "UPDATE batchq_queues SET minute = NULL WHERE minute < :before"
_FORGET_WORKERS: Final = "DELETE FROM batchq_workers WHERE seen_at < :before"


@attrs.frozen
class Step:
    """Which jobs one step looks at, and how long such are kept.

    Attributes:
        retention: by final state [s]; a state that is missing is kept.
        queue: only its jobs; None: all.
        after: the id after which to look.
        limit: most jobs to look at.
    """

    retention: Mapping[JobState, float]
    queue: str | None
    after: int
    limit: int

    def take(self, connection: sqlite3.Connection, counting: Counting) -> Cleaned:
        """Delete what was kept long enough, and count it out."""
        if not self.after:
            old = {"before": counting.now - KEEP_TALLIES}
            for statement in (_FORGET_TALLIES, _FORGET_MINUTE, _FORGET_WORKERS):
                connection.execute(statement, old)
        walk = {"after": self.after, "limit": self.limit}
        with any_texts(connection):
            rows = [Row(*row) for row in connection.execute(_WALK, walk)]
        gone = [row for row in rows if self._is_over(row, counting.now)]
        for row in gone:
            counting.leave(row.queue, row.state)
        forget(connection, [row.id for row in gone])
        # What was stored after the shortest cut can't have ended before it.
        cut = counting.now - min(self.retention.values(), default=0.0)
        young = any(row.enqueued_at > cut for row in rows)
        more = 0 < self.limit == len(rows) and not young
        return Cleaned(len(gone), rows[-1].id if more else None)

    def _is_over(self, row: Row, now: float) -> bool:
        wanted = row.known and (self.queue is None or row.queue == self.queue)
        return wanted and row.ended_before(self.retention, now) and row.may_go(now)
