"""Totals and tallies in SQL: what one transaction adds, written once at its end."""

from __future__ import annotations

import sqlite3
from operator import attrgetter
from typing import Final

from batchq.core.record import Tally
from batchq.core.tallying import Counting

__all__ = ["write_counts"]

_FIELDS: Final = Tally.__struct_fields__[2:]  # without queue and minute
_added: Final = attrgetter(*_FIELDS)

_TALLY: Final = """
    INSERT INTO batchq_tallies
           (minute, queue, enqueued, claimed, settled, completed, failed, cancelled, retried,
            crashed, waited, ran)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (minute, queue) DO UPDATE
       SET enqueued = enqueued + excluded.enqueued,
           claimed = claimed + excluded.claimed,
           settled = settled + excluded.settled,
           completed = completed + excluded.completed,
           failed = failed + excluded.failed,
           cancelled = cancelled + excluded.cancelled,
           retried = retried + excluded.retried,
           crashed = crashed + excluded.crashed,
           waited = waited + excluded.waited,
           ran = ran + excluded.ran
"""
_TOTAL: Final = """
    INSERT INTO batchq_totals (queue, state, jobs) VALUES (?, ?, ?)
        ON CONFLICT (queue, state) DO UPDATE SET jobs = jobs + excluded.jobs
"""


def write_counts(connection: sqlite3.Connection, counting: Counting) -> None:
    """Write what was counted, in the transaction that it was counted in."""
    minute = counting.minute
    for queue, count in counting.queues.items():
        connection.execute(_TALLY, (minute, queue, *_added(count)))
    for (queue, state), jobs in counting.totals.items():
        connection.execute(_TOTAL, (queue, state.value, jobs))
