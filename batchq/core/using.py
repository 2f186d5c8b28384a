"""What `using(...)` says of the jobs that are enqueued through it, checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypedDict, Unpack

import attrs

from batchq.core.checks import checked_wait
from batchq.core.job import PRIORITIES, PRIORITY_LEVELS
from batchq.core.retry import checked_retries
from batchq.errors import OptionError

__all__ = ["Using", "UsingOptions", "priority_level"]

MAX_KEY: Final = 255  # [characters]
MAX_TAG: Final = 64  # [characters]
MAX_TAGS: Final = 16  # of one job


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
    return checked_wait("delay", value)


def _expires(value: Any) -> float:  # noqa: ANN401 - as above
    return checked_wait("expires", value, above=True)


def _text(what: str, value: Any, most: int) -> str:  # noqa: ANN401 - as above
    """Check a short text that every store can keep and compare."""
    if not isinstance(value, str) or not 0 < len(value) <= most or "\0" in value:
        raise OptionError(f"{what} must be a text of 1 to {most} characters, got {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise OptionError(f"{what} must be valid text, got {value!r}") from None
    return value


def _key(value: Any) -> str:  # noqa: ANN401 - as above
    return _text("key", value, MAX_KEY)


def _tags(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - as above
    tags = tuple(value) if isinstance(value, list | tuple | set | frozenset) else None
    if tags is None or len(tags) > MAX_TAGS:
        raise OptionError(f"tags must be a list of at most {MAX_TAGS} texts, got {value!r}")
    return tuple(_text("a tag", tag, MAX_TAG) for tag in tags)


class UsingOptions(TypedDict, total=False):
    """What may be said of the jobs to come; None leaves it to the handler.

    Attributes:
        delay: a job may not start before so long from now [s, at most 100 years].
        priority: its level [0 highest .. 9], or urgent, high, medium, low.
        max_retries: attempts after the first, at most.
        key: a text of at most 255 characters that one job of the handler has at a time,
            until it ends. While another has it nothing is stored: the handle is that job's,
            and its `fresh` is False. So to enqueue again after an error is safe.
        expires: the job fails, as `expired`, if it has not run so long from now [s].
        tags: at most 16 texts of at most 64 characters, to find the job by.
    """

    delay: float | None
    priority: int | str | None
    max_retries: int | None
    key: str | None
    expires: float | None
    tags: Sequence[str] | None


@attrs.frozen(kw_only=True)
class Using:
    """Options of the jobs to come; None leaves it to the handler.

    Attributes:
        delay: a job may not start before so long from now [s].
        priority: its level [0 highest .. 9].
        max_retries: attempts after the first, at most [count].
        key: what one job of the handler has at a time.
        expires: it fails if it has not run so long from now [s].
        tags: to find it by.

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
    key: str | None = attrs.field(default=None, converter=attrs.converters.optional(_key))
    expires: float | None = attrs.field(default=None, converter=attrs.converters.optional(_expires))
    tags: tuple[str, ...] | None = attrs.field(
        default=None, converter=attrs.converters.optional(_tags)
    )

    def changed(self, **options: Unpack[UsingOptions]) -> Using:
        """Return these options with those that are not None in their place.

        Raises:
            OptionError: a value is out of its range.
            TypeError: there is no option of a name.
        """
        names = UsingOptions.__annotations__
        for name in options:
            if name not in names:
                raise TypeError(f"a job has no option {name!r}; there are: {', '.join(names)}")
        given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
        return attrs.evolve(self, **given)
