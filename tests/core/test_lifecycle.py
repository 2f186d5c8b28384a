"""The table of a job's life, move by move, and what each move does to the record."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchq.core.changes import (
    again,
    ask_to_stop,
    bury,
    claim,
    is_current,
    is_doomed,
    is_suspect,
    is_used_up,
    kept,
    new,
    settle,
)
from batchq.core.job import ErrorLine, NewJob, Receipt, Settlement, Verdict
from batchq.core.lifecycle import MAX_FAILURES, MOVES, TABLE, JobState, Move, after
from batchq.core.record import JobRecord
from batchq.errors import LifecycleError

S, M = JobState, Move
# Written out a second time: who changes the table is to change it twice.
LEGAL = {
    (S.PENDING, M.CLAIM): S.PROCESSING,
    (S.PENDING, M.FAIL): S.FAILED,
    (S.PENDING, M.CANCEL): S.CANCELLED,
    (S.PENDING, M.HASTEN): S.PENDING,
    (S.PROCESSING, M.CLAIM): S.PROCESSING,
    (S.PROCESSING, M.COMPLETE): S.COMPLETED,
    (S.PROCESSING, M.RETRY): S.PENDING,
    (S.PROCESSING, M.FAIL): S.FAILED,
    (S.PROCESSING, M.SNOOZE): S.PENDING,
    (S.PROCESSING, M.RELEASE): S.PENDING,
    (S.PROCESSING, M.CANCEL): S.CANCELLED,
    (S.PROCESSING, M.ASK): S.PROCESSING,
    (S.COMPLETED, M.AGAIN): S.PENDING,
    (S.FAILED, M.AGAIN): S.PENDING,
    (S.CANCELLED, M.AGAIN): S.PENDING,
}
NOW = 4096.0


def a_job(state: JobState = S.PROCESSING, **more: object) -> JobRecord:
    stored = new(NewJob("mail", "send", b"1", 3, 8.0, 3), id_=7, now=NOW)
    return msgspec.structs.replace(stored, **{"state": state, "attempt": 1, **more})


@pytest.mark.parametrize("state", list(JobState))
@pytest.mark.parametrize("move", list(Move))
def test_a_job_changes_state_only_by_a_move_of_the_table(state: JobState, move: Move) -> None:
    if (state, move) in LEGAL:
        assert after(state, move) is LEGAL[state, move] is MOVES[state][move]
        return
    with pytest.raises(LifecycleError) as refused:
        after(state, move)
    said = str(refused.value)
    assert said.startswith(f"cannot {move.value} a {state.value} job")
    for legal in MOVES[state]:
        assert legal.value in said


def test_of_a_final_state_comes_only_what_people_order() -> None:
    for state in JobState:
        assert state.final == (set(MOVES[state]) == {Move.AGAIN})
    gone = {row.source for row in TABLE if row.move is Move.DELETE and row.target is None}
    assert gone == {state for state in JobState if state.final}


def test_the_table_numbers_its_rows_as_the_design_does() -> None:
    numbers = list(dict.fromkeys(row.number for row in TABLE))
    assert numbers == [f"T{number}" for number in (*range(1, 16), 17)]


def test_what_is_asked_to_stop_never_waits_again() -> None:
    """J13."""
    for verdict in (Verdict.RETRY, Verdict.SNOOZE, Verdict.RELEASE, Verdict.CANCEL):
        asked = ask_to_stop(a_job(), "late")
        job = settle(asked, Settlement(Receipt(7, 1), verdict), now=NOW)
        assert (job.state, job.reason) == (S.CANCELLED, "late")
    assert bury(ask_to_stop(a_job(attempt=3), "late"), now=NOW).state is S.CANCELLED


def test_what_runs_again_has_all_its_attempts_and_no_end_of_patience() -> None:
    ended = a_job(S.FAILED, attempt=3, crashes=2, due_at=None, reason="x", expires_at=NOW)
    job = again(ended, now=NOW)
    assert (job.state, job.due_at, job.used, job.attempt) == (S.PENDING, NOW, 0, 3)
    assert (job.crashes, job.reason, job.finished_at) == (0, None, None)
    assert not is_doomed(job, now=NOW + 1)


def test_what_waits_is_hastened_but_never_delayed() -> None:
    assert again(a_job(S.PENDING, due_at=NOW + 9), now=NOW).due_at == NOW
    assert again(a_job(S.PENDING, due_at=NOW - 9), now=NOW).due_at == NOW - 9


def test_a_job_is_a_suspect_when_its_second_lease_in_a_row_runs_out() -> None:
    assert not is_suspect(a_job(crashes=0))
    assert is_suspect(a_job(crashes=1))
    assert not is_suspect(a_job(S.PENDING, crashes=1))


def test_a_new_job_waits_its_delay_from_now() -> None:
    stored = new(NewJob("mail", "send", b"1", 3, 8.0, None), id_=7, now=NOW)
    assert (stored.id, stored.state, stored.due_at) == (7, S.PENDING, NOW + 8)
    assert (stored.attempt, stored.refunds, stored.crashes) == (0, 0, 0)


def test_a_claim_counts_an_attempt_and_a_crash_if_the_lease_ran_out() -> None:
    first = claim(a_job(S.PENDING, attempt=0), now=NOW, lease=30, worker="ada")
    assert (first.state, first.attempt, first.crashes) == (S.PROCESSING, 1, 0)
    assert (first.due_at, first.started_at, first.worker) == (NOW + 30, NOW, "ada")
    second = claim(first, now=NOW + 30, lease=30, worker="bob")
    assert (second.attempt, second.crashes, second.worker) == (2, 1, "bob")


def test_only_the_receipt_of_the_latest_claim_is_current_while_it_runs() -> None:
    assert is_current(a_job(), Receipt(7, 1))
    assert not is_current(a_job(), Receipt(7, 2))
    assert not is_current(a_job(attempt=2), Receipt(7, 1))
    assert not is_current(a_job(S.PENDING), Receipt(7, 1))
    assert not is_current(None, Receipt(7, 1))


def test_refunded_attempts_are_not_used() -> None:
    assert is_used_up(a_job(attempt=3))
    assert not is_used_up(a_job(attempt=3, refunds=1))
    assert not is_used_up(a_job(attempt=99, max_attempts=None))


def test_a_burial_fences_the_last_holder_and_is_no_attempt() -> None:
    buried = bury(a_job(attempt=3), now=NOW)
    assert (buried.state, buried.reason, buried.due_at) == (S.FAILED, "crashed", None)
    assert (buried.attempt, buried.refunds, buried.used) == (4, 1, 3)
    assert buried.finished_at == NOW


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (Verdict.OK, (S.COMPLETED, None, 0, b"2", None, NOW)),
        (Verdict.FAIL, (S.FAILED, None, 0, None, "discarded", NOW)),
        (Verdict.RETRY, (S.PENDING, NOW + 4, 0, None, None, None)),
        (Verdict.SNOOZE, (S.PENDING, NOW + 4, 1, None, None, None)),
        (Verdict.RELEASE, (S.PENDING, NOW, 1, None, None, None)),
    ],
)
def test_a_verdict_moves_a_job(verdict: Verdict, expected: tuple[object, ...]) -> None:
    settlement = Settlement(
        Receipt(7, 1), verdict, b"2", ErrorLine("text", "no"), delay=4.0, reason="discarded"
    )
    job = settle(a_job(crashes=2), settlement, now=NOW)
    assert (
        job.state,
        job.due_at,
        job.refunds,
        job.value,
        job.reason,
        job.finished_at,
    ) == expected
    assert (job.attempt, job.crashes) == (1, 0)


def test_a_retry_without_attempts_left_fails_as_exhausted() -> None:
    job = settle(a_job(attempt=3), Settlement(Receipt(7, 3), Verdict.RETRY), now=NOW)
    assert (job.state, job.reason, job.due_at) == (S.FAILED, "exhausted", None)


@given(count=st.integers(0, 60))
def test_the_first_failure_and_the_last_ones_are_kept(count: int) -> None:
    failures: list[int] = []
    for number in range(count):
        failures = list(kept([*failures, number]))
    expected = list(range(count))
    if count > MAX_FAILURES:
        expected = [0, *range(count - MAX_FAILURES + 1, count)]
    assert failures == expected


@pytest.mark.parametrize(
    ("state", "due", "attempt", "read"),
    [
        (S.PENDING, 1.0, 0, "scheduled"),
        (S.PENDING, 1.0, 1, "retrying"),
        (S.PENDING, 0.0, 0, "pending"),
        (S.PENDING, -1.0, 1, "pending"),
        (S.PROCESSING, 1.0, 1, "processing"),
        (S.PROCESSING, 0.0, 1, "stalled"),
        (S.COMPLETED, None, 1, "completed"),
    ],
)
def test_a_state_is_read_as_people_say_it(
    state: JobState, due: float | None, attempt: int, read: str
) -> None:
    due_at = None if due is None else NOW + due
    assert a_job(state, due_at=due_at, attempt=attempt).status(NOW) == read
