"""How often the store is asked: counts of commits and hops, and when a job is noticed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from batchq import JobState, QueueManager
from batchq.core.job import Answers, Group
from tests.jobs import Hops, WatchedStore, jobs_in, new_job, store_of


@pytest.fixture
def store() -> WatchedStore:
    return WatchedStore()


async def test_in_steady_state_a_batch_costs_one_transaction_and_one_hop(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    hops = Hops(takes=0.015625)
    manager = QueueManager(store, run_sync=hops, poll_interval=100)

    @manager.batch_handler(batch_size=100, flush_interval=0.5, concurrency=1)
    async def work(items: list[int]) -> None:
        await trio.sleep(0.125)

    await work.enqueue_many(range(5_000))
    stored, before = len(store.groups), hops.count
    async with manager.working():
        await trio.sleep(20)
    assert {job.state for job in jobs_in(store)} == {JobState.COMPLETED}
    commits = len(store.groups) - stored
    assert commits / 5_000 <= 0.02
    assert commits <= 50 + 2  # one per batch: the first claim and the last look are extra
    assert hops.count - before == commits
    assert all(len(group.settle) in {0, 100} for group in store.groups)


async def test_a_settlement_and_the_next_claim_are_one_commit(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    manager = QueueManager(store, run_sync=Hops(takes=0.125))

    @manager.batch_handler(batch_size=2, flush_interval=0, concurrency=2)
    async def work(items: list[int]) -> None:
        await trio.sleep(items[0])

    await work.enqueue_many([1, 1, 2, 2, 1, 1])
    async with manager.working():
        await trio.sleep(5)
    settling = [group for group in store.groups if group.settle]
    assert [len(group.settle) for group in settling] == [2, 2, 2]
    assert all(group.claim for group in settling)
    assert sum(each.batches for each in store.workers()) == 3


async def test_many_producers_share_commits(store: WatchedStore, autojump_clock: MockClock) -> None:
    hops = Hops(takes=0.125)
    manager = QueueManager(store, run_sync=hops)

    @manager.handler
    async def work(number: int) -> None: ...

    async with manager, trio.open_nursery() as nursery:
        for number in range(64):
            nursery.start_soon(work.enqueue, number)
    assert len(jobs_in(store)) == 64
    assert hops.count <= 2


async def test_an_idle_worker_asks_once_per_poll_interval(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    manager = QueueManager(store, poll_interval=2)

    @manager.handler
    async def work() -> None: ...

    async with manager.working():
        await trio.sleep(99)
    assert len(store.groups) == 50


async def test_a_job_stored_here_is_run_at_once(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    manager, runs = QueueManager(store, poll_interval=100), list[float]()

    @manager.handler
    async def work() -> None:
        runs.append(trio.current_time())

    async with manager.working():
        for _ in range(3):
            await trio.sleep(7)
            await work.enqueue()
        await trio.sleep(1)
    assert runs == [7, 14, 21]


async def test_a_job_stored_elsewhere_is_run_within_a_poll_interval(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    manager, runs = QueueManager(store, poll_interval=2), list[float]()

    @manager.handler
    async def work() -> None:
        runs.append(trio.current_time())

    other = QueueManager(store)
    other.handler(name="work")(work.function)
    async with manager.working():
        await trio.sleep(5)
        await other.add_job("work", {})
        await trio.sleep(5)
    assert runs == [6]


async def test_a_job_stored_while_a_claim_is_on_its_way_back_is_not_overlooked(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    async def slow_answer(call: Callable[[Group], Answers], group: Group) -> Answers:
        answers = call(group)
        await trio.sleep(1)
        return answers

    manager, runs = QueueManager(store, run_sync=slow_answer, poll_interval=100), list[float]()

    @manager.handler
    async def work() -> None:
        runs.append(trio.current_time())

    async with manager.working():
        await trio.sleep(0.5)  # the first claim has found nothing; its answer is to come
        job = work.new_job({})
        answers = manager._ledgers.get().commit_now(Group(enqueue=[job])).enqueue
        manager._at_work.stored(
            [job], [answers[0].id], store_of(manager).now
        )  # as another thread does
        await trio.sleep(10)
    assert runs == [2]


async def test_a_full_claim_is_followed_by_the_next_as_soon_as_there_is_room(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    manager, runs = QueueManager(store, poll_interval=100), list[float]()

    @manager.handler(concurrency=2)
    async def work() -> None:
        runs.append(trio.current_time())
        await trio.sleep(1)

    manager._ledgers.get().commit_now(
        Group(enqueue=[new_job("{}", queue="work") for _ in range(5)])
    )
    async with manager.working():
        await trio.sleep(10)
    assert runs == [0, 0, 1, 1, 2]


async def test_no_more_is_held_than_has_a_place(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    manager = QueueManager(store, run_sync=Hops(takes=0.25))

    @manager.batch_handler(batch_size=3, flush_interval=0.5, concurrency=2, prefetch=1)
    async def work(items: list[int]) -> None:
        await trio.sleep(1 + items[0] % 3)

    held = list[int]()
    async with manager.working():
        for number in range(50):
            await work.enqueue(number)
            held.append(store.counts()["work"].get(JobState.PROCESSING, 0))
        for _ in range(300):
            await trio.sleep(0.125)
            held.append(store.counts()["work"].get(JobState.PROCESSING, 0))
    assert max(held) == 9
    assert {job.state for job in jobs_in(store)} == {JobState.COMPLETED}


def test_a_file_sees_few_transactions_too(tmp_path: Path) -> None:
    async def main() -> None:
        manager, seen = QueueManager(f"sqlite:///{tmp_path}/jobs.db"), list[int]()

        @manager.batch_handler(batch_size=100, flush_interval=0.5, concurrency=2)
        async def work(items: list[int]) -> None:
            seen.extend(items)

        assert await work.store_many(range(3_000)) == 3_000
        async with manager.working():
            last = await work.enqueue(3_000)
            await last.result(30)
        assert sorted(seen) == list(range(3_001))
        commits = sum(each.commits for each in store_of(manager).workers())
        assert (commits - 3 - 1) / 3_000 <= 0.02
        manager.close()

    trio.run(main)
