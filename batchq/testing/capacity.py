"""Whether a queue could have started more, as seen from outside.

    starts, ends ─▶ Capacity ─▶ a slot? throttle, hold and limits rested? the partition free?

Rule 1: in doubt it says no: a limit counts as open where it could pay for any batch.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable
from typing import Any, Final

import attrs

from batchq.core.batch import Batch
from batchq.core.entry import Entry as CoreEntry
from batchq.core.entry import EntryStatus
from batchq.core.limits import Per, RateLimit, SlidingWindow, limits_of
from batchq.core.options import Options
from batchq.handle import Entry

__all__ = ["Capacity"]

_ROUNDING: Final = 1e-9  # units, seconds: what sums of floats may be off


@attrs.frozen
class _Start:
    """A call that started: when [s], with how many items, of what weight."""

    at: float
    items: int
    weight: float

    def cost(self, per: Per) -> float:
        return {Per.ITEM: self.items, Per.BATCH: 1, Per.WEIGHT: self.weight}[per]


@attrs.define(eq=False)
class Capacity:
    """What keeps starts apart, and what has started.

    Attributes:
        options: the queue's.
        held: until when a processor said that nothing is to start [s].
    """

    options: Options
    held: float = -math.inf
    _starts: list[_Start] = attrs.field(factory=list, init=False)
    _running: Counter[Hashable] = attrs.field(factory=Counter, init=False)
    # Those of `process` too: nothing else tells of them.
    _begun: set[CoreEntry[Any, Any]] = attrs.field(factory=set, init=False)

    @property
    def calls(self) -> int:
        """How many calls have started."""
        return len(self._starts)

    @property
    def largest(self) -> int:
        """The most items that a batch may ever have."""
        size: Any = self.options.get("batch_size", 100)
        return int(getattr(size, "max_size", size))

    def started(self, batch: Batch[Any], now: float) -> None:
        """Note that a call started at `now` [s]."""
        weight = math.fsum(_weight(entry) for entry in batch.entries)
        self._starts.append(_Start(now, len(batch), weight))
        self._running[batch.partition] += 1
        self._begun.update(batch.entries)

    def ended(self, batch: Batch[Any]) -> None:
        """Note that it ended."""
        self._running[batch.partition] -= 1

    def hold(self, until: float) -> None:
        """Note that a processor wants no start before `until` [s]."""
        self.held = max(self.held, until)

    def open(self, now: float) -> bool:
        """Whether throttle, hold and limits let any batch start at `now` [s]."""
        last = self._starts[-1].at if self._starts else -math.inf
        earliest = max(self.held, last + self.options.get("throttle", 0.0))
        limits = limits_of(self.options.get("rate_limit"))
        return earliest <= now and all(self._rested(limit, now) for limit in limits)

    def may_start(self, entry: Entry[Any, Any]) -> bool:
        """Whether an entry that waits is not held up in its own partition."""
        name = _partition(entry)
        running = self._running[name]
        if self.options.get("ordered"):
            # Nothing is enqueued for later in a history: what is delayed has begun before.
            return not running and not any(
                each.status is EntryStatus.DELAYED and each.id < entry.id
                for each in self._begun
                if _partition(each) == name
            )
        limit = self.options.get("partition_concurrency")
        return limit is None or running < limit

    def _rested(self, limit: RateLimit, now: float) -> bool:
        most = 1.0 if limit.per is Per.BATCH else limit.most
        if limit.per is Per.ITEM:
            most = min(most, self.largest)
        return self._left(limit, now) + _ROUNDING >= most

    def _left(self, limit: RateLimit, now: float) -> float:
        """Return what a limit can pay at `now` [units], by all that has started."""
        if isinstance(limit, SlidingWindow):
            recent = [each for each in self._starts if each.at + limit.window > now]
            return limit.limit - math.fsum(each.cost(limit.per) for each in recent)
        level, at = limit.burst, -math.inf
        for start in self._starts:
            level = min(limit.burst, level + (start.at - at) * limit.rate) - start.cost(limit.per)
            at = start.at
        return min(limit.burst, level + (now - at) * limit.rate)


def _weight(entry: CoreEntry[Any, Any]) -> float:
    return 1.0 if entry.more is None else float(entry.more.weight)


def _partition(entry: CoreEntry[Any, Any]) -> Hashable:
    found: Hashable = None if entry.more is None else entry.more.partition
    return found
