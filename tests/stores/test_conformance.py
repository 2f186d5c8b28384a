"""What every store must do, rule by rule (J1-J5, J14, J17, J19 of the design).

enqueue ──> claim ──> extend ──> settle      and what people read of it
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchq.core.job import Extended, Extension, Group, Receipt, Settled, Settlement, Verdict
from batchq.core.lifecycle import LEASE_RAN_OUT, MAX_BURIALS, MAX_FAILURES, JobState
from batchq.core.record import JobFilter, WorkerRecord
from batchq.stores.base import Store
from tests.stores.kit import (
    BOOM,
    LEASE,
    HandClock,
    StoreKind,
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

# ---- Enqueue


def test_a_new_job_waits_for_its_first_claim(store: Store, clock: HandClock) -> None:
    [id_] = enqueue(store, job(b'{"to": 1}', priority=7, delay=8, max_attempts=None))
    stored = read(store, id_)
    assert (stored.queue, stored.handler, stored.payload) == ("mail", "send", b'{"to": 1}')
    assert (stored.state, stored.priority) == (JobState.PENDING, 7)
    assert (stored.enqueued_at, stored.due_at) == (clock.now, clock.now + 8)
    assert (stored.attempt, stored.refunds, stored.crashes) == (0, 0, 0)
    assert stored.max_attempts is None
    assert (stored.worker, stored.value, stored.reason) == (None, None, None)
    assert (stored.started_at, stored.finished_at) == (None, None)


@pytest.mark.parametrize("count", [1, 99, 100, 101, 250])
def test_ids_rise_in_order_of_the_group(store: Store, count: int) -> None:
    enqueue(store, job())
    ids = enqueue(store, *(job(b"%d" % number) for number in range(count)))
    assert list(ids) == sorted(set(ids))
    assert len(ids) == count
    assert [read(store, id_).payload for id_ in ids] == [b"%d" % n for n in range(count)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payload=st.binary(max_size=64), value=st.binary(max_size=64))
def test_bytes_come_back_as_they_went_in(store: Store, payload: bytes, value: bytes) -> None:
    """J17: whatever they are; what fits its type is checked above."""
    [id_] = enqueue(store, job(payload))
    [claimed] = claim(store).jobs
    assert claimed.payload == payload
    settle_one(store, claimed.receipt, value=value)
    assert (read(store, id_).payload, read(store, id_).value) == (payload, value)


def test_a_payload_of_a_mebibyte_fits(store: Store) -> None:
    payload = b'"' + b"x" * (2**20 - 2) + b'"'
    [id_] = enqueue(store, job(payload))
    assert read(store, id_).payload == payload


def test_an_error_in_a_group_leaves_nothing_of_it(store: Store) -> None:
    [first] = enqueue(store, job())
    receipt = claim_one(store)
    before = read(store, first)
    nonsense: list[Any] = [{}, "soon"]
    for bad in nonsense:
        with pytest.raises(Exception, match=r".+"):
            store.commit(
                Group(
                    settle=[Settlement(receipt, Verdict.RETRY, error=BOOM)],
                    extend=[Extension([receipt], LEASE)],
                    enqueue=[job(), job(delay=bad)],
                    claim=[request()],
                    worker="ada",
                )
            )
    assert store.get([first, first + 1, first + 2]) == [before, None, None]
    assert store.errors() == []
    assert store.workers() == []
    assert store.counts() == {"mail": {JobState.PROCESSING: 1}}
    assert settle_one(store, receipt) is Settled.APPLIED
    assert list(enqueue(store, job())) == [first + 1]
    assert claim_ids(store) == [first + 1]


def test_a_group_of_nothing_answers_nothing(store: Store) -> None:
    answers = store.commit(Group(worker="ada"))
    assert [len(part) for part in (answers.settle, answers.extend)] == [0, 0]
    assert [len(part) for part in (answers.enqueue, answers.claim)] == [0, 0]


# ---- Claim


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


# ---- Jobs that kill their worker


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


# ---- Extend


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


# ---- Settle


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


# ---- What people read


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


@pytest.mark.parametrize("status", [None, "pending", "failed", "completed"])
def test_pages_neither_skip_nor_repeat(store: Store, status: str | None) -> None:
    """J19: also while other jobs change."""
    enqueue(store, *(job() for _ in range(40)))
    receipts = [taken.receipt for taken in claim(store, request(limit=24)).jobs]
    settle(store, *(Settlement(receipt, Verdict.OK) for receipt in receipts[::2]))
    settle(store, *(Settlement(receipt, Verdict.FAIL) for receipt in receipts[1::2]))
    where = JobFilter(status=status, queue="mail")
    expected = [found.id for found in store.find(where)]
    pages: list[int] = []
    while page := store.find(where, after=pages[-1] if pages else 0, limit=7):
        assert len(page) <= 7
        assert not {found.id for found in page} & set(pages)
        pages += [found.id for found in page]
        enqueue(store, job(queue="other", delay=1))
    assert pages == expected
    assert store.find(where, after=2**70) == []
    assert store.find(where, limit=0) == []


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
    errors: list[BaseException] = []

    def look() -> None:
        try:
            while not stop.is_set():
                seen.append(sum(store.counts()["mail"].values()))
                store.find(JobFilter(status="processing"))
                store.errors()
                store.workers()
        except BaseException as error:
            errors.append(error)
            raise

    readers = [threading.Thread(target=look) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        while jobs := claim(store, request(limit=5)).jobs:
            settle(store, *(Settlement(taken.receipt, Verdict.OK) for taken in jobs))
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert not errors
    assert set(seen) == {200}  # each read is of one moment


def test_what_was_stored_is_found_by_the_next_to_open_it(
    kind: StoreKind, tmp_path: Path, clock: HandClock
) -> None:
    """J1."""
    if not kind.lasting:
        pytest.skip(f"{kind.name} lives as long as its process")
    store = kind.open(tmp_path, clock)
    ids = enqueue(store, *(job() for _ in range(3)))
    settle_one(store, claim_one(store, request(limit=1)), value=b"1")
    claim_one(store, request(limit=1))
    before = store.get(ids), store.counts(), store.workers()
    store.close()
    store.close()
    store = kind.open(tmp_path, clock)
    assert (store.get(ids), store.counts(), store.workers()) == before
    assert list(enqueue(store, job())) == [4]
    store.close()
