"""What became of one item, as a value.

Rule 1: a processor answers once per item; raising is for what concerns the whole call.
Rule 2: a `Result` decides; anything else that a processor returns is read as one here,
and nowhere else.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, final

import msgspec

from batchq.core.numbers import is_wait
from batchq.errors import ContractError, OptionError

if TYPE_CHECKING:
    from batchq.core.batch import Batch

__all__ = ["Result", "read_answer", "read_answers"]

R = TypeVar("R")

_FIELDS: Final = frozenset({"success", "value", "error", "retryable", "retry_after"})


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
        after = _seconds("after", after)
        return cls(success=False, error=error, retryable=True, retry_after=after)

    @classmethod
    def discard(cls, error: object = None) -> Result[R]:
        """Failed for good, whatever the retry policy says."""
        return cls(success=False, error=error, retryable=False)

    @classmethod
    def snooze(cls, delay: float) -> Result[R]:
        """Not now: again in `delay` [s]; no attempt is spent."""
        return cls(success=None, retry_after=_seconds("delay", delay))


def _seconds(name: str, value: float | None) -> float | None:
    if value is not None and not is_wait(value):
        raise OptionError(f"{name} must be a finite number of seconds from 0, got {value!r}")
    return value


# One answer, though its parts could be taken for several.
_TEXTS: Final = (str, bytes, bytearray, memoryview)
_OK: Final[Result[Any]] = Result(success=True)


def read_answer(answer: object) -> Result[Any]:
    """Read one answer of a batch as a `Result`.

    A `Result` is itself; an exception is a failure; a dict with `success` and no key but
    a Result's fields is read as one; anything else is a success with that value.
    """
    if answer is None:
        return _OK
    if type(answer) is Result:
        return answer
    if isinstance(answer, Exception):
        return Result(success=False, error=answer)
    if isinstance(answer, dict) and "success" in answer and answer.keys() <= _FIELDS:
        # What other code calls true or false may be 1 or 0, or a number type's own.
        said = answer["success"]
        return Result(**answer | {"success": None if said is None else bool(said)})
    return Result(success=True, value=answer)


def read_answers(batch: Batch[Any], answers: object) -> Sequence[object] | None:
    """Check that a processor answered once per item.

    Args:
        batch: the batch that the processor was called with.
        answers: what it returned: a sequence of exactly one answer per item, in order; a
            mapping from `entry.id` that names every unsettled entry and no stranger; or
            None.

    Returns:
        The answers, one per item, in order, not read one by one yet; None: all succeeded.

    Raises:
        ContractError: it returned something else.
    """
    if answers is None:
        return None
    if isinstance(answers, list | tuple):
        found = answers
    elif isinstance(answers, Mapping):
        return _by_id(batch, answers)
    elif isinstance(answers, Sequence) and not isinstance(answers, _TEXTS):
        found = list(answers)
    else:
        kind = "a generator" if isinstance(answers, Iterator) else f"{type(answers).__name__}"
        if inspect.iscoroutine(answers):
            answers.close()  # or Python warns that nobody awaited it
            kind = "a coroutine, which it did not await"
        raise ContractError(
            f"the processor must return a sequence with one answer per item, a mapping by"
            f" entry id, or None; it returned {kind}"
        )
    if len(found) != len(batch):
        raise ContractError(
            f"the processor got {len(batch)} items and returned {len(found)} answers;"
            " it must return exactly one per item, in order"
        )
    return found


def _by_id(batch: Batch[Any], answers: Mapping[Any, object]) -> Sequence[object]:
    ids = {entry.id for entry in batch.entries}
    strangers = [key for key in answers if key not in ids]
    missing = [entry.id for entry in batch.entries if not entry.settled and entry.id not in answers]
    if strangers or missing:
        raise ContractError(
            f"the processor's mapping must name every entry of the batch by its id and no"
            f" other: missing {missing[:5]}, unknown {strangers[:5]}"
        )
    return [answers.get(entry.id) for entry in batch.entries]
