"""What waits in memory: for a result, for company, or in a long line.

Run:    python -m benchmarks.run --only waiting
Shows:  many results awaited in one task, what a lone item waits beyond its interval, how
        fast items pass, or drop others, when very many wait, and what each of those takes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import outcome
import trio
import trio.testing

from benchmarks.floors import Asker, Worker
from benchmarks.harness import Case, Goal, Reading, Stopwatch, peak_memory
from benchmarks.queue import BATCH, LIST, Seen, number_all, queue

__all__ = ["CASES"]

SHORT: Final = 0.01  # seconds: the interval of a lone item
SHORT_LINE: Final = 1_000  # items that wait in a short line
DROPPED: Final = 20_000  # items that come into a full queue
PASSING: Final = 100_000  # items that pass through while the line stays as long as it is


# ---- Many results awaited in one task.


def many_ours(size: int) -> Reading:
    """Enqueue a thousand items at once, await each one's result; again and again."""

    async def main(watch: Stopwatch) -> None:
        async with queue(number_all) as target:
            with watch:
                for start in range(0, size, LIST):
                    numbers = range(start, start + LIST)
                    entries = await target.enqueue_many([{"id": number} for number in numbers])
                    found = [await entry.result() for entry in entries]
                    assert found == list(numbers)

    return _timed(main).rate(size)


class _Cell:
    """The least that can be awaited: a place for the answer and for who waits."""

    __slots__ = ("answer", "item", "task")

    def __init__(self, item: object) -> None:
        self.item = item
        self.answer: object = None
        self.task: trio.lowlevel.Task | None = None

    async def result(self) -> object:
        if self.item is not None:
            self.task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        return self.answer

    def settle(self, answer: object) -> None:
        self.answer = answer
        self.item = None
        if self.task is not None:
            trio.lowlevel.reschedule(self.task, outcome.Value(None))

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self.task = None
        return trio.lowlevel.Abort.SUCCEEDED


async def _settle_cells(cells: list[_Cell]) -> None:
    answers = await number_all([cell.item for cell in cells])
    for cell, answer in zip(cells, answers, strict=True):
        cell.settle(answer)


def many_floor(size: int) -> Reading:
    """Do the same with bare cells."""

    async def main(watch: Stopwatch) -> None:
        target = Worker(_settle_cells, BATCH, SHORT)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(target.run)
            with watch:
                for start in range(0, size, LIST):
                    numbers = range(start, start + LIST)
                    cells = [_Cell({"id": number}) for number in numbers]
                    target.put_many(cells)
                    found = [await cell.result() for cell in cells]
                    assert found == list(numbers)
            target.close()

    return _timed(main).rate(size)


def many_peer(size: int) -> Reading:
    """Do the same with aiodataloader's `load_many`, its cache off."""
    from aiodataloader import DataLoader  # noqa: PLC0415 - a peer, where it is installed

    async def answer(numbers: list[int]) -> list[int]:
        return numbers

    async def main() -> Stopwatch:
        loader = DataLoader(answer, max_batch_size=BATCH, cache=False)
        with Stopwatch() as watch:
            for start in range(0, size, LIST):
                numbers = list(range(start, start + LIST))
                assert await loader.load_many(numbers) == numbers
        return watch

    return asyncio.run(main()).rate(size)


# ---- A lone item.


def lone_ours(size: int) -> Reading:
    """Let lone items wait for company, one after the other."""

    async def main(watch: Stopwatch) -> None:
        async with queue(number_all, flush_interval=SHORT) as target:
            with watch:
                for number in range(size):
                    await target.process({"id": number})

    return Reading(_timed(main).seconds / size - SHORT)


def lone_floor(size: int) -> Reading:
    """Sleep as long."""

    async def main(watch: Stopwatch) -> None:
        with watch:
            for _ in range(size):
                await trio.sleep(SHORT)

    return Reading(_timed(main).seconds / size - SHORT)


def lone_batcher(size: int) -> Reading:
    """Let lone items wait in the hand-written batcher."""

    async def main(watch: Stopwatch) -> None:
        target = Asker(number_all, BATCH, SHORT)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(target.run)
            with watch:
                for number in range(size):
                    await target.process({"id": number})
            target.close()

    return Reading(_timed(main).seconds / size - SHORT)


# ---- A long line.


async def _pass_through(line: int, watch: Stopwatch) -> None:
    """Let items pass while `line` others wait: each call enqueues as many as it takes."""
    done = trio.Event()
    left = min(PASSING, 100 * line)

    async def replace(batch: Any) -> None:  # noqa: ANN401 - a processor
        nonlocal left
        left -= len(batch)
        if left <= 0:
            done.set()
            target.pause()
            return
        for item in batch:
            target.enqueue_nowait(item)

    with trio.CancelScope() as scope:
        async with queue(replace) as target:
            target.pause()
            await target.enqueue_many([{"id": number} for number in range(line)])
            await trio.testing.wait_all_tasks_blocked()
            with watch:
                target.resume()
                await done.wait()
            scope.cancel()
            await trio.lowlevel.checkpoint()


def long_line(size: int) -> Reading:
    """Measure the rate at which items pass while `size` wait."""
    watch = Stopwatch()
    trio.run(_pass_through, size, watch)
    return watch.rate(min(PASSING, 100 * size))


def short_line(_: int) -> Reading:
    """Measure the same with a short line."""
    return long_line(SHORT_LINE)


# ---- A full queue that drops the oldest, of several partitions: its dearest kind.


async def _drop(line: int, watch: Stopwatch) -> None:
    options: dict[str, Any] = {"drop_policy": "drop-oldest", "max_queue_size": line}
    with trio.CancelScope() as scope:
        async with queue(Seen(), partition_by=_decade_of, **options) as target:
            target.pause()
            await target.enqueue_many([{"id": number} for number in range(line)])
            with watch:
                for number in range(DROPPED):
                    target.enqueue_nowait({"id": number})
            scope.cancel()
            await trio.lowlevel.checkpoint()


def _decade_of(item: dict[str, int]) -> int:
    return item["id"] % 10


def drop_of_many(size: int) -> Reading:
    """Measure the rate at which items drop others while `size` wait."""
    watch = Stopwatch()
    with _silenced():
        trio.run(_drop, size, watch)
    return watch.rate(DROPPED)


def drop_of_few(_: int) -> Reading:
    """Measure the same with a short line."""
    return drop_of_many(SHORT_LINE)


@contextmanager
def _silenced() -> Iterator[None]:
    """Let nobody be warned of what is dropped."""
    logger = logging.getLogger("batchq")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


# ---- Memory.


def memory_ours(size: int) -> Reading:
    """Measure what a waiting entry adds to the peak memory of a process."""

    async def main() -> float:
        with trio.CancelScope() as scope:
            async with queue(Seen()) as target:
                target.pause()
                items = [{"id": number} for number in range(size)]
                before = peak_memory()
                for item in items:
                    target.enqueue_nowait(item)
                grown = peak_memory() - before
                scope.cancel()
                await trio.lowlevel.checkpoint()
        return grown / size

    return Reading(trio.run(main))


class _Bare:
    """The least that an entry could be."""

    __slots__ = ("at", "id", "item", "status")

    def __init__(self, id_: int, item: object, at: float) -> None:
        self.id = id_
        self.item = item
        self.at = at
        self.status = 0


def memory_floor(size: int) -> Reading:
    """Measure the same for a deque of bare slotted objects."""
    items = [{"id": number} for number in range(size)]
    before = peak_memory()
    line = deque(_Bare(number, item, 0.0) for number, item in enumerate(items, 1))
    assert len(line) == size
    return Reading((peak_memory() - before) / size)


def _timed(main: Callable[[Stopwatch], Awaitable[None]]) -> Stopwatch:
    watch = Stopwatch()
    trio.run(main, watch)
    return watch


CASES: Final = (
    Case(
        name="waiting/many_results",
        ours=many_ours,
        floor=many_floor,
        beside="bare cells, awaited in one task",
        size=100_000,
        smoke=1_000,
    ),
    Case(
        name="waiting/many_results_peer",
        ours=many_ours,
        floor=many_peer,
        beside="aiodataloader's load_many",
        size=100_000,
        smoke=1_000,
        reach=Goal(1.0, 2.5),
        needs="aiodataloader",
    ),
    Case(
        name="waiting/lone",
        ours=lone_ours,
        floor=lone_floor,
        beside="a bare sleep of the same length; both beyond it",
        unit="s late",
        better="less",
        size=30,
        smoke=2,
        reach=Goal(1.3, 1.15),
    ),
    Case(
        name="waiting/lone_batcher",
        ours=lone_ours,
        floor=lone_batcher,
        beside="a lone item in the hand-written batcher; both beyond its interval",
        unit="s late",
        better="less",
        size=30,
        smoke=2,
    ),
    Case(
        name="waiting/line_100k",
        ours=long_line,
        floor=short_line,
        beside="batchq itself with 1,000 waiting; ours: with 100,000",
        size=100_000,
        smoke=2_000,
        reach=Goal(0.8, 0.95),
        apart=True,
    ),
    Case(
        name="waiting/line_1m",
        ours=long_line,
        floor=short_line,
        beside="batchq itself with 1,000 waiting; ours: with a million",
        size=1_000_000,
        smoke=2_000,
        reach=Goal(0.8, 0.95),
        apart=True,
        full=True,
    ),
    Case(
        name="waiting/drop_of_100k",
        ours=drop_of_many,
        floor=drop_of_few,
        beside="batchq itself with 1,000 waiting; ours: with 100,000",
        size=100_000,
        smoke=2_000,
        apart=True,
    ),
    Case(
        name="waiting/memory",
        ours=memory_ours,
        floor=memory_floor,
        beside="bare slotted objects of four fields in a deque",
        unit="B/item",
        better="less",
        size=200_000,
        smoke=20_000,
        apart=True,
    ),
)
