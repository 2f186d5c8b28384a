"""Whether SQLite jobs go through as fast when many others are in the file.

Run:    python -m benchmarks.run --only growth [--full]
Shows:  batchq beside itself with a nearly empty file: a ratio of 1 is flat.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Final, NamedTuple

from batchq.core.job import DEFAULT_PRIORITY
from batchq.core.lifecycle import JobState
from batchq.stores.sqlite import SqliteStore
from benchmarks.harness import Case, Goal, Reading, Stopwatch
from benchmarks.raw import HANDLER, QUEUE, RawStore, a_file
from benchmarks.stores import Ours, drain, fill

__all__ = ["CASES"]

BATCH: Final = 100
FEW: Final = 10_000  # jobs in a short backlog
CLEANED: Final = 100_000  # jobs that are deleted while the clock runs
PASSING: Final = 10_000  # jobs that are drained, or claimed, while the clock runs


class Row(NamedTuple):
    """What is in the file beside the jobs that pass; due_at is in seconds of its clock."""

    handler: str
    state: str
    priority: int
    due_at: float | None
    finished_at: float | None = None


_WAITING: Final = Row(HANDLER, "pending", DEFAULT_PRIORITY, 1.0)
_FINAL: Final = Row(HANDLER, "completed", DEFAULT_PRIORITY, None, 2.0)
_SCHEDULED: Final = Row(HANDLER, "pending", 0, 32_503_680_000.0)  # before all others, one day
_UNKNOWN: Final = Row("nobody_here", "pending", 0, 1.0)

_FILL: Final = """
    WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :size)
    INSERT INTO batchq_jobs
           (queue, handler, state, priority, due_at,
            attempt, refunds, max_attempts, crashes, enqueued_at, finished_at, payload)
    SELECT :queue, :handler, :state, :priority, :due_at, 0, 0, 4, 0, 1.0, :finished_at,
           '{"id":' || n || '}'
      FROM numbers
"""
_DELETE: Final = """
    DELETE FROM batchq_jobs
     WHERE id BETWEEN ? AND ? AND state = 'completed' AND finished_at < ?
"""


@contextmanager
def a_store_with(size: int, row: Row) -> Iterator[Ours]:
    """Give a store of ours that has `size` such rows."""
    with a_file() as path:
        with closing(RawStore(path)) as raw:
            _fill(raw, size, row)
        with closing(SqliteStore(path)) as store:
            yield Ours(store)


def _fill(raw: RawStore, size: int, row: Row) -> None:
    if size:
        values = {"queue": QUEUE, "size": size, **row._asdict()}
        raw.connection.execute(_FILL, values)


def backlog(size: int) -> Reading:
    """Drain some of `size` jobs that wait."""
    passing = min(PASSING, size)
    with a_store_with(size, _WAITING) as target, Stopwatch() as watch:
        drain(target, BATCH, passing)
    return watch.rate(passing)


def short_backlog(size: int) -> Reading:
    """Drain as many of a few."""
    return backlog(min(FEW, size))


def behind(row: Row, size: int) -> Reading:
    """Claim jobs that came after `size` others that are not to be claimed."""
    return _claim_behind(row, size, PASSING if size >= PASSING else BATCH)


def alone(size: int) -> Reading:
    """Claim as many jobs of a file that has no others."""
    return _claim_behind(_FINAL, 0, PASSING if size >= PASSING else BATCH)


def _claim_behind(row: Row, size: int, passing: int) -> Reading:
    with a_store_with(size, row) as target:
        fill(target, passing)
        with Stopwatch() as watch:
            for _ in range(0, passing, BATCH):
                assert len(target.claim(BATCH)) == BATCH
    return watch.rate(passing)


def clean(size: int) -> Reading:
    """Delete some of `size` jobs that ended long ago, a thousand per transaction."""
    passing = min(CLEANED, size)
    longest, after, deleted = 0.0, 0, 0
    with a_store_with(size, _FINAL) as target, Stopwatch() as watch:
        while deleted < passing:
            began = time.perf_counter()
            step = target.store.clean({JobState.COMPLETED: 60.0}, after=after)
            longest = max(longest, time.perf_counter() - began)
            deleted, after = deleted + step.deleted, step.next or 0
    return watch.rate(passing, **{"longest transaction, s": longest})


def clean_by_hand(size: int) -> Reading:
    """Delete as many by hand, a thousand per transaction."""
    passing = min(CLEANED, size)
    with a_file() as path, closing(RawStore(path)) as raw:
        _fill(raw, size, _FINAL)
        with Stopwatch() as watch:
            for first in range(1, passing, 1_000):
                raw.connection.execute(_DELETE, (first, first + 999, time.time() - 60))
        return watch.rate(passing)


def _backlog(name: str, size: int, *, full: bool = False) -> Case:
    return Case(
        name=f"growth/backlog_{name}",
        ours=backlog,
        floor=short_backlog,
        beside="batchq itself with 10,000 waiting",
        unit="jobs/s",
        size=size,
        smoke=1_000,
        reach=Goal(0.8, 0.95),
        apart=full,
        full=full,
    )


def _behind(name: str, row: Row, size: int, *, full: bool = False) -> Case:
    return Case(
        name=f"growth/behind_{name}",
        ours=partial(behind, row),
        floor=alone,
        beside="batchq itself, claiming from a file without others",
        unit="jobs/s",
        size=size,
        smoke=1_000,
        reach=Goal(0.85, 0.95),
        apart=full,
        full=full,
    )


def _clean(name: str, size: int, *, full: bool = False) -> Case:
    return Case(
        name=f"growth/clean_{name}",
        ours=clean,
        floor=clean_by_hand,
        beside="a DELETE by hand per thousand",
        unit="jobs/s",
        size=size,
        smoke=2_000,
        facts={"longest transaction, s": Goal(0.05, 0.02)},
        apart=full,
        full=full,
    )


CASES: Final = (
    _backlog("100k", 100_000),
    _backlog("1m", 1_000_000, full=True),
    _behind("100k_final", _FINAL, 100_000),
    _behind("5m_final", _FINAL, 5_000_000, full=True),
    _behind("100k_scheduled", _SCHEDULED, 100_000),
    _behind("1m_scheduled", _SCHEDULED, 1_000_000, full=True),
    _behind("200k_unknown", _UNKNOWN, 200_000),
    _clean("100k", 100_000),
    _clean("5m", 5_000_000, full=True),
)
