"""What `using(...)` says of the jobs that are enqueued through it, checked."""

from __future__ import annotations

from typing import Any, TypedDict, Unpack

import attrs

from batchq.core.job import PRIORITIES, PRIORITY_LEVELS
from batchq.core.numbers import is_wait
from batchq.core.retry import checked_retries
from batchq.errors import OptionError

__all__ = ["Using", "UsingOptions", "priority_level"]


def priority_level(value: Any) -> int:  # noqa: ANN401 - users without a type checker pass anything
    """Read a priority: a level, or its name.

    Raises:
        OptionError: it is neither.
    """
    level = PRIORITIES.get(value) if isinstance(value, str) else value
    if isinstance(level, bool) or not isinstance(level, int) or not 0 <= level < PRIORITY_LEVELS:
        names = ", ".join(PRIORITIES)
        raise OptionError(
            f"priority must be a whole number from 0 to {PRIORITY_LEVELS - 1}, or one of {names};"
            f" got {value!r}"
        )
    return level


def _delay(value: Any) -> float:  # noqa: ANN401 - as above
    if not is_wait(value):
        raise OptionError(f"delay must be a finite number of seconds from 0, got {value!r}")
    return float(value)


class UsingOptions(TypedDict, total=False):
    """What may be said of the jobs to come; None leaves it to the handler.

    Attributes:
        delay: a job may not start before so long from now [s].
        priority: its level [0 highest .. 9], or urgent, high, medium, low.
        max_retries: attempts after the first, at most.
    """

    delay: float | None
    priority: int | str | None
    max_retries: int | None


@attrs.frozen(kw_only=True)
class Using:
    """Options of the jobs to come; None leaves it to the handler.

    Attributes:
        delay: a job may not start before so long from now [s].
        priority: its level [0 highest .. 9].
        max_retries: attempts after the first, at most [count].

    Raises:
        OptionError: a value is out of its range.
    """

    delay: float | None = attrs.field(default=None, converter=attrs.converters.optional(_delay))
    priority: int | None = attrs.field(
        default=None, converter=attrs.converters.optional(priority_level)
    )
    max_retries: int | None = attrs.field(
        default=None, converter=attrs.converters.optional(checked_retries)
    )

    def changed(self, **options: Unpack[UsingOptions]) -> Using:
        """Return these options with those that are not None in their place."""
        given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
        return attrs.evolve(self, **given)
