"""The memory tier beside libraries that batch in memory, and beside what people write.

Run:    python -m benchmarks.run --only peers
Shows:  our own cases of queue.py, by ratio to each peer that is installed. The peers run
        under asyncio or in threads, as they are made: the loops differ too. None of those
        that only take items in has a call for many at once: `bulk_` puts ours beside theirs.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, Final

import trio

from benchmarks.harness import Case, Reading, Stopwatch
from benchmarks.queue import BATCH, INTERVAL, LOOPS, Item, ours_of

__all__ = ["CASES"]


# ---- Fire and forget.


def channel(size: int) -> Reading:
    """Send items down a trio memory channel; a task gathers and hands them out."""
    handled = 0

    async def gather(receive: trio.MemoryReceiveChannel[Item]) -> None:
        nonlocal handled
        batch: list[Item] = []
        async for item in receive:
            batch.append(item)
            if len(batch) == BATCH:
                handled += len(batch)
                batch = []
        handled += len(batch)

    async def main(watch: Stopwatch) -> None:
        send, receive = trio.open_memory_channel[Item](math.inf)
        with watch:
            async with trio.open_nursery() as nursery, send:
                nursery.start_soon(gather, receive)
                for number in range(size):
                    await send.send({"id": number})

    watch = Stopwatch()
    trio.run(main, watch)
    assert handled == size
    return watch.rate(size)


def asyncio_queue(size: int) -> Reading:
    """Put items into an `asyncio.Queue`; a task gathers and hands them out."""
    handled = 0

    async def gather(queue: asyncio.Queue[Item]) -> None:
        nonlocal handled
        while handled < size:
            batch = [await queue.get()]
            while len(batch) < BATCH and not queue.empty():
                batch.append(queue.get_nowait())
            handled += len(batch)

    async def main(watch: Stopwatch) -> None:
        queue: asyncio.Queue[Item] = asyncio.Queue()
        with watch:
            gathering = asyncio.create_task(gather(queue))
            for start in range(0, size, BATCH):
                for number in range(start, min(start + BATCH, size)):
                    queue.put_nowait({"id": number})
                await asyncio.sleep(0)
            await gathering

    watch = Stopwatch()
    asyncio.run(main(watch))
    return watch.rate(size)


class _Exporter:
    """Counts what OpenTelemetry hands over."""

    def __init__(self) -> None:
        self.handled = 0

    def export(self, batch: list[Item]) -> None:
        """Count a batch."""
        self.handled += len(batch)

    def shutdown(self) -> None:
        """Do nothing."""


def opentelemetry(size: int) -> Reading:
    """Emit items to OpenTelemetry's `BatchProcessor`; its thread hands them out."""
    # Peers, where they are installed. It has no public name, but all exporters use it.
    from opentelemetry.sdk._shared_internal import BatchProcessor  # noqa: PLC0415
    from opentelemetry.sdk._shared_internal._processor_metrics import (  # noqa: PLC0415
        NoOpProcessorMetrics,
    )

    exporter = _Exporter()
    processor = BatchProcessor(
        exporter,
        schedule_delay_millis=INTERVAL * 1_000,
        max_export_batch_size=BATCH,
        export_timeout_millis=30_000,
        max_queue_size=size,
        exporting="Item",
        metrics=NoOpProcessorMetrics(),
    )
    with Stopwatch() as watch:
        for number in range(size):
            processor.emit({"id": number})
        processor.shutdown()
    assert exporter.handled == size
    return watch.rate(size)


# ---- Request and response, in loops.

Ask = Callable[[Item], Awaitable[int]]
Open = Callable[[], AbstractAsyncContextManager[Ask]]


async def number_all(batch: list[Item]) -> list[int]:
    """Answer each item with its number."""
    return [item["id"] for item in batch]


def ask(peer: Open, size: int) -> Reading:
    """Ask a peer from as many tasks as queue/process_loops has."""

    async def ask_again_and_again(process: Ask, numbers: range) -> None:
        for number in numbers:
            assert await process({"id": number}) == number

    async def main(watch: Stopwatch) -> None:
        async with peer() as process:
            loops = [
                ask_again_and_again(process, range(number, size, LOOPS)) for number in range(LOOPS)
            ]
            with watch:
                await asyncio.gather(*loops)

    watch = Stopwatch()
    asyncio.run(main(watch))
    return watch.rate(size)


@asynccontextmanager
async def aiodataloader() -> AsyncIterator[Ask]:
    """Open aiodataloader, its cache off."""
    from aiodataloader import DataLoader  # noqa: PLC0415 - a peer, where it is installed

    yield DataLoader(number_all, max_batch_size=BATCH, cache=False).load


@asynccontextmanager
async def batched() -> AsyncIterator[Ask]:
    """Open a function made dynamic by batched."""
    from batched.aio import dynamically  # noqa: PLC0415 - a peer, where it is installed

    yield dynamically(number_all, batch_size=BATCH, timeout_ms=5.0)


@asynccontextmanager
async def async_batcher() -> AsyncIterator[Ask]:
    """Open an AsyncBatcher of async-batcher."""
    from async_batcher.batcher import AsyncBatcher  # noqa: PLC0415 - a peer, where it is installed

    class Numbers(AsyncBatcher):  # type: ignore[misc]  # it has no types
        async def process_batch(self, batch: list[Item]) -> list[int]:
            return await number_all(batch)

    batcher = Numbers(max_batch_size=BATCH, max_queue_time=INTERVAL)
    yield batcher.process
    await batcher.stop(force=True)


@asynccontextmanager
async def batchlet() -> AsyncIterator[Ask]:
    """Open an AsyncBatcher of batchlet."""
    from batchlet import AsyncBatcher, BatchPolicy  # noqa: PLC0415 - a peer, where it is installed

    policy = BatchPolicy(max_items=BATCH)
    async with AsyncBatcher(number_all, policy=policy, max_wait_ms=INTERVAL * 1_000) as batcher:
        yield batcher.submit


def _forget(name: str, floor: Callable[[int], Reading], beside: str, **more: Any) -> list[Case]:  # noqa: ANN401
    """Put a peer beside one call per item, and beside lists of a thousand."""
    return [
        Case(
            name=f"peers/{prefix}{name}",
            ours=ours_of(ours),
            floor=floor,
            beside=beside,
            size=100_000,
            smoke=1_000,
            **more,
        )
        for prefix, ours in (("", "queue/enqueue_nowait"), ("bulk_", "queue/enqueue_many"))
    ]


def _process(peer: Open) -> Case:
    name = peer.__name__
    return Case(
        name=f"peers/{name}",
        ours=ours_of("queue/process_loops"),
        floor=partial(ask, peer),
        beside=f"{name}, in the same loops under asyncio",
        size=20_000,
        smoke=500,
        needs=name,
    )


CASES: Final = (
    *_forget("channel", channel, "await send() on a trio memory channel, and a task"),
    *_forget("asyncio_queue", asyncio_queue, "asyncio.Queue by hand, and a task"),
    *_forget(
        "opentelemetry",
        opentelemetry,
        "OpenTelemetry's BatchProcessor, in a thread",
        needs="opentelemetry.sdk",
    ),
    *(_process(peer) for peer in (aiodataloader, batched, async_batcher, batchlet)),
)
