"""Claiming in SQL: one seek per handler and level, merged; then one update for all.

    (queue, handler, priority) ──> rows by (due_at, id), read until one is not due yet

So what is due tomorrow, and the jobs of handlers that nobody here knows, are never read,
however many there are; and the first row that is not due says how long to wait.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from operator import itemgetter
from typing import Any, Final, NamedTuple

import attrs
import msgspec

from batchq.core.job import (
    PRIORITY_LEVELS,
    Claimed,
    ClaimedJob,
    ClaimRequest,
    ErrorLine,
    Failure,
    Receipt,
)
from batchq.core.lifecycle import LEASE_RAN_OUT, MAX_BURIALS
from batchq.stores.sqlite.failures import keep_failures
from batchq.stores.sqlite.settling import count_ended

__all__ = ["claim"]

# One due_at serves delay, back-off and lease alike, so a job whose worker died is found by
# the same seek, in the same partial index, as a fresh one. `state IN (...)` is that
# index's own term: in other words SQLite would not use it.
_IN_ORDER: Final = """
    SELECT due_at, id, handler, state = 'processing', attempt, refunds, max_attempts,
           priority, worker, enqueued_at, CAST(payload AS BLOB),
           attempt - refunds >= max_attempts
      FROM batchq_jobs
     WHERE queue = :queue
       AND handler = :handler
       AND priority = :priority
       AND state IN ('pending', 'processing')
     ORDER BY due_at, id
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
       SET state = 'failed',
           reason = 'crashed',
           attempt = attempt + 1,
           refunds = refunds + 1,
           due_at = NULL,
           finished_at = :now
     WHERE id IN (SELECT value FROM json_each(:ids))
"""


class _Row(NamedTuple):
    due_at: float
    id: int
    handler: str
    ran_out: int  # 1: it is processing, and its lease is over
    attempt: int
    refunds: int
    max_attempts: int | None
    priority: int
    worker: str | None
    enqueued_at: float
    payload: bytes
    used_up: int | None  # 1: it has no attempt left; None: there is no limit


_ran_out: Final = itemgetter(3)
_used_up: Final = itemgetter(11)

# Rows are looked at many at once. What of them is not due was read in vain, so the first
# look is at few, and each of the next at no more than were taken until then.
_FIRST_LOOK: Final = 16


@attrs.define(eq=False)
class _Haul:
    """What one claim has met.

    Attributes:
        jobs: to be claimed, in claim order; rows as they were read.
        used_up: to be buried.
        next_due: when the first of the others is due; None: there is none [s].
        full: whether it stopped before it had met all that is due.
    """

    limit: int
    jobs: list[tuple[Any, ...]] = attrs.field(factory=list, init=False)
    used_up: list[_Row] = attrs.field(factory=list, init=False)
    next_due: float | None = attrs.field(default=None, init=False)
    full: bool = attrs.field(default=False, init=False)

    def take(self, rows: Sequence[tuple[Any, ...]], now: float) -> bool:
        """Take in what is due of rows in order; tell whether there may be more for it."""
        if rows[-1][0] <= now and not any(map(_used_up, rows)):
            self.jobs += rows
            self.full = len(self.jobs) == self.limit
            return not self.full
        for row in map(_Row._make, rows):
            if row.due_at > now:
                self.wait_until(row.due_at)
                return False
            (self.used_up if row.used_up else self.jobs).append(row)
            self.full = len(self.jobs) == self.limit or len(self.used_up) == MAX_BURIALS
            if self.full:
                return False
        return True

    def next_look(self) -> int:
        """Return how many rows to look at next; there is room for all of them."""
        return min(self.limit - len(self.jobs), max(_FIRST_LOOK, len(self.jobs)))

    def wait_until(self, due_at: float) -> None:
        """Note that something is due at `due_at` [s]."""
        self.next_due = due_at if self.next_due is None else min(due_at, self.next_due)


def claim(connection: sqlite3.Connection, request: ClaimRequest, *, now: float) -> Claimed:
    """Take due jobs, and bury those that have used up their attempts."""
    haul = _Haul(request.limit)
    for level in range(PRIORITY_LEVELS):
        _gather(connection, request, level=level, now=now, haul=haul)
        if haul.full:
            break
    expired = filter(_ran_out, (*haul.used_up, *haul.jobs))
    keep_failures(connection, [_run_out(_Row._make(row), now) for row in expired])
    if haul.used_up:
        _bury(connection, haul.used_up, queue=request.queue, now=now)
    if haul.jobs:
        due_at = now + request.lease
        haul.wait_until(due_at)
        parameters = {"ids": _ids(haul.jobs), "due_at": due_at, "worker": request.worker}
        connection.execute(_TAKE, {**parameters, "now": now})
    return Claimed(
        jobs=_claimed(haul.jobs),
        buried=len(haul.used_up),
        wait=_wait(haul, now),
    )


def _gather(
    connection: sqlite3.Connection, request: ClaimRequest, *, level: int, now: float, haul: _Haul
) -> None:
    """Read the due rows of one level, of all known handlers, in order of (due_at, id)."""
    cursors = [
        connection.execute(
            _IN_ORDER, {"queue": request.queue, "handler": handler, "priority": level}
        )
        for handler in dict.fromkeys(request.handlers)
    ]
    try:
        rows = heapq.merge(*cursors) if len(cursors) != 1 else cursors[0]
        found = list(islice(rows, haul.next_look()))
        while found and haul.take(found, now):
            found = list(islice(rows, haul.next_look()))
    finally:
        for cursor in cursors:
            cursor.close()


def _bury(connection: sqlite3.Connection, rows: Sequence[_Row], *, queue: str, now: float) -> None:
    connection.execute(_BURY, {"ids": _ids(rows), "now": now})
    count_ended(connection, Counter({(queue, "failed"): len(rows)}))


def _claimed(rows: Sequence[tuple[Any, ...]]) -> list[ClaimedJob]:
    return [
        ClaimedJob(
            Receipt(id_, attempt + 1),
            handler,
            payload,
            attempt + 1 - refunds,
            max_attempts,
            priority,
            enqueued_at,
        )
        for (
            _, id_, handler, _, attempt, refunds, max_attempts, priority, _, enqueued_at, payload, _
        ) in rows
    ]  # fmt: skip


def _run_out(row: _Row, now: float) -> Failure:
    return Failure(row.id, row.attempt, now, ErrorLine("text", LEASE_RAN_OUT), row.worker)


def _wait(haul: _Haul, now: float) -> float | None:
    if haul.full:
        return 0.0
    return None if haul.next_due is None else max(0.0, haul.next_due - now)


def _ids(rows: Sequence[tuple[Any, ...]]) -> str:
    return msgspec.json.encode([row[1] for row in rows]).decode()
