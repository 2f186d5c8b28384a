"""What people delete, and what is cleaned away in time (J15)."""

from __future__ import annotations

from batchq.core.job import JobKey, KeyScope, Settled, Verdict
from batchq.core.lifecycle import JobState
from batchq.core.record import JobFilter, Ordered
from batchq.stores.base import Store
from batchq.testing.conformance.kit import (
    BOOM,
    HandClock,
    claim_one,
    enqueue,
    finish,
    job,
    request,
    settle_one,
)

DONE, REFUSED, UNKNOWN = Ordered.DONE, Ordered.REFUSED, Ordered.UNKNOWN


def test_only_what_ended_is_deleted_with_its_failures(store: Store) -> None:
    """J15."""
    enqueue(store, job(), job(), job())
    settle_one(store, claim_one(store, request(limit=1)), Verdict.FAIL, error=BOOM)
    claim_one(store, request(limit=1))
    assert list(store.delete([1, 2, 3, 99, 1])) == [DONE, REFUSED, REFUSED, UNKNOWN, UNKNOWN]
    assert store.get([1]) == [None]
    assert store.errors() == []
    assert store.counts() == {"mail": {JobState.PENDING: 1, JobState.PROCESSING: 1}}
    assert enqueue(store, job()) == [4]


def test_the_number_of_a_deleted_job_is_never_used_again(store: Store) -> None:
    enqueue(store, job())
    receipt = claim_one(store)
    settle_one(store, receipt)
    store.delete([1])
    assert enqueue(store, job()) == [2]
    assert settle_one(store, receipt) is Settled.STALE


def test_a_clean_takes_what_ended_long_enough_ago(store: Store, clock: HandClock) -> None:
    """J15."""
    enqueue(store, *(job() for _ in range(6)))
    for verdict in (Verdict.OK, Verdict.FAIL, Verdict.CANCEL):
        finish(store, verdict)
    claim_one(store, request(limit=1))
    clock.now += 8
    finish(store)
    clock.now += 8
    retention = {JobState.COMPLETED: 16.0, JobState.FAILED: 24.0}
    cleaned = store.clean(retention)
    assert (cleaned.deleted, cleaned.next) == (1, None)
    assert [found.id for found in store.find(JobFilter())] == [2, 3, 4, 5, 6]
    clock.now += 8
    assert store.clean(retention).deleted == 2
    assert [found.id for found in store.find(JobFilter())] == [3, 4, 6]
    assert store.clean(retention).deleted == 0
    assert store.clean({JobState.CANCELLED: 0.0}, queue="other").deleted == 0
    assert store.clean({JobState.CANCELLED: 0.0}, queue="mail").deleted == 1
    assert store.counts() == {"mail": {JobState.PENDING: 1, JobState.PROCESSING: 1}}


def test_a_clean_walks_in_chunks_and_stops_at_the_first_young_job(
    store: Store, clock: HandClock
) -> None:
    enqueue(store, *(job() for _ in range(10)))
    for _ in range(10):
        finish(store)
    clock.now += 16
    enqueue(store, *(job() for _ in range(3)))
    for _ in range(3):
        finish(store)
    retention = {JobState.COMPLETED: 16.0}
    steps = [store.clean(retention, limit=4)]
    while (after := steps[-1].next) is not None:
        steps.append(store.clean(retention, after=after, limit=4))
    assert [(step.deleted, step.next) for step in steps] == [(4, 4), (4, 8), (2, None)]
    assert [found.id for found in store.find(JobFilter())] == [11, 12, 13]


def test_a_clean_leaves_a_key_that_is_held_for_a_time(store: Store, clock: HandClock) -> None:
    enqueue(store, job(key=JobKey("k", KeyScope.TIME, 64.0)), job(key=JobKey("l", KeyScope.KEPT)))
    finish(store)
    finish(store)
    clock.now += 32
    assert store.clean({JobState.COMPLETED: 8.0}).deleted == 1
    clock.now += 32
    assert store.clean({JobState.COMPLETED: 8.0}).deleted == 1
