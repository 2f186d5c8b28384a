"""The table of a job's life, row by row: what it allows happens, nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from batchq.core.job import Extended, Receipt, Settled, Verdict
from batchq.core.lifecycle import TABLE, JobState, Transition
from batchq.core.record import Ordered
from batchq.stores.base import Store
from batchq.testing.conformance.kit import (
    LEASE,
    HandClock,
    claim,
    claim_one,
    enqueue,
    extend,
    job,
    read,
    settle_one,
)

Do = Callable[[Store, HandClock], object]
S: Final = JobState


def settled(verdict: Verdict, reason: str | None = None) -> Do:
    def do(store: Store, _: HandClock) -> None:
        receipt = Receipt(1, read(store, 1).attempt)
        assert settle_one(store, receipt, verdict, delay=8, reason=reason) is Settled.APPLIED

    return do


def used_up(store: Store, clock: HandClock) -> None:
    for _ in range(3):
        clock.now += LEASE
        claim(store)


def after(*steps: Do) -> Do:
    def do(store: Store, clock: HandClock) -> None:
        for step in steps:
            step(store, clock)

    return do


def lease_runs_out(_: Store, clock: HandClock) -> None:
    clock.now += LEASE


def is_claimed(store: Store, _: HandClock) -> None:
    claim(store)


def is_asked(store: Store, _: HandClock) -> None:
    store.cancel([1])


# How a job comes into each state, and how each row of the table happens from there.
BEGIN: Final[dict[JobState, Do]] = {
    S.PENDING: lambda store, _: enqueue(store, job(expires=512.0)),
    S.PROCESSING: lambda store, _: (enqueue(store, job()), claim_one(store)),
    S.COMPLETED: lambda store, _: (enqueue(store, job()), settle_one(store, claim_one(store))),
    S.FAILED: lambda store, _: (
        enqueue(store, job()),
        settle_one(store, claim_one(store), Verdict.FAIL),
    ),
    S.CANCELLED: lambda store, _: (enqueue(store, job()), store.cancel([1])),
}


def expires(store: Store, clock: HandClock) -> None:
    clock.now += 512
    claim(store)


ROWS: Final[dict[tuple[str, JobState | None, JobState | None], Do]] = {
    ("T1", None, S.PENDING): lambda store, _: enqueue(store, job()),
    ("T2", S.PENDING, S.PROCESSING): is_claimed,
    ("T3", S.PROCESSING, S.PROCESSING): after(lease_runs_out, is_claimed),
    ("T4", S.PENDING, S.FAILED): expires,
    ("T4", S.PROCESSING, S.FAILED): after(used_up, lease_runs_out, is_claimed),
    ("T4", S.PROCESSING, S.CANCELLED): after(is_asked, lease_runs_out, is_claimed),
    ("T5", S.PROCESSING, S.COMPLETED): settled(Verdict.OK),
    ("T6", S.PROCESSING, S.PENDING): settled(Verdict.RETRY),
    ("T7", S.PROCESSING, S.FAILED): after(used_up, settled(Verdict.RETRY)),
    ("T8", S.PROCESSING, S.FAILED): settled(Verdict.FAIL),
    ("T9", S.PROCESSING, S.PENDING): settled(Verdict.SNOOZE),
    ("T10", S.PROCESSING, S.PENDING): settled(Verdict.RELEASE),
    ("T11", S.PROCESSING, S.CANCELLED): after(is_asked, settled(Verdict.RETRY)),
    ("T12", S.PENDING, S.CANCELLED): lambda store, _: store.cancel([1]),
    ("T13", S.PROCESSING, S.PROCESSING): is_asked,
    **{("T14", state, S.PENDING): lambda store, _: store.retry([1]) for state in S if state.final},
    ("T15", S.PENDING, S.PENDING): lambda store, _: store.retry([1]),
    **{("T17", state, None): lambda store, _: store.delete([1]) for state in S if state.final},
}


def test_every_row_of_the_table_is_played() -> None:
    assert set(ROWS) == {(row.number, row.source, row.target) for row in TABLE}


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.number}-{row.source}-{row.target}")
def test_a_job_moves_as_the_table_says(store: Store, clock: HandClock, row: Transition) -> None:
    """J1: and is in one state at a time."""
    if row.source is not None:
        BEGIN[row.source](store, clock)
        assert read(store, 1).state is row.source
    ROWS[row.number, row.source, row.target](store, clock)
    [record] = store.get([1])
    assert (None if record is None else record.state) is row.target
    assert store.counts() == ({} if row.target is None else {"mail": {row.target: 1}})
    assert record is None or (record.due_at is None) == record.state.final


@pytest.mark.parametrize("state", list(JobState))
def test_what_the_table_does_not_allow_changes_nothing(
    store: Store, clock: HandClock, state: JobState
) -> None:
    BEGIN[state](store, clock)
    before = read(store, 1)
    receipt = Receipt(1, max(before.attempt, 1))
    if state is not S.PROCESSING:
        for verdict in Verdict:
            assert settle_one(store, receipt, verdict) is not Settled.APPLIED
        assert list(extend(store, receipt)) == [Extended.STALE]
        assert state is S.PENDING or claim(store).jobs == []
    if state.final:
        assert list(store.cancel([1]).answers) == [Ordered.REFUSED]
    else:
        assert list(store.delete([1])) == [Ordered.REFUSED]
    if state is S.PROCESSING:
        assert list(store.retry([1]).answers) == [Ordered.REFUSED]
    assert read(store, 1) == before
