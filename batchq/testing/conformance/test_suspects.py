"""Jobs that may have killed their workers (J21)."""

from __future__ import annotations

from batchq.core.job import Receipt, Settlement, Verdict
from batchq.core.lifecycle import JobState
from batchq.stores.base import Store
from batchq.testing.conformance.kit import (
    BOOM,
    LEASE,
    HandClock,
    claim,
    claim_ids,
    claim_one,
    enqueue,
    job,
    read,
    request,
    settle,
    settle_one,
)


def crash(store: Store, clock: HandClock, times: int, *, limit: int = 100) -> None:
    """Let whatever is due be claimed, and its lease run out."""
    for _ in range(times):
        claim(store, request(limit=limit))
        clock.now += LEASE


def test_a_job_whose_lease_ran_out_twice_comes_alone(store: Store, clock: HandClock) -> None:
    """J21."""
    enqueue(store, job(), job())
    crash(store, clock, 1)
    twice = claim(store)
    assert [taken.suspect for taken in twice.jobs] == [False, False]
    clock.now += LEASE
    fresh = enqueue(store, job())
    first = claim(store)
    assert [(taken.receipt, taken.suspect) for taken in first.jobs] == [(Receipt(1, 3), True)]
    assert first.wait == 0
    assert read(store, 1).crashes == 2
    second = claim(store)
    assert [(taken.receipt, taken.suspect) for taken in second.jobs] == [(Receipt(2, 3), True)]
    third = claim(store)
    assert [taken.receipt.job_id for taken in third.jobs] == fresh


def test_a_claim_stops_before_a_suspect(store: Store, clock: HandClock) -> None:
    [early] = enqueue(store, job(delay=1))
    [suspect] = enqueue(store, job(priority=3))
    crash(store, clock, 2, limit=100)
    settle_one(store, Receipt(early, 2), Verdict.RELEASE)
    enqueue(store, job(priority=9))
    claimed = claim(store)
    assert [taken.receipt.job_id for taken in claimed.jobs] == [early]
    assert claimed.wait == 0
    assert claim_ids(store) == [suspect]


def test_suspects_are_passed_over_where_they_are_not_wanted(store: Store, clock: HandClock) -> None:
    enqueue(store, job())
    crash(store, clock, 2)
    wish = request(suspect=False)
    assert (claim(store, wish).jobs, claim(store, wish).wait) == ([], None)
    [other] = enqueue(store, job(priority=9))
    enqueue(store, job(delay=4))
    claimed = claim(store, request(suspect=False, limit=2))
    assert [taken.receipt.job_id for taken in claimed.jobs] == [other]
    assert claimed.wait == 4
    assert claim_ids(store) == [1]


def test_a_settlement_clears_a_suspect(store: Store, clock: HandClock) -> None:
    enqueue(store, job(max_attempts=9), job(max_attempts=9))
    crash(store, clock, 2)
    for receipt in [claim_one(store) for _ in range(2)]:
        settle_one(store, receipt, Verdict.RETRY, error=BOOM)
    assert [taken.suspect for taken in claim(store).jobs] == [False, False]


def test_a_poison_job_costs_its_neighbours_two_attempts_at_most(
    store: Store, clock: HandClock
) -> None:
    """J21: whoever claims it dies; the others get through."""
    [poison, *others] = enqueue(store, *(job(max_attempts=4) for _ in range(8)))
    while jobs := claim(store).jobs:
        ids = {taken.receipt.job_id for taken in jobs}
        if poison in ids:
            clock.now += LEASE
            continue
        settle(store, *(Settlement(taken.receipt, Verdict.OK) for taken in jobs))
    assert read(store, poison).reason == "crashed"
    for id_ in others:
        assert (read(store, id_).state, read(store, id_).attempt) == (JobState.COMPLETED, 3)


def test_a_suspect_that_is_used_up_is_buried_like_any_other(store: Store, clock: HandClock) -> None:
    enqueue(store, job(max_attempts=2), job(max_attempts=2))
    crash(store, clock, 2)
    claimed = claim(store, request(suspect=False))
    assert (claimed.jobs, claimed.buried) == ([], 2)
