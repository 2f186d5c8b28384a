"""A process that works until it is told to stop: by SIGINT or SIGTERM, or twice by them.

Rule 1: signals are counted where they arrive, between two steps of the main thread's code, so
that the second one ends the process even while a handler blocks the event loop.
Rule 2: a supervisor's word is no signal: who signals a whole family of processes reaches each
directly, and again through its supervisor, and that is not twice.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from types import FrameType
from typing import Any, Final

import attrs
import trio

from batchq.exits import ctrl_c_is_taken

__all__ = ["run_until_signal", "stop_here"]

logger = logging.getLogger("batchq")

# Signals that come so soon after the first are copies of it [s]: `timeout` and wrappers send one
# both to the process and to its group. Nobody presses Ctrl-C twice so fast.
_COPIES: Final = 0.02
_STOPS: Final = (signal.SIGINT, signal.SIGTERM)


async def run_until_signal(
    block: AbstractAsyncContextManager[Any], begun: Callable[[], object]
) -> None:
    """Stay in a block until a signal; a second one, while it is left, ends the process.

    Args:
        block: where the work is done.
        begun: called in it, first of all.

    Raises:
        RuntimeError: this is not the main thread, and no signal would ever arrive.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "run() works until a signal comes, and signals come to the main thread only; in"
            " another one write start_workers(), and stop_workers() to end them"
        )
    stop = _Stop()
    with _here.lock:
        _here.stop = stop
    before = {number: signal.signal(number, stop.hear) for number in _STOPS}
    ctrl_c_is_taken.set(True)
    try:
        async with block:
            begun()
            await stop.asked.wait()
            logger.info("stopping: no more claims; running handlers finish")
        by = signal.Signals(stop.number).name if stop.number else "the supervisor"
        logger.info("stopped by %s", by)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_here() -> None:
    """Stop what works here, as the first signal does; from any thread.

    Before `run_until_signal` nothing works, and the process ends.
    """
    with _here.lock:
        if _here.stop is None:
            os._exit(0)
        _here.stop.ask()


@attrs.define(eq=False)
class _Stop:
    """Counts signals: the first asks for a stop, the second one ends the process."""

    asked: trio.Event = attrs.field(factory=trio.Event, init=False)
    number: int = attrs.field(default=0, init=False)
    _first_at: float = attrs.field(default=0.0, init=False)
    _token: trio.lowlevel.TrioToken = attrs.field(
        factory=trio.lowlevel.current_trio_token, init=False
    )

    def ask(self) -> None:
        """Ask for a stop; from any thread."""
        with suppress(trio.RunFinishedError):  # it has ended
            self._token.run_sync_soon(self.asked.set)

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Take a signal; nothing is logged here, for what it interrupts may hold a log's lock."""
        del frame
        if not self.number:
            self.number, self._first_at = number, time.monotonic()
            self.ask()
        elif time.monotonic() >= self._first_at + _COPIES:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
            os._exit(128 + number)  # the first process of a container outlives the default action


@attrs.define(eq=False)
class _Here:
    """What works in this process; None: nothing has begun."""

    lock: Any = attrs.field(factory=threading.Lock)
    stop: _Stop | None = None


_here: Final = _Here()
