"""The settings of a `BatchedQueue`, in the groups that the rooms of the core take.

Small frozen classes, checked once, at construction; nothing downstream checks again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from enum import Enum
from typing import Any, Final

import attrs

from batchq.core.adaptive import AdaptiveBatchSize, AdaptiveConcurrency
from batchq.core.bisect import BisectMode, bisect_mode
from batchq.core.checks import (
    Validator,
    check_function,
    choice,
    flag,
    function,
    inf_for_none,
    quantity,
    seconds,
    wait,
    whole,
)
from batchq.core.limits import RateLimit, limits_of
from batchq.core.retry import RetryPolicy
from batchq.errors import OptionError

__all__ = [
    "BatchOptions",
    "CoalescePolicy",
    "DropPolicy",
    "FailureOptions",
    "Merge",
    "OrderOptions",
    "Oversize",
    "PaceOptions",
    "RoomOptions",
    "TimeOptions",
]

_MOST_LEVELS: Final = 1_000

Weigh = Callable[[Any], float]
Strategy = Callable[[list[Any]], Iterable[Iterable[Any]]]
Merge = Callable[[Any, Any], Any]


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


class Oversize(Enum):
    """What becomes of an item heavier than `max_batch_weight`."""

    ALONE = "alone"
    REJECT = "reject"


class CoalescePolicy(Enum):
    """What becomes of an item whose key waits already."""

    JOIN = "join"
    REPLACE = "replace"
    REJECT = "reject"


def _or(kind: type, check: Validator) -> Validator:
    """Make a validator for objects of a kind, and what `check` lets through."""

    def check_both(owner: object, field: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, kind):
            check(owner, field, value)

    return check_both


def _drop_policy(value: object) -> DropPolicy:
    return choice("drop_policy", DropPolicy, value)


def _oversize(value: object) -> Oversize:
    return choice("oversize", Oversize, value)


def _rate_limit(value: object) -> tuple[RateLimit, ...] | None:
    return limits_of(value) or None


def _coalesce_policy(value: object) -> object:
    return value if callable(value) else choice("coalesce_policy", CoalescePolicy, value)


def _bisect(value: object) -> BisectMode | None:
    return None if value is None else bisect_mode(value)


@attrs.frozen(kw_only=True)
class BatchOptions:
    """When a batch starts.

    A batch starts as soon as `batch_size` items wait, or the oldest of them has waited
    `flush_interval`, whichever comes first, and there is capacity.

    Attributes:
        batch_size: most items in one batch [items, from 1], or an `AdaptiveBatchSize`.
        flush_interval: longest wait of the oldest waiting item [s]; 0 never waits for
            company, inf or None waits for a full batch.
        weigh: what an item weighs [any unit, finite, from 0]; None: 1 each.
        max_batch_weight: most weight in a batch of two or more [the same unit]; None is
            no limit.
        oversize: an item heavier than that goes `alone`, or is `reject`ed at enqueue.
    """

    batch_size: int | AdaptiveBatchSize = attrs.field(
        default=100, validator=_or(AdaptiveBatchSize, whole(1))
    )
    flush_interval: float = attrs.field(default=1.0, converter=inf_for_none, validator=seconds())
    weigh: Weigh | None = attrs.field(default=None, validator=function)
    max_batch_weight: float | None = attrs.field(
        default=None, validator=quantity("a weight", above=True, or_none=True)
    )
    oversize: Oversize = attrs.field(default=Oversize.ALONE, converter=_oversize)

    @property
    def largest(self) -> int:
        """The most items that a batch may ever have."""
        size = self.batch_size
        return size.max_size if isinstance(size, AdaptiveBatchSize) else size

    @property
    def first(self) -> int:
        """The batch size to begin with."""
        size = self.batch_size
        return size.min_size if isinstance(size, AdaptiveBatchSize) else size


@attrs.frozen(kw_only=True)
class OrderOptions:
    """Which items go first.

    Attributes:
        priority_levels: how many levels there are; level 0 goes first [levels, from 1 to
            1,000: each has a line of its own].
        default_priority: the level of an item enqueued without one; None is the middle,
            `priority_levels // 2`.
        priority_by: gives the level of an item enqueued without one.
        priority_aging: waiting that is worth one level [s, above 0]; inf: the better level
            always goes first.
        mix_priorities: whether a batch may hold several levels.
        partition_by: gives an item's partition; a batch holds one partition only.
        partition_concurrency: most batches in flight of one partition [batches]; None is
            no limit.
        ordered: whether each partition runs strictly in order, one batch at a time.
        batching_strategy: groups the items that wait; it is not trusted.
    """

    priority_levels: int = attrs.field(default=1, validator=whole(1, most=_MOST_LEVELS))
    default_priority: int | None = attrs.field(default=None, validator=whole(0, or_none=True))
    priority_by: Callable[[Any], int] | None = attrs.field(default=None, validator=function)
    priority_aging: float = attrs.field(
        default=inf_for_none(None), converter=inf_for_none, validator=seconds(above=True)
    )
    mix_priorities: bool = attrs.field(default=True, validator=flag)
    partition_by: Callable[[Any], Hashable] | None = attrs.field(default=None, validator=function)
    partition_concurrency: int | None = attrs.field(default=None, validator=whole(1, or_none=True))
    ordered: bool = attrs.field(default=False, validator=flag)
    batching_strategy: Strategy | None = attrs.field(default=None, validator=function)

    def __attrs_post_init__(self) -> None:
        if self.ordered:
            self._check_ordered()
        if self.default_priority is not None and self.default_priority >= self.priority_levels:
            raise OptionError(
                f"default_priority ({self.default_priority}) must be below"
                f" priority_levels ({self.priority_levels})"
            )

    def _check_ordered(self) -> None:
        clashes = {
            "priority_levels > 1": (self.priority_levels > 1, "a better level would overtake"),
            "batching_strategy": (self.batching_strategy, "groups would overtake each other"),
            "partition_concurrency > 1": (
                (self.partition_concurrency or 1) > 1,
                "two batches of a partition would run at once",
            ),
        }
        for clash, (found, why) in clashes.items():
            if found:
                raise OptionError(f"ordered=True does not go with {clash}: {why}")

    @property
    def level(self) -> int:
        """The level of an item enqueued without one."""
        if self.default_priority is None:
            return self.priority_levels // 2
        return self.default_priority

    @property
    def partition_limit(self) -> float:
        """The most batches in flight of one partition [batches]; inf is no limit."""
        return 1 if self.ordered else self.partition_concurrency or math.inf


@attrs.frozen(kw_only=True)
class PaceOptions:
    """How much runs at once, and how fast.

    Attributes:
        concurrency: most batches in flight [batches, from 1], or an `AdaptiveConcurrency`.
        throttle: least time from one call's start to the next, over the whole queue [s].
        rate_limit: a `TokenBucket`, a `SlidingWindow` or a list of them: how much may start
            in a time; None is no limit.
    """

    concurrency: int | AdaptiveConcurrency = attrs.field(
        default=1, validator=_or(AdaptiveConcurrency, whole(1))
    )
    throttle: float = attrs.field(default=0.0, validator=wait())
    rate_limit: tuple[RateLimit, ...] | None = attrs.field(default=None, converter=_rate_limit)


@attrs.frozen(kw_only=True)
class RoomOptions:
    """How much may wait, and what happens to one item too many.

    Attributes:
        max_queue_size: most items waiting, in flight not counted [items]; None is no
            limit.
        max_outstanding: most items not settled, those in flight included [items]; None is
            no limit.
        max_queue_weight: most weight that waits [the unit of `weigh`]; None is no limit.
        drop_policy: block, reject-new, drop-oldest, drop-newest or
            drop-lowest-priority.
        coalesce_by: gives an item's key, or None; an item whose key waits already shares
            that entry.
        coalesce_policy: which item the shared entry has: the old one (`join`), the new one
            (`replace`), what a function `(old, new) -> item` makes of them; or `reject`.
    """

    max_queue_size: int | None = attrs.field(default=10_000, validator=whole(1, or_none=True))
    max_outstanding: int | None = attrs.field(default=None, validator=whole(1, or_none=True))
    max_queue_weight: float | None = attrs.field(
        default=None, validator=quantity("a weight", above=True, or_none=True)
    )
    drop_policy: DropPolicy = attrs.field(default=DropPolicy.BLOCK, converter=_drop_policy)
    coalesce_by: Callable[[Any], Hashable] | None = attrs.field(default=None, validator=function)
    coalesce_policy: CoalescePolicy | Merge = attrs.field(
        default=CoalescePolicy.JOIN, converter=_coalesce_policy
    )

    @coalesce_policy.validator
    def _check(self, _: object, value: object) -> None:
        if not isinstance(value, CoalescePolicy):
            check_function("coalesce_policy", value)


@attrs.frozen(kw_only=True)
class FailureOptions:
    """What happens to items that failed.

    Attributes:
        retry: when a failed item comes again; None: every failure is final.
        bisect: when a call that raised is split to find the items that break it: `off`,
            `immediate`, or `exhausted`: when its items have no attempts left; None:
            `exhausted` with `retry`, else `off`.
    """

    retry: RetryPolicy | None = attrs.field(default=None)
    bisect: BisectMode | None = attrs.field(default=None, converter=_bisect)

    @retry.validator
    def _check(self, _: object, value: object) -> None:
        if value is not None and not isinstance(value, RetryPolicy):
            raise OptionError(f"retry must be a RetryPolicy or None, got {value!r}")

    @property
    def splits(self) -> BisectMode:
        """When a call that raised is split."""
        if self.bisect is None:
            return BisectMode.OFF if self.retry is None else BisectMode.EXHAUSTED
        return self.bisect


@attrs.frozen(kw_only=True)
class TimeOptions:
    """How long things may take.

    Attributes:
        processor_timeout: a call that takes longer is cancelled and fails with
            `BatchTimeout` [s, above 0]; None is no limit.
        cancel_abandoned: whether to cancel a call that nobody wants any more.
        shutdown_timeout: how long the drain may take when the queue's block is left [s];
            None is no limit.
        save_timeout: how long the last save may take, after the drain or where the block
            is cancelled [s].
        queue_timeout: from when an item may first start to its first start, at most [s,
            above 0]; then it has expired. None is no limit.
        delivery_timeout: from an item's admission to its verdict, retries included, at
            most [s, above 0]; None is no limit.
    """

    processor_timeout: float | None = attrs.field(
        default=None, validator=seconds(above=True, or_none=True)
    )
    cancel_abandoned: bool = attrs.field(default=False, validator=flag)
    shutdown_timeout: float | None = attrs.field(default=30.0, validator=seconds(or_none=True))
    save_timeout: float = attrs.field(default=5.0, validator=seconds())
    queue_timeout: float | None = attrs.field(
        default=None, validator=seconds(above=True, or_none=True)
    )
    delivery_timeout: float | None = attrs.field(
        default=None, validator=seconds(above=True, or_none=True)
    )
