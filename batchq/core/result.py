"""What became of one item, as a value.

Rule 1: a processor answers once per item; raising is for what concerns the whole call.
Rule 2: a `Result` decides; anything else that a processor returns is read as one in
`answers`, and nowhere else.
"""

from __future__ import annotations

from typing import Generic, TypeVar, final

import msgspec

from batchq.core.checks import checked_wait

__all__ = ["Result"]

R = TypeVar("R")


# A msgspec.Struct although it never leaves the process as such: one is made for every
# item, and it is made five times faster than a frozen attrs class.
@final
class Result(msgspec.Struct, Generic[R], frozen=True):
    """What became of one item; its *verdict* is what it decides.

    Make one with `ok`, `fail`, `retry`, `discard` or `snooze`.

    Attributes:
        success: True: done; False: failed; None: no verdict, the item comes again.
        value: what whoever waits for the item gets.
        error: what went wrong: an exception, a text, any value.
        retryable: True: try again while attempts remain; False: never; None: the retry
            policy decides.
        retry_after: earliest time of the next attempt, from now [s]; None: the policy's
            delay.
    """

    success: bool | None
    value: R | None = None
    error: object = None
    retryable: bool | None = None
    retry_after: float | None = None

    def __init_subclass__(cls, **_: object) -> None:
        # The exact type is asked for, once per item: a kind of its own would pass for a value.
        raise TypeError("Result has no subclasses; put what is yours into its value or error")

    @classmethod
    def ok(cls, value: R | None = None) -> Result[R]:
        """Done; `value` goes to whoever waits for the item."""
        return cls(success=True, value=value)

    @classmethod
    def fail(cls, error: object) -> Result[R]:
        """Failed; the retry policy decides whether it comes again."""
        return cls(success=False, error=error)

    @classmethod
    def retry(cls, error: object = None, *, after: float | None = None) -> Result[R]:
        """Failed, to be tried again, no sooner than in `after` [s], while attempts remain."""
        if after is not None:
            checked_wait("after", after)
        return cls(success=False, error=error, retryable=True, retry_after=after)

    @classmethod
    def discard(cls, error: object = None) -> Result[R]:
        """Failed for good, whatever the retry policy says."""
        return cls(success=False, error=error, retryable=False)

    @classmethod
    def snooze(cls, delay: float) -> Result[R]:
        """Not now: again in `delay` [s]; no attempt is spent."""
        return cls(success=None, retry_after=checked_wait("delay", delay))
