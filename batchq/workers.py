"""Queues at work in one event loop: started together, stopped in order.

    enter:  ledger ─▶ queues of both tiers
    leave:  queues: claim no more, finish or give back ─▶ a last beat ─▶ ledger: its last commit

Rule 1: the queues run in tasks that no cancellation reaches: neither Ctrl-C nor a block that
raises costs a verdict. They end when they are told to, within their grace.
Rule 2: what ends a queue by itself (a broken store, a handler's KeyboardInterrupt) ends the
block, and comes out by itself.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import attrs
import trio

from batchq.ledger import Ledger
from batchq.nest import Nest
from batchq.stop import AFTER_GRACE

__all__ = ["Workers", "Works"]


class Works(Protocol):
    """A queue that can be set to work."""

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Work until `stop`."""

    def stop(self, grace: float) -> None:
        """End within `grace` [s], or soon after."""


@attrs.define(eq=False)
class Workers:
    """Some queues at work, as long as the block lasts.

    Attributes:
        make: makes the queues, in the event loop that they work in.
        ledger: the road to the store; None: no queue of these needs one.
        grace: how long running handlers have when the block ends [s].
        on_end: awaited when they have ended, as long as something may still be written.
    """

    make: Callable[[], Sequence[Works]]
    ledger: Ledger | None
    grace: float
    on_end: Callable[[], Awaitable[object]]
    _nest: Nest = attrs.field(factory=Nest, init=False)
    _gathering: Any = attrs.field(default=None, init=False)
    _queues: Sequence[Works] = attrs.field(default=(), init=False)
    _left: int = attrs.field(default=0, init=False)
    _last: float = attrs.field(default=math.inf, init=False)
    _ended: trio.Event = attrs.field(factory=trio.Event, init=False)

    async def __aenter__(self) -> Self:
        if self.ledger is not None:
            self._gathering = self.ledger.open()
            await self._gathering.__aenter__()
        try:
            nursery = await self._nest.enter()
            self._queues = self.make()
            # Shielded: cancelled, `start` would wait for the end of a task that has none.
            with trio.CancelScope(shield=True):
                for queue in self._queues:
                    await nursery.start(self._keep, queue)
        except BaseException as error:
            await self._end(error)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._end(error)

    async def _stop(self) -> KeyboardInterrupt | None:
        """Stop the queues, and wait until they have ended; a Ctrl-C meanwhile ends the grace."""
        interrupted = None
        self._tell_stop(self.grace)
        with trio.CancelScope(shield=True):
            while self._left:
                self._ended = trio.Event()
                try:
                    await self._ended.wait()
                except KeyboardInterrupt as error:
                    interrupted = error
                    self._tell_stop(0.0)
        return interrupted

    def _tell_stop(self, grace: float) -> None:
        self._last = min(self._last, trio.current_time() + grace + AFTER_GRACE)
        if self.ledger is not None:
            self.ledger.hurry(grace + AFTER_GRACE)
        for queue in self._queues:
            queue.stop(grace)

    async def _keep(
        self, queue: Works, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Run one queue; no cancellation from outside reaches it."""
        self._left += 1
        try:
            with trio.CancelScope(shield=True):
                await queue.run(task_status=task_status)
        finally:
            self._left -= 1
            self._ended.set()

    async def _end(self, error: BaseException | None) -> None:
        interrupted = await self._stop()
        try:
            await self._nest.leave(error or interrupted)
        finally:
            try:
                await self._tell_end()
            finally:
                await self._leave_ledger(error)
        if interrupted is not None and error is None:
            raise interrupted

    async def _tell_end(self) -> None:
        """Tell that they have ended; it may write, and is not waited for longer than they."""
        until = min(self._last, trio.current_time() + AFTER_GRACE)
        if self.ledger is not None:
            self.ledger.hurry(until - trio.current_time())
        with trio.CancelScope(shield=True, deadline=until):
            await self.on_end()

    async def _leave_ledger(self, error: BaseException | None) -> None:
        if self.ledger is None or self._gathering is None:
            return
        trace = error.__traceback__ if error is not None else None
        try:
            await self._gathering.__aexit__(type(error) if error else None, error, trace)
        finally:
            self.ledger.hurry(math.inf)
