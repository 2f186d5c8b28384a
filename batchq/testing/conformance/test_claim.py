"""Claiming: who gets which job, when, in which order."""

from __future__ import annotations

from batchq.core.job import Group, Receipt, Settled
from batchq.core.lifecycle import LEASE_RAN_OUT, MAX_BURIALS, JobState
from batchq.stores.base import Store
from batchq.testing.conformance.kit import (
    LEASE,
    HandClock,
    claim,
    claim_ids,
    claim_one,
    enqueue,
    job,
    read,
    request,
    settle_one,
)


def test_a_claim_gives_the_right_to_settle(store: Store, clock: HandClock) -> None:
    [id_] = enqueue(store, job(b"1", priority=3, max_attempts=9))
    stored_at = clock.now
    clock.now += 2
    [claimed] = claim(store, request(lease=8, worker="bob")).jobs
    assert claimed.receipt == Receipt(id_, 1)
    assert (claimed.handler, claimed.payload, claimed.priority) == ("send", b"1", 3)
    assert (claimed.used, claimed.max_attempts, claimed.enqueued_at) == (1, 9, stored_at)
    held = read(store, id_)
    assert (held.state, held.attempt, held.worker) == (JobState.PROCESSING, 1, "bob")
    assert (held.due_at, held.started_at) == (clock.now + 8, clock.now)


def test_jobs_are_claimed_by_priority_then_due_time_then_id(store: Store, clock: HandClock) -> None:
    """J6."""
    late, low, first, second, urgent = enqueue(
        store,
        job(delay=2),
        job(priority=9),
        job(delay=1),
        job(delay=1),
        job(priority=0, delay=3),
    )
    clock.now += 4
    assert claim_ids(store) == [urgent, first, second, late, low]


def test_handlers_are_merged_into_one_order(store: Store, clock: HandClock) -> None:
    ids = enqueue(
        store,
        job(handler="b", delay=1),
        job(handler="a", delay=2),
        job(handler="b", delay=3),
        job(handler="a", delay=1),
        job(handler="a", priority=0, delay=3),
    )
    clock.now += 4
    wish = request("a", "b", "a", limit=4)  # a name said twice is one
    assert claim_ids(store, wish) == [ids[4], ids[0], ids[3], ids[1]]
    assert claim_ids(store, wish) == [ids[2]]


def test_a_claim_takes_what_it_may_and_no_more(store: Store) -> None:
    ids = enqueue(store, *(job() for _ in range(5)))
    assert claim_ids(store, request(limit=3)) == list(ids[:3])
    assert claim_ids(store, request(limit=3)) == list(ids[3:])


def test_jobs_of_other_queues_and_unknown_handlers_stay_where_they_are(store: Store) -> None:
    other, unknown = enqueue(store, job(queue="other"), job(handler="unknown"))
    assert claim(store).jobs == []
    assert [read(store, id_).state for id_ in (other, unknown)] == [JobState.PENDING] * 2
    assert claim(store, request()).wait is None


def test_nothing_is_claimed_before_it_is_due(store: Store, clock: HandClock) -> None:
    """J14: not an instant early, not an instant late."""
    [id_] = enqueue(store, job(delay=8))
    clock.now += 7.75
    early = claim(store)
    assert (early.jobs, early.wait) == ([], 0.25)
    clock.now += 0.25
    assert claim_ids(store) == [id_]


def test_a_held_job_is_claimed_again_as_soon_as_its_lease_ran_out(
    store: Store, clock: HandClock
) -> None:
    [id_] = enqueue(store, job())
    first = claim_one(store, request(worker="ada"))
    clock.now += LEASE - 0.25
    assert claim(store).jobs == []
    clock.now += 0.25
    second = claim_one(store, request(worker="bob"))
    assert (first, second) == (Receipt(id_, 1), Receipt(id_, 2))
    assert (read(store, id_).crashes, read(store, id_).worker) == (1, "bob")
    [failure] = store.errors(id_)
    assert (failure.attempt, failure.worker, failure.at) == (1, "ada", clock.now)
    assert (failure.line.kind, failure.line.message) == ("text", LEASE_RAN_OUT)


def test_no_job_is_claimed_twice_by_one_group(store: Store) -> None:
    """J2."""
    enqueue(store, *(job() for _ in range(3)))
    answers = store.commit(Group(claim=[request(limit=2), request(limit=2), request(limit=2)]))
    receipts = [claimed.receipt for part in answers.claim for claimed in part.jobs]
    assert receipts == [Receipt(1, 1), Receipt(2, 1), Receipt(3, 1)]


def test_wait_is_the_time_until_the_next_job_of_these_handlers(
    store: Store, clock: HandClock
) -> None:
    enqueue(store, job(delay=64), job(priority=9, delay=16), job(handler="other", delay=1))
    assert claim(store).wait == 16
    enqueue(store, job(), job())
    assert claim(store, request(limit=2)).wait == 0  # full: there may be more
    assert claim(store, request(lease=8)).wait == 16
    enqueue(store, job())
    assert claim(store, request(lease=8)).wait == 8  # what was just claimed comes back then
    clock.now += 4
    assert claim(store).wait == 4


def test_a_job_that_always_crashes_fails_after_its_last_attempt(
    store: Store, clock: HandClock
) -> None:
    """J5: the attempt is counted at the claim, so no settle is needed to end it."""
    [id_] = enqueue(store, job(max_attempts=3))
    receipts = []
    for _ in range(3):
        receipts.append(claim_one(store))
        clock.now += LEASE
    claimed = claim(store)
    assert claimed.jobs == []
    assert receipts == [Receipt(id_, attempt) for attempt in (1, 2, 3)]
    assert claimed.buried == 1
    buried = read(store, id_)
    assert (buried.state, buried.reason, buried.due_at) == (JobState.FAILED, "crashed", None)
    assert (buried.attempt, buried.refunds, buried.used) == (4, 1, 3)
    assert buried.finished_at == clock.now
    assert [failure.attempt for failure in store.errors(id_)] == [3, 2, 1]
    assert settle_one(store, receipts[-1]) is Settled.STALE
    assert claim(store).wait is None


def test_burials_are_not_counted_against_the_limit(store: Store, clock: HandClock) -> None:
    enqueue(store, *(job(max_attempts=1) for _ in range(5)))
    claim(store)
    clock.now += LEASE
    fresh = enqueue(store, job(), job())
    claimed = claim(store, request(limit=1))
    assert claimed.buried == 5
    assert [taken.receipt.job_id for taken in claimed.jobs] == [fresh[0]]
    assert store.counts() == {
        "mail": {JobState.FAILED: 5, JobState.PROCESSING: 1, JobState.PENDING: 1}
    }


def test_a_claim_buries_a_thousand_and_says_that_there_may_be_more(
    store: Store, clock: HandClock
) -> None:
    enqueue(store, *(job(max_attempts=1) for _ in range(MAX_BURIALS + 1)))
    claim(store, request(limit=MAX_BURIALS + 1))
    clock.now += LEASE
    [alive] = enqueue(store, job())
    first, second = claim(store), claim(store)
    assert (first.buried, first.jobs, first.wait) == (MAX_BURIALS, [], 0)
    assert (second.buried, [taken.receipt.job_id for taken in second.jobs]) == (1, [alive])
