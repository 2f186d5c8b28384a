"""What people order of jobs: cancel and retry."""

from __future__ import annotations

import pytest

from batchq.core.job import Extended, Receipt, Settled, Verdict
from batchq.core.lifecycle import JobState
from batchq.core.record import JobFilter, Ordered
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
    finish,
    job,
    read,
    request,
    settle_one,
)

DONE, ASKED, REFUSED = Ordered.DONE, Ordered.ASKED, Ordered.REFUSED
UNKNOWN = Ordered.UNKNOWN

# ---- Cancel


def test_what_waits_is_cancelled_at_once_and_what_runs_is_asked(
    store: Store, clock: HandClock
) -> None:
    enqueue(store, job(), job(), job(delay=60), job())
    receipt = claim_one(store, request(limit=1))
    finish(store)
    clock.now += 1
    answers = store.cancel([1, 2, 3, 4, 4, 99], "spring").answers
    assert list(answers) == [ASKED, REFUSED, DONE, DONE, REFUSED, UNKNOWN]
    ended = read(store, 4)
    assert (ended.state, ended.reason, ended.due_at) == (JobState.CANCELLED, "spring", None)
    assert ended.finished_at == clock.now
    assert (read(store, 1).state, read(store, 1).cancel) == (JobState.PROCESSING, "spring")
    assert claim(store).jobs == []
    assert list(extend(store, receipt)) == [Extended.CANCEL]
    assert read(store, 1).due_at == clock.now + LEASE


@pytest.mark.parametrize("verdict", list(Verdict))
def test_what_was_asked_to_stop_never_waits_again(store: Store, verdict: Verdict) -> None:
    """J13: what it is settled as, it ends; completed and failed are what they are."""
    enqueue(store, job())
    receipt = claim_one(store)
    store.cancel([1], "late")
    assert settle_one(store, receipt, verdict, error=BOOM, reason=None) is Settled.APPLIED
    ended = read(store, 1)
    expected = {Verdict.OK: JobState.COMPLETED, Verdict.FAIL: JobState.FAILED}
    assert ended.state is expected.get(verdict, JobState.CANCELLED)
    assert ended.reason == (None if verdict in expected else "late")
    assert store.counts() == {"mail": {ended.state: 1}}
    assert claim(store).jobs == []


@pytest.mark.parametrize("verdict", [Verdict.OK, Verdict.RETRY])
def test_what_runs_again_is_not_asked_to_stop_any_more(
    store: Store, clock: HandClock, verdict: Verdict
) -> None:
    """T14: the flag goes, so neither a settlement nor a lost lease ends it."""
    enqueue(store, job())
    receipt = claim_one(store)
    store.cancel([1], "late")
    settle_one(store, receipt, verdict, error=BOOM, reason=None)
    assert list(store.retry([1]).answers) == [DONE]
    assert read(store, 1).cancel is None
    assert list(extend(store, claim_one(store))) == [Extended.OK]
    clock.now += LEASE
    assert claim_ids(store) == [1]


def test_what_was_asked_to_stop_and_lost_its_worker_is_cancelled_by_the_next_claim(
    store: Store, clock: HandClock
) -> None:
    """J13: also if its attempts are used up."""
    enqueue(store, job(max_attempts=1), job())
    receipts = [taken.receipt for taken in claim(store).jobs]
    store.cancel([1, 2], "late")
    clock.now += LEASE
    claimed = claim(store)
    assert (claimed.jobs, claimed.buried) == ([], 2)
    for id_ in (1, 2):
        ended = read(store, id_)
        assert (ended.state, ended.reason) == (JobState.CANCELLED, "late")
        assert (ended.attempt, ended.refunds) == (2, 1)
        assert [failure.attempt for failure in store.errors(id_)] == [1]
    assert settle_one(store, receipts[0]) is Settled.STALE


def test_a_filter_is_worked_off_in_chunks(store: Store) -> None:
    enqueue(store, *(job(queue="mail" if number % 2 else "other") for number in range(10)))
    where = JobFilter(queue="mail")
    seen: list[int] = []
    after: int | None = 0
    while after is not None:
        changed = store.cancel(where, after=after, limit=2)
        assert len(changed.ids) == len(changed.answers) <= 2
        assert set(changed.answers) <= {DONE}
        seen += changed.ids
        after = changed.next
    assert seen == [2, 4, 6, 8, 10]
    assert store.counts() == {
        "mail": {JobState.CANCELLED: 5},
        "other": {JobState.PENDING: 5},
    }


def test_an_unknown_status_means_no_job(store: Store) -> None:
    enqueue(store, job(), job())
    settle_one(store, claim_one(store, request(limit=1)), Verdict.FAIL, error=BOOM)
    nothing = JobFilter(status="no such status")
    assert store.find(nothing) == []
    assert store.errors(where=nothing) == []
    for changed in (store.cancel(nothing), store.retry(nothing)):
        assert (changed.ids, changed.answers, changed.next) == ([], [], None)
    assert store.counts() == {"mail": {JobState.PENDING: 1, JobState.FAILED: 1}}


def test_a_settlement_may_say_cancelled(store: Store) -> None:
    enqueue(store, job(), job())
    first, second = (taken.receipt for taken in claim(store).jobs)
    settle_one(store, first, Verdict.CANCEL, reason="parent")
    settle_one(store, second, Verdict.CANCEL)
    assert [read(store, id_).reason for id_ in (1, 2)] == ["parent", "user"]
    assert store.counts() == {"mail": {JobState.CANCELLED: 2}}


# ---- Retry


@pytest.mark.parametrize("verdict", [Verdict.OK, Verdict.FAIL, Verdict.CANCEL])
def test_what_ended_runs_again_with_all_its_attempts(
    store: Store, clock: HandClock, verdict: Verdict
) -> None:
    enqueue(store, job(max_attempts=2))
    settle_one(store, claim_one(store), Verdict.RETRY, error=BOOM)
    old = claim_one(store)
    settle_one(store, old, verdict, error=BOOM, value=b"1")
    clock.now += 8
    assert list(store.retry([1]).answers) == [DONE]
    waiting = read(store, 1)
    assert (waiting.state, waiting.due_at) == (JobState.PENDING, clock.now)
    assert (waiting.attempt, waiting.refunds, waiting.crashes) == (2, 2, 0)
    assert (waiting.value, waiting.reason, waiting.finished_at) == (None, None, None)
    assert len(store.errors(1)) == 1 + (verdict is Verdict.FAIL)
    assert store.counts() == {"mail": {JobState.PENDING: 1}}
    assert settle_one(store, old) is Settled.RECORDED
    assert claim_one(store) == Receipt(1, 3)


def test_what_waits_is_hastened_and_what_runs_is_refused(store: Store, clock: HandClock) -> None:
    enqueue(store, job(), job(delay=60), job())
    claim_one(store, request(limit=1))
    clock.now += 1
    assert list(store.retry([1, 2, 3, 99]).answers) == [REFUSED, DONE, DONE, UNKNOWN]
    assert (read(store, 2).due_at, read(store, 3).due_at) == (clock.now, clock.now - 1)


def test_an_expired_job_that_is_retried_does_not_expire_again(
    store: Store, clock: HandClock
) -> None:
    enqueue(store, job(expires=4.0))
    clock.now += 4
    claimed = claim(store)
    assert (claimed.jobs, claimed.buried) == ([], 1)
    assert read(store, 1).reason == "expired"
    assert store.errors(1) == []
    store.retry([1])
    assert claim_ids(store) == [1]


def test_a_job_expires_only_if_it_never_ran(store: Store, clock: HandClock) -> None:
    enqueue(store, job(expires=4.0), job(expires=4.0), job(expires=4.25))
    first, second = (taken.receipt for taken in claim(store, request(limit=2)).jobs)
    settle_one(store, first, Verdict.RETRY, error=BOOM)
    settle_one(store, second, Verdict.RELEASE)
    clock.now += 4
    claimed = claim(store)
    assert [taken.receipt.job_id for taken in claimed.jobs] == [1, 3]
    assert (claimed.buried, read(store, 2).reason) == (1, "expired")
