"""A process that works until it is told to stop: by SIGINT or SIGTERM, or twice by them.

Rule 1: signals are counted where they arrive, between two steps of the main thread's code, so
that the second one ends the process even while a handler blocks the event loop.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from types import FrameType
from typing import Any, Final

import attrs
import trio

from batchq.exits import ctrl_c_is_taken

__all__ = ["copies_within", "run_until_signal"]

logger = logging.getLogger("batchq")

copies_within: ContextVar[float] = ContextVar("copies_within", default=0.02)
"""Signals that come so soon after the first are copies of it [s].

`timeout` and wrappers send one both to the process and to its group, at one instant; nobody
presses Ctrl-C twice so fast. Who has a supervisor that passes signals on sets more.
"""

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
    stop = _Stop(copies_within.get())
    before = {number: signal.signal(number, stop.hear) for number in _STOPS}
    ctrl_c_is_taken.set(True)
    try:
        async with block:
            begun()
            await stop.asked.wait()
            logger.info("stopping: no more claims; running handlers finish")
        logger.info("stopped by %s", signal.Signals(stop.number).name)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@attrs.define(eq=False)
class _Stop:
    """Counts signals: the first asks for a stop, the second one ends the process."""

    copies_within: float
    asked: trio.Event = attrs.field(factory=trio.Event, init=False)
    number: int = attrs.field(default=0, init=False)
    _first_at: float = attrs.field(default=0.0, init=False)
    _token: trio.lowlevel.TrioToken = attrs.field(
        factory=trio.lowlevel.current_trio_token, init=False
    )

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Take a signal; nothing is logged here, for what it interrupts may hold a log's lock."""
        del frame
        if not self.number:
            self.number, self._first_at = number, time.monotonic()
            self._token.run_sync_soon(self.asked.set)
        elif time.monotonic() >= self._first_at + self.copies_within:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
            os._exit(128 + number)  # the first process of a container outlives the default action
