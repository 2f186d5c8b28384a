"""Totals and tallies in SQL: what one transaction adds, written once at its end.

A queue has one row: whether it is paused, how many jobs ended there in all, and what happened
in the newest minute. So a commit touches one page for all of them, and one statement is
enough. The first commit of a later minute puts the row's minute among the tallies.
"""

from __future__ import annotations

import sqlite3
from operator import attrgetter
from typing import Final

from batchq.core.record import Tally
from batchq.core.tallying import Counting

__all__ = ["FIELDS", "write_counts"]

FIELDS: Final = Tally.__struct_fields__[2:]  # without queue and minute
_COLUMNS: Final = ", ".join(FIELDS)
_added: Final = attrgetter(*FIELDS)

_ADD: Final = """
    UPDATE batchq_queues
       SET enqueued = enqueued + ?1,
           claimed = claimed + ?2,
           settled = settled + ?3,
           completed = completed + ?4,
           failed = failed + ?5,
           cancelled = cancelled + ?6,
           retried = retried + ?7,
           crashed = crashed + ?8,
           waited = waited + ?9,
           ran = ran + ?10,
           all_completed = all_completed + ?4,
           all_failed = all_failed + ?5,
           all_cancelled = all_cancelled + ?6
     WHERE queue = ?11
       AND minute >= ?12
"""
_KEEP: Final = f"""
    INSERT OR IGNORE INTO batchq_tallies (minute, queue, {_COLUMNS})
    SELECT minute, queue, {_COLUMNS}
      FROM batchq_queues
     WHERE queue = ?
       AND minute IS NOT NULL
"""  # noqa: S608 - constants
_BEGIN: Final = f"""
    INSERT INTO batchq_queues
           ({_COLUMNS}, queue, minute, all_completed, all_failed, all_cancelled)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?4, ?5, ?6)
        ON CONFLICT (queue) DO UPDATE
       SET minute = excluded.minute,
           {", ".join(f"{name} = excluded.{name}" for name in FIELDS)},
           all_completed = all_completed + excluded.all_completed,
           all_failed = all_failed + excluded.all_failed,
           all_cancelled = all_cancelled + excluded.all_cancelled
"""  # noqa: S608 - constants
_LEAVE: Final = """
    UPDATE batchq_queues
       SET all_completed = all_completed - (:state = 'completed') * :jobs,
           all_failed = all_failed - (:state = 'failed') * :jobs,
           all_cancelled = all_cancelled - (:state = 'cancelled') * :jobs
     WHERE queue = :queue
"""


def write_counts(connection: sqlite3.Connection, counting: Counting) -> None:
    """Write what was counted, in the transaction that it was counted in."""
    for queue, count in counting.queues.items():
        values = (*_added(count), queue, counting.minute)
        if not connection.execute(_ADD, values).rowcount:
            connection.execute(_KEEP, (queue,))
            connection.execute(_BEGIN, values)
    for (queue, state), jobs in counting.left.items():
        connection.execute(_LEAVE, {"queue": queue, "state": state.value, "jobs": jobs})
