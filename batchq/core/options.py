"""The settings of a `BatchedQueue`: small frozen classes, checked once, at construction.

Rule 1: nothing downstream checks again.
Rule 2: a new option is one field here, one key of `Options` and one room that decides.
"""

from __future__ import annotations

import difflib
import math
import random
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final, TypedDict

import attrs

from batchq.core.numbers import is_number
from batchq.core.retry import RetryPolicy
from batchq.errors import OptionError

__all__ = [
    "BatchOptions",
    "DropPolicy",
    "FailureOptions",
    "Options",
    "OrderOptions",
    "PaceOptions",
    "RoomOptions",
    "Settings",
    "TimeOptions",
    "read_settings",
]

Validator = Callable[[object, "attrs.Attribute[Any]", object], None]


def _whole(minimum: int, *, or_none: bool = False) -> Validator:
    """Make an attrs validator for whole numbers from `minimum`."""

    def check(_: object, field: attrs.Attribute[Any], value: object) -> None:
        if value is None and or_none:
            return
        # bool is an int to Python; batch_size=True is a mistake to everyone else.
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            end = ", or None" if or_none else ""
            raise OptionError(
                f"{field.name} must be a whole number from {minimum}{end}, got {value!r}"
            )

    return check


def _seconds(*, above: bool = False, or_none: bool = False) -> Validator:
    """Make an attrs validator for seconds from 0, or above 0."""

    def check(_: object, field: attrs.Attribute[Any], value: object) -> None:
        if value is None and or_none:
            return
        # Not "below": so NaN, which compares false with everything, is refused too.
        if not is_number(value) or not (value > 0 if above else value >= 0):
            least = "above 0" if above else "from 0"
            wish = f"a number of seconds {least}{', or None' if or_none else ''}"
            raise OptionError(f"{field.name} must be {wish}, got {value!r}")

    return check


def _inf_for_none(value: float | None) -> float:
    return math.inf if value is None else value


class DropPolicy(Enum):
    """What a full queue does with one item too many."""

    BLOCK = "block"
    REJECT_NEW = "reject-new"
    DROP_OLDEST = "drop-oldest"
    DROP_NEWEST = "drop-newest"
    DROP_LOWEST_PRIORITY = "drop-lowest-priority"

    @property
    def drops(self) -> bool:
        """Whether it may give an item up."""
        return self not in {DropPolicy.BLOCK, DropPolicy.REJECT_NEW}


def _drop_policy(value: object) -> DropPolicy:
    if isinstance(value, DropPolicy):
        return value
    for policy in DropPolicy:
        if isinstance(value, str) and value.replace("_", "-") == policy.value:
            return policy
    allowed = ", ".join(policy.value for policy in DropPolicy)
    raise OptionError(f"drop_policy must be one of {allowed}, got {value!r}")


@attrs.frozen(kw_only=True)
class BatchOptions:
    """When a batch starts.

    A batch starts as soon as `batch_size` items wait, or the oldest of them has waited
    `flush_interval`, whichever comes first, and there is capacity.

    Attributes:
        batch_size: most items in one batch [items, from 1].
        flush_interval: longest wait of the oldest waiting item [s]; 0 never waits for
            company, inf or None waits for a full batch.
    """

    batch_size: int = attrs.field(default=100, validator=_whole(1))
    flush_interval: float = attrs.field(default=1.0, converter=_inf_for_none, validator=_seconds())


@attrs.frozen(kw_only=True)
class OrderOptions:
    """Which items go first.

    Attributes:
        priority_levels: how many levels there are; level 0 goes first [levels, from 1].
        default_priority: the level of an item enqueued without one; None is the middle,
            `priority_levels // 2`.
    """

    priority_levels: int = attrs.field(default=1, validator=_whole(1))
    default_priority: int | None = attrs.field(default=None, validator=_whole(0, or_none=True))

    def __attrs_post_init__(self) -> None:
        if self.default_priority is not None and self.default_priority >= self.priority_levels:
            raise OptionError(
                f"default_priority ({self.default_priority}) must be below"
                f" priority_levels ({self.priority_levels})"
            )

    @property
    def level(self) -> int:
        """The level of an item enqueued without one."""
        if self.default_priority is None:
            return self.priority_levels // 2
        return self.default_priority


@attrs.frozen(kw_only=True)
class PaceOptions:
    """How much runs at once, and how fast.

    Attributes:
        concurrency: most batches in flight [batches, from 1].
        throttle: least time from one call's start to the next, over the whole queue [s].
    """

    concurrency: int = attrs.field(default=1, validator=_whole(1))
    throttle: float = attrs.field(default=0.0, validator=_seconds())


@attrs.frozen(kw_only=True)
class RoomOptions:
    """How much may wait, and what happens to one item too many.

    Attributes:
        max_queue_size: most items waiting, in flight not counted [items]; None is no
            limit.
        drop_policy: block, reject-new, drop-oldest, drop-newest or
            drop-lowest-priority.
    """

    max_queue_size: int | None = attrs.field(default=10_000, validator=_whole(1, or_none=True))
    drop_policy: DropPolicy = attrs.field(default=DropPolicy.BLOCK, converter=_drop_policy)


@attrs.frozen(kw_only=True)
class FailureOptions:
    """What happens to items that failed.

    Attributes:
        retry: when a failed item comes again; None: every failure is final.
    """

    retry: RetryPolicy | None = attrs.field(default=None)

    @retry.validator
    def _check(self, _: object, value: object) -> None:
        if value is not None and not isinstance(value, RetryPolicy):
            raise OptionError(f"retry must be a RetryPolicy or None, got {value!r}")


@attrs.frozen(kw_only=True)
class TimeOptions:
    """How long things may take.

    Attributes:
        processor_timeout: a call that takes longer is cancelled and fails with
            `BatchTimeout` [s, above 0]; None is no limit.
        cancel_abandoned: whether to cancel a call that nobody wants any more.
        shutdown_timeout: how long leaving the queue's block may take [s]; None is no
            limit.
    """

    processor_timeout: float | None = attrs.field(
        default=None, validator=_seconds(above=True, or_none=True)
    )
    cancel_abandoned: bool = attrs.field(default=False)
    shutdown_timeout: float | None = attrs.field(default=30.0, validator=_seconds(or_none=True))

    @cancel_abandoned.validator
    def _check(self, _: object, value: object) -> None:
        if not isinstance(value, bool):
            raise OptionError(f"cancel_abandoned must be True or False, got {value!r}")


@attrs.frozen(kw_only=True)
class Settings:
    """All settings of one queue, in the groups that the rooms of the core take.

    Attributes:
        name: label in logs and messages.
    """

    name: str = attrs.field(default="default")
    batch: BatchOptions = attrs.field(factory=BatchOptions)
    order: OrderOptions = attrs.field(factory=OrderOptions)
    pace: PaceOptions = attrs.field(factory=PaceOptions)
    room: RoomOptions = attrs.field(factory=RoomOptions)
    failure: FailureOptions = attrs.field(factory=FailureOptions)
    time: TimeOptions = attrs.field(factory=TimeOptions)

    def __attrs_post_init__(self) -> None:
        name: Any = self.name  # users without a type checker pass anything
        if not isinstance(name, str) or not name:
            raise OptionError(f"name must be a text that is not empty, got {name!r}")
        limit = self.room.max_queue_size
        if limit is not None and limit < self.batch.batch_size:
            raise OptionError(
                f"max_queue_size ({limit}) must hold one full batch"
                f" (batch_size={self.batch.batch_size})"
            )


class Options(TypedDict, total=False):
    """What the constructor of a `BatchedQueue` takes, flat; see the classes above."""

    name: str
    batch_size: int
    flush_interval: float | None
    priority_levels: int
    default_priority: int | None
    concurrency: int
    throttle: float
    max_queue_size: int | None
    drop_policy: DropPolicy | str
    retry: RetryPolicy | None
    processor_timeout: float | None
    cancel_abandoned: bool
    shutdown_timeout: float | None
    hooks: Any  # Hooks or a list of Hooks: of the floor above, which checks them
    rng: random.Random | None


_GROUPS: Final[Mapping[str, type]] = {
    "batch": BatchOptions,
    "order": OrderOptions,
    "pace": PaceOptions,
    "room": RoomOptions,
    "failure": FailureOptions,
    "time": TimeOptions,
}


def read_settings(options: Mapping[str, object]) -> Settings:
    """Group and check flat options.

    Args:
        options: by name; only keys of `Options`. Those that no group has are the
            caller's own and are passed over.

    Returns:
        The settings, complete.

    Raises:
        TypeError: an option that does not exist; the message names the nearest that does.
        OptionError: a value out of its range, or two at odds with each other.
    """
    known = Options.__annotations__
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
            raise TypeError(f"BatchedQueue has no option {name!r}; {hint}")
    groups = {
        group: kind(
            **{
                field.name: options[field.name]
                for field in attrs.fields(kind)
                if field.name in options
            }
        )
        for group, kind in _GROUPS.items()
    }
    rng = options.get("rng")
    if rng is not None and not isinstance(rng, random.Random):
        raise OptionError(f"rng must be a random.Random or None, got {rng!r}")
    label: Any = options.get("name", "default")
    return Settings(name=label, **groups)
