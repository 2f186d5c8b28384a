"""What happened, by queue and minute; and what there is, by queue and state."""

from __future__ import annotations

from batchq.core.job import Receipt, Settlement, Verdict
from batchq.core.lifecycle import JobState
from batchq.core.record import Tally
from batchq.stores.base import Store
from batchq.testing.conformance.kit import (
    LEASE,
    HandClock,
    claim,
    claim_one,
    enqueue,
    job,
    request,
    settle,
    settle_one,
)


def test_each_event_is_tallied_in_its_minute(store: Store, clock: HandClock) -> None:
    minute = clock.now // 60 * 60
    enqueue(store, *(job(max_attempts=2) for _ in range(6)), job(queue="other", delay=4))
    clock.now += 2
    receipts = [taken.receipt for taken in claim(store, request(limit=5)).jobs]
    clock.now += 4
    settle(
        store,
        Settlement(receipts[0], Verdict.OK),
        Settlement(receipts[1], Verdict.FAIL),
        Settlement(receipts[2], Verdict.RETRY, delay=512),
        Settlement(receipts[3], Verdict.SNOOZE, delay=512),
        Settlement(receipts[3], Verdict.OK),
    )
    store.cancel([6])
    mail, other = store.tally(0)
    assert mail == Tally(
        queue="mail",
        minute=minute,
        enqueued=6,
        claimed=5,
        settled=4,
        completed=1,
        failed=1,
        cancelled=1,
        retried=1,
        waited=10.0,
        ran=16.0,
    )
    assert other == Tally(queue="other", minute=minute, enqueued=1)
    clock.now += 64
    claim_one(store)
    later = store.tally(minute + 60)
    assert later == [
        Tally(queue="mail", minute=(clock.now // 60) * 60, claimed=1, crashed=1, waited=38.0)
    ]


def test_burials_and_revivals_are_counted(store: Store, clock: HandClock) -> None:
    enqueue(store, job(max_attempts=1), job(expires=1.0), job(max_attempts=1))
    claim(store, request(limit=1))
    clock.now += LEASE
    assert claim(store).buried == 2
    assert store.counts()["mail"] == {JobState.FAILED: 2, JobState.PROCESSING: 1}
    [tally] = store.tally(0)
    assert (tally.failed, tally.crashed, tally.claimed) == (2, 1, 2)
    store.retry([1, 2])
    assert store.counts()["mail"] == {JobState.PENDING: 2, JobState.PROCESSING: 1}
    store.cancel([1])
    store.delete([1])
    assert store.counts()["mail"] == {JobState.PENDING: 1, JobState.PROCESSING: 1}


def test_old_tallies_go_with_a_clean(store: Store, clock: HandClock) -> None:
    enqueue(store, job())
    clock.now += 6 * 86_400
    store.clean({})
    assert len(store.tally(0)) == 1
    clock.now += 2 * 86_400
    store.clean({})
    assert store.tally(0) == []


def test_what_does_nothing_is_not_tallied(store: Store) -> None:
    claim(store)
    settle_one(store, Receipt(1, 1))
    store.cancel([1])
    store.retry([1])
    assert (store.tally(0), store.counts()) == ([], {})
