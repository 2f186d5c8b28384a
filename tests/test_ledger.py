"""The ledger: what is submitted meanwhile becomes one commit, and nobody spoils another's."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from batchq.core.job import (
    Answers,
    Extended,
    Extension,
    Group,
    Receipt,
    Settled,
    Settlement,
    Verdict,
)
from batchq.errors import StoreBusy, StoreFull
from batchq.ledger import Ledger
from batchq.stores.memory import MemoryStore
from batchq.stores.sqlite import SqliteStore
from tests.jobs import Hops, WatchedStore, claim, jobs_in, new_job


@pytest.fixture
def store() -> WatchedStore:
    return WatchedStore(clock=lambda: 4096.0)


async def enqueue(ledger: Ledger, payload: object, ids: list[int] | None = None) -> int:
    [stored] = (await ledger.submit(Group(enqueue=[new_job(payload)]))).enqueue
    if ids is not None:
        ids.append(stored.id)
    return stored.id


# ---- Groups


async def test_what_is_submitted_while_a_commit_runs_becomes_one_commit(
    store: WatchedStore, autojump_clock: trio.testing.MockClock
) -> None:
    hops = Hops(takes=1.0)
    ledger, ids = Ledger(store, hops), list[int]()
    async with ledger.open(), trio.open_nursery() as nursery:
        nursery.start_soon(enqueue, ledger, "first", ids)
        await trio.sleep(0.5)
        for number in range(100):
            nursery.start_soon(enqueue, ledger, number, ids)
    assert trio.current_time() == 2.0
    assert [len(group.enqueue) for group in store.groups] == [1, 100]
    assert hops.count == 2
    assert sorted(ids) == list(range(1, 102))


async def test_each_caller_gets_the_answers_to_its_own_commands(store: WatchedStore) -> None:
    ledger = Ledger(store, Hops())
    found: dict[str, Answers] = {}
    ids: dict[str, int] = {}

    async def submit(name: str, group: Group) -> None:
        found[name] = await ledger.submit(group)

    async def store_one(payload: str) -> None:
        ids[payload] = (await ledger.submit(new_job(payload))).id

    async with ledger.open():
        await enqueue(ledger, "old")
        [old] = (await ledger.submit(Group(claim=[claim()]))).claim[0].jobs
        async with trio.open_nursery() as nursery:
            settle = Settlement(old.receipt, Verdict.OK)
            stale = Settlement(Receipt(old.receipt.job_id, 7), Verdict.OK)
            nursery.start_soon(store_one, "one")
            nursery.start_soon(submit, "a", Group(settle=[settle], enqueue=[new_job("a")]))
            nursery.start_soon(store_one, "two")
            nursery.start_soon(submit, "b", Group(enqueue=[new_job("b1"), new_job("b2")]))
            nursery.start_soon(submit, "c", Group(settle=[stale], claim=[claim(2)]))
            nursery.start_soon(
                submit, "d", Group(extend=[Extension([old.receipt], 9), Extension([], 9)])
            )
            nursery.start_soon(submit, "nothing", Group())
    assert len(store.groups) == 3
    assert found["a"].settle == [Settled.APPLIED]
    assert found["c"].settle == [Settled.STALE]
    assert found["d"].extend == [[Extended.STALE], []]  # settled first, in the same commit
    stored = {name: [job.id for job in found[name].enqueue] for name in "ab"}
    assert sorted([*stored["a"], *stored["b"], *ids.values()]) == [2, 3, 4, 5, 6]
    payloads = {job.id: job.payload for job in store.get([2, 3, 4, 5, 6]) if job is not None}
    assert payloads[ids["one"]] == b"one"
    assert payloads[ids["two"]] == b"two"
    assert [payloads[id_] for id_ in stored["a"] + stored["b"]] == [b"a", b"b1", b"b2"]
    assert (found["a"].claim, found["a"].extend, found["b"].claim) == ([], [], [])
    assert found["nothing"] == Answers([], [], [], [])
    # What a group stores, the same group can claim.
    assert [job.receipt.job_id for job in found["c"].claim[0].jobs] == [2, 3]


async def test_commands_keep_the_order_in_which_they_were_submitted(store: WatchedStore) -> None:
    ledger = Ledger(store, Hops())
    async with ledger.open():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(enqueue, ledger, "first")
            await trio.testing.wait_all_tasks_blocked()
        for number in range(20):
            await enqueue(ledger, number)
    assert [job.payload for job in jobs_in(store)][1:] == [str(n).encode() for n in range(20)]


async def test_outside_a_block_each_submit_is_a_commit_of_its_own(store: WatchedStore) -> None:
    hops = Hops()
    ledger = Ledger(store, hops)
    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(enqueue, ledger, number)
    assert [len(group.enqueue) for group in store.groups] == [1] * 5
    assert hops.count == 5


async def test_a_store_that_needs_no_thread_makes_no_hop(store: WatchedStore) -> None:
    ledger = Ledger(store)
    here = threading.get_ident()
    store.refuses = lambda _: None if threading.get_ident() == here else OSError("elsewhere")
    async with ledger.open():
        await enqueue(ledger, 1)
    await enqueue(ledger, 2)
    assert len(store.groups) == 2


# ---- Trouble


async def test_one_bad_command_fails_alone(store: WatchedStore) -> None:
    ledger, done, failed = Ledger(store, Hops()), list[int](), list[str]()
    bad = {b"13", b"17"}
    store.refuses = lambda group: next(
        (ValueError(f"bad {job.payload.decode()}") for job in group.enqueue if job.payload in bad),
        None,
    )

    async def attempt(number: int) -> None:
        try:
            done.append(await enqueue(ledger, number))
        except ValueError as error:
            failed.append(str(error))

    async with ledger.open(), trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(attempt, number)
    assert sorted(failed) == ["bad 13", "bad 17"]
    assert len(set(done)) == len(jobs_in(store)) == 18
    assert {job.payload for job in jobs_in(store)}.isdisjoint(bad)


async def test_an_error_of_the_store_is_everybodys_and_nothing_is_repeated(
    store: WatchedStore,
) -> None:
    hops = Hops()
    ledger, failed = Ledger(store, hops), list[StoreBusy]()
    store.trouble = [StoreBusy("locked")]

    async def attempt(number: int) -> None:
        with pytest.raises(StoreBusy) as caught:
            await enqueue(ledger, number)
        failed.append(caught.value)

    async with ledger.open():
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(attempt, number)
        assert (len(failed), hops.count, store.groups) == (10, 1, [])
        assert await enqueue(ledger, "after") == 1  # it goes on


async def test_one_error_for_many_grows_no_tangled_traceback(store: WatchedStore) -> None:
    ledger, lengths = Ledger(store, Hops()), list[int]()
    store.trouble = [StoreBusy("locked")]

    async def attempt() -> None:
        with pytest.raises(StoreBusy) as caught:
            await enqueue(ledger, 1)
        lengths.append(len(caught.traceback))

    async with ledger.open(), trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(attempt)
    assert len(set(lengths)) == 1


async def test_batches_are_counted_with_the_commit_that_follows_even_after_one_that_failed(
    store: WatchedStore,
) -> None:
    ledger = Ledger(store)
    for _ in range(3):
        ledger.count_batch()
    store.trouble = [StoreFull("no space"), RuntimeError("a bug"), KeyboardInterrupt()]
    for kind in (StoreFull, RuntimeError, KeyboardInterrupt):
        with pytest.raises(kind):
            ledger.commit_now(Group(enqueue=[new_job()]))
    ledger.count_batch()
    ledger.commit_now(Group(enqueue=[new_job()]))
    ledger.commit_now(Group(enqueue=[new_job()]))
    [worker] = store.workers()
    assert (worker.worker, worker.commits, worker.batches) == (ledger.worker, 2, 4)


async def test_an_error_of_the_store_is_told_to_whoever_submitted_and_to_nobody_else(
    store: WatchedStore, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(store)
    async with ledger.open():
        for error in (StoreFull("no space"), RuntimeError("a bug")):
            store.trouble = [error]
            with pytest.raises(type(error)):
                await ledger.submit(Group(enqueue=[new_job()]))
    assert caplog.records == []


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
