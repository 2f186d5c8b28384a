"""Storing jobs, and groups as a whole."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchq.core.job import Extension, Group, Settled, Settlement, Verdict
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
    settle_one,
)


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


def test_jobs_of_many_kinds_in_one_group_keep_their_order(store: Store) -> None:
    new = [
        job(
            b"%d" % number,
            handler=("send", "fetch")[number % 2],
            priority=number % 3,
            max_attempts=(None, 4, 5, 6)[number % 4],
            delay=number / 8,
        )
        for number in range(40)
    ]
    ids = enqueue(store, *new)
    assert list(ids) == sorted(set(ids))
    for id_, one in zip(ids, new, strict=True):
        stored = read(store, id_)
        assert (stored.handler, stored.payload) == (one.handler, one.payload)
        assert (stored.priority, stored.max_attempts) == (one.priority, one.max_attempts)
        assert stored.due_at == stored.enqueued_at + one.delay


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
