"""Calls of a queue from other threads: they block until the queue's own thread has answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, Protocol, TypeVar, Unpack

import attrs
import trio

from batchq.core.numbers import NO_DELAY
from batchq.core.options import PerCall
from batchq.errors import QueueClosed
from batchq.handle import Entry
from batchq.nest import Nest

__all__ = ["BlockingTwins", "Threads"]

T = TypeVar("T")
R = TypeVar("R")
V = TypeVar("V")


@attrs.define(eq=False)
class Threads:
    """The calls of other threads, which no scope around the queue can end.

    Attributes:
        nest: of the queue.
        close: shuts its intake.
        token: the event loop of the queue; None: it has none yet.
    """

    nest: Nest
    close: Callable[[], object]
    token: trio.lowlevel.TrioToken | None = None
    _scopes: set[trio.CancelScope] = attrs.field(factory=set, init=False)

    def begin(self, nursery: trio.Nursery) -> None:
        """Let calls in, until `nursery` is cancelled."""
        self.token = trio.lowlevel.current_trio_token()
        nursery.start_soon(self._cut_off_at_the_end)

    async def _cut_off_at_the_end(self) -> None:
        """Let every call raise `QueueClosed` once the queue ends, if its block has not.

        It was cancelled or has crashed: nothing starts any more, and the block may be
        waiting for a thread that waits here.
        """
        try:
            await trio.sleep_forever()
        finally:
            if not self.nest.leaving:
                self.close()
                for scope in self._scopes:
                    scope.cancel()

    async def answer(self, call: Callable[[], Awaitable[V]], name: str) -> V:
        """Run a call, in the queue's own thread.

        Raises:
            QueueClosed: it was cut off.
        """
        scope = trio.CancelScope()
        self._scopes.add(scope)
        try:
            with scope:
                return await call()
        finally:
            self._scopes.discard(scope)
        raise QueueClosed(f"{name}(): the queue ended before this call did")


def _from_thread(call: Callable[[], Awaitable[V]], threads: Threads, name: str) -> V:
    """Run `call` in the thread of a queue, and wait for it here.

    Args:
        call: what to run.
        threads: of the queue.
        name: what the caller called, for messages.

    Raises:
        RuntimeError: this is a thread of trio's: there it would block everything.
        QueueClosed: the queue does not run.
        Exception: whatever the call raises.
    """
    if trio.lowlevel.in_trio_run():
        raise RuntimeError(f"{name}() would block trio's thread; write 'await' and leave off _sync")
    if threads.token is None:
        raise QueueClosed(f"{name}(): the queue is not running; enter it with 'async with queue:'")
    try:
        return trio.from_thread.run(threads.answer, call, name, trio_token=threads.token)
    except trio.RunFinishedError:
        raise QueueClosed(f"{name}(): the queue's event loop has ended") from None


class _Queue(Protocol[T, R]):
    """What the twins are of."""

    _threads: Threads

    async def enqueue(
        self,
        item: T,
        priority: int | None = None,
        *,
        delay: float = NO_DELAY,
        **call: Unpack[PerCall],
    ) -> Entry[T, R]: ...

    async def process(
        self,
        item: T,
        priority: int | None = None,
        *,
        delay: float = NO_DELAY,
        **call: Unpack[PerCall],
    ) -> R: ...


class BlockingTwins(Generic[T, R]):
    """What a queue offers to plain threads."""

    _threads: Threads

    def enqueue_sync(
        self: _Queue[T, R],
        item: T,
        priority: int | None = None,
        *,
        delay: float = NO_DELAY,
        **call: Unpack[PerCall],
    ) -> Entry[T, R]:
        """Do what `enqueue` does, from a plain thread; blocks until it is admitted.

        Raises:
            RuntimeError: this is a thread of trio's: there it would block everything.
            Exception: as `enqueue`.
        """
        job = partial(self.enqueue, item, priority, delay=delay, **call)
        return _from_thread(job, self._threads, "enqueue_sync")

    def process_sync(
        self: _Queue[T, R],
        item: T,
        priority: int | None = None,
        *,
        delay: float = NO_DELAY,
        **call: Unpack[PerCall],
    ) -> R:
        """Do what `process` does, from a plain thread; blocks until the item is settled.

        Raises:
            QueueClosed: the queue does not run, or it ended meanwhile.
            RuntimeError: as `enqueue_sync`.
            Exception: as `process`.
        """
        job = partial(self.process, item, priority, delay=delay, **call)
        return _from_thread(job, self._threads, "process_sync")
