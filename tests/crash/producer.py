"""The producer of the kill test: stores jobs until it is killed.

It writes an id to its side file only after `enqueue` has returned it: that is the moment
from which the job must not be lost.
"""

from __future__ import annotations

import itertools
import os

import trio

from tests.crash.app import append, manager, many, one, side_file, slow

_PACE = 0.02
_BULK = 12
_PACE_OF_SLOW_ONES = float(os.environ.get("BATCHQ_CRASH_PACE", "0.25"))
_SLOW = int(os.environ.get("BATCHQ_CRASH_SLOW", "0"))  # tasks that store jobs that take long


async def _singles(numbers: itertools.count[int], file: int) -> None:
    """Store one after the other, as callers do that know nothing of each other."""
    while True:
        job = await one.enqueue(next(numbers))
        append(file, [f"{os.getpid()} {job.id}"])
        await trio.sleep(_PACE)


async def _bulks(numbers: itertools.count[int], file: int) -> None:
    while True:
        jobs = await many.enqueue_many([next(numbers) for _ in range(_BULK)])
        append(file, [f"{os.getpid()} {job.id}" for job in jobs])
        await trio.sleep(_PACE)


async def _slow_ones(numbers: itertools.count[int], file: int) -> None:
    while True:
        job = await slow.enqueue(next(numbers))
        append(file, [f"{os.getpid()} {job.id}"])
        await trio.sleep(_PACE_OF_SLOW_ONES)


async def _produce(parent: int) -> None:
    file = side_file("acks")
    numbers = itertools.count(1)
    async with manager, trio.open_nursery() as nursery:
        for task in (_singles, _singles, _bulks, _bulks, *[_slow_ones] * _SLOW):
            nursery.start_soon(task, numbers, file)
        while os.getppid() == parent:  # noqa: ASYNC110 - no event tells of a parent's death
            await trio.sleep(0.5)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(_produce, os.getppid())
