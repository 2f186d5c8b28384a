"""What people read of a store."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from batchq.core.job import Extension, Group, Receipt, Settled, Settlement, Verdict
from batchq.core.lifecycle import MAX_FAILURES, JobState
from batchq.core.record import JobFilter, WorkerRecord
from batchq.stores.base import Store
from batchq.testing.conformance.kit import (
    BOOM,
    LEASE,
    HandClock,
    StoreKind,
    claim,
    claim_one,
    enqueue,
    extend,
    job,
    request,
    settle,
    settle_one,
)


def test_of_many_failures_the_first_and_the_last_are_kept(store: Store) -> None:
    [id_, other] = enqueue(store, job(max_attempts=None), job(handler="other"))
    for _ in range(30):
        settle_one(store, claim_one(store), Verdict.RETRY, error=BOOM)
    settle_one(store, claim_one(store, request("other")), Verdict.FAIL, error=BOOM)
    kept = [failure.attempt for failure in store.errors(id_)]
    assert kept == [*range(30, 30 - MAX_FAILURES + 1, -1), 1]
    assert len(store.errors()) == MAX_FAILURES + 1
    assert [failure.job_id for failure in store.errors(limit=2)] == [other, id_]
    assert [failure.attempt for failure in store.errors(id_, limit=2)] == [30, 29]


def test_a_text_that_is_no_text_is_kept_all_the_same(store: Store) -> None:
    """An odd file name in a message must not keep a job from being settled."""
    [id_] = enqueue(store, job())
    error = type(BOOM)("OSError", "no such file: \udcff\x00", "")
    assert settle_one(store, claim_one(store), Verdict.FAIL, error=error) is Settled.APPLIED
    assert store.errors(id_)[0].line.message.startswith("no such file: ")


def test_get_answers_each_id_in_order(store: Store) -> None:
    first, second = enqueue(store, job(b"1"), job(b"2"))
    found = store.get([second, 99, first, 0, -1, 2**70, second])
    payloads = [None if record is None else record.payload for record in found]
    assert payloads == [b"2", None, b"1", None, None, None, b"2"]


def test_find_reads_states_and_what_is_read_from_them(store: Store, clock: HandClock) -> None:
    enqueue(store, *(job(b"%d" % number, priority=number) for number in range(7)))
    enqueue(store, job(delay=64), job(queue="other", handler="other"))
    receipts = [taken.receipt for taken in claim(store, request(limit=6, lease=8)).jobs]
    settle(
        store,
        Settlement(receipts[0], Verdict.OK),
        Settlement(receipts[1], Verdict.FAIL),
        Settlement(receipts[2], Verdict.RETRY, error=BOOM, delay=64),
        Settlement(receipts[3], Verdict.RELEASE),
    )
    clock.now += 4
    extend(store, receipts[4], lease=8)
    clock.now += 4
    expected = {
        None: [1, 2, 3, 4, 5, 6, 7, 8, 9],
        "pending": [3, 4, 7, 8, 9],
        "processing": [5, 6],
        "completed": [1],
        "failed": [2],
        "cancelled": [],
        "scheduled": [8],
        "retrying": [3],
        "stalled": [6],
        "no such status": [],
    }
    for status, ids in expected.items():
        assert [found.id for found in store.find(JobFilter(status=status))] == ids, status
    assert [found.id for found in store.find(JobFilter(queue="other"))] == [9]
    assert [found.id for found in store.find(JobFilter(handler="send", status="pending"))] == [
        3,
        4,
        7,
        8,
    ]
    assert store.find(JobFilter(queue="\udcff")) == []


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("status", [None, "pending", "failed", "completed"])
def test_pages_neither_skip_nor_repeat(
    store: Store, status: str | None, *, newest_first: bool
) -> None:
    """J19: also while other jobs change."""
    enqueue(store, *(job() for _ in range(40)))
    receipts = [taken.receipt for taken in claim(store, request(limit=24)).jobs]
    settle(store, *(Settlement(receipt, Verdict.OK) for receipt in receipts[::2]))
    settle(store, *(Settlement(receipt, Verdict.FAIL) for receipt in receipts[1::2]))
    where = JobFilter(status=status, queue="mail")
    expected = [found.id for found in store.find(where, newest_first=newest_first)]
    pages: list[int] = []
    after: int | None = None
    while page := store.find(where, after=after, limit=7, newest_first=newest_first):
        assert len(page) <= 7
        assert not {found.id for found in page} & set(pages)
        pages += [found.id for found in page]
        after = pages[-1]
        enqueue(store, job(queue="other", delay=1))
    assert pages == expected == sorted(expected, reverse=newest_first)
    assert store.find(where, after=2**70) == []
    assert store.find(where, limit=0) == store.find(where, limit=-1) == []


def test_counts_are_per_queue_and_state(store: Store) -> None:
    assert store.counts() == {}
    enqueue(store, *(job() for _ in range(4)), job(queue="other"))
    receipts = [taken.receipt for taken in claim(store, request(limit=3)).jobs]
    settle_one(store, receipts[0])
    settle_one(store, receipts[1], Verdict.FAIL)
    assert store.counts() == {
        "mail": {
            JobState.PENDING: 1,
            JobState.PROCESSING: 1,
            JobState.COMPLETED: 1,
            JobState.FAILED: 1,
        },
        "other": {JobState.PENDING: 1},
    }


def test_kinds_are_the_queues_and_handlers_of_jobs_that_have_not_ended(store: Store) -> None:
    assert store.kinds() == []
    enqueue(store, job(queue="b"), job(queue="a"), job(queue="a", handler="other", delay=9))
    enqueue(store, job(queue="b"))
    [first, second] = claim(store, request(queue="b", limit=2)).jobs
    settle_one(store, first.receipt)
    assert store.kinds() == sorted({("b", first.handler), ("a", first.handler), ("a", "other")})
    settle_one(store, second.receipt, Verdict.FAIL)
    assert store.kinds() == sorted({("a", first.handler), ("a", "other")})


def test_commits_that_changed_something_are_counted_with_their_batches(
    store: Store, clock: HandClock
) -> None:
    store.commit(Group(enqueue=[job()], worker="ada"))
    started = clock.now
    clock.now += 1
    [taken] = store.commit(Group(claim=[request()], worker="bob")).claim[0].jobs
    clock.now += 1
    store.commit(Group(settle=[Settlement(taken.receipt, Verdict.OK)], worker="bob", batches=1))
    settled = clock.now
    clock.now += 1
    store.commit(Group(enqueue=[job(delay=9)]))
    for worker in ("bob", "idle"):  # these change nothing
        store.commit(Group(claim=[request()], worker=worker))
        store.commit(Group(settle=[Settlement(taken.receipt, Verdict.OK)], worker=worker))
        store.commit(Group(extend=[Extension([taken.receipt], LEASE)], worker=worker))
    assert store.workers() == [
        WorkerRecord("bob", 2, 1, settled),
        WorkerRecord("ada", 1, 0, started),
    ]


def test_a_batch_is_counted_though_all_its_settlements_are_stale(store: Store) -> None:
    store.commit(Group(settle=[Settlement(Receipt(9, 1), Verdict.OK)], worker="ada", batches=2))
    assert [(seen.commits, seen.batches) for seen in store.workers()] == [(1, 2)]


def test_what_reads_may_come_from_any_thread(store: Store) -> None:
    enqueue(store, *(job() for _ in range(200)))
    stop, seen = threading.Event(), list[int]()

    def look() -> None:
        while not stop.is_set():
            seen.append(sum(store.counts()["mail"].values()))
            store.find(JobFilter(status="processing"))
            store.errors()
            store.workers()

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(look) for _ in range(3)]
        try:
            while jobs := claim(store, request(limit=5)).jobs:
                settle(store, *(Settlement(taken.receipt, Verdict.OK) for taken in jobs))
        finally:
            stop.set()
    for reader in readers:
        reader.result()
    assert set(seen) == {200}  # each read is of one moment


def test_what_was_stored_is_found_by_the_next_to_open_it(
    store_kind: StoreKind, tmp_path: Path, clock: HandClock
) -> None:
    """J1."""
    store = store_kind.open(tmp_path, clock)
    if store.info().durability == "memory":
        pytest.skip(f"{store_kind.name} lives as long as its process")
    ids = enqueue(store, *(job() for _ in range(3)))
    settle_one(store, claim_one(store, request(limit=1)), value=b"1")
    claim_one(store, request(limit=1))
    before = store.get(ids), store.counts(), store.workers()
    store.close()
    store.close()
    store = store_kind.open(tmp_path, clock)
    assert (store.get(ids), store.counts(), store.workers()) == before
    assert list(enqueue(store, job())) == [4]
    store.close()
