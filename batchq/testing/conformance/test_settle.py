"""Holding and settling what was claimed."""

from __future__ import annotations

import pytest

from batchq.core.job import Extended, Extension, Group, Receipt, Settled, Settlement, Verdict
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
    extend,
    job,
    read,
    request,
    settle,
    settle_one,
)


def test_a_held_job_is_kept_for_another_lease_from_now(store: Store, clock: HandClock) -> None:
    [id_] = enqueue(store, job())
    receipt = claim_one(store)
    clock.now += 20
    assert list(extend(store, receipt, lease=16)) == [Extended.OK]
    assert read(store, id_).due_at == clock.now + 16


def test_each_receipt_of_an_extension_is_answered_by_itself(store: Store, clock: HandClock) -> None:
    """J4."""
    lost, held, done = enqueue(store, job(), job(), job())
    receipts = [taken.receipt for taken in claim(store).jobs]
    settle_one(store, receipts[2])
    clock.now += LEASE
    claim_ids(store, request(limit=1))
    before = [read(store, lost), read(store, done)]
    answers = extend(store, receipts[1], *receipts, Receipt(99, 1), Receipt(held, 2), lease=8)
    assert list(answers) == [
        Extended.OK,
        Extended.STALE,
        Extended.OK,
        Extended.STALE,
        Extended.STALE,
        Extended.STALE,
    ]
    assert [read(store, lost), read(store, done)] == before
    assert read(store, held).due_at == clock.now + 8


def test_a_lease_that_ran_out_is_kept_before_it_can_be_claimed(
    store: Store, clock: HandClock
) -> None:
    enqueue(store, job())
    receipt = claim_one(store)
    clock.now += LEASE
    answers = store.commit(Group(extend=[Extension([receipt], LEASE)], claim=[request()]))
    assert list(answers.extend[0]) == [Extended.OK]
    assert answers.claim[0].jobs == []


def test_a_completed_job_keeps_its_value(store: Store, clock: HandClock) -> None:
    [id_] = enqueue(store, job())
    receipt = claim_one(store)
    clock.now += 1
    assert settle_one(store, receipt, value=b'{"sent":true}') is Settled.APPLIED
    done = read(store, id_)
    assert (done.state, done.value, done.reason) == (JobState.COMPLETED, b'{"sent":true}', None)
    assert (done.due_at, done.finished_at, done.attempt) == (None, clock.now, 1)
    assert store.errors(id_) == []


def test_a_retried_job_spends_an_attempt_and_comes_again_after_its_delay(
    store: Store, clock: HandClock
) -> None:
    [id_] = enqueue(store, job())
    receipt = claim_one(store, request(worker="bob"))
    assert settle_one(store, receipt, Verdict.RETRY, error=BOOM, delay=8) is Settled.APPLIED
    waiting = read(store, id_)
    assert (waiting.state, waiting.due_at) == (JobState.PENDING, clock.now + 8)
    assert (waiting.attempt, waiting.refunds, waiting.used) == (1, 0, 1)
    [failure] = store.errors(id_)
    assert (failure.attempt, failure.line, failure.worker) == (1, BOOM, "bob")
    clock.now += 8
    assert claim_one(store) == Receipt(id_, 2)


def test_a_retry_without_attempts_left_fails_as_exhausted(store: Store) -> None:
    [id_] = enqueue(store, job(max_attempts=2))
    for _ in range(2):
        settle_one(store, claim_one(store), Verdict.RETRY, error=BOOM, reason="ignored")
    ended = read(store, id_)
    assert (ended.state, ended.reason, ended.used) == (JobState.FAILED, "exhausted", 2)
    assert len(store.errors(id_)) == 2


def test_a_job_without_a_limit_is_retried_for_ever(store: Store) -> None:
    [id_] = enqueue(store, job(max_attempts=None))
    for _ in range(30):
        settle_one(store, claim_one(store), Verdict.RETRY, error=BOOM)
    assert read(store, id_).state is JobState.PENDING


def test_a_failed_job_keeps_its_reason_and_its_error(store: Store) -> None:
    [id_] = enqueue(store, job())
    settle_one(store, claim_one(store), Verdict.FAIL, error=BOOM, reason="discarded")
    ended = read(store, id_)
    assert (ended.state, ended.reason, ended.due_at) == (JobState.FAILED, "discarded", None)
    assert [failure.line for failure in store.errors(id_)] == [BOOM]


def test_a_snoozed_job_gets_its_attempt_back(store: Store, clock: HandClock) -> None:
    [id_] = enqueue(store, job(max_attempts=1))
    for attempt in (1, 2, 3):
        receipt = claim_one(store)
        assert receipt == Receipt(id_, attempt)
        settle_one(store, receipt, Verdict.SNOOZE, delay=8)
        assert read(store, id_).due_at == clock.now + 8
        assert (read(store, id_).refunds, read(store, id_).used) == (attempt, 0)
        clock.now += 8
    assert store.errors(id_) == []


def test_a_released_job_is_first_in_line_again(store: Store, clock: HandClock) -> None:
    [old] = enqueue(store, job())
    clock.now += 1
    receipt = claim_one(store)
    [young] = enqueue(store, job())
    clock.now += 1
    settle_one(store, receipt, Verdict.RELEASE)
    released = read(store, old)
    assert (released.due_at, released.refunds) == (released.enqueued_at, 1)
    assert claim_ids(store) == [old, young]


def test_a_settle_ends_a_row_of_crashes(store: Store, clock: HandClock) -> None:
    [id_] = enqueue(store, job())
    claim(store)
    clock.now += LEASE
    receipt = claim_one(store)
    assert read(store, id_).crashes == 1
    settle_one(store, receipt, Verdict.SNOOZE)
    assert read(store, id_).crashes == 0


def test_a_lease_that_ran_out_but_was_not_taken_still_settles(
    store: Store, clock: HandClock
) -> None:
    [id_] = enqueue(store, job())
    receipt = claim_one(store)
    clock.now += 2 * LEASE
    assert settle_one(store, receipt) is Settled.APPLIED
    assert read(store, id_).state is JobState.COMPLETED


@pytest.mark.parametrize("first", list(Verdict))
@pytest.mark.parametrize("second", list(Verdict))
def test_a_receipt_settles_once(store: Store, first: Verdict, second: Verdict) -> None:
    """J3: again, in the same group or later, it is told so and changes nothing."""
    [id_] = enqueue(store, job())
    receipt = claim_one(store)
    answers = settle(
        store, Settlement(receipt, first, error=BOOM), Settlement(receipt, second, error=BOOM)
    )
    assert list(answers) == [Settled.APPLIED, Settled.RECORDED]
    before, failures = read(store, id_), store.errors(id_)
    assert settle_one(store, receipt, second, error=BOOM, value=b"2") is Settled.RECORDED
    assert (read(store, id_), store.errors(id_)) == (before, failures)


@pytest.mark.parametrize("verdict", list(Verdict))
def test_a_stale_receipt_changes_nothing(store: Store, clock: HandClock, verdict: Verdict) -> None:
    """J3: neither while another holds the job, nor when that one has settled it."""
    [id_] = enqueue(store, job())
    stale = claim_one(store)
    clock.now += LEASE
    current = claim_one(store)
    for receipt in (stale, Receipt(id_, 7), Receipt(id_ + 1, 1)):
        before = read(store, id_)
        assert settle_one(store, receipt, verdict, error=BOOM) is Settled.STALE
        assert read(store, id_) == before
    assert settle_one(store, current) is Settled.APPLIED
    before = read(store, id_)
    assert settle_one(store, stale, verdict, error=BOOM) is Settled.STALE
    assert read(store, id_) == before
    assert len(store.errors(id_)) == 1  # of the lease that ran out


def test_each_settlement_is_answered_by_itself(store: Store, clock: HandClock) -> None:
    """J4: what is stale or repeated does not touch its neighbours."""
    enqueue(store, *(job() for _ in range(3)))
    receipts = [taken.receipt for taken in claim(store).jobs]
    clock.now += LEASE
    claim_ids(store, request(limit=1))
    wishes = [
        Settlement(receipts[0], Verdict.OK),
        Settlement(receipts[1], Verdict.OK, value=b"1"),
        Settlement(Receipt(99, 1), Verdict.OK),
        Settlement(receipts[2], Verdict.FAIL, error=BOOM),
        Settlement(receipts[1], Verdict.FAIL, error=BOOM),
    ]
    applied, recorded, stale = Settled.APPLIED, Settled.RECORDED, Settled.STALE
    assert list(settle(store, *wishes)) == [stale, applied, stale, applied, recorded]
    assert store.counts() == {
        "mail": {JobState.PROCESSING: 1, JobState.COMPLETED: 1, JobState.FAILED: 1}
    }


def test_members_of_a_group_see_each_other(store: Store) -> None:
    """Settle, extend, enqueue, claim, in this order."""
    enqueue(store, job())
    receipt = claim_one(store)
    answers = store.commit(
        Group(
            settle=[Settlement(receipt, Verdict.RELEASE)],
            extend=[Extension([receipt], LEASE)],
            enqueue=[job(priority=0)],
            claim=[request()],
        )
    )
    assert list(answers.settle) == [Settled.APPLIED]
    assert list(answers.extend[0]) == [Extended.STALE]
    assert [taken.receipt for taken in answers.claim[0].jobs] == [Receipt(2, 1), Receipt(1, 2)]
