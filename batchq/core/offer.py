"""An item at the door, with all that was said or computed of it.

Rule 1: the user's functions run here, before anything is decided: one that raises costs its
own caller the entry, and nobody else notices.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Hashable
from typing import Any, Final, NamedTuple

import msgspec

from batchq.core.entry import More
from batchq.core.numbers import is_number
from batchq.core.option_groups import Oversize
from batchq.core.options import PerCall, Settings
from batchq.errors import ItemTooLarge, OptionError

__all__ = ["Appraiser", "Offer", "Times"]


_MARGIN: Final = 10  # a tenth of a timeout, at least, is left for the call


class Times(NamedTuple):
    """When an item expires [s]; see `More`."""

    starts_by: float
    ends_by: float
    early: float


def _in_time(deadline: float, timeout: float) -> float:
    return deadline if timeout == math.inf else deadline - timeout / _MARGIN


# As an entry, it is nothing that the garbage collector need look at while it waits.
class Offer(msgspec.Struct, eq=False, gc=False):
    """What a caller wants to put in.

    Attributes:
        item: the item.
        priority: its level.
        more: what is noted of it when it comes in.
        delay: how long it has to wait at least [s].
        queue_timeout: when it expires if it has not started, after its delay [s].
        delivery_timeout: when it expires if it has no verdict, after its admission [s].
    """

    item: Any
    priority: int
    more: More
    delay: float = 0.0
    queue_timeout: float = math.inf
    delivery_timeout: float = math.inf

    @property
    def expires(self) -> bool:
        """Whether it has a deadline."""
        return self.queue_timeout < math.inf or self.delivery_timeout < math.inf

    def times(self, now: float) -> Times:
        """Say when it expires if it is admitted at `now` [s]."""
        starts_by = now + self.delay + self.queue_timeout
        ends_by = now + self.delivery_timeout
        early = min(
            _in_time(starts_by, self.queue_timeout), _in_time(ends_by, self.delivery_timeout)
        )
        return Times(starts_by, ends_by, early)


class Appraiser:
    """Makes offers of items: asks the user's functions, and checks."""

    def __init__(self, name: str, settings: Settings, level: Callable[[object], int]) -> None:
        """Make one.

        Args:
            name: the queue's, for messages.
            settings: whose functions and limits count.
            level: checks a priority.
        """
        self._name = name
        self._level = level
        self._default = settings.order.level
        self._priority_by = settings.order.priority_by
        self._partition_by = settings.order.partition_by
        self._coalesce_by = settings.room.coalesce_by
        self._weigh = settings.batch.weigh
        self._queue_timeout = _limit("queue_timeout", settings.time.queue_timeout)
        self._delivery_timeout = _limit("delivery_timeout", settings.time.delivery_timeout)
        # The most that one item may weigh, and who says so.
        limits = {"max_queue_weight": settings.room.max_queue_weight}
        if settings.batch.oversize is Oversize.REJECT:
            limits["max_batch_weight"] = settings.batch.max_batch_weight
        self._limits = {said: limit for said, limit in limits.items() if limit is not None}

    def limit_weight(self, said: str, limit: float) -> None:
        """Refuse items heavier than `limit` from now on; `said` names the reason."""
        self._limits[said] = limit

    def offer(
        self,
        item: object,
        priority: int | None,
        *,
        delay: float = 0.0,
        weight: float | None = None,
        partition: Hashable = None,
        key: Hashable = None,
        queue_timeout: float | None = None,
        delivery_timeout: float | None = None,
        solo: bool = False,
        **unknown: object,
    ) -> Offer:
        """Make an offer of an item; what a caller says goes before the queue's options.

        Raises:
            TypeError: somebody said what is `unknown`, or a partition or key that can't be.
            OptionError: what was said or computed is out of its range.
            ItemTooLarge: it is heavier than anything could carry.
            Exception: whatever the user's functions raise.
        """
        if unknown:
            raise TypeError(
                _UNKNOWN.format(next(iter(unknown)), ", ".join(PerCall.__annotations__))
            )
        level = self._priority(item, priority)
        more = More(
            weight=self._weight(item, weight),
            partition=_said("partition", partition, self._partition_by, item=item),
            key=_said("key", key, self._coalesce_by, item=item),
            solo=solo,
            named_partition=partition is not None,
            named_key=key is not None,
            told=False,
        )
        start, end = self._queue_timeout, self._delivery_timeout
        if queue_timeout is not None:
            start = _limit("queue_timeout", queue_timeout)
        if delivery_timeout is not None:
            end = _limit("delivery_timeout", delivery_timeout)
        return Offer(item, level, more, delay, start, end)

    def check_weight(self, weight: float) -> None:
        """Refuse what nothing could ever carry.

        Raises:
            ItemTooLarge: it is heavier.
        """
        for said, limit in self._limits.items():
            if weight > limit:
                raise ItemTooLarge(
                    f"queue {self._name!r} takes nothing heavier than {limit:g} ({said}),"
                    f" got an item of weight {weight:g}",
                    weight=weight,
                    limit=limit,
                )

    def weight_of(self, item: object) -> float:
        """Weigh an item anew.

        Raises:
            Exception: as `offer`.
        """
        return self._weight(item, None)

    def _priority(self, item: object, priority: int | None) -> int:
        if priority is not None:
            return self._level(priority)
        return self._default if self._priority_by is None else self._level(self._priority_by(item))

    def _weight(self, item: object, weight: float | None) -> float:
        if weight is None:
            if self._weigh is None and not self._limits:
                return 1.0
            weight = 1.0 if self._weigh is None else self._weigh(item)
        if not is_number(weight) or not 0 <= weight < math.inf:
            raise OptionError(f"weight must be a finite number from 0, got {weight!r}")
        self.check_weight(weight)
        return weight


def _said(
    what: str, given: Hashable, by: Callable[[Any], Hashable] | None, *, item: object
) -> Hashable:
    found = given
    if given is None:
        if by is None:
            return None
        found = by(item)
        if inspect.iscoroutine(found):
            found.close()  # or Python warns that nobody awaited it
            raise TypeError(f"{what} must be a value, and its function a plain one")
    try:
        hash(found)  # raises here, where it is the caller's
    except TypeError as error:
        raise TypeError(f"{what} must be hashable, got {found!r}: {error}") from error
    return found


def _limit(name: str, found: float | None) -> float:
    if found is None:
        return math.inf
    if not is_number(found) or not found > 0:
        raise OptionError(_BAD_TIMEOUT.format(name, found))
    return found


_UNKNOWN: Final = "nothing of the name {!r} can be said of an item, but priority, delay, {}"
_BAD_TIMEOUT: Final = "{} must be a number of seconds above 0, or None, got {!r}"
