"""Which failed items come again: the result says, else the check, and attempts are counted."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from batchq.core.backoff import Backoff, Jitter
from batchq.core.result import Result
from batchq.core.retry import RetryPolicy, error_of
from batchq.errors import BatchTimeout, ContractError, ItemError, OptionError


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_there_are_so_many_attempts_after_the_first(retries: int) -> None:
    policy, result = RetryPolicy(retries), Result[Any].retry()
    allowed = [policy.allows(result, OSError(), attempts=count) for count in range(1, 6)]
    assert allowed == [count <= retries for count in range(1, 6)]


@pytest.mark.parametrize(
    ("result", "check", "allowed"),
    [
        (Result.retry(), False, True),
        (Result.discard(), True, False),
        (Result.fail("no"), True, True),
        (Result.fail("no"), False, False),
        (Result.fail("no"), None, True),
    ],
)
def test_what_a_result_says_goes_before_the_check(
    result: Result[Any],
    check: bool | None,  # noqa: FBT001 - a parameter of the test
    allowed: bool,  # noqa: FBT001
) -> None:
    policy = RetryPolicy(retryable=None if check is None else lambda _: bool(check))
    assert policy.allows(result, error_of(result, "a", 1), attempts=1) is allowed


@pytest.mark.parametrize(
    ("error", "allowed"), [(ContractError("no"), False), (BatchTimeout("slow"), True)]
)
def test_a_broken_contract_is_never_retried_and_a_timeout_is(
    error: Exception, *, allowed: bool
) -> None:
    assert RetryPolicy().allows(Result.fail(error), error, attempts=1) is allowed


def test_retry_after_only_lengthens_the_delay() -> None:
    policy = RetryPolicy(backoff=Backoff(initial_delay=2, jitter=Jitter.NONE))
    delays = [policy.delay(Result.retry(after=after), attempts=1, draw=0) for after in (None, 1, 5)]
    assert delays == [2, 2, 5]


def test_an_error_that_is_no_exception_is_wrapped_with_what_is_known() -> None:
    error = error_of(Result.retry({"code": 5}), "the item", 2)
    assert isinstance(error, ItemError)
    assert str(error) == "attempt 2 failed: {'code': 5}"
    assert (error.item, error.attempt, error.retryable) == ("the item", 2, True)
    assert error.cause == {"code": 5}
    assert "no reason given" in str(error_of(Result.fail(None), None, 1))


async def later(_: Exception) -> bool:
    """What a check must not be."""
    return False


class Later:
    async def __call__(self, _: Exception) -> bool:
        """Be called like it."""
        return False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_retries": -1}, "max_retries must be a whole number from 0, got -1"),
        ({"max_retries": True}, "max_retries must be a whole number from 0, got True"),
        ({"max_retries": 1.0}, "max_retries must be a whole number from 0, got 1.0"),
        ({"retryable": 5}, "retryable must be a function or None, got 5"),
        ({"retryable": later}, "retryable must be a plain function, got the async"),
        ({"retryable": Later()}, "retryable must be a plain function, got the async"),
        ({"retryable": partial(Later())}, "retryable must be a plain function, got the async"),
        ({"backoff": 2.0}, "backoff must be a Backoff, got 2.0"),
    ],
)
def test_a_bad_value_is_refused_by_name_bound_and_value(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError) as caught:
        RetryPolicy(**options)
    assert str(caught.value).startswith(message)
