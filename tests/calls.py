"""A processor that remembers, for tests of the queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Unpack

import trio
import trio.testing

from batchq import BatchedQueue, Hooks
from batchq.core.batch import Batch
from batchq.core.options import Options
from batchq.pump import Processor

__all__ = ["UNLOGGED", "Calls", "Clock", "batched", "echo", "spell"]

Clock = trio.testing.MockClock

# For tests of what is kept: pytest keeps what is logged, tracebacks and all.
UNLOGGED: Final[Hooks[Any, Any]] = Hooks(on_error=lambda _: None)

Answers = Callable[[Batch[Any]], Any]


class Calls:
    """Answers each batch after a while, and remembers when it was given what.

    Attributes:
        seen: per call, its start [s] and its items.
        batches: the batches themselves.
        running: calls in flight.
        most: the most that ever were.
    """

    def __init__(self, answer: Answers | None = None, *, takes: float = 0.0) -> None:
        self.answer = answer or (lambda _: None)
        self.takes = takes
        self.seen: list[tuple[float, list[Any]]] = []
        self.batches: list[Batch[Any]] = []
        self.running = self.most = 0

    async def __call__(self, batch: Batch[Any]) -> Any:  # noqa: ANN401 - as the test says
        self.seen.append((trio.current_time(), list(batch)))
        self.batches.append(batch)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self.takes:
                await trio.sleep(self.takes)
            return self.answer(batch)
        finally:
            self.running -= 1

    @property
    def items(self) -> list[list[Any]]:
        """The items of each call."""
        return [items for _, items in self.seen]

    @property
    def times(self) -> list[float]:
        """When each call started [s]."""
        return [at for at, _ in self.seen]


async def echo(batch: Batch[Any]) -> list[Any]:
    """Answer each item with itself."""
    return list(batch)


def spell(calls: Calls) -> list[tuple[float, str]]:
    """Write the calls down where items are letters."""
    return [(at, "".join(items)) for at, items in calls.seen]


def batched(processor: Processor[Any], **options: Unpack[Options]) -> BatchedQueue[Any, Any]:
    """Make a queue of anything."""
    return BatchedQueue(processor, **options)
