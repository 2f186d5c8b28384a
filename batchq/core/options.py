"""The settings of a `BatchedQueue`: taken flat, grouped and checked once, at construction.

Rule 1: nothing downstream checks again.
Rule 2: a new option is one field of a group, one key of `Options` and one room that decides.
Rule 3: settings that can't work together are refused here, with the reason.
"""

from __future__ import annotations

import difflib
import random
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Final, TypedDict

import attrs

from batchq.core.adaptive import AdaptiveBatchSize, AdaptiveConcurrency
from batchq.core.bisect import BisectMode
from batchq.core.checks import attribute_of, inf_for_none
from batchq.core.limits import RateLimit
from batchq.core.option_groups import (
    BatchOptions,
    CoalescePolicy,
    DropPolicy,
    FailureOptions,
    OrderOptions,
    Oversize,
    PaceOptions,
    RoomOptions,
    TimeOptions,
)
from batchq.core.retry import RetryPolicy
from batchq.core.snapshot import Snapshots
from batchq.errors import OptionError

__all__ = [
    "Options",
    "PerCall",
    "Settings",
    "Special",
    "gather",
    "read_settings",
]


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
        for option in ("max_queue_size", "max_outstanding"):
            limit = getattr(self.room, option)
            if limit is not None and limit < self.batch.largest:
                raise OptionError(
                    f"{option} ({limit}) must hold one full batch (batch_size={self.batch.largest})"
                )

    @property
    def plain(self) -> bool:
        """Whether nothing more is asked than first come, first served, by level."""
        batch, order, room, time = self.batch, self.order, self.room, self.time
        asked = (
            batch.weigh, batch.max_batch_weight, order.priority_by, order.partition_by,
            order.partition_concurrency, order.batching_strategy, room.max_outstanding,
            room.max_queue_weight, room.coalesce_by, time.queue_timeout, time.delivery_timeout,
        )  # fmt: skip
        mixed = order.mix_priorities and order.priority_aging == inf_for_none(None)
        return mixed and not order.ordered and all(each is None for each in asked)


class Options(TypedDict, total=False):
    """What the constructor of a `BatchedQueue` takes, flat; see the classes above."""

    name: str
    batch_size: int | AdaptiveBatchSize
    flush_interval: float | None
    weigh: Callable[[Any], float] | None
    max_batch_weight: float | None
    oversize: Oversize | str
    priority_levels: int
    default_priority: int | None
    priority_by: Callable[[Any], int] | None
    priority_aging: float | None
    mix_priorities: bool
    partition_by: Callable[[Any], Hashable] | None
    partition_concurrency: int | None
    ordered: bool
    batching_strategy: Callable[[list[Any]], Iterable[Iterable[Any]]] | None
    concurrency: int | AdaptiveConcurrency
    throttle: float
    rate_limit: RateLimit | Sequence[RateLimit] | None
    max_queue_size: int | None
    max_outstanding: int | None
    max_queue_weight: float | None
    drop_policy: DropPolicy | str
    coalesce_by: Callable[[Any], Hashable] | None
    coalesce_policy: CoalescePolicy | Callable[[Any, Any], Any] | str
    retry: RetryPolicy | None
    bisect: BisectMode | str | None
    processor_timeout: float | None
    cancel_abandoned: bool
    shutdown_timeout: float | None
    save_timeout: float
    queue_timeout: float | None
    delivery_timeout: float | None
    persistence: Snapshots | None
    hooks: Any  # Hooks or a list of Hooks: of the floor above, which checks them
    rng: random.Random | None


class PerCall(TypedDict, total=False):
    """What one `enqueue` may say of its item, in place of the queue's options.

    Attributes:
        weight: what it weighs [finite, from 0].
        partition: its partition.
        key: its coalesce key.
        queue_timeout: see there [s, above 0].
        delivery_timeout: see there [s, above 0].
    """

    weight: float | None
    partition: Hashable
    key: Hashable
    queue_timeout: float | None
    delivery_timeout: float | None


class Special(PerCall, total=False):
    """The same, and what only the durable tier says.

    Attributes:
        solo: whether it runs in batches of one.
    """

    solo: bool


_GROUPS: Final[Mapping[str, type]] = {
    "batch": BatchOptions,
    "order": OrderOptions,
    "pace": PaceOptions,
    "room": RoomOptions,
    "failure": FailureOptions,
    "time": TimeOptions,
}


def gather(queue: object, options: Options) -> dict[str, Any]:
    """Return `options`, and where they say nothing the attributes that a subclass gave.

    They are the queue's own, so that its methods are bound.
    """
    kind = type(queue)
    found = {
        key: attribute_of(queue, key, takes=2 if key == "coalesce_policy" else 1)
        for key in Options.__annotations__
        if hasattr(kind, key)
    }
    return found | {**options}


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
    _check_persistence(options.get("persistence"))
    rng = options.get("rng")
    if rng is not None and not isinstance(rng, random.Random):
        raise OptionError(f"rng must be a random.Random or None, got {rng!r}")
    label: Any = options.get("name", "default")
    return Settings(name=label, **groups)


def _check_persistence(value: object) -> None:
    parts = ("save_interval", "item_type", "load", "save", "set_aside", "release")
    good = not isinstance(value, type) and all(hasattr(value, part) for part in parts)
    if value is not None and not good:
        raise OptionError(f"persistence must be a Persistence or None, got {value!r}")
