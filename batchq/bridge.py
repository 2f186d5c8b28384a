"""Ways in for threads and asyncio: which event loop is this, and a trio loop in a thread.

Rule 1: trio is the home. What runs elsewhere is a blocking call in a thread, or a `Portal`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import Any, TypeVar

import attrs
import trio

__all__ = [
    "Bell",
    "LoopThread",
    "forbid_event_loop",
    "in_trio",
    "run_blocking",
    "run_to_its_end",
]

logger = logging.getLogger("batchq")

T = TypeVar("T")


def in_trio() -> bool:
    """Tell whether trio, not asyncio, runs the current task.

    Raises:
        RuntimeError: neither does.
    """
    if trio.lowlevel.in_trio_task():
        return True
    asyncio.get_running_loop()  # raises where there is none
    return False


def forbid_event_loop(call: str, instead: str) -> None:
    """Refuse to block an event loop.

    Raises:
        RuntimeError: one runs in this thread; the message says what to write instead.
    """
    running = trio.lowlevel.in_trio_run()
    if not running:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
    raise RuntimeError(f"{call} would block the event loop of this thread; write {instead}")


async def run_blocking(call: Callable[[], T]) -> T:
    """Run a blocking call in a thread, under trio or asyncio.

    Cancelling does not end it: under trio it is waited for, under asyncio it goes on alone.
    """
    if in_trio():
        return await trio.to_thread.run_sync(call)
    return await asyncio.to_thread(call)  # noqa: ASYNC251 - not under trio here


async def run_to_its_end(call: Callable[[], object]) -> None:
    """Run a blocking call in a thread, under asyncio; cancelled, once it has ended."""
    running = asyncio.ensure_future(asyncio.to_thread(call))
    cancelled = False
    while not running.done():
        try:
            await asyncio.wait([running])  # noqa: ASYNC251 - not under trio here
        except asyncio.CancelledError:  # noqa: ASYNC103
            cancelled = True
    running.result()
    if cancelled:
        raise asyncio.CancelledError


@attrs.define(eq=False)
class Bell:
    """Wakes the one who waits for it; rung from any thread."""

    _rung: threading.Event = attrs.field(factory=threading.Event, init=False)
    _wake: Callable[[], object] | None = attrs.field(default=None, init=False)

    def ring(self) -> None:
        """End the wait under way, or the next one."""
        self._rung.set()
        wake = self._wake
        if wake is not None:
            # The loop that waited may be over: then nobody is there to be woken.
            with suppress(trio.RunFinishedError, RuntimeError):
                wake()

    async def wait(self, seconds: float) -> bool:
        """Wait until it rings, for at most `seconds`; tell whether it did.

        Under trio or asyncio.
        """
        await (self._wait_trio(seconds) if in_trio() else self._wait_asyncio(seconds))
        self._wake = None
        return self._reset()

    def wait_sync(self, seconds: float) -> bool:
        """Do the same, blocking."""
        self._rung.wait(min(seconds, threading.TIMEOUT_MAX))
        return self._reset()

    def _reset(self) -> bool:
        rung = self._rung.is_set()
        self._rung.clear()
        return rung

    async def _wait_trio(self, seconds: float) -> None:
        event = trio.Event()
        self._wake = partial(trio.lowlevel.current_trio_token().run_sync_soon, event.set)
        with trio.move_on_after(seconds):
            if not self._rung.is_set():
                await event.wait()

    async def _wait_asyncio(self, seconds: float) -> None:
        event = asyncio.Event()
        self._wake = partial(asyncio.get_running_loop().call_soon_threadsafe, event.set)
        with suppress(TimeoutError):
            if not self._rung.is_set():
                await asyncio.wait_for(event.wait(), min(seconds, threading.TIMEOUT_MAX))


@attrs.define(eq=False)
class LoopThread:
    """Keeps an async block open in a thread with a trio loop of its own.

    Attributes:
        make: makes the block; called in that thread.
        name: the thread's.
    """

    make: Callable[[], AbstractAsyncContextManager[Any]]
    name: str = "batchq"
    _pid: int = attrs.field(factory=os.getpid, init=False)
    _thread: threading.Thread | None = attrs.field(default=None, init=False)
    _entered: threading.Event = attrs.field(factory=threading.Event, init=False)
    _token: trio.lowlevel.TrioToken | None = attrs.field(default=None, init=False)
    _leave: trio.Event = attrs.field(factory=trio.Event, init=False)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _error: BaseException | None = attrs.field(default=None, init=False)

    @property
    def inherited(self) -> bool:
        """Whether it is another process's, which this one was forked from."""
        return self._pid != os.getpid()

    @property
    def unfinished(self) -> bool:
        """Whether `stop` has something to do: to end the block, or to raise what ended it."""
        alive = self._thread is not None and self._thread.is_alive()
        return alive or self._error is not None

    def start(self) -> None:
        """Enter the block; returns when it was entered.

        Raises:
            BaseException: what entering it raised.
            RuntimeError: it was started before.
        """
        if self._thread is not None:
            raise RuntimeError("it was started before; make a new one")
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()
        self._entered.wait()
        self._raise()

    def stop(self, *, cancel: bool = False) -> None:
        """Leave the block; returns when it was left.

        Args:
            cancel: cancel it first, as an error inside the block would.

        Raises:
            BaseException: what ended the block, or leaving it, raised.
        """
        if self._thread is None or self.inherited:
            return
        self._entered.wait()  # start() may have been interrupted
        with suppress(trio.RunFinishedError):  # it has ended by itself
            self.run_soon(self._scope.cancel if cancel else self._leave.set)
        self._thread.join()
        self._raise()

    def _raise(self) -> None:
        """Raise what ended the block, once, when its thread has ended too."""
        error, self._error = self._error, None
        if error is not None:
            if self._thread is not None:
                self._thread.join()
            raise error

    def run_soon(self, call: Callable[[], object]) -> None:
        """Let the thread run a plain function: in order, all of them before its loop ends.

        Raises:
            trio.RunFinishedError: the loop has ended, or never began.
        """
        if self._token is None:
            raise trio.RunFinishedError
        self._token.run_sync_soon(call)

    def _run(self) -> None:
        try:
            trio.run(self._keep)
        except BaseException as error:  # noqa: ASYNC103
            self._error = error
            told = self._leave.is_set() or self._scope.cancel_called
            if self._entered.is_set() and not told:
                # Nobody may ask for a long time.
                logger.critical("thread %r: its work has ended", self.name, exc_info=error)
        finally:
            self._entered.set()

    async def _keep(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with self._scope:
            async with self.make():
                self._entered.set()
                await self._leave.wait()
