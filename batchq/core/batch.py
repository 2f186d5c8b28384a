"""Items taken together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
    INTERVAL = "interval"
    DELAY = "delay"
    RETRY = "retry"
    FLUSH = "flush"
    DRAIN = "drain"


@attrs.define(eq=False)
class Batch(Sequence[T], Generic[T]):
    """A read-only sequence of items, never empty, and what is known of them.

    Attributes:
        id: rises with every batch of a queue.
        items: the items, in order.
        entries: their entries, one per item, in order.
        trigger: why it started.
        attempt: 1 + the most attempts that any of its entries has behind it.
    """

    id: int
    items: Sequence[T]
    entries: Sequence[Entry[T, Any]] = attrs.field(repr=False)
    trigger: Trigger
    attempt: int
    _settle: Callable[[Batch[Any], int, Result[Any]], None] = attrs.field(repr=False)
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
        """
        self._settle(self, index, result)

    def succeed(self, index: int, value: object = None) -> None:
        """Fix success with `value` for item number `index`."""
        self._settle(self, index, Result.ok(value))

    def fail(self, index: int, error: object) -> None:
        """Fix failure with `error` for item number `index`; the retry policy decides."""
        self._settle(self, index, Result.fail(error))
