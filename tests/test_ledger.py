"""The ledger: what is submitted meanwhile becomes one commit, and nobody spoils another's."""

from __future__ import annotations

import threading

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
