"""Verdicts on attempts, and errors as they are kept."""

from __future__ import annotations

import sqlite3
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import example, given

from batchq.core.attempt import MAX_MESSAGE, MAX_TRACEBACK, Judge, line_of
from batchq.core.backoff import Backoff
from batchq.core.job import ErrorLine, Receipt, Settlement, Verdict
from batchq.core.result import Result
from batchq.core.retry import RetryPolicy, error_of
from batchq.errors import ContractError, ItemError, PayloadError

RECEIPT = Receipt(7, 2)
SCHEDULE = Backoff(schedule=(10, 20, 30), jitter="none")


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not a word")


class MuteThing:
    def __str__(self) -> str:
        raise RuntimeError("not a word")


def encode(value: object) -> bytes | None:
    return None if value is None else msgspec.json.encode(value)


def refuse(value: object) -> bytes | None:
    raise PayloadError("run returned what cannot be kept: too large")


def judge(
    retryable: Callable[[Exception], bool] | None = None,
    *,
    encode: Callable[[object], bytes | None] = encode,
    draw: float = 0.5,
    backoff: Backoff = SCHEDULE,
) -> Judge:
    policy = RetryPolicy(max_retries=1, retryable=retryable, backoff=backoff)
    return Judge(policy=policy, encode=encode, draw=draw)


def settle(result: Result[Any], *, used: int = 2, by: Judge | None = None) -> Settlement:
    return (by or judge()).settlement(RECEIPT, result, item="ana", used=used)


E = TypeVar("E", bound=Exception)


def raised(error: E) -> E:
    """Return an error as it is caught."""
    try:
        raise error  # noqa: TRY301  # all that is wanted is its traceback
    except Exception:
        return error


# ---- Verdicts


@pytest.mark.parametrize(("value", "content"), [(None, None), (0, b"0"), ({"a": 1}, b'{"a":1}')])
def test_a_success_keeps_its_value(value: object, content: bytes | None) -> None:
    assert settle(Result.ok(value)) == Settlement(RECEIPT, Verdict.OK, value=content)


def test_a_value_that_cannot_be_kept_fails_the_job_for_running_again_would_not_help() -> None:
    found = settle(Result.ok(1), by=judge(encode=refuse))
    assert (found.verdict, found.reason, found.value) == (Verdict.FAIL, "contract", None)
    assert found.error is not None
    assert found.error.kind == "PayloadError"
    assert found.error.message == "run returned what cannot be kept: too large"


def test_a_snooze_comes_again_after_its_delay() -> None:
    assert settle(Result.snooze(60)) == Settlement(RECEIPT, Verdict.SNOOZE, delay=60)
    assert settle(Result.snooze(0)) == Settlement(RECEIPT, Verdict.SNOOZE)


def test_what_was_interrupted_is_released() -> None:
    assert settle(Result(success=None)) == Settlement(RECEIPT, Verdict.RELEASE)


@pytest.mark.parametrize(("used", "delay"), [(1, 10), (2, 20), (3, 30), (9, 30)])
def test_a_failure_comes_again_after_the_policys_delay_however_many_attempts_it_had(
    used: int, delay: float
) -> None:
    line = ErrorLine("text", "451 later")
    expected = Settlement(RECEIPT, Verdict.RETRY, error=line, delay=delay)
    assert settle(Result.fail("451 later"), used=used) == expected


def test_a_results_own_delay_only_lengthens_the_policys() -> None:
    assert settle(Result.retry("later", after=5)).delay == 20
    assert settle(Result.retry("later", after=50)).delay == 50


def test_all_jobs_of_a_call_are_delayed_by_one_draw() -> None:
    by = judge(draw=0.25, backoff=Backoff(initial_delay=8, jitter="full"))
    delays = [settle(Result.fail("no"), used=used, by=by).delay for used in (1, 1, 2)]
    assert delays == [2, 2, 4]


def test_what_is_discarded_fails_whatever_the_policy_says() -> None:
    found = settle(Result.discard("550 unknown"), by=judge(lambda _: True))
    line = ErrorLine("text", "550 unknown")
    assert found == Settlement(RECEIPT, Verdict.FAIL, error=line, reason="discarded")


def test_a_result_that_says_retry_is_not_asked_of_the_policy() -> None:
    assert settle(Result.retry("x"), by=judge(lambda _: False)).verdict is Verdict.RETRY


def test_the_policys_check_decides_where_the_result_does_not() -> None:
    by = judge(lambda error: isinstance(error, OSError))
    assert settle(Result.fail(OSError()), by=by).verdict is Verdict.RETRY
    found = settle(Result.fail(KeyError("a")), by=by)
    assert (found.verdict, found.reason) == (Verdict.FAIL, "discarded")
    assert by.complaints == []


def test_the_check_is_asked_with_the_item_where_the_error_is_no_exception() -> None:
    asked: list[Exception] = []

    def check(error: Exception) -> bool:
        asked.append(error)
        return True

    settle(Result.fail({"code": 5}), by=judge(check))
    [error] = asked
    assert isinstance(error, ItemError)
    assert (error.item, error.attempt, error.cause) == ("ana", 2, {"code": 5})


def test_a_check_that_raises_means_no_and_its_error_is_handed_on() -> None:
    complaint = ZeroDivisionError()

    def check(_: Exception) -> bool:
        raise complaint

    by = judge(check)
    found = settle(Result.fail("no"), by=by)
    assert (found.verdict, found.reason) == (Verdict.FAIL, "discarded")
    assert found.error == ErrorLine("text", "no")
    assert by.complaints == [complaint]


def test_a_broken_contract_is_not_retried_for_nobody_knows_what_ran() -> None:
    found = settle(Result.fail(ContractError("2 results for 3 items")))
    assert (found.verdict, found.reason) == (Verdict.FAIL, "contract")
    assert found.error == ErrorLine("ContractError", "2 results for 3 items")


def test_a_reason_that_is_known_already_is_kept() -> None:
    result: Result[Any] = Result.fail(PayloadError("run cannot take this payload: no"))
    found = judge().settlement(RECEIPT, result, item=None, used=1, reason="undecodable")
    assert (found.verdict, found.reason) == (Verdict.FAIL, "undecodable")
    assert found.error == ErrorLine("PayloadError", "run cannot take this payload: no")


@pytest.mark.parametrize("success", [None, False])
@pytest.mark.parametrize("after", [float("nan"), float("inf"), -1, "soon", 1e308])
def test_a_delay_that_is_none_fails_the_job_alone(*, success: bool | None, after: Any) -> None:  # noqa: ANN401
    found = settle(Result(success=success, retry_after=after))
    assert (found.verdict, found.reason) == (Verdict.FAIL, "contract")
    assert found.error is not None
    assert "retry_after must be a number of seconds from 0 to 3155760000" in found.error.message


@pytest.mark.parametrize("error", [Mute(), MuteThing()])
def test_an_error_that_cannot_say_what_it_is_is_judged_like_any_other(error: object) -> None:
    found = settle(Result.fail(error))
    assert found.verdict is Verdict.RETRY
    assert found.error is not None
    assert found.error.message == f"{type(error).__name__}, which cannot say what it is"


ERRORS = st.one_of(
    st.none(),
    st.text(),
    st.integers(),
    st.just(MuteThing()),
    st.builds(Exception, st.text()),
    st.builds(lambda text: raised(ContractError(text)), st.text()),
    st.builds(lambda text: ExceptionGroup("g", [OSError(text)]), st.text()),
    st.just(Mute()),
)
RESULTS = st.builds(
    Result[Any],
    success=st.sampled_from([True, False, None]),
    value=st.none() | st.text(),
    error=ERRORS,
    retryable=st.sampled_from([True, False, None]),
    retry_after=st.none() | st.floats(),
)


@given(
    result=RESULTS,
    used=st.integers(1, 10**6),
    draw=st.floats(0, 1, exclude_max=True),
    says=st.sampled_from([None, True, False]),
    reason=st.sampled_from([None, "undecodable"]),
)
def test_every_result_has_a_settlement_that_a_store_can_take(
    *, result: Result[Any], used: int, draw: float, says: bool | None, reason: str | None
) -> None:
    by = judge(None if says is None else lambda _: says, draw=draw, backoff=Backoff())
    found = by.settlement(RECEIPT, result, item=None, used=used, reason=reason)
    assert 0 <= found.delay < float("inf")
    assert (found.error is not None) == (found.verdict in {Verdict.RETRY, Verdict.FAIL})
    assert (found.reason is not None) == (found.verdict is Verdict.FAIL)
    assert found.value is None or found.verdict is Verdict.OK
    assert msgspec.json.decode(msgspec.json.encode(found), type=Settlement) == found


@given(
    attempts=st.integers(1, 5), retryable=st.sampled_from([None, True, False]), check=st.booleans()
)
def test_a_policy_allows_what_it_permits_while_attempts_remain(
    *, attempts: int, retryable: bool | None, check: bool
) -> None:
    policy = RetryPolicy(max_retries=2, retryable=lambda _: check)
    result: Result[Any] = Result(success=False, retryable=retryable)
    permitted = policy.permits(result, OSError())
    assert permitted == (check if retryable is None else retryable)
    assert policy.allows(result, OSError(), attempts=attempts) == (permitted and attempts <= 2)


# ---- Errors as they are kept


def test_a_text_is_kept_as_it_is() -> None:
    assert line_of("550 unknown") == ErrorLine("text", "550 unknown")


def test_what_is_no_exception_is_kept_as_the_text_it_makes() -> None:
    assert line_of({"code": 5}) == ErrorLine("text", "{'code': 5}")
    assert line_of(None) == ErrorLine("text", "no reason given")


def test_an_exception_that_was_never_raised_has_no_traceback() -> None:
    assert line_of(KeyError("a")) == ErrorLine("KeyError", "'a'")


def test_an_exception_is_kept_with_where_it_came_from_and_without_locals() -> None:
    def fail(password: str) -> None:
        raise OSError("no route")

    with pytest.raises(OSError, match="no route") as caught:
        fail("canary" + "-17")
    line = line_of(caught.value)
    assert (line.kind, line.message) == ("OSError", "no route")
    assert line.traceback.startswith("Traceback (most recent call last):\n")
    assert line.traceback.endswith("OSError: no route\n")
    assert 'raise OSError("no route")' in line.traceback
    assert "canary-17" not in line.traceback


def test_a_cause_and_notes_are_in_the_traceback() -> None:
    error = ValueError("outer")
    error.__cause__ = raised(OSError("inner"))
    error.add_note("it was item number 5")
    kept = line_of(error).traceback
    assert kept.index("OSError: inner") < kept.index("ValueError: outer")
    assert kept.endswith("it was item number 5\n")


def test_a_group_is_one_error_whose_leaves_are_shown() -> None:
    inner = ExceptionGroup("inner", [OSError("b"), Mute()])
    line = line_of(raised(ExceptionGroup("nursery", [ValueError("a"), inner, KeyError("c")])))
    assert line.kind == "ExceptionGroup"
    assert line.message == (
        "nursery (3 sub-exceptions): ValueError: a; OSError: b;"
        " Mute: Mute, which cannot say what it is; KeyError: 'c'"
    )
    for leaf in ("ValueError: a", "OSError: b", "KeyError: 'c'"):
        assert leaf in line.traceback


def test_a_long_message_is_cut_and_says_how_long_it_was() -> None:
    assert line_of("x" * MAX_MESSAGE).message == "x" * MAX_MESSAGE
    message = line_of("x" * 5_000).message
    assert len(message) == MAX_MESSAGE
    assert message.endswith("x [... 5000 characters]")


def test_of_a_long_traceback_its_head_line_and_its_end_are_kept() -> None:
    error: Exception = ValueError("first")
    for number in range(100):
        outer = ValueError(f"number {number} é")
        outer.__cause__ = raised(error)
        error = outer
    kept = line_of(raised(error)).traceback
    assert MAX_TRACEBACK - 4 <= len(kept.encode()) <= MAX_TRACEBACK
    assert kept.startswith("Traceback (most recent call last):\n  [...]\n")
    assert kept.endswith("ValueError: number 99 é\n")
    tail = kept.removeprefix("Traceback (most recent call last):\n  [...]\n")
    assert "".join(traceback.format_exception(error)).endswith(tail)


@given(
    text=st.text(st.characters(), max_size=50) | st.text("\0\ud800\udfffé", max_size=MAX_MESSAGE),
    notes=st.integers(0, 200),
)
@example("\ud800", 0)
@example("a\0b", 1)
@example("\U0001f600" * 4_000, 1)
def test_whatever_an_error_says_can_be_stored_and_is_short(text: str, notes: int) -> None:
    error = raised(ValueError(text))
    for _ in range(notes):
        error.add_note(text + "é" * 40)
    for line in (line_of(error), line_of(text)):
        assert len(line.message) <= 8 * MAX_MESSAGE
        assert len(line.traceback.encode()) <= MAX_TRACEBACK
        assert "\0" not in line.message + line.traceback
        assert msgspec.json.decode(msgspec.json.encode(line), type=ErrorLine) == line
    with sqlite3.connect(":memory:") as connection:
        [kept] = connection.execute("SELECT ? || ?", (line.message, line.traceback)).fetchone()
    connection.close()
    assert kept == line.message + line.traceback


def test_an_error_that_a_batch_shares_is_written_out_once() -> None:
    class Counted(Exception):
        told = 0

        def __str__(self) -> str:
            Counted.told += 1
            return "down"

    by = judge()
    error = raised(Counted())
    lines = [settle(Result.fail(error), by=by).error for _ in range(100)]
    once = Counted.told
    assert once < 5  # by its message and its traceback
    assert all(line is lines[0] for line in lines)
    settle(Result.fail(raised(Counted())), by=by)
    assert Counted.told == 2 * once


def test_errors_of_one_batch_that_come_and_go_are_not_mistaken_for_each_other() -> None:
    by = judge()
    for number in range(1_000):  # each is gone before the next is made, and may leave its id
        line = settle(Result.fail(ValueError(str(number))), by=by).error
        assert line is not None
        assert line.message == str(number)


def test_error_of_takes_any_value_for_an_error() -> None:
    error = error_of(Result.fail(MuteThing()), "ana", 1)
    assert str(error) == "attempt 1 failed: MuteThing, which cannot say what it is"
    assert str(error_of(Result.fail(None), "ana", 1)) == "attempt 1 failed: no reason given"
