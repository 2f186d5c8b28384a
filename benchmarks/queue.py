"""The memory tier beside hand-written batchers.

Run:    python -m benchmarks.run --only queue
Shows:  what an entry with an id, a status and a result costs over a bare deque.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import trio

from batchq.queue import BatchedQueue
from benchmarks.floors import Asker, Worker
from benchmarks.harness import Case, Goal, Reading, Side, Stopwatch

__all__ = ["BATCH", "CASES", "INTERVAL", "LOOPS", "Item", "ours_of"]

BATCH: Final = 100
INTERVAL: Final = 1.0
BURST: Final = 100  # items between two moments in which a producer lets others run
LIST: Final = 1_000  # items of one enqueue_many
LOOPS: Final = 100  # tasks that ask again and again

Item = dict[str, int]
Main = Callable[[int, Stopwatch], Awaitable[None]]


class Seen:
    """A handler that only counts what it was given."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, batch: Any) -> None:  # noqa: ANN401 - a list or a Batch
        """Count a batch; every item succeeded."""
        self.count += len(batch)


async def number_all(batch: Any) -> list[Any]:  # noqa: ANN401 - a list or a Batch
    """Answer each item with its number."""
    return [item["id"] for item in batch]


def queue(processor: Any, **options: Any) -> BatchedQueue[Any, Any]:  # noqa: ANN401
    """Make a queue of ours, like the floors: without a limit."""
    options = {
        "batch_size": BATCH,
        "flush_interval": INTERVAL,
        "max_queue_size": None,
        "shutdown_timeout": None,
    } | options
    return BatchedQueue(processor, **options)


# ---- Fire and forget: `put` is what a case calls for each burst.


async def _nowait(target: BatchedQueue[Any, Any], burst: range) -> None:
    enqueue = target.enqueue_nowait
    for number in burst:
        enqueue({"id": number})
    await trio.lowlevel.checkpoint()


async def _enqueue(target: BatchedQueue[Any, Any], burst: range) -> None:
    enqueue = target.enqueue
    for number in burst:
        await enqueue({"id": number})


async def _enqueue_many(target: BatchedQueue[Any, Any], burst: range) -> None:
    await target.enqueue_many([{"id": number} for number in burst])


async def _put_nowait(target: Worker, burst: range) -> None:
    put = target.put_nowait
    for number in burst:
        put({"id": number})
    await trio.lowlevel.checkpoint()


async def _put(target: Worker, burst: range) -> None:
    put = target.put
    for number in burst:
        await put({"id": number})
    await trio.lowlevel.checkpoint()


async def _put_many(target: Worker, burst: range) -> None:
    target.put_many([{"id": number} for number in burst])
    await trio.lowlevel.checkpoint()


class _Put(Protocol):
    async def __call__(self, target: Any, burst: range, /) -> None:  # noqa: ANN401
        """Make the items of a burst and hand them over."""


def forget_ours(put: _Put, burst: int = BURST) -> Callable[[int], Reading]:
    """Measure items handed to our queue in bursts, until all are settled."""

    async def main(size: int, watch: Stopwatch) -> None:
        seen, bursts = Seen(), _bursts(size, burst)
        with watch:
            async with queue(seen) as target:
                for numbers in bursts:
                    await put(target, numbers)
        assert seen.count == size

    return _rate_of(main)


def forget_floor(put: _Put, burst: int = BURST) -> Callable[[int], Reading]:
    """Measure the same with a deque and a worker task."""

    async def main(size: int, watch: Stopwatch) -> None:
        seen, bursts = Seen(), _bursts(size, burst)
        target = Worker(seen, BATCH, INTERVAL)
        with watch:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(target.run)
                for numbers in bursts:
                    await put(target, numbers)
                target.close()
        assert seen.count == size

    return _rate_of(main)


# ---- Request and response.


class _Process(Protocol):
    async def __call__(self, item: Any, /) -> object:  # noqa: ANN401
        """Return the item's answer."""


async def _each_in_a_task(process: _Process, size: int) -> None:
    async def ask(item: dict[str, int]) -> None:
        assert await process(item) == item["id"]

    async with trio.open_nursery() as callers:
        for number in range(size):
            callers.start_soon(ask, {"id": number})


async def _in_loops(process: _Process, size: int) -> None:
    async def ask_again_and_again(mine: range) -> None:
        for number in mine:
            assert await process({"id": number}) == number

    async with trio.open_nursery() as callers:
        for number in range(LOOPS):
            callers.start_soon(ask_again_and_again, range(number, size, LOOPS))


Ask = Callable[[_Process, int], Awaitable[None]]


def ask_ours(ask: Ask) -> Callable[[int], Reading]:
    """Measure `process` of our queue."""

    async def main(size: int, watch: Stopwatch) -> None:
        async with queue(number_all) as target:
            with watch:
                await ask(target.process, size)

    return _rate_of(main)


def ask_floor(ask: Ask) -> Callable[[int], Reading]:
    """Measure the same with callers that sleep until the worker wakes them."""

    async def main(size: int, watch: Stopwatch) -> None:
        target = Asker(number_all, BATCH, INTERVAL)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(target.run)
            with watch:
                await ask(target.process, size)
            target.close()

    return _rate_of(main)


def _bursts(size: int, burst: int) -> list[range]:
    return [range(start, min(start + burst, size)) for start in range(0, size, burst)]


def _rate_of(main: Main) -> Callable[[int], Reading]:
    def side(size: int) -> Reading:
        watch = Stopwatch()
        trio.run(main, size, watch)
        return watch.rate(size)

    return side


CASES: Final = (
    Case(
        name="queue/enqueue_nowait",
        ours=forget_ours(_nowait),
        floor=forget_floor(_put_nowait),
        beside="deque and worker task, one method call per item",
        size=200_000,
        smoke=2_000,
        reach=Goal(0.20, 0.33),
    ),
    Case(
        name="queue/enqueue",
        ours=forget_ours(_enqueue),
        floor=forget_floor(_put),
        beside="deque and worker task, one cancel point per item",
        size=200_000,
        smoke=2_000,
        reach=Goal(0.35, 0.55),
    ),
    Case(
        name="queue/enqueue_many",
        ours=forget_ours(_enqueue_many, LIST),
        floor=forget_floor(_put_many, LIST),
        beside="deque.extend and worker task, lists of a thousand",
        size=500_000,
        smoke=2_000,
        reach=Goal(0.12, 0.25),
    ),
    Case(
        name="queue/process",
        ours=ask_ours(_each_in_a_task),
        floor=ask_floor(_each_in_a_task),
        beside="tasks asleep in wait_task_rescheduled, one per item",
        size=20_000,
        smoke=500,
        reach=Goal(0.85, 0.95),
    ),
    Case(
        name="queue/process_loops",
        ours=ask_ours(_in_loops),
        floor=ask_floor(_in_loops),
        beside="100 tasks asleep in wait_task_rescheduled, again and again",
        size=50_000,
        smoke=1_000,
        reach=Goal(0.80, 0.90),
    ),
)


def ours_of(name: str) -> Side:
    """Return our side of the case of that name, to put it beside something else."""
    return next(case.ours for case in CASES if case.name == name)
