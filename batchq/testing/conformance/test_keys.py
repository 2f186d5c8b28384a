"""Keys: at most one job of a handler holds one at a time (J9)."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from batchq.core.job import Group, JobKey, KeyScope, NewJob, Verdict
from batchq.core.lifecycle import JobState
from batchq.core.record import JobFilter, Ordered
from batchq.stores.base import Store
from batchq.testing.conformance.kit import (
    BOOM,
    HandClock,
    claim,
    claim_one,
    enqueue,
    finish,
    job,
    read,
    request,
    settle_one,
)


def keyed(
    text: str = "42",
    scope: KeyScope = KeyScope.LIVE,
    *,
    payload: bytes = b"null",
    handler: str = "send",
    lasts: float | None = None,
    replace: bool = False,
    delay: float = 0.0,
) -> NewJob:
    return job(payload, handler=handler, key=JobKey(text, scope, lasts, replace), delay=delay)


def stored(store: Store, *jobs: NewJob) -> list[tuple[int, bool]]:
    answers = store.commit(Group(enqueue=jobs)).enqueue
    return [(answer.id, answer.fresh) for answer in answers]


def test_a_key_is_held_by_one_job_of_a_handler_until_it_ends(store: Store) -> None:
    """J9: while it waits, while it is processing, while it waits for another attempt."""
    assert stored(store, keyed(), keyed(payload=b"2")) == [(1, True), (1, False)]
    assert stored(store, keyed("43"), keyed(handler="other")) == [(2, True), (3, True)]
    receipt = claim_one(store, request(limit=1))
    assert stored(store, keyed()) == [(1, False)]
    settle_one(store, receipt, Verdict.RETRY, error=BOOM)
    assert stored(store, keyed()) == [(1, False)]
    assert read(store, 1).payload == b"null"
    settle_one(store, claim_one(store, request(limit=1)))
    assert stored(store, keyed()) == [(4, True)]
    assert not read(store, 1).holds_key
    assert read(store, 1).key == "42"


@pytest.mark.parametrize("verdict", [Verdict.OK, Verdict.FAIL, Verdict.CANCEL])
@pytest.mark.parametrize("scope", [KeyScope.WAITING, KeyScope.LIVE, KeyScope.KEPT])
def test_a_key_is_held_as_long_as_its_scope(
    store: Store, scope: KeyScope, verdict: Verdict
) -> None:
    stored(store, keyed(scope=scope))
    receipt = claim_one(store)
    assert read(store, 1).holds_key == (scope is not KeyScope.WAITING)
    settle_one(store, receipt, verdict)
    assert read(store, 1).holds_key == (scope is KeyScope.KEPT)
    assert stored(store, keyed(scope=scope))[0][1] == (scope is not KeyScope.KEPT)
    assert store.delete([1]) == [Ordered.DONE]
    assert stored(store, keyed("42", scope=KeyScope.LIVE))[0][1] == (scope is KeyScope.KEPT)


def test_a_key_is_held_for_a_time(store: Store, clock: HandClock) -> None:
    stored(store, keyed(scope=KeyScope.TIME, lasts=8.0))
    finish(store)
    clock.now += 7.75
    assert stored(store, keyed(scope=KeyScope.TIME, lasts=8.0)) == [(1, False)]
    assert store.delete([1]) == [Ordered.REFUSED]
    clock.now += 0.25
    assert stored(store, keyed(), keyed()) == [(2, True), (2, False)]
    assert not read(store, 1).holds_key


def test_a_job_that_waits_takes_the_payload_and_the_time_of_the_next(
    store: Store, clock: HandClock
) -> None:
    """As a debounce does; one that has begun is left alone."""

    def wish(payload: bytes) -> NewJob:
        return keyed(payload=payload, scope=KeyScope.WAITING, replace=True, delay=8.0)

    assert stored(store, wish(b"1"), wish(b"2")) == [(1, True), (1, False)]
    assert (read(store, 1).payload, read(store, 1).due_at) == (b"2", clock.now + 8)
    clock.now += 4
    assert stored(store, wish(b"3")) == [(1, False)]
    assert (read(store, 1).payload, read(store, 1).due_at) == (b"3", clock.now + 8)
    clock.now += 8
    claim_one(store)
    assert stored(store, wish(b"4")) == [(2, True)]
    assert read(store, 1).payload == b"3"


def test_only_a_key_that_is_held_while_waiting_lets_its_job_be_replaced(store: Store) -> None:
    stored(store, keyed())
    again = keyed(payload=b"2", scope=KeyScope.WAITING, replace=True)
    assert stored(store, again) == [(1, False)]
    assert read(store, 1).payload == b"null"


def test_each_handler_has_keys_of_its_own(store: Store) -> None:
    wishes = keyed(), keyed(handler="other"), keyed(), keyed(handler="other")
    assert stored(store, *wishes) == [(1, True), (2, True), (1, False), (2, False)]


def test_a_conflict_is_an_answer_and_spoils_no_neighbour(store: Store) -> None:
    """J4."""
    stored(store, keyed("1"))
    wishes = [job(b"a"), keyed("1"), keyed("2"), keyed("2"), job(b"b", tags=("x",))]
    assert stored(store, *wishes) == [
        (2, True),
        (1, False),
        (3, True),
        (3, False),
        (4, True),
    ]
    assert store.counts() == {"mail": {JobState.PENDING: 4}}


def test_a_cancelled_or_expired_job_gives_its_key_back(store: Store, clock: HandClock) -> None:
    stored(store, keyed("1"), job(key=JobKey("2"), expires=4.0))
    store.cancel([1])
    clock.now += 4
    assert claim(store).buried == 1
    assert [fresh for _, fresh in stored(store, keyed("1"), keyed("2"))] == [True, True]


def test_a_retry_takes_the_key_again_or_is_told_that_it_is_held(store: Store) -> None:
    """J9: in bulk, too, it never raises, and never makes two of one key."""
    for _ in range(3):
        stored(store, keyed())
        finish(store, Verdict.FAIL)
    enqueue(store, job())
    finish(store, Verdict.FAIL)
    done, conflict = Ordered.DONE, Ordered.CONFLICT
    assert list(store.retry([2, 1, 3, 4, 2]).answers) == [done, conflict, conflict, done, done]
    assert read(store, 2).holds_key
    assert stored(store, keyed()) == [(2, False)]
    store.cancel([2])
    stored(store, keyed())
    changed = store.retry(JobFilter(status="failed"))
    assert (list(changed.ids), list(changed.answers)) == ([1, 3], [conflict, conflict])


def test_who_waits_without_its_key_is_hastened_though_another_holds_it(store: Store) -> None:
    stored(store, keyed(scope=KeyScope.WAITING))
    receipt = claim_one(store)
    stored(store, keyed(scope=KeyScope.WAITING))
    settle_one(store, receipt, Verdict.SNOOZE, delay=60.0)
    assert list(store.retry([1]).answers) == [Ordered.DONE]
    assert (read(store, 1).holds_key, read(store, 2).holds_key) == (False, True)
    assert [each.receipt.job_id for each in claim(store).jobs] == [1, 2]


def test_a_key_whose_time_is_over_does_not_stand_in_the_way_of_a_retry(
    store: Store, clock: HandClock
) -> None:
    stored(store, keyed())
    finish(store)
    stored(store, keyed(scope=KeyScope.TIME, lasts=4.0))
    assert list(store.retry([1]).answers) == [Ordered.CONFLICT]
    clock.now += 4
    assert list(store.retry([1]).answers) == [Ordered.DONE]
    assert (read(store, 1).holds_key, read(store, 2).holds_key) == (True, False)


def test_of_many_producers_at_once_one_stores_the_job(store: Store) -> None:
    """J9: its neighbours in the same group are stored, whoever comes first."""

    def produce(number: int) -> list[tuple[int, bool]]:
        return stored(store, keyed("same"), job(b"%d" % number), keyed(str(number % 2)))

    lock = threading.Lock()  # as the ledger's: one commit at a time in a process

    def produce_alone(number: int) -> list[tuple[int, bool]]:
        with lock:
            return produce(number)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(produce_alone, range(16)))
    assert sum(fresh for answer in answers for _, fresh in answer) == 1 + 16 + 2
    assert len({answer[0][0] for answer in answers}) == 1


def test_jobs_are_found_by_their_key_and_by_their_tags(store: Store) -> None:
    enqueue(
        store,
        job(key=JobKey("a"), tags=("red", "big")),
        job(key=JobKey("b"), tags=("red",)),
        job(),
    )
    assert read(store, 1).tags == ("red", "big")
    assert [found.id for found in store.find(JobFilter(key="b"))] == [2]
    assert [found.id for found in store.find(JobFilter(tag="red"))] == [1, 2]
    assert [found.id for found in store.find(JobFilter(tag="big", key="a"))] == [1]
    finish(store)
    assert [found.id for found in store.find(JobFilter(key="a", status="completed"))] == [1]
    assert [found.id for found in store.find(JobFilter(tag="red", status="pending"))] == [2]
