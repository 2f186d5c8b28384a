"""What a handler may ask about its own call, and why it is stopped."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from batchq import (
    CancelReason,
    Context,
    Job,
    JobState,
    JobStopped,
    QueueManager,
    Receipt,
    RetryPolicy,
    context,
)
from tests.jobs import WatchedStore, jobs_in
from tests.test_durable_leases import steal

ONCE = RetryPolicy(0)


@pytest.fixture
def store() -> WatchedStore:
    return WatchedStore()


def test_outside_a_handler_there_is_none() -> None:
    with pytest.raises(LookupError, match="for code that a handler runs"):
        context()


@pytest.mark.parametrize("tier", ["durable", "memory"])
async def test_a_handler_sees_its_job(
    store: WatchedStore, tier: str, autojump_clock: MockClock
) -> None:
    seen, manager = list[Context](), QueueManager(store)

    @manager.handler(tier=tier)
    async def work(number: int) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 1)
            seen.append(context())
        context().check()

    async with manager.working():
        await work.enqueue(7)
        await trio.sleep(2)
    [found] = seen
    assert found.job.payload == {"number": 7}
    assert (found.attempt, found.receipt) == (1, Receipt(found.job.id, 1))
    assert found.cancel_reason is None
    with pytest.raises(LookupError):
        context()


async def test_a_batch_handler_sees_the_jobs_that_it_was_called_for(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    seen, manager = list[Context](), QueueManager(store)

    @manager.batch_handler(batch_size=2)
    async def work(items: list[int]) -> None:
        seen.append(context())

    async with manager.working():
        await work.enqueue_many([1, 2])
        await trio.sleep(2)
    [found] = seen
    assert [job.id for job in found.jobs] == [1, 2]
    with pytest.raises(LookupError, match="for 2 jobs"):
        _ = found.job


async def test_lines_of_its_log_say_which_jobs_they_are_of(
    store: WatchedStore, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    manager = QueueManager(store)

    @manager.handler
    async def one() -> None:
        context().log.warning("half of %d%% is done", 90, extra={"part": 2})

    @manager.batch_handler(batch_size=3)
    async def many(items: list[int]) -> None:
        context().log.error("all %s", "well")

    await one.enqueue()
    await many.enqueue_many(range(3))
    async with manager.working():
        await trio.sleep(0.5)
    lines = [line for line in caplog.records if line.name == "batchq.job"]
    first, second = sorted(lines, key=lambda line: line.levelno)
    assert first.getMessage() == "job 1: half of 90% is done"
    assert first.__dict__.items() >= {"queue": "one", "handler": "one", "part": 2}.items()
    assert first.__dict__["jobs"] == [1]
    assert second.getMessage() == "job 2 and 2 more: all well"
    assert second.__dict__["jobs"] == [2, 3, 4]


async def stopped_by(store: WatchedStore, how: str) -> list[Any]:
    """Run a handler that never ends, stop it, and return what it saw."""
    seen = list[Any]()
    manager = QueueManager(store, grace=1)

    @manager.handler(timeout=12 if how == "timeout" else None, retry=ONCE)
    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            seen.append(context().cancel_reason)
            try:
                context().check()
            except JobStopped as stopped:
                seen.append(str(stopped))

    async with manager.working():
        await work.enqueue()
        await trio.sleep(5)
        if how == "lease_lost":
            steal(store)
        if how != "shutdown":
            await trio.sleep(20)
    return seen


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("timeout", CancelReason.TIMEOUT),
        ("lease_lost", CancelReason.LEASE_LOST),
        ("shutdown", CancelReason.SHUTDOWN),
    ],
)
async def test_the_reason_of_a_cancellation_is_told(
    store: WatchedStore, how: str, reason: CancelReason, autojump_clock: MockClock
) -> None:
    assert await stopped_by(store, how) == [reason, f"this call is to stop: {reason.value}"]


async def test_a_task_of_a_handler_may_let_it_be_stopped(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    manager = QueueManager(store)

    async def compute() -> None:
        while True:
            await trio.sleep(0.5)
            context().check()

    @manager.handler
    async def work() -> None:
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(compute)
                nursery.start_soon(compute)

    async with manager.working():
        job = await work.enqueue()
        await trio.sleep(1)
        await job.cancel()
        await trio.sleep(1)
        [record] = jobs_in(store)
    assert record.state is JobState.CANCELLED
    assert list(store.errors(record.id)) == []


async def test_one_who_says_that_he_was_stopped_and_was_not_has_failed(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    manager = QueueManager(store)

    @manager.handler
    async def work() -> None:
        raise JobStopped

    async with manager.working():
        await work.enqueue()
        await trio.sleep(1)
    [job] = jobs_in(store)
    assert (job.state, job.reason) == (JobState.FAILED, "contract")


def test_a_thread_asks_whether_its_time_is_up(tmp_path: Path) -> None:
    manager = QueueManager(f"sqlite:///{tmp_path}/jobs.db")
    seen = list[Any]()

    @manager.handler(timeout=0.05, retry=ONCE)
    def work() -> None:
        ends = time.monotonic() + 10
        try:
            while time.monotonic() < ends:
                time.sleep(0.005)
                context().check()
        finally:
            seen.append(context().cancel_reason)

    manager.start_workers()
    try:
        with pytest.raises(Exception, match="took longer than timeout"):
            work.enqueue_sync().result_sync(5)
    finally:
        manager.stop_workers()
    assert seen == [CancelReason.TIMEOUT]
    manager.close()


def test_a_thread_that_asks_is_stopped_when_its_lease_is_lost() -> None:
    """What it makes of the job is dropped, and the slot is free."""
    seen = list[Any]()

    async def main() -> None:
        store = WatchedStore(clock=None)
        manager, running = QueueManager(store, lease=0.3, poll_interval=0.1), threading.Event()

        @manager.batch_handler(batch_size=1, flush_interval=0, concurrency=1)
        def work(jobs: list[Job[int]]) -> None:
            running.set()
            if jobs[0].payload == 2:
                seen.append("the next one runs")
                return
            for _ in range(1_000):
                time.sleep(0.005)
                context().check()

        async with manager.working():
            await work.enqueue(1)
            await trio.to_thread.run_sync(running.wait)
            steal(store)
            second = await work.enqueue(2)
            await second.result(5)
        [first, _] = jobs_in(store)
        assert (first.state, first.attempt) == (JobState.PROCESSING, 2)

    trio.run(main)
    assert seen == ["the next one runs"]
