"""The memory tier with many partitions, or many levels of priority.

Run:    python -m benchmarks.run --only shapes [--full]
Shows:  that an item costs the same however many partitions or levels there are. Each case
        stands beside batchq itself with few of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import trio

from benchmarks.harness import Case, Goal, Reading, Stopwatch
from benchmarks.queue import BATCH, LIST, Seen, queue

__all__ = ["CASES"]

_FLAT: Final = Goal(0.8, 0.95)
_FEW: Final = 1_000  # partitions of one item each that wait beside the many


def full_batches(partitions: int, size: int) -> Reading:
    """Let items of so many partitions come in turn, until all have left in full batches."""

    async def main(watch: Stopwatch) -> None:
        seen = Seen()
        async with queue(seen, partition_by=_of_partition) as target:
            with watch:
                for start in range(0, size, LIST):
                    numbers = range(start, start + LIST)
                    await target.enqueue_many(
                        [{"id": number, "partition": number % partitions} for number in numbers]
                    )
                await target.flush()
        assert seen.count == size

    return _timed(main).rate(size)


def single_items(most: int, size: int) -> Reading:
    """Let so many partitions of one item each wait, and leave; again and again."""
    partitions = min(most, size)

    async def main(watch: Stopwatch) -> None:
        seen = Seen()
        async with queue(seen, partition_by=_of_partition) as target:
            with watch:
                for _ in range(0, size, partitions):
                    items = [{"id": 0, "partition": number} for number in range(partitions)]
                    await target.enqueue_many(items)
                    await target.flush()
        assert seen.count == size

    return _timed(main).rate(size)


def levels(count: int, run: int, size: int) -> Reading:
    """Let runs of items of so many levels come in turn, in lines a hundred batches long."""

    async def main(watch: Stopwatch) -> None:
        seen = Seen()
        async with queue(seen, priority_levels=count) as target:
            with watch:
                for start in range(0, size, 100 * BATCH):
                    for number in range(start, start + 100 * BATCH):
                        target.enqueue_nowait({"id": number}, number // run % count)
                    await target.flush()
        assert seen.count == size

    return _timed(main).rate(size)


def _of_partition(item: dict[str, int]) -> int:
    return item["partition"]


def _timed(main: Callable[[Stopwatch], Any]) -> Stopwatch:
    watch = Stopwatch()
    trio.run(main, watch)
    return watch


CASES: Final = (
    *(
        Case(
            name=f"shapes/partitions_{count}",
            ours=partial(full_batches, count),
            floor=partial(full_batches, 1),
            beside="batchq itself with one partition; full batches",
            size=size,
            smoke=2 * LIST,
            reach=_FLAT,
        )
        for count, size in ((10, 20_000), (1_000, 100_000))
    ),
    *(
        Case(
            name=f"shapes/partitions_{count // 1000}k_of_one",
            ours=partial(single_items, count),
            floor=partial(single_items, _FEW),
            beside="batchq itself with a thousand such partitions; batches of one",
            unit="batches/s",
            size=count,
            smoke=_FEW,
            reach=_FLAT,
            full=full,
        )
        for count, full in ((10_000, False), (100_000, True))
    ),
    *(
        Case(
            name=f"shapes/levels_{name}",
            ours=partial(levels, count, run),
            floor=partial(levels, 1, run),
            beside="batchq itself with one level",
            size=50_000,
            smoke=100 * BATCH,
            reach=_FLAT,
        )
        # In runs, the items of a batch lie together in memory, as those of one level do.
        for name, count, run in (("3", 3, 1), ("100", 100, 1), ("100_in_runs", 100, BATCH))
    ),
)
