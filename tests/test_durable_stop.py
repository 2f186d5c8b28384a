"""Stopping: what has not started is given back, what runs has its grace, no verdict is lost."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from batchq import Job, JobState, QueueManager, Result
from batchq.errors import StoreBusy
from batchq.workers import Workers
from tests.jobs import Hops, WatchedStore, jobs_in, nothing_is_leased, store_of


@pytest.fixture
def store() -> WatchedStore:
    return WatchedStore()


async def test_what_has_not_started_is_given_back_at_once(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    manager = QueueManager(store)

    @manager.batch_handler(batch_size=1, concurrency=1, prefetch=3)
    async def work(items: list[int]) -> None:
        await trio.sleep(10)

    async def look() -> None:
        await trio.sleep(5.5)
        first, *others = jobs_in(store)
        assert first.state is JobState.PROCESSING
        assert [job.state for job in others] == [JobState.PENDING] * 4
        assert [(job.attempt, job.refunds) for job in others] == [(1, 1)] * 3 + [(0, 0)]
        assert [job.due_at for job in others] == [job.enqueued_at for job in others]

    async with trio.open_nursery() as nursery:
        async with manager.working():
            await work.enqueue_many(range(5))
            nursery.start_soon(look)
            await trio.sleep(5)
        assert trio.current_time() == 10.0  # it finished within its grace
    assert jobs_in(store)[0].state is JobState.COMPLETED


async def test_a_batch_that_waits_for_company_is_given_back(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    manager = QueueManager(store)

    @manager.batch_handler(batch_size=10, flush_interval=None)
    async def work(items: list[int]) -> None:
        raise AssertionError("called")

    async with manager.working():
        await work.enqueue_many(range(3))
        await trio.sleep(5)
        assert {job.state for job in jobs_in(store)} == {JobState.PROCESSING}
    assert trio.current_time() == 5.0
    assert [(job.state, job.used) for job in jobs_in(store)] == [(JobState.PENDING, 0)] * 3


async def test_what_runs_longer_than_its_grace_is_cancelled_and_given_back(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    manager = QueueManager(store, grace=4)

    @manager.batch_handler(batch_size=2, concurrency=3, flush_interval=0)
    async def work(items: list[int]) -> None:
        await trio.sleep(2 if 1 in items else 100)

    async with manager.working():
        await work.enqueue_many(range(6))
        await trio.sleep(1)
    assert trio.current_time() == 5.0
    states = [(job.state.value, job.used, job.refunds) for job in jobs_in(store)]
    assert states == [("completed", 1, 0)] * 2 + [("pending", 0, 1)] * 4
    assert [job.due_at for job in jobs_in(store)][2:] == [0.0] * 4  # first in line


async def test_nothing_is_claimed_any_more(store: WatchedStore, autojump_clock: MockClock) -> None:
    manager = QueueManager(store)

    @manager.batch_handler(batch_size=1, concurrency=2, flush_interval=0)
    async def work(items: list[int]) -> None:
        await trio.sleep(5)

    async with trio.open_nursery() as nursery:
        async with manager.working():
            await work.enqueue_many(range(2))
            await trio.sleep(1)
            nursery.start_soon(later, work, 2.0)
        assert trio.current_time() == 5.0
        claims = [group for group in store.groups if group.claim]
        await trio.sleep(5)
        assert claims == [group for group in store.groups if group.claim]
    assert [job.attempt for job in jobs_in(store)] == [1, 1, 0]


async def later(work: Any, delay: float) -> None:  # noqa: ANN401 - a handler
    await trio.sleep(delay)
    await work.enqueue(99)


@pytest.mark.parametrize("moment", [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.25, 3.0, 4.0])
@pytest.mark.parametrize("grace", [0.0, 1.5])
async def test_whenever_it_is_stopped_nothing_stays_leased_and_nothing_runs_twice(
    moment: float, grace: float, store: WatchedStore, autojump_clock: MockClock
) -> None:
    done = list[int]()
    manager = QueueManager(store, run_sync=Hops(takes=0.375), grace=grace, poll_interval=0.5)

    @manager.batch_handler(batch_size=2, flush_interval=0.25, concurrency=2, prefetch=1)
    async def work(items: list[int]) -> None:
        await trio.sleep(0.5)
        done.extend(items)

    await work.enqueue_many(range(15))
    async with manager.working():
        await trio.sleep(moment)
    assert nothing_is_leased(store)
    completed = [int(job.payload) for job in jobs_in(store) if job.state is JobState.COMPLETED]
    assert sorted(done) == sorted(completed)
    waiting = [job for job in jobs_in(store) if job.state is JobState.PENDING]
    assert all(job.used == 0 and job.due_at == job.enqueued_at for job in waiting)


class Stop(BaseException):
    """As KeyboardInterrupt, which pytest would take for its own."""


@pytest.mark.parametrize("error", [ValueError("the body's"), Stop()])
async def test_every_verdict_is_written_when_the_body_raises(
    error: BaseException, store: WatchedStore, autojump_clock: MockClock
) -> None:
    manager = QueueManager(store, run_sync=Hops(takes=0.25))

    @manager.batch_handler(batch_size=2)
    async def work(items: list[int]) -> list[int]:
        await trio.sleep(5)
        return items

    async def block() -> None:
        async with manager.working():
            await work.enqueue_many([1, 2])
            await trio.sleep(3)
            raise error

    with pytest.raises(type(error)) as caught:
        await block()
    assert caught.value is error
    assert [(job.state, job.value) for job in jobs_in(store)] == [
        (JobState.COMPLETED, b"1"),
        (JobState.COMPLETED, b"2"),
    ]


async def test_every_verdict_is_written_when_the_block_is_cancelled(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    manager = QueueManager(store, run_sync=Hops(takes=0.25))

    @manager.batch_handler(batch_size=2)
    async def work(items: list[int]) -> list[int]:
        await trio.sleep(5)
        return items

    with trio.move_on_after(3) as scope:
        async with manager.working():
            await work.enqueue_many([1, 2])
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert 5.25 <= trio.current_time() <= 6.5
    assert [job.state for job in jobs_in(store)] == [JobState.COMPLETED] * 2


async def test_a_ctrl_c_in_a_handler_leaves_nothing_leased(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    manager, other = QueueManager(store), list[str]()

    @manager.batch_handler(batch_size=1, concurrency=3, flush_interval=0, prefetch=1)
    async def work(jobs: list[Job[int]]) -> None:
        if jobs[0].payload == 0:
            await trio.sleep(2)
            raise KeyboardInterrupt
        if jobs[0].payload == 1:
            await trio.sleep(1.9921875)
            jobs[0].settle(Result.ok("early"))
        await trio.sleep(100)

    @manager.handler
    async def bystander() -> None:
        await trio.sleep(4)
        other.append("finished")

    async def block() -> None:
        async with manager.working():
            await work.enqueue_many(range(6))
            await bystander.enqueue()
            await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        await block()
    assert nothing_is_leased(store)
    assert other == ["finished"]
    states = [job.state.value for job in jobs_in(store)]
    assert states == ["pending", "completed", *["pending"] * 4, "completed"]


async def test_what_was_decided_and_what_is_given_back_at_the_end_is_one_commit(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    manager = QueueManager(store, grace=1)

    @manager.batch_handler(batch_size=2, concurrency=2, flush_interval=0)
    async def work(jobs: list[Job[int]]) -> None:
        await trio.sleep(1.9921875)
        jobs[0].settle(Result.ok("early"))
        await trio.sleep(100)

    async with manager.working():
        await work.enqueue_many(range(4))
        await trio.sleep(1)
        before = len(store.groups)
    assert [len(group.settle) for group in store.groups[before:]] == [4]
    assert [job.state.value for job in jobs_in(store)] == ["completed", "pending"] * 2


async def test_verdicts_are_tried_again_while_the_stop_lasts(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    manager = QueueManager(store, grace=5, poll_interval=100)

    @manager.batch_handler(batch_size=2)
    async def work(items: list[int]) -> None:
        await trio.sleep(2)

    async with manager.working():
        await work.enqueue_many([1, 2])
        await trio.sleep(1)
        store.trouble = [StoreBusy("locked")] * 4
    assert store.trouble == []
    assert [job.state for job in jobs_in(store)] == [JobState.COMPLETED] * 2


async def test_a_store_that_stays_away_keeps_nobody_longer_than_the_grace_and_a_second(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    manager = QueueManager(store, grace=2)

    @manager.batch_handler(batch_size=1, flush_interval=0, concurrency=2, prefetch=1)
    async def work(items: list[int]) -> None:
        await trio.sleep(1.5 if items == [1] else 100)

    async with manager.working():
        await work.enqueue_many([1, 2, 3])
        await trio.sleep(1)
        store.refuses = lambda _: StoreBusy("locked")
        stopped = trio.current_time()
    assert 2 <= trio.current_time() - stopped <= 3.125


async def test_a_block_may_be_entered_under_cancellation(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    manager = QueueManager(store)

    @manager.handler
    async def work() -> None: ...

    assert store_of(manager) is store  # open, so that entering does not wait for it
    with trio.fail_after(5), trio.CancelScope() as scope:
        scope.cancel()
        async with manager.working():
            await work.enqueue()
    assert scope.cancelled_caught
    async with manager.working():
        await (await work.enqueue()).result(5)


async def test_a_claim_that_comes_in_while_it_stops_is_given_back_at_once(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    manager = QueueManager(store, run_sync=Hops(takes=1.0))

    @manager.handler(concurrency=2)
    async def work(seconds: float) -> None:
        await trio.sleep(seconds)

    long = await work.enqueue(20)
    async with manager.working():
        await trio.sleep(5)
        claimed = await work.enqueue(0)  # its claim takes a second
        await trio.sleep(0.5)
        stopped = trio.current_time()
    first, second = jobs_in(store, long.id, claimed.id)
    assert first.state is JobState.COMPLETED
    assert (second.state, second.used) == (JobState.PENDING, 0)
    released = [group for group in store.groups if group.settle and not group.claim]
    assert stopped + 15 > trio.current_time() - 5  # the long one had its grace
    assert released


async def test_a_second_stop_ends_the_grace_of_the_first(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    manager = QueueManager(store, grace=50)

    @manager.handler
    async def work() -> None:
        await trio.sleep(100)

    async def press(block: Workers) -> None:
        await trio.sleep(3)
        block._tell_stop(0.0)  # as a Ctrl-C while it stops

    block = manager._at_work.workers({"work": None}, manager._ledgers.get(), 50)
    async with trio.open_nursery() as nursery:
        async with block:
            await work.enqueue()
            await trio.sleep(1)
            nursery.start_soon(press, block)
        assert trio.current_time() == 4.0
    assert [(job.state, job.used) for job in jobs_in(store)] == [(JobState.PENDING, 0)]
