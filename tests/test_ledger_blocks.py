"""The ledger: cancelled callers, blocks in which commands gather, threads."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from batchq.core.job import (
    Answers,
    Group,
)
from batchq.errors import StoreBusy
from batchq.ledger import Ledger
from batchq.stores.memory import MemoryStore
from batchq.stores.sqlite import SqliteStore
from tests.jobs import Hops, WatchedStore, jobs_in, new_job


@pytest.fixture
def store() -> WatchedStore:
    return WatchedStore(clock=lambda: 4096.0)


async def enqueue(ledger: Ledger, payload: object, ids: list[int] | None = None) -> int:
    [stored] = (await ledger.submit(Group(enqueue=[new_job(payload)]))).enqueue
    if ids is not None:
        ids.append(stored.id)
    return stored.id


# ---- Cancelling


async def test_a_cancelled_submit_that_still_waits_is_not_carried_out(
    store: WatchedStore, autojump_clock: trio.testing.MockClock
) -> None:
    ledger, ids = Ledger(store, Hops(takes=1.0)), list[int]()
    async with ledger.open(), trio.open_nursery() as nursery:
        nursery.start_soon(enqueue, ledger, "first", ids)
        await trio.sleep(0.5)
        nursery.start_soon(enqueue, ledger, "second", ids)
        with trio.move_on_after(0.25) as scope:
            await enqueue(ledger, "never", ids)
        assert scope.cancelled_caught
    assert [job.payload for job in jobs_in(store)] == [b"first", b"second"]
    assert ids == [1, 2]


async def test_a_submit_that_is_cancelled_in_flight_returns_its_answer(
    store: WatchedStore, autojump_clock: trio.testing.MockClock
) -> None:
    ledger = Ledger(store, Hops(takes=1.0))
    async with ledger.open():
        with trio.move_on_after(0.5) as scope:
            assert await enqueue(ledger, "begun") == 1
            assert trio.current_time() == 1.0
            await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught


async def test_a_submit_that_is_cancelled_in_flight_raises_its_error(
    store: WatchedStore, autojump_clock: trio.testing.MockClock
) -> None:
    ledger = Ledger(store, Hops(takes=1.0))
    store.trouble = [StoreBusy("locked")]
    async with ledger.open():
        with trio.move_on_after(0.5), pytest.raises(StoreBusy):
            await enqueue(ledger, "begun")


@pytest.mark.parametrize("inside", [True, False])
async def test_a_submit_cancelled_beforehand_does_nothing(
    store: WatchedStore, *, inside: bool
) -> None:
    ledger = Ledger(store)

    async def attempt() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await enqueue(ledger, 1)

    if inside:
        async with ledger.open():
            await attempt()
    else:
        await attempt()
    assert store.groups == []


# ---- Blocks


async def test_a_block_may_be_entered_and_left_under_cancellation(store: WatchedStore) -> None:
    ledger = Ledger(store)
    with trio.fail_after(5), trio.CancelScope() as scope:
        scope.cancel()
        async with ledger.open():
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    async with ledger.open():
        assert await enqueue(ledger, 1) == 1


@pytest.mark.parametrize("error", [ValueError("the body's"), KeyboardInterrupt()])
async def test_what_was_submitted_is_committed_when_the_body_raises(
    store: WatchedStore, error: BaseException, autojump_clock: trio.testing.MockClock
) -> None:
    ledger, ids = Ledger(store, Hops(takes=1.0)), list[int]()
    async with trio.open_nursery() as nursery:

        async def block() -> None:
            async with ledger.open():
                for number in range(3):
                    nursery.start_soon(enqueue, ledger, number, ids)
                    await trio.sleep(0.25)
                raise error

        with pytest.raises(type(error)) as caught:
            await block()
        assert caught.value is error
    assert sorted(ids) == [1, 2, 3]


async def test_the_bodys_error_comes_out_although_it_was_cancelled_too(
    store: WatchedStore,
) -> None:
    ledger = Ledger(store)

    async def block() -> None:
        with trio.CancelScope() as scope:
            async with ledger.open():
                scope.cancel()
                raise ValueError("the body's")

    with pytest.raises(ValueError, match="the body's"):
        await block()


async def test_a_cancelled_block_commits_what_is_under_way(
    store: WatchedStore, autojump_clock: trio.testing.MockClock
) -> None:
    ledger, ids = Ledger(store, Hops(takes=1.0)), list[int]()
    with trio.move_on_after(0.5):
        async with ledger.open(), trio.open_nursery() as nursery:
            nursery.start_soon(enqueue, ledger, "begun", ids)
            await trio.sleep(0.25)
            nursery.start_soon(enqueue, ledger, "waits", ids)
    assert ids == [1]
    assert [job.payload for job in jobs_in(store)] == [b"begun"]


async def test_an_inner_block_changes_nothing(
    store: WatchedStore, autojump_clock: trio.testing.MockClock
) -> None:
    ledger = Ledger(store, Hops(takes=1.0))
    async with ledger.open():
        async with ledger.open():
            await enqueue(ledger, 1)
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(enqueue, ledger, number)
    assert [len(group.enqueue) for group in store.groups] == [1, 10]


async def test_blocks_may_follow_each_other(store: WatchedStore) -> None:
    ledger = Ledger(store)
    for number in range(1, 4):
        async with ledger.open():
            assert await enqueue(ledger, number) == number


# ---- Threads: in real time


def test_many_threads_commit_one_at_a_time_and_under_one_name() -> None:
    inside, most, names = 0, 0, set[str]()

    class Jealous(MemoryStore):
        def commit(self, group: Group) -> Answers:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            names.add(group.worker)
            threading.Event().wait(0.0005)
            answers = super().commit(group)
            inside -= 1
            return answers

    for _ in range(10):  # the first use is where the danger is
        ledger = Ledger(Jealous())
        start = threading.Barrier(8)

        def work(ledger: Ledger, start: threading.Barrier) -> None:
            start.wait()
            for _ in range(3):
                ledger.commit_now(Group(enqueue=[new_job()]))

        threads = [threading.Thread(target=work, args=(ledger, start)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (most, names) == (1, {ledger.worker})
        names.clear()


def test_several_event_loops_share_a_ledger(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "jobs.db")
    ledger, ids = Ledger(store), list[int]()

    async def produce() -> None:
        async with ledger.open(), trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(enqueue, ledger, number, ids)

    threads = [threading.Thread(target=partial(trio.run, produce)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        ids.append(ledger.commit_now(Group(enqueue=[new_job()])).enqueue[0].id)
    for thread in threads:
        thread.join()
    assert sorted(ids) == list(range(1, 221))
    [worker] = store.workers()
    assert worker.commits <= 20 + 4 * 5  # each loop's fifty shared a few
    store.close()


def test_commits_go_on_while_every_thread_of_the_default_limiter_is_taken(tmp_path: Path) -> None:
    async def main() -> None:
        store = SqliteStore(tmp_path / "jobs.db")
        ledger, over = Ledger(store), threading.Event()
        limiter = trio.to_thread.current_default_thread_limiter()
        limiter.total_tokens = 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(trio.to_thread.run_sync, over.wait, 10))
            await trio.testing.wait_all_tasks_blocked(0.01)
            with trio.move_on_after(5) as scope:
                async with ledger.open():
                    await enqueue(ledger, 1)
                await enqueue(ledger, 2)
            over.set()
        assert not scope.cancelled_caught
        store.close()

    trio.run(main)
