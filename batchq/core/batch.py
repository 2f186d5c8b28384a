"""Items taken together."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from enum import Enum
from typing import Any, Generic, TypeVar, overload

import attrs

from batchq.core.entry import Entry
from batchq.core.result import Result

__all__ = ["Batch", "Trigger"]

T = TypeVar("T")


class Trigger(Enum):
    """Why a batch started."""

    SIZE = "size"
    WEIGHT = "weight"
    INTERVAL = "interval"
    DEADLINE = "deadline"
    DELAY = "delay"
    RETRY = "retry"
    FLUSH = "flush"
    DRAIN = "drain"
    BISECT = "bisect"


def _refuse(batch: Batch[Any], index: int, result: Result[Any]) -> None:
    """Take no early verdict: the batch is in no queue."""


@attrs.define(eq=False)
class Batch(Sequence[T], Generic[T]):
    """A read-only sequence of items, never empty, and what is known of them.

    Attributes:
        id: rises with every batch of a queue.
        items: the items, in order.
        entries: their entries, one per item, in order.
        trigger: why it started.
        attempt: 1 + the most attempts that any of its entries has behind it.
        partition: what all of them share.
        parent_id: the batch that it is a part of, if that was split by a bisect.
        started_at: when it was chosen [s, the queue's clock].
    """

    id: int
    items: Sequence[T]
    entries: Sequence[Entry[T, Any]] = attrs.field(repr=False)
    trigger: Trigger
    attempt: int
    partition: Hashable = None
    parent_id: int | None = None
    started_at: float = 0.0
    _settle: Callable[[Batch[Any], int, Result[Any]], None] = attrs.field(
        repr=False, default=_refuse
    )
    # Where a bisect stands of which it is a part, or which it began by failing.
    bisect: Any = attrs.field(default=None, init=False, repr=False)
    # The batch that the bisect began with, for its parts.
    root: Any = attrs.field(default=None, init=False, repr=False)
    # Verdicts fixed during the call, by position.
    early: dict[int, Result[Any]] = attrs.field(factory=dict, init=False, repr=False)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    @property
    def priority(self) -> int:
        """The best level among its entries."""
        return min(entry.priority for entry in self.entries)

    @property
    def wanted(self) -> bool:
        """Whether somebody still waits for the verdict of one of its entries."""
        return any(not entry.settled and not entry.abandoned for entry in self.entries)

    def no_verdicts(self) -> list[Result[Any]]:
        """Make the results of a call that came to none."""
        return [Result(success=None)] * len(self)

    def settle(self, index: int, result: Result[Any]) -> None:
        """Fix the verdict of item number `index` now, while the call runs.

        Success and final failure settle at once; a retry or snooze begins when the call
        ends. If the call then raises, this item is not touched. A later verdict for it
        is ignored.

        Raises:
            TypeError: it is no Result.
            IndexError: the batch has no such item.
        """
        if type(result) is not Result:
            raise TypeError(
                f"an item is settled with a Result, as Result.ok(value); got {result!r}"
            )
        self._settle(self, index, result)

    def succeed(self, index: int, value: object = None) -> None:
        """Fix success with `value` for item number `index`."""
        self._settle(self, index, Result.ok(value))

    def fail(self, index: int, error: object) -> None:
        """Fix failure with `error` for item number `index`; the retry policy decides."""
        self._settle(self, index, Result.fail(error))
