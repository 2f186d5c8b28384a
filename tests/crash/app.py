"""What the worker processes of the kill test run: `batchq work tests.crash.app:manager`.

Handlers and hooks write what they saw to side files, one line per event. A line is one
`write` on a file opened for appending: it is whole or absent whenever the process is killed,
and it is in the kernel's hands, so that the kill cannot take it back.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

import trio

from batchq import Backoff, Job, JobHooks, QueueManager, Result, RetryPolicy
from tests.crash.fate import LEASE, MAX_ATTEMPTS, SLOW, fate

__all__ = ["append", "manager", "many", "one", "side_file", "slow"]

_RETRY: Final = RetryPolicy(
    max_retries=MAX_ATTEMPTS - 1, backoff=Backoff(initial_delay=0.02, max_delay=0.2)
)
_SLOW: Final = float(os.environ.get("BATCHQ_CRASH_SECONDS", SLOW))
_FOLDER: Final = Path(os.environ["BATCHQ_CRASH_FOLDER"])


def side_file(name: str) -> int:
    """Open a side file for appending; returns its descriptor."""
    return os.open(_FOLDER / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def append(file: int, lines: list[str]) -> None:
    """Add lines to a side file, all or none."""
    content = "".join(f"{line}\n" for line in lines).encode()
    assert os.write(file, content) == len(content)


_RUNS: Final = side_file("runs")
_SETTLES: Final = side_file("settles")
_ME: Final = os.getpid()


def _processed(job: Job[int], result: Result[object]) -> None:
    append(_SETTLES, [f"{_ME} {job.id} {job.attempt} {'ok' if result.success else 'fail'}"])


def _retried(job: Job[int], *_: object) -> None:
    append(_SETTLES, [f"{_ME} {job.id} {job.attempt} retry"])


def _lost(job: Job[int]) -> None:
    append(_SETTLES, [f"{_ME} {job.id} {job.attempt} stale"])


manager = QueueManager(
    os.environ["BATCHQ_URL"],
    lease=float(os.environ.get("BATCHQ_CRASH_LEASE", LEASE)),
    poll_interval=0.1,
    grace=float(os.environ.get("BATCHQ_CRASH_GRACE", "5")),
    hooks=JobHooks(on_processed=_processed, on_retry=_retried, on_lease_lost=_lost),
)


@manager.batch_handler(batch_size=20, flush_interval=0.05, concurrency=2, retry=_RETRY)
def many(jobs: list[Job[int]]) -> list[Result[object]]:
    """Run a batch in a thread, some of it settled early."""
    append(_RUNS, [f"{_ME} {job.id} {job.attempt}" for job in jobs])
    results = []
    for job in jobs:
        time.sleep(0.001)
        result = _result(job)
        if job.id % 3 == 0:
            job.settle(result)
        results.append(result)
    return results


@manager.batch_handler(name="one", batch_size=1, concurrency=4, retry=_RETRY)
async def one(jobs: list[Job[int]]) -> list[Result[object]]:
    """Run jobs in calls of their own."""
    [job] = jobs
    append(_RUNS, [f"{_ME} {job.id} {job.attempt}"])
    if fate(job.payload) == "raise":
        raise RuntimeError("raised, as planned")
    return [_result(job)]


@manager.batch_handler(name="slow", batch_size=1, concurrency=4, retry=_RETRY)
async def slow(jobs: list[Job[int]]) -> list[Result[object]]:
    """Take longer than a stop allows."""
    [job] = jobs
    append(_RUNS, [f"{_ME} {job.id} {job.attempt}"])
    await trio.sleep(_SLOW)
    return [_result(job)]


def _result(job: Job[int]) -> Result[object]:
    match fate(job.payload):
        case "discard":
            return Result.discard("discarded, as planned")
        case "raise":
            return Result.fail("failed, as planned")
        case "again" if job.used == 1:
            return Result.retry("again, as planned", after=0.02)
        case _:
            return Result.ok(job.payload)
