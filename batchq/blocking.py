"""Calls of a queue from other threads: they block until the queue's own thread has answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, Protocol, TypeVar, Unpack

import trio

from batchq.core.options import PerCall
from batchq.errors import QueueClosed
from batchq.handle import Entry

__all__ = ["BlockingTwins"]

T = TypeVar("T")
R = TypeVar("R")
V = TypeVar("V")


def _from_thread(
    call: Callable[[], Awaitable[V]], token: trio.lowlevel.TrioToken | None, name: str
) -> V:
    """Run `call` in the thread of a queue, and wait for it here.

    Args:
        call: what to run.
        token: the event loop of the queue; None: it has none yet.
        name: what the caller called, for messages.

    Raises:
        RuntimeError: this is a thread of trio's: there it would block everything.
        QueueClosed: the queue does not run.
        Exception: whatever the call raises.
    """
    if trio.lowlevel.in_trio_run():
        raise RuntimeError(f"{name}() would block trio's thread; write 'await' and leave off _sync")
    if token is None:
        raise QueueClosed(f"{name}(): the queue is not running; enter it with 'async with queue:'")
    try:
        return trio.from_thread.run(call, trio_token=token)
    except trio.RunFinishedError:
        raise QueueClosed(f"{name}(): the queue's event loop has ended") from None


class _Queue(Protocol[T, R]):
    """What the twins are of."""

    _token: trio.lowlevel.TrioToken | None

    async def enqueue(
        self,
        item: T,
        priority: int | None = None,
        *,
        delay: float = 0.0,
        **call: Unpack[PerCall],
    ) -> Entry[T, R]: ...

    async def process(
        self,
        item: T,
        priority: int | None = None,
        *,
        delay: float = 0.0,
        **call: Unpack[PerCall],
    ) -> R: ...


class BlockingTwins(Generic[T, R]):
    """What a queue offers to plain threads."""

    _token: trio.lowlevel.TrioToken | None = None

    def enqueue_sync(
        self: _Queue[T, R],
        item: T,
        priority: int | None = None,
        *,
        delay: float = 0.0,
        **call: Unpack[PerCall],
    ) -> Entry[T, R]:
        """Do what `enqueue` does, from a plain thread; blocks until it is admitted.

        Raises:
            RuntimeError: this is a thread of trio's: there it would block everything.
            Exception: as `enqueue`.
        """
        job = partial(self.enqueue, item, priority, delay=delay, **call)
        return _from_thread(job, self._token, "enqueue_sync")

    def process_sync(
        self: _Queue[T, R],
        item: T,
        priority: int | None = None,
        *,
        delay: float = 0.0,
        **call: Unpack[PerCall],
    ) -> R:
        """Do what `process` does, from a plain thread; blocks until the item is settled.

        Raises:
            RuntimeError: as `enqueue_sync`.
            Exception: as `process`.
        """
        job = partial(self.process, item, priority, delay=delay, **call)
        return _from_thread(job, self._token, "process_sync")
