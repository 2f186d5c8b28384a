"""A process that works until it is told to stop: by SIGINT or SIGTERM, or twice by them."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import trio

from batchq.nest import Nest

__all__ = ["run_until_signal"]

logger = logging.getLogger("batchq")

_SAME_SIGNAL: Final = 0.3  # two within so long are one [s]


async def run_until_signal(
    block: AbstractAsyncContextManager[Any], begun: Callable[[], object]
) -> None:
    """Stay in a block until a signal; a second one, while it is left, ends the process.

    Args:
        block: where the work is done.
        begun: called in it, first of all.
    """
    nest = Nest()  # what ends the work comes out by itself, in no group
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        nursery = await nest.enter()
        try:
            async with block:
                begun()
                number = await anext(signals)
                logger.info("stopping: no more claims; running handlers finish")
                nursery.start_soon(_die_at_the_next, signals)
        finally:
            await nest.leave(sys.exception())
        logger.info("stopped by %s", signal.Signals(number).name)


async def _die_at_the_next(signals: AsyncIterator[int]) -> None:
    # A terminal, or whoever stops a group of processes, may send the first one twice.
    once_more = trio.current_time() + _SAME_SIGNAL
    number = await anext(signals)
    while trio.current_time() < once_more:
        number = await anext(signals)
    logger.warning("stopped at once: what was running will run again")
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
