"""Jobs that are cancelled while a worker holds them, wherever they are then."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

from batchq import (
    CancelReason,
    Job,
    JobFailed,
    JobHooks,
    JobState,
    QueueManager,
    Result,
    RetryPolicy,
    context,
)
from tests.jobs import Hops, WatchedStore, jobs_in

HERE, ELSEWHERE = "here", "elsewhere"
both = pytest.mark.parametrize("where", [HERE, ELSEWHERE])


@pytest.fixture
def store() -> WatchedStore:
    return WatchedStore()


def who_cancels(store: WatchedStore, manager: QueueManager, where: str) -> QueueManager:
    """Return who gives the order: the worker's own manager, or one of another process."""
    return manager if where == HERE else QueueManager(store)


def states(store: WatchedStore) -> list[str]:
    return [job.state.value for job in jobs_in(store)]


@both
async def test_a_running_job_is_stopped_with_the_reason(
    store: WatchedStore, autojump_clock: MockClock, where: str
) -> None:
    seen = list[Any]()
    manager = QueueManager(store, lease=30, run_sync=Hops(takes=0.125))

    @manager.handler
    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            seen.append((context().cancel_reason, trio.current_time()))

    async with manager.working():
        job = await work.enqueue()
        await trio.sleep(5)
        await who_cancels(store, manager, where).cancel(job.id, "obsolete")
        await trio.sleep(11)
        assert states(store) == ["cancelled"]
    [(reason, when)] = seen
    assert reason is CancelReason.USER
    # At once where it runs; elsewhere it is told of with the next extension.
    assert when <= (5.5 if where == HERE else 15.5)
    assert jobs_in(store)[0].reason == "obsolete"


@both
async def test_the_others_of_a_batch_go_on(
    store: WatchedStore, autojump_clock: MockClock, where: str
) -> None:
    manager = QueueManager(store)

    @manager.batch_handler(batch_size=3)
    async def work(jobs: list[Job[int]]) -> list[Result[int]]:
        await trio.sleep(20)
        assert context().cancel_reason is None
        return [Result.ok(jobs[0].payload), Result.retry("again", after=0), Result.snooze(0)]

    async with manager.working():
        jobs = await work.enqueue_many(range(3))
        await trio.sleep(5)
        await who_cancels(store, manager, where).cancel(jobs[1:])
        await trio.sleep(30)
    # What does not complete does not come again; what completes is completed.
    assert states(store) == ["completed", "cancelled", "cancelled"]


async def test_who_completes_first_is_completed(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    manager = QueueManager(store)

    @manager.batch_handler(batch_size=2)
    async def work(jobs: list[Job[int]]) -> None:
        await trio.sleep(5)
        jobs[0].settle(Result.ok(1))
        await trio.lowlevel.checkpoint()
        await manager.cancel([job.id for job in jobs])
        await trio.sleep_forever()

    async with manager.working():
        await work.enqueue_many(range(2))
        await trio.sleep(10)
        assert states(store) == ["completed", "cancelled"]


@both
async def test_what_waits_here_for_a_slot_is_never_run(
    store: WatchedStore, autojump_clock: MockClock, where: str
) -> None:
    runs = list[int]()
    manager = QueueManager(store, lease=3)

    @manager.batch_handler(batch_size=1, concurrency=1, prefetch=3, flush_interval=0)
    async def work(items: list[int]) -> None:
        runs.extend(items)
        await trio.sleep(10)

    async with manager.working():
        jobs = await work.enqueue_many(range(3))
        await trio.sleep(1)
        assert {job.state for job in jobs_in(store)} == {JobState.PROCESSING}
        await who_cancels(store, manager, where).cancel(jobs[1])
        await trio.sleep(2)
        assert states(store) == ["processing", "cancelled", "processing"]
        await trio.sleep(30)
    assert runs == [0, 2]


@both
async def test_a_batch_that_is_taken_apart_leaves_out_what_was_cancelled(
    store: WatchedStore, autojump_clock: MockClock, where: str
) -> None:
    calls = list[list[int]]()
    manager = QueueManager(store, lease=3)

    @manager.batch_handler(batch_size=4, retry=RetryPolicy(0))
    async def work(items: list[int]) -> None:
        calls.append(items)
        if len(items) == 4:
            raise ValueError("a bad four")
        await trio.sleep(5)

    async with manager.working():
        jobs = await work.enqueue_many(range(4))
        await trio.sleep(1)
        await who_cancels(store, manager, where).cancel(jobs[2:])
        await trio.sleep(20)
        assert states(store) == ["completed", "completed", "cancelled", "cancelled"]
    assert calls == [[0, 1, 2, 3], [0, 1]]


async def test_hooks_are_not_told_of_a_lost_lease(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    told = list[object]()
    hooks = JobHooks(on_lease_lost=told.append, on_processed=lambda *what: told.append(what))
    manager = QueueManager(store, hooks=hooks)

    @manager.handler
    async def work() -> None:
        await trio.sleep_forever()

    async with manager.working():
        job = await work.enqueue()
        await trio.sleep(1)
        await job.cancel()
        await trio.sleep(1)
    assert told == []
    assert states(store) == ["cancelled"]


def test_a_thread_that_asks_is_stopped() -> None:
    seen = list[Any]()

    async def main() -> None:
        store = WatchedStore(clock=None)
        manager, running = QueueManager(store, poll_interval=0.1), threading.Event()

        @manager.handler
        def work() -> None:
            running.set()
            try:
                for _ in range(2_000):
                    time.sleep(0.005)
                    context().check()
            finally:
                seen.append(context().cancel_reason)

        async with manager.working():
            job = await work.enqueue()
            await trio.to_thread.run_sync(running.wait)
            await job.cancel()
            with pytest.raises(JobFailed, match="cancelled"):
                await job.result(5)

    trio.run(main)
    assert seen == [CancelReason.USER]
