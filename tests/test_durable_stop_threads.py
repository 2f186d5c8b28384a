"""Stopping in earnest: threads that do not end, and a store that others keep locked."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from batchq import CancelReason, Job, JobState, QueueManager, Result, StoreBusy, context
from batchq.core.job import Answers, Group
from tests.jobs import WatchedStore, jobs_in, nothing_is_leased


def test_a_thread_that_does_not_return_is_left_alone_and_its_job_given_back() -> None:
    async def main() -> None:
        manager, go_on = QueueManager("memory:", grace=0.05), threading.Event()

        started = threading.Event()

        @manager.handler
        def hang() -> None:
            started.set()
            go_on.wait(10)

        began = trio.current_time()
        async with manager.working():
            await hang.enqueue()
            await trio.to_thread.run_sync(started.wait, 5)
        assert trio.current_time() - began < 5
        [record] = jobs_in(manager)
        assert (record.state, record.used) == (JobState.PENDING, 0)
        go_on.set()

    trio.run(main)


class Thread:
    """What a plain handler does that asks each fifth of a second whether it is to stop.

    Attributes:
        began: set once it runs.
        reason: why it is to stop, as it has heard.
    """

    def __init__(self) -> None:
        self.began = threading.Event()
        self.reason: CancelReason | None = None

    def wait_until_told(self) -> None:
        self.began.set()
        while self.reason is None:
            time.sleep(0.2)
            self.reason = context().cancel_reason


def stopped(manager: QueueManager, thread: Thread, *jobs: Callable[[], object]) -> float:
    """Work until the thread runs, then stop; return how long that took [s]."""
    manager.start_workers()
    for enqueue in jobs:
        enqueue()
    assert thread.began.wait(20)
    began = time.monotonic()
    manager.stop_workers()
    return time.monotonic() - began


def test_a_thread_that_asks_now_and_then_is_told_of_the_shutdown() -> None:
    manager, thread = QueueManager("memory:", grace=0.1), Thread()

    @manager.handler
    def work() -> None:
        thread.wait_until_told()
        context().check()

    assert stopped(manager, thread, work.enqueue_sync) < 5
    assert thread.reason is CancelReason.SHUTDOWN
    [record] = jobs_in(manager)
    assert (record.state, record.used) == (JobState.PENDING, 0)
    assert record.due_at == record.enqueued_at  # first in line


def test_a_thread_of_the_memory_tier_is_told_too() -> None:
    manager, thread = QueueManager("memory:", grace=0.1), Thread()
    calls, handles = list[int](), list[Any]()

    @manager.handler(tier="memory", concurrency=1)
    def work(number: int) -> None:
        calls.append(number)
        thread.wait_until_told()
        context().check()

    def enqueue() -> None:
        handles.extend([work.enqueue_sync(1), work.enqueue_sync(2)])

    assert stopped(manager, thread, enqueue) < 5
    assert thread.reason is CancelReason.SHUTDOWN
    assert calls == [1]
    assert [handle.status for handle in handles] == ["closed"] * 2


def test_what_a_thread_ends_with_when_it_is_told_counts() -> None:
    manager, thread = QueueManager("memory:", grace=0.0), Thread()

    @manager.batch_handler(batch_size=3, flush_interval=0.05)
    def some(jobs: list[Job[int]]) -> None:
        thread.wait_until_told()
        jobs[1].settle(Result.ok("saved"))
        context().check()

    stopped(manager, thread, partial(some.enqueue_many_sync, [0, 1, 2]))
    assert [(job.state.value, job.used, job.value) for job in jobs_in(manager)] == [
        ("pending", 0, None),
        ("completed", 1, b'"saved"'),
        ("pending", 0, None),
    ]

    manager, thread = QueueManager("memory:", grace=0.0), Thread()

    @manager.handler
    def whole() -> str:
        thread.wait_until_told()
        return "finished"

    stopped(manager, thread, whole.enqueue_sync)
    assert [(job.state, job.value) for job in jobs_in(manager)] == [
        (JobState.COMPLETED, b'"finished"')
    ]


def test_while_a_thread_may_notice_others_stop_and_nothing_begins() -> None:
    manager, thread = QueueManager("memory:", grace=0.2), Thread()
    manager.queue("mixed")
    calls, cancelled = list[object](), list[float]()

    @manager.batch_handler(batch_size=2, flush_interval=0.05, bisect="immediate")
    def breaks(items: list[int]) -> None:
        calls.append(items)
        thread.wait_until_told()
        raise ValueError("and the parts would be next")

    @manager.handler(queue="mixed")
    def hangs() -> None:
        time.sleep(2)

    @manager.handler(queue="mixed")
    async def waits() -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(time.monotonic())

    took = stopped(
        manager,
        thread,
        waits.enqueue_sync,
        hangs.enqueue_sync,
        partial(breaks.enqueue_many_sync, [0, 1]),
    )
    assert calls == [[0, 1]]
    assert {(job.state, job.used) for job in jobs_in(manager)} == {(JobState.PENDING, 0)}
    assert cancelled[0] < time.monotonic() - 0.4  # with the grace, not after it
    assert took < 1.2 + 5


def test_a_verdict_under_way_in_a_thread_is_awaited() -> None:
    begun = threading.Event()

    class Slow(WatchedStore):
        def commit(self, group: Group) -> Answers:
            if group.settle:
                begun.set()
            threading.Event().wait(0.05)
            return super().commit(group)

    async def main() -> None:
        async def in_thread(call: Any, group: Group) -> Any:  # noqa: ANN401 - as RunSync
            return await trio.to_thread.run_sync(call, group)

        store = Slow(clock=None)
        manager = QueueManager(store, run_sync=in_thread, grace=0)

        @manager.handler
        async def work() -> int:
            return 7

        async with manager.working():
            await work.enqueue()
            await trio.to_thread.run_sync(begun.wait, 5)
        assert nothing_is_leased(store)
        assert [(job.state, job.value) for job in jobs_in(store)] == [(JobState.COMPLETED, b"7")]

    trio.run(main)


@pytest.mark.parametrize("grace", [0.0, 0.5])
def test_a_locked_store_keeps_nobody_longer_than_the_grace_and_a_second(
    tmp_path: Path, grace: float
) -> None:
    path = tmp_path / "jobs.db"
    manager = QueueManager(f"sqlite:///{path}", grace=grace)

    @manager.batch_handler(batch_size=1, flush_interval=0, concurrency=3)
    async def work(jobs: list[Job[int]]) -> None:
        if jobs[0].payload == 1:
            jobs[0].settle(Result.ok())
        await trio.sleep(0 if jobs[0].payload == 2 else 100)

    manager.start_workers()
    try:
        work.enqueue_many_sync([0, 0])
        while not all(job.state is JobState.PROCESSING for job in jobs_in(manager)):
            time.sleep(0.01)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
    finally:
        manager.stop_workers()
    assert grace <= time.monotonic() - began <= grace + 2.0
    other.execute("ROLLBACK")
    other.close()
    assert {job.state for job in jobs_in(manager)} == {JobState.PROCESSING}
    work.enqueue_sync(3)  # and the store is as patient as before
    manager.close()


def test_a_store_in_a_hurry_is_patient_again_later(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    manager = QueueManager(f"sqlite:///{path}")

    @manager.handler
    async def work() -> None: ...

    ledger = manager._ledgers.get()
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    ledger.hurry(0.05)
    with pytest.raises(StoreBusy, match="nothing was done"):
        work.enqueue_sync()
    ledger.hurry(float("inf"))
    timer = threading.Timer(0.3, lambda: other.execute("ROLLBACK"))
    timer.start()
    work.enqueue_sync()
    timer.join()
    other.close()
    manager.close()
