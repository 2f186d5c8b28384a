"""What a queue of the rich rules may be asked for, and what the model keeps of it.

All sums that decide are exact: instants, weights and rates are multiples of powers of two.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import attrs

__all__ = ["Answer", "Call", "Groups", "Item", "Limit", "Offer", "Producer", "Split", "Terms"]

Groups: TypeAlias = Callable[[list[int]], list[list[int]]]


@attrs.frozen
class Limit:
    """A rate limit.

    Attributes:
        window: whether it is a sliding window; else a token bucket.
        most: what may start at once [units].
        pace: how long the window is [s], or what flows in [units/s].
        per: what a unit is: item, batch or weight.
    """

    window: bool
    most: float
    pace: float
    per: str


@attrs.frozen(kw_only=True)
class Terms:
    """The options of a queue; inf is no limit, None is off."""

    batch_size: int
    interval: float
    levels: int
    aging: float
    mix: bool
    concurrency: int
    partition_limit: float
    ordered: bool
    budget: float
    oversize: str
    limits: tuple[Limit, ...]
    throttle: float
    most_waiting: float
    most_outstanding: float
    most_weight: float
    drop_policy: str
    coalesce: str
    queue_timeout: float
    delivery_timeout: float
    retries: int | None
    check: bool | None  # what the retry policy's check says; None: there is none
    schedule: tuple[float, ...]
    jitter: str
    bisect: str
    strategy: str | None
    adaptive: bool

    @property
    def heaviest(self) -> float:
        """What an item may weigh at most."""
        found = [self.most_weight]
        found += [limit.most for limit in self.limits if limit.per == "weight"]
        if self.oversize == "reject":
            found.append(self.budget)
        return min(found)

    @property
    def default_level(self) -> int:
        """The level of an item that names none: the middle one."""
        return self.levels // 2


@attrs.frozen(kw_only=True)
class Offer:
    """An item at the door; `number` stands for the object."""

    number: int
    level: int | None = None
    delay: float = 0.0
    weight: float = 1.0
    partition: str | None = None
    key: str | None = None
    queue_timeout: float = math.inf
    delivery_timeout: float = math.inf
    solo: bool = False


@attrs.frozen
class Answer:
    """A verdict: success, and what else was said."""

    success: bool | None
    retryable: bool | None = None
    after: float | None = None


@attrs.define(eq=False)
class Item:
    """One entry.

    Attributes:
        since: the order in which entries began to wait.
        due: why it may not wait for company any longer.
        early: when it has to start for a deadline, however fast calls are.
    """

    id: int
    number: int
    level: int
    at: float
    weight: float
    partition: str | None
    key: str | None
    starts_by: float
    ends_by: float
    early: float
    solo: bool
    status: str = "pending"
    until: float = 0.0
    since: int = 0
    due: str | None = None
    attempts: int = 0
    callers: int = 1
    abandoned: bool = False
    verdict: Answer | None = None  # fixed during the call

    @property
    def waits(self) -> bool:
        return self.status in {"pending", "delayed"}

    @property
    def flies(self) -> bool:
        return self.status == "in_flight"

    @property
    def settled(self) -> bool:
        return not self.waits and not self.flies

    @property
    def deadline(self) -> float:
        return min(self.starts_by, self.ends_by)


@attrs.define(eq=False)
class Producer:
    """A caller with one item in hand."""

    offer: Offer
    item: Item | None = None
    refused: bool = False


@attrs.define(eq=False)
class Split:
    """A call that raised, and what is to be called of it, in order.

    Attributes:
        error: whether what the whole call raised is transient.
        most: so many parts in a row that raise nothing but transient errors are an outage.
    """

    parts: list[list[Item]]
    transient: bool
    most: int
    raised: int = 0
    outage: bool = True

    def left(self) -> list[Item]:
        return [item for part in self.parts for item in part if item.flies]


@attrs.define(eq=False)
class Call:
    """A call, whole or part of one.

    Attributes:
        root: the call whose slot it runs in.
        split: what became of the root, once it raised.
        over: whether its results, if any come, are heard no more.
    """

    items: list[Item]
    at: float
    partition: str | None
    root: Call | None = None
    split: Split | None = None
    over: bool = False
