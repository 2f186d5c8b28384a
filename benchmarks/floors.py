"""Hand-written code that does what a case needs, and nothing else.

Rule 1: nothing is kept per item beyond need: no id, no status, no time, no result object.
Rule 2: what a user would notice is there: batches of at most `batch_size`, a part of a
batch after `flush_interval`, callers that may be cancelled, an end that leaves nothing.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import outcome
import trio

__all__ = ["Asker", "Worker"]

Handler = Callable[[list[Any]], Awaitable[list[Any] | None]]


class Worker:
    """A deque, and a task that hands it out in batches: fire and forget."""

    def __init__(self, handler: Handler, batch_size: int, flush_interval: float) -> None:
        self.items: deque[Any] = deque()
        self._handler = handler
        self._batch_size = batch_size
        self._flush_interval = flush_interval
        self._wake = trio.Event()
        self._idle = False
        self._closed = False

    def put_nowait(self, item: object) -> None:
        """Take an item in."""
        self.items.append(item)
        if self._idle:
            self._wake_up()

    async def put(self, item: object) -> None:
        """Take an item in, at a cancel point."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self.items.append(item)
        if self._idle:
            self._wake_up()

    def put_many(self, items: Iterable[object]) -> None:
        """Take items in, as fast as a deque does."""
        self.items.extend(items)
        if self._idle:
            self._wake_up()

    def close(self) -> None:
        """Let `run` return when nothing is left."""
        self._closed = True
        self._wake_up()

    async def run(self) -> None:
        """Hand out batches until closed and empty."""
        while True:
            while len(self.items) >= self._batch_size:
                await self._handler(self._take(self._batch_size))
            if self._closed:
                break
            await self._wait()
        if self.items:
            await self._handler(self._take(len(self.items)))

    async def _wait(self) -> None:
        """Wait for news; hand out the rest of what waits after the interval."""
        self._wake = trio.Event()
        self._idle = True
        timeout = self._flush_interval if self.items else math.inf
        with trio.move_on_after(timeout) as scope:
            await self._wake.wait()
        self._idle = False
        if scope.cancelled_caught and self.items:
            await self._handler(self._take(min(len(self.items), self._batch_size)))

    def _take(self, count: int) -> list[Any]:
        popleft = self.items.popleft
        return [popleft() for _ in range(count)]

    def _wake_up(self) -> None:
        self._idle = False
        self._wake.set()


class _Caller:
    """A task that waits for its item's answer; `task` is None once it was cancelled."""

    __slots__ = ("item", "task")

    def __init__(self, item: object, task: trio.lowlevel.Task) -> None:
        self.item = item
        self.task: trio.lowlevel.Task | None = task

    def abort(self, _: object) -> trio.lowlevel.Abort:
        self.task = None
        return trio.lowlevel.Abort.SUCCEEDED


class Asker:
    """Request and response: callers sleep in `wait_task_rescheduled`, a worker wakes them."""

    def __init__(self, handler: Handler, batch_size: int, flush_interval: float) -> None:
        self._worker = Worker(self._answer, batch_size, flush_interval)
        self._handler = handler
        self.close = self._worker.close
        self.run = self._worker.run

    async def process(self, item: object) -> object:
        """Wait for the item's own answer."""
        caller = _Caller(item, trio.lowlevel.current_task())
        self._worker.put_nowait(caller)
        return await trio.lowlevel.wait_task_rescheduled(caller.abort)

    async def _answer(self, callers: list[_Caller]) -> None:
        wanted = [caller for caller in callers if caller.task is not None]
        answers = await self._handler([caller.item for caller in wanted]) or [None] * len(wanted)
        for caller, answer in zip(wanted, answers, strict=True):
            if caller.task is not None:
                trio.lowlevel.reschedule(caller.task, outcome.Value(answer))
