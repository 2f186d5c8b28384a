"""Claiming in SQL: one seek per handler and level, merged; then one update for all.

    (queue, handler, priority) ──> rows by (due_at, id), read until one is not due yet

So what is due tomorrow, and the jobs of handlers that nobody here knows, are never read,
however many there are; and the first row that is not due says how long to wait.

Rule 1: most rows are pending, and no more need be known of them than what their new holder
gets. The others are odd: they are looked at once more, many at once.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Sequence
from itertools import islice
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

import attrs

from batchq.core.job import Claimed, ClaimedJob, ClaimRequest, ErrorLine, Receipt
from batchq.core.lifecycle import (
    CRASHED,
    EXPIRED,
    LEASE_RAN_OUT,
    MAX_BURIALS,
    SUSPECT_AFTER,
    JobState,
)
from batchq.core.record import Failure
from batchq.core.tallying import Counting
from batchq.stores.sqlite.failures import keep_failures
from batchq.stores.sqlite.rows import any_texts, as_json, free_keys

__all__ = ["claim"]

_PAUSED: Final = "SELECT 1 FROM batchq_queues WHERE queue = ? AND paused = 1"

# One due_at serves delay, back-off and lease alike, so a job whose worker died is found by
# the same seek, in the same partial index, as a fresh one. `state IN (...)` is that
# index's own term: in other words SQLite would not use it. No row of ours lacks a due_at.
_IN_ORDER: Final = """
    SELECT due_at, id, handler, attempt, refunds, max_attempts, priority, enqueued_at,
           CAST(payload AS BLOB),
           state = 'processing' OR expires_at <= :now OR key_scope = 'waiting'
      FROM batchq_jobs
     WHERE queue = :queue
       AND handler = :handler
       AND priority = :priority
       AND state IN ('pending', 'processing')
       AND due_at IS NOT NULL
     ORDER BY due_at, id
"""
# Most levels are empty: to pass over them takes less than to look into each.
_NEXT_LEVEL: Final = """
    SELECT priority
      FROM batchq_jobs
     WHERE queue = :queue
       AND handler = :handler
       AND priority > :priority
       AND state IN ('pending', 'processing')
     ORDER BY priority
     LIMIT 1
"""
_LOOK_CLOSER: Final = """
    SELECT id, state = 'processing', worker, crashes, cancel, expires_at <= :now,
           holds_key AND key_scope = 'waiting'
      FROM batchq_jobs
     WHERE id IN (SELECT value FROM json_each(:ids))
"""
_TAKE: Final = """
    UPDATE batchq_jobs
       SET attempt = attempt + 1,
           crashes = crashes + (state = 'processing'),
           state = 'processing',
           due_at = :due_at,
           worker = :worker,
           started_at = :now
     WHERE id IN (SELECT value FROM json_each(:ids))
"""
# The attempt rises to fence the last holder; nothing ran, so that one is refunded.
_BURY: Final = """
    UPDATE batchq_jobs
       SET state = :state,
           reason = :reason,
           attempt = attempt + 1,
           refunds = refunds + 1,
           due_at = NULL,
           finished_at = :now,
           holds_key = CASE WHEN key_scope IN ('waiting', 'live') THEN NULL ELSE holds_key END
     WHERE id IN (SELECT value FROM json_each(:ids))
"""


class _Row(NamedTuple):
    due_at: float
    id: int
    handler: str
    attempt: int
    refunds: int
    max_attempts: int | None
    priority: int
    enqueued_at: float
    payload: bytes
    odd: int | None  # 1: there is more to know of it


class _More(NamedTuple):
    id: int
    ran_out: int  # 1: it is processing, and its lease is over
    worker: str | None
    crashes: int
    cancel: str | None
    expired: int | None
    frees_key: int | None

    def fate(self, row: _Row) -> tuple[JobState, str] | None:
        """Return how a claim ends the job, as core/changes.py's `bury`; None: it does not."""
        if self.cancel is not None:
            return JobState.CANCELLED, self.cancel
        used = row.attempt - row.refunds
        if row.max_attempts is not None and used >= row.max_attempts:
            return JobState.FAILED, CRASHED
        if self.expired and not self.ran_out and not used:
            return JobState.FAILED, EXPIRED
        return None

    @property
    def suspect(self) -> bool:
        return bool(self.ran_out) and self.crashes + 1 >= SUSPECT_AFTER


_Rows: TypeAlias = Sequence[tuple[Any, ...]]
_odd: Final = itemgetter(9)
_due_at: Final = itemgetter(0)

# Rows are looked at many at once. What of them is not due was read in vain, so the first
# look is at few, and each of the next at no more than were taken until then.
_FIRST_LOOK: Final = 16
_ABOVE_ALL: Final = -1  # a level


@attrs.define(eq=False)
class _Haul:
    """What one claim has met.

    Attributes:
        jobs: to be claimed, in claim order; rows as they were read.
        doomed: to be buried, by what becomes of them.
        buried: how many those are.
        failures: of those whose lease ran out.
        freed: those whose key is free once they are claimed, by id.
        suspect: whether what was taken is one.
        next_due: when the first of the others is due; None: there is none [s].
        full: whether it stopped before it had met all that is due.
    """

    connection: sqlite3.Connection
    request: ClaimRequest
    now: float
    jobs: list[tuple[Any, ...]] = attrs.field(factory=list, init=False)
    doomed: dict[tuple[JobState, str], list[int]] = attrs.field(factory=dict, init=False)
    buried: int = attrs.field(default=0, init=False)
    failures: list[Failure] = attrs.field(factory=list, init=False)
    freed: list[int] = attrs.field(factory=list, init=False)
    suspect: bool = attrs.field(default=False, init=False)
    next_due: float | None = attrs.field(default=None, init=False)
    full: bool = attrs.field(default=False, init=False)

    def take(self, rows: _Rows) -> bool:
        """Take in what is due of rows in order; tell whether there may be more for it."""
        if rows[-1][0] <= self.now and not any(map(_odd, rows)):
            self.jobs += rows
            self.full = len(self.jobs) >= self.request.limit
            return not self.full
        more = self._look_closer(rows)
        for row in map(_Row._make, rows):
            if row.due_at > self.now:
                self.wait_until(row.due_at)
                return False
            if row.odd:
                self._take_odd(row, more[row.id])
            else:
                self.jobs.append(row)
            if len(self.jobs) == self.request.limit or self.buried == MAX_BURIALS:
                self.full = True
            if self.full:
                return False
        return True

    def next_look(self) -> int:
        """Return how many rows to look at next; there is room for all of them."""
        return min(self.request.limit - len(self.jobs), max(_FIRST_LOOK, len(self.jobs)))

    def wait_until(self, due_at: float) -> None:
        """Note that something is due at `due_at` [s]."""
        self.next_due = due_at if self.next_due is None else min(due_at, self.next_due)

    def _look_closer(self, rows: _Rows) -> dict[int, _More]:
        odd = [row[1] for row in rows if row[9] and row[0] <= self.now]
        with any_texts(self.connection):
            found = self.connection.execute(_LOOK_CLOSER, {"ids": as_json(odd), "now": self.now})
            return {row[0]: _More._make(row) for row in found}

    def _take_odd(self, row: _Row, more: _More) -> None:
        fate = more.fate(row)
        if fate is not None:
            self.doomed.setdefault(fate, []).append(row.id)
            self.buried += 1
        elif more.suspect and (self.jobs or not self.request.suspect):
            self.full = self.request.suspect
            return
        else:
            self.jobs.append(row)
            self.suspect = self.full = more.suspect
            if more.frees_key:
                self.freed.append(row.id)
        if more.ran_out:
            line = ErrorLine("text", LEASE_RAN_OUT)
            self.failures.append(Failure(row.id, row.attempt, self.now, line, more.worker))


def claim(connection: sqlite3.Connection, request: ClaimRequest, *, counting: Counting) -> Claimed:
    """Take due jobs, and bury those that are doomed."""
    if connection.execute(_PAUSED, (request.queue,)).fetchone() is not None:
        return Claimed(jobs=[], buried=0, wait=None)
    haul = _Haul(connection, request, counting.now)
    level = _next_level(connection, request, _ABOVE_ALL)
    while level is not None:
        _gather(connection, haul, level=level)
        level = None if haul.full else _next_level(connection, request, level)
    if haul.failures:
        keep_failures(connection, haul.failures)
        counting.of(request.queue).crashed += len(haul.failures)
    _bury(connection, haul, counting)
    if haul.jobs:
        _take(connection, haul, counting)
    return Claimed(jobs=_claimed(haul), buried=haul.buried, wait=_wait(haul))


def _next_level(connection: sqlite3.Connection, request: ClaimRequest, level: int) -> int | None:
    """Return the next level below `level` on which anything of these handlers waits."""
    found = [
        connection.execute(
            _NEXT_LEVEL, {"queue": request.queue, "handler": handler, "priority": level}
        ).fetchone()
        for handler in dict.fromkeys(request.handlers)
    ]
    return min((row[0] for row in found if row is not None), default=None)


def _gather(connection: sqlite3.Connection, haul: _Haul, *, level: int) -> None:
    """Read the due rows of one level, of all known handlers, in order of (due_at, id)."""
    queue, now = haul.request.queue, haul.now
    cursors = [
        connection.execute(
            _IN_ORDER, {"queue": queue, "handler": handler, "priority": level, "now": now}
        )
        for handler in dict.fromkeys(haul.request.handlers)
    ]
    try:
        rows = heapq.merge(*cursors) if len(cursors) != 1 else cursors[0]
        found = list(islice(rows, haul.next_look()))
        while found and haul.take(found):
            found = list(islice(rows, haul.next_look()))
    finally:
        for cursor in cursors:
            cursor.close()


def _bury(connection: sqlite3.Connection, haul: _Haul, counting: Counting) -> None:
    for (state, reason), ids in haul.doomed.items():
        ended = {"state": state.value, "reason": reason, "now": haul.now}
        connection.execute(_BURY, {**ended, "ids": as_json(ids)})
        counting.end(haul.request.queue, state, len(ids))


def _take(connection: sqlite3.Connection, haul: _Haul, counting: Counting) -> None:
    request, now = haul.request, haul.now
    due_at = now + request.lease
    haul.wait_until(due_at)
    ids = as_json([row[1] for row in haul.jobs])
    parameters = {"ids": ids, "due_at": due_at, "worker": request.worker, "now": now}
    connection.execute(_TAKE, parameters)
    free_keys(connection, haul.freed)
    count = counting.of(request.queue)
    count.claimed += len(haul.jobs)
    count.waited += sum(map(now.__sub__, map(_due_at, haul.jobs)))


def _claimed(haul: _Haul) -> list[ClaimedJob]:
    suspect = haul.suspect  # then there is no other
    return [
        ClaimedJob(
            Receipt(id_, attempt + 1),
            handler,
            payload,
            attempt + 1 - refunds,
            max_attempts,
            priority,
            enqueued_at,
            suspect,
        )
        for (
            _, id_, handler, attempt, refunds, max_attempts, priority, enqueued_at, payload, _
        ) in haul.jobs
    ]  # fmt: skip


def _wait(haul: _Haul) -> float | None:
    if haul.full:
        return 0.0
    return None if haul.next_due is None else max(0.0, haul.next_due - haul.now)
