"""Settling in SQL: rows are read, decided on as core/changes.py decides, written back.

The moves are the core's, on bare rows: a record per job would cost as much as the rest.
The conformance suite holds the two against each other.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from batchq.core.job import Settled, Settlement, Verdict
from batchq.core.lifecycle import EXHAUSTED, USER, JobState
from batchq.core.record import Failure
from batchq.core.tallying import Counting
from batchq.stores.sqlite.failures import keep_failures
from batchq.stores.sqlite.rows import as_json

__all__ = ["settle"]

_FAILING: Final = frozenset({Verdict.RETRY, Verdict.FAIL})

_FIND: Final = """
    SELECT id, attempt, state = 'processing', queue, refunds, max_attempts, worker, enqueued_at,
           started_at, cancel, holds_key
      FROM batchq_jobs
     WHERE id IN (SELECT value FROM json_each(:ids))
"""
# A call that simply succeeded: do all its receipts hold? Equal smallest and largest queues
# are one queue.
_COUNT_HELD: Final = """
    SELECT count(*), min(queue), max(queue), count(holds_key), total(:now - started_at)
      FROM batchq_jobs
     WHERE id IN (SELECT value FROM json_each(:ids))
       AND attempt = :attempt
       AND state = 'processing'
"""
# Once per different outcome: most jobs of a batch end alike, and one statement for all of
# them takes half the time of one each.
_WRITE: Final = """
    UPDATE batchq_jobs
       SET state = ?,
           due_at = ?,
           refunds = refunds + ?,
           crashes = 0,
           value = CAST(? AS TEXT),
           reason = ?,
           finished_at = ?
     WHERE id IN (SELECT value FROM json_each(?))
"""
# One that a job holds until it is cleaned away, or for a time, outlives its end.
_FREE_KEYS: Final = """
    UPDATE batchq_jobs
       SET holds_key = NULL
     WHERE id IN (SELECT value FROM json_each(:ids))
       AND holds_key = 1
       AND key_scope IN ('waiting', 'live')
"""

# What a row's columns become: state, due_at, refunds (+), value, reason, finished_at.
_After: TypeAlias = tuple[str, float | None, int, bytes | None, str | None, float | None]


def settle(
    connection: sqlite3.Connection, settlements: Sequence[Settlement], *, counting: Counting
) -> Sequence[Settled]:
    """Write what became of attempts; one answer per settlement, in order."""
    if not settlements:
        return ()
    if _complete_all(connection, settlements, counting):
        return [Settled.APPLIED] * len(settlements)
    rows = _find(connection, settlements)
    used: set[int] = set()
    answers = [_answer(settlement, rows, used) for settlement in settlements]
    applied = [
        settlement
        for settlement, answer in zip(settlements, answers, strict=True)
        if answer is Settled.APPLIED
    ]
    _write(connection, applied, rows=rows, counting=counting)
    return answers


def _complete_all(
    connection: sqlite3.Connection, settlements: Sequence[Settlement], counting: Counting
) -> bool:
    """Complete the jobs if all apply and end alike, else change nothing; tell which it was.

    It takes half the time of a look at every row.
    """
    attempt, value = settlements[0].receipt.attempt, settlements[0].value
    ids = [
        settlement.receipt.job_id
        for settlement in settlements
        if settlement.verdict is Verdict.OK
        and settlement.receipt.attempt == attempt
        and settlement.value == value
    ]
    if len(ids) < len(settlements):
        return False
    held = {"ids": as_json(ids), "attempt": attempt, "now": counting.now}
    found, first, last, keys, ran = connection.execute(_COUNT_HELD, held).fetchone()
    # One that is named twice is found once.
    if found < len(ids) or first != last:
        return False
    connection.execute(_WRITE, (*_completed(value, counting.now), held["ids"]))
    if keys:
        connection.execute(_FREE_KEYS, {"ids": held["ids"]})
    count = counting.of(first)
    count.settled += found
    count.ran += ran
    counting.end(first, JobState.COMPLETED, found)
    return True


def _find(
    connection: sqlite3.Connection, settlements: Sequence[Settlement]
) -> dict[int, tuple[Any, ...]]:
    ids = as_json([settlement.receipt.job_id for settlement in settlements])
    return {row[0]: row for row in connection.execute(_FIND, {"ids": ids})}


def _answer(settlement: Settlement, rows: Mapping[int, tuple[Any, ...]], used: set[int]) -> Settled:
    """Answer one settlement; `used` are the jobs that this group has settled already."""
    job_id, attempt = settlement.receipt.job_id, settlement.receipt.attempt
    row = rows.get(job_id)
    if row is None or row[1] != attempt:
        return Settled.STALE
    if not row[2] or job_id in used:
        return Settled.RECORDED
    used.add(job_id)
    return Settled.APPLIED


def _write(
    connection: sqlite3.Connection,
    settlements: Sequence[Settlement],
    *,
    rows: Mapping[int, tuple[Any, ...]],
    counting: Counting,
) -> None:
    """Write settlements that apply, count them, keep the failures."""
    now = counting.now
    alike: dict[_After, list[int]] = {}
    failed = []
    freed = []
    for settlement in settlements:
        row = rows[settlement.receipt.job_id]
        after = _after(settlement, row, now)
        alike.setdefault(after, []).append(row[0])
        _count(counting, settlement, row=row, after=after)
        if row[10] and after[1] is None:
            freed.append(row[0])
        if settlement.error is not None and settlement.verdict in _FAILING:
            failed.append(Failure(row[0], row[1], now, settlement.error, row[6]))
    writes = [(*after, as_json(ids)) for after, ids in alike.items()]
    connection.executemany(_WRITE, writes)
    if freed:
        connection.execute(_FREE_KEYS, {"ids": as_json(freed)})
    keep_failures(connection, failed)


def _count(
    counting: Counting, settlement: Settlement, *, row: tuple[Any, ...], after: _After
) -> None:
    count = counting.of(row[3])
    count.settled += 1
    count.ran += counting.now - row[8]
    if after[1] is None:
        counting.end(row[3], JobState(after[0]))
    elif settlement.verdict is Verdict.RETRY:
        count.retried += 1


def _completed(value: bytes | None, now: float) -> _After:
    return "completed", None, 0, value, None, now


def _after(settlement: Settlement, row: tuple[Any, ...], now: float) -> _After:
    """Return what a job becomes, as core/changes.py's `settle`."""
    _, attempt, _, _, refunds, max_attempts, _, enqueued_at, _, asked, _ = row
    verdict = settlement.verdict
    if verdict is Verdict.OK:
        return _completed(settlement.value, now)
    if verdict is Verdict.FAIL:
        return "failed", None, 0, None, settlement.reason, now
    if verdict is Verdict.CANCEL or asked is not None:
        return "cancelled", None, 0, None, settlement.reason or asked or USER, now
    if verdict is Verdict.RELEASE:
        return "pending", enqueued_at, 1, None, None, None
    used_up = max_attempts is not None and attempt - refunds >= max_attempts
    if verdict is Verdict.RETRY and used_up:
        return "failed", None, 0, None, EXHAUSTED, now
    return "pending", now + settlement.delay, int(verdict is Verdict.SNOOZE), None, None, None
