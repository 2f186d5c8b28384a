"""Which failed items come again, and when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import attrs

from batchq.core.backoff import Backoff
from batchq.core.checks import check_function
from batchq.core.result import Result
from batchq.errors import ContractError, ItemError, OptionError

__all__ = ["RetryPolicy", "checked_retries", "error_of", "said"]

_MOST: Final = 2**31 - 1  # so that no store has to refuse it


def checked_retries(value: Any) -> int:  # noqa: ANN401 - users without a type checker pass anything
    """Read how often something may be tried again.

    Raises:
        OptionError: it is no such number.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise OptionError(f"max_retries must be a whole number from 0, got {value!r}")
    if value > _MOST:
        raise OptionError(f"max_retries must be at most {_MOST}, got {value!r}")
    return value


@attrs.frozen
class RetryPolicy:
    """When a failed item is tried again.

    Attributes:
        max_retries: attempts after the first, at most [count, from 0].
        retryable: asked with the error where a result does not say itself; None: every
            error but `ContractError` may be retried. What is no exception comes as an
            `ItemError`.
        backoff: how long to wait.

    Raises:
        OptionError: a value is out of its range.
    """

    max_retries: int = 3
    retryable: Callable[[Exception], bool] | None = None
    backoff: Backoff = attrs.field(factory=Backoff)

    def __attrs_post_init__(self) -> None:
        checked_retries(self.max_retries)
        check_function("retryable", self.retryable)  # what an async one returns counts as yes
        backoff: Any = self.backoff
        if not isinstance(backoff, Backoff):
            raise OptionError(f"backoff must be a Backoff, got {backoff!r}")

    def allows(self, result: Result[Any], error: Exception, *, attempts: int) -> bool:
        """Tell whether what failed may be tried again.

        Args:
            result: the verdict; where its `retryable` is True or False, that counts.
            error: what to ask the check with.
            attempts: attempts made so far, the failed one included [count, from 1].

        Raises:
            Exception: whatever the user's check raises.
        """
        return attempts <= self.max_retries and self.permits(result, error)

    def permits(self, result: Result[Any], error: Exception) -> bool:
        """Tell the same, however many attempts were made.

        Raises:
            Exception: whatever the user's check raises.
        """
        if result.retryable is not None:
            return result.retryable
        if isinstance(error, ContractError):
            return False
        return self.retryable is None or bool(self.retryable(error))

    def delay(self, result: Result[Any], *, attempts: int, draw: float) -> float:
        """Return how long to wait after failed attempt number `attempts` [s].

        A result's `retry_after` can only lengthen it. `draw` is uniform in [0, 1).
        """
        return max(self.backoff.delay(attempts, draw=draw), result.retry_after or 0.0)


def error_of(result: Result[Any], item: object, attempts: int) -> Exception:
    """Return a failure's exception; what is none comes wrapped in an `ItemError`."""
    if isinstance(result.error, Exception):
        return result.error
    return ItemError(
        f"attempt {attempts} failed: {said(result.error)}",
        item=item,
        attempt=attempts,
        retryable=result.retryable,
        cause=result.error,
    )


def said(error: object) -> str:
    """Return what an error says, be it an exception or any value."""
    if error is None:
        return "no reason given"
    try:
        return str(error)
    except Exception:  # __str__ is the user's code
        return f"{type(error).__name__}, which cannot say what it is"
