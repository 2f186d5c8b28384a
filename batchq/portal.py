"""A queue in a thread of its own, for plain threads and for asyncio.

Rule 1: a queue is touched in its own thread only; others hand calls over to it.
Rule 2: every call is answered, however its queue ends.
Rule 3: what many callers have for another thread at one time costs one wake-up.

    thread or asyncio          the portal's thread, under trio
      │ process(x) ── call ──▶ a task: await queue.process(x)
      │ (given up? its scope is cancelled: the item is taken back)
      ◀── value, or the very error ──┘
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar, Unpack, overload

import attrs
import trio

from batchq.bridge import LoopThread, forbid_event_loop, in_trio
from batchq.core.options import PerCall
from batchq.errors import QueueClosed
from batchq.handle import Entry
from batchq.nest import Nest

__all__ = ["Portal", "Served"]

T = TypeVar("T")
R = TypeVar("R")
V = TypeVar("V")
T_contra = TypeVar("T_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class Served(Protocol[T_contra, R_co]):
    """What a portal serves: a `BatchedQueue`."""

    name: str

    async def process(self, item: T_contra, priority: int | None = None) -> R_co:
        """Hand an item over, and return its own value."""

    async def __aenter__(self) -> object:
        """Begin to work."""

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        """Finish, then stop."""


class _How(PerCall, total=False):
    """What a call may say of its item."""

    delay: float


@attrs.define(eq=False)
class _Hatch:
    """Passes functions to another thread, to be called there in order.

    Attributes:
        wake: lets that thread call a function soon; asked once for many.
    """

    wake: Callable[[Callable[[], object]], object]
    _things: deque[Callable[[], object]] = attrs.field(factory=deque, init=False)
    _woken: bool = attrs.field(default=False, init=False)

    def put(self, thing: Callable[[], object]) -> None:
        """Pass it on; where the loop there has ended it is called here, and has to see it."""
        self._things.append(thing)
        if not self._woken:
            self._woken = True
            try:
                self.wake(self._take)
            except RuntimeError:
                self._take()

    def _take(self) -> None:
        # First, or what is put while the last one is taken would lie here.
        self._woken = False
        while self._things:
            self._things.popleft()()


@attrs.define(eq=False)
class _Call(Generic[V]):
    """What one caller elsewhere waits for."""

    function: Callable[[], Awaitable[V] | V]
    future: Future[V] = attrs.field(factory=Future)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    async def run(self) -> None:
        """Carry it out, and tell the caller."""
        try:
            with self.scope:
                value = self.function()
                if inspect.isawaitable(value):
                    value = await value
                self._end(partial(self.future.set_result, value))
        except Exception as error:
            self.fail(error)
        finally:
            # The queue crashed meanwhile: nobody may be left waiting.
            self.fail(QueueClosed("the portal's queue ended before this call did"))

    def fail(self, error: Exception) -> None:
        """Tell the caller that nothing will come of it, if nothing else was told."""
        self._end(partial(self.future.set_exception, error))

    def _end(self, tell: Callable[[], object]) -> None:
        # A caller who gave up is not told; this very step settles which of the two it was.
        if not self.future.done() and self.future.set_running_or_notify_cancel():
            tell()


@attrs.define(eq=False)
class Portal(Generic[T, R]):
    """Runs a queue in a thread of its own, for plain threads and for asyncio.

    It is a context manager in both worlds. Leaving the block drains the queue, as leaving
    the queue's own block does; an error in the block, or being cancelled while it is entered
    or left, ends it without a drain.

        with Portal(queue) as portal:          # Flask, Django, scripts: any thread may call
            answer = portal.process_sync(item)

        async with Portal(queue) as portal:    # FastAPI, aiohttp: any task may call
            answer = await portal.process(item)

    Make it after a fork: threads do not come along into the child.

    Attributes:
        queue: not entered yet; it is entered in that thread.

    Raises:
        TypeError: it is no queue.
    """

    queue: Served[T, R]
    _thread: LoopThread = attrs.field(init=False)
    _calls: trio.Nursery | None = attrs.field(default=None, init=False)
    _inward: _Hatch = attrs.field(init=False)
    # One per event loop of asyncio that calls.
    _outward: dict[asyncio.AbstractEventLoop, _Hatch] = attrs.field(factory=dict, init=False)
    _process: int = attrs.field(factory=os.getpid, init=False)

    def __attrs_post_init__(self) -> None:
        if isinstance(self.queue, type) or not hasattr(self.queue, "process"):
            raise TypeError(f"a portal takes a queue that is not entered yet, got {self.queue!r}")
        self._thread = LoopThread(self._serving, name=f"batchq {self.queue.name}")
        self._inward = _Hatch(self._thread.run_soon)

    def process_sync(self, item: T, priority: int | None = None, **how: Unpack[_How]) -> R:
        """Hand an item over, block this thread until it is settled, return its own value.

        Interrupting it (Ctrl-C) takes the item back, as cancelling `process` does.

        Args:
            item: as for `BatchedQueue.process`.
            priority: the same.
            how: its delay, weight, partition and so on; the same.

        Raises:
            Exception: as `BatchedQueue.process`; the very error.
            RuntimeError: an event loop runs in this thread, or this is a forked child.
        """
        forbid_event_loop("process_sync()", "await portal.process(item)")
        queue: Any = self.queue
        answer: Future[R] = self._submit(partial(queue.process, item, priority, **how))
        return self._wait(answer)

    def enqueue_sync(
        self,
        item: T,
        priority: int | None = None,
        **how: Unpack[_How],
    ) -> Entry[T, R]:
        """Hand an item over; blocks this thread until it is admitted, not until it is done.

        Returns:
            Its entry, to look at. It belongs to the queue's thread: to wait for it or to
            cancel it, `call` a method of it there.

        Raises:
            Exception: as `BatchedQueue.enqueue`.
            RuntimeError: as `process_sync`.
        """
        forbid_event_loop("enqueue_sync()", "await portal.enqueue(item)")
        queue: Any = self.queue
        entry: Future[Entry[T, R]] = self._submit(partial(queue.enqueue, item, priority, **how))
        return self._wait(entry)

    async def process(self, item: T, priority: int | None = None, **how: Unpack[_How]) -> R:
        """Do what `BatchedQueue.process` does, under asyncio.

        Many tasks may wait at once; the calls of one turn of the loop travel together.
        Cancelling it takes the item back if its batch has not started.

        Raises:
            Exception: as `BatchedQueue.process`; the very error.
            RuntimeError: this is no asyncio task, or a forked child.
        """
        _check_asyncio("process")
        queue: Any = self.queue
        answer: Future[R] = self._submit(partial(queue.process, item, priority, **how))
        return await self._answer(answer)

    async def enqueue(
        self, item: T, priority: int | None = None, **how: Unpack[_How]
    ) -> Entry[T, R]:
        """Do what `BatchedQueue.enqueue` does, under asyncio; see `enqueue_sync`."""
        _check_asyncio("enqueue")
        queue: Any = self.queue
        entry: Future[Entry[T, R]] = self._submit(partial(queue.enqueue, item, priority, **how))
        return await self._answer(entry)

    @overload
    def call(self, function: Callable[[], Awaitable[V]]) -> V: ...
    @overload
    def call(self, function: Callable[[], V]) -> V: ...
    def call(self, function: Callable[[], Awaitable[V] | V]) -> V:
        """Call a function in the queue's thread, block until it is done, return its value.

        It is how to reach the rest of the queue: `portal.call(queue.stats)`,
        `portal.call(queue.flush)`.

        Args:
            function: plain or async; without arguments.

        Raises:
            Exception: what it raises.
            RuntimeError: as `process_sync`.
        """
        forbid_event_loop("call()", "await asyncio.to_thread(portal.call, function)")
        return self._wait(self._submit(function))

    def __enter__(self) -> Self:
        forbid_event_loop(
            "'with Portal'", "'async with Portal(queue)', under trio 'async with queue'"
        )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.stop(cancel=error is not None)

    async def __aenter__(self) -> Self:
        _check_asyncio("async with")
        entering = asyncio.ensure_future(asyncio.to_thread(self._thread.start))
        try:
            await asyncio.shield(entering)
        except asyncio.CancelledError:
            await asyncio.wait([entering])  # a thread that has begun can't be held back
            await asyncio.shield(self._abandon(entering))
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        stop = partial(self._thread.stop, cancel=error is not None)
        leaving = asyncio.ensure_future(asyncio.to_thread(stop))
        try:
            await asyncio.shield(leaving)
        except asyncio.CancelledError:
            await asyncio.shield(self._abandon(leaving))
            raise

    async def _abandon(self, under_way: asyncio.Future[None]) -> None:
        """End the queue without a drain: whoever entered or left the block was cancelled."""
        stop = asyncio.to_thread(partial(self._thread.stop, cancel=True))
        await asyncio.gather(under_way, stop, return_exceptions=True)

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        """Keep the queue open, and the calls until each has been told."""
        calls = Nest()
        self._calls = nursery = await calls.enter()
        try:
            async with self.queue:
                yield
        finally:
            self._calls = None
            # Every entry is settled: those who wait for one have their answer.
            nursery.cancel_scope.shield = True
            await calls.leave(None)

    def _submit(self, function: Callable[[], Awaitable[V] | V]) -> Future[V]:
        """Hand a call over; cancelling the future cancels the call."""
        if os.getpid() != self._process:
            raise RuntimeError(
                "the portal's thread did not come along into this forked process;"
                " make the portal after the fork"
            )
        call = _Call(function)
        call.future.add_done_callback(partial(self._withdraw, call))
        self._inward.put(partial(self._begin, call))
        return call.future

    async def _answer(self, future: Future[V]) -> V:
        """Wait for a call under asyncio; cancelled, it cancels the call."""
        loop = asyncio.get_running_loop()
        if loop not in self._outward:
            for gone in [each for each in self._outward if each.is_closed()]:
                self._outward.pop(gone, None)
            self._outward[loop] = _Hatch(loop.call_soon_threadsafe)
        hatch = self._outward[loop]
        answer: asyncio.Future[V] = loop.create_future()
        future.add_done_callback(lambda _: hatch.put(partial(_copy, future, answer)))
        try:
            return await answer
        finally:
            future.cancel()

    def _begin(self, call: _Call[Any]) -> None:
        if self._calls is None:
            call.fail(self._closed())
        else:
            self._calls.start_soon(call.run)

    def _withdraw(self, call: _Call[Any], future: Future[Any]) -> None:
        if future.cancelled():
            self._inward.put(call.scope.cancel)

    def _wait(self, future: Future[V]) -> V:
        try:
            return future.result()
        finally:
            future.cancel()  # by Ctrl-C: nobody waits for it any more

    def _closed(self) -> QueueClosed:
        return QueueClosed(
            f"the portal of queue {self.queue.name!r} is not open; use it inside its 'with' block"
        )


def _check_asyncio(call: str) -> None:
    """Refuse what is for asyncio alone."""
    if in_trio():
        raise RuntimeError(f"{call} is for asyncio; under trio use the queue itself")


def _copy(future: Future[V], answer: asyncio.Future[V]) -> None:
    """Answer a task of asyncio, in its own thread; one that gave up, or is gone, is not."""
    if answer.done() or answer.get_loop().is_closed():
        return
    error = future.exception()
    if error is None:
        answer.set_result(future.result())
    else:
        answer.set_exception(error)
