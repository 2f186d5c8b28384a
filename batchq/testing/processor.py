"""A processor that does as it is told, and remembers what it was given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import attrs
import trio

from batchq.core.batch import Batch

__all__ = ["Call", "ScriptedProcessor", "echo"]

T = TypeVar("T")


@attrs.frozen
class Call:
    """What a processor was called with, and when.

    Attributes:
        at: when the call began [s, trio's clock].
        items: the items, in order.
        batch: the batch itself, with its trigger and attempt.
    """

    at: float
    items: list[Any]
    batch: Batch[Any] = attrs.field(repr=False)


class ScriptedProcessor:
    """Answers each call by the next step of a script.

        send = ScriptedProcessor(OSError("down"), [Result.ok(), Result.retry()], then=echo)
        async with BatchedQueue(send, ...) as queue: ...
        assert [call.items for call in send.calls] == [["a", "b"], ["a", "b"], ["b"]]

    Args:
        steps: one per call, in order. An exception is raised, a function gets the batch and
            returns the answers, anything else is the answers: a list, a mapping, None.
        then: the step of every call after the last of them; None: all succeed.
        takes: how long a call takes [s], or a function of the batch that says so.

    Attributes:
        calls: what it was called with, in order.
        running: calls in flight now [calls].
        most_running: the most that ever were [calls].
    """

    def __init__(
        self,
        *steps: object,
        then: object = None,
        takes: float | Callable[[Batch[Any]], float] = 0.0,
    ) -> None:
        self.calls: list[Call] = []
        self.running = self.most_running = 0
        self._steps = steps
        self._then = then
        self._takes = takes

    async def __call__(self, batch: Batch[Any]) -> Any:  # noqa: ANN401 - as the script says
        """Carry out the next step."""
        number = len(self.calls)
        self.calls.append(Call(trio.current_time(), list(batch), batch))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await trio.sleep(self._takes(batch) if callable(self._takes) else self._takes)
        finally:
            self.running -= 1
        step = self._steps[number] if number < len(self._steps) else self._then
        if isinstance(step, BaseException):
            raise step
        return step(batch) if callable(step) else step

    @property
    def timeline(self) -> list[tuple[float, list[Any]]]:
        """The calls as (when it began [s, trio's clock], its items), in order."""
        return [(call.at, call.items) for call in self.calls]


def echo(batch: Batch[T]) -> list[T]:
    """Answer each item with itself: a step for a `ScriptedProcessor`."""
    return list(batch)
