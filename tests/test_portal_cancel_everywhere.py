"""Every await of a portal, cancelled wherever it waits, at any state of the queue beyond.

Real threads and real time: what is cancelled under asyncio is somewhere in the queue's own
thread. Whatever it is, nothing is lost or doubled (I1, I2, I22), and no thread is left.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Final

import attrs
import pytest
import trio

from batchq import BatchedQueue, Hooks, Portal
from batchq.core.batch import Batch
from batchq.core.entry import EntryStatus

Queue = BatchedQueue[str, str]
Call = Callable[[Portal[str, str]], Awaitable[object]]

NUMBERS: Final = itertools.count()
MOST: Final = 40  # checkpoints; no call has so many


@attrs.define(eq=False)
class Watched:
    """A queue, and what its hooks were told."""

    slow: float = 0.002
    options: dict[str, Any] = attrs.field(factory=dict)
    enqueued: list[str] = attrs.field(factory=list)
    ended: list[str] = attrs.field(factory=list)
    queue: Queue = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        hooks = Hooks[str, str](
            on_enqueue=self.enqueued.append,
            on_processed=lambda item, _: self.ended.append(item),
            on_drop=lambda item, _: self.ended.append(item),
        )
        options: dict[str, Any] = {
            "name": f"watched {next(NUMBERS)}",
            "batch_size": 2,
            "max_queue_size": 2,
            "flush_interval": 0.001,
        }
        self.queue = BatchedQueue(self.process, hooks=hooks, **options | self.options)

    async def process(self, batch: Batch[str]) -> list[str]:
        await trio.sleep(self.slow)
        return list(batch)

    def check_the_end(self) -> None:
        """See that each item ended once, and that nothing is left."""
        stats = self.queue.stats()
        assert stats == self.queue.stats(recount=True)
        assert stats.outstanding == stats.running == 0
        assert sorted(self.enqueued) == sorted(self.ended)
        assert len(self.ended) == stats.enqueued
        alive = [thread.name for thread in threading.enumerate()]
        assert f"batchq {self.queue.name}" not in alive


class CancelAt:
    """Runs a coroutine, and cancels its own task where it suspends for the k-th time."""

    def __init__(self, run: Coroutine[Any, Any, object], number: int) -> None:
        self.run = run
        self.number = number
        self.cancelled = False

    def __await__(self) -> Generator[Any, Any, object]:
        inner = self.run.__await__()
        task = asyncio.current_task()
        assert task is not None
        for count in range(1, MOST):
            try:
                waits_for = next(inner)
            except StopIteration as done:
                return done.value
            if count == self.number:
                self.cancelled = True
                task.cancel()
            try:
                yield waits_for
            except asyncio.CancelledError as error:  # noqa: ASYNC103 - thrown into the task's own
                yield from throw(inner, error)
                return None  # noqa: ASYNC104 - as above
        raise AssertionError("it never ends")


def throw(inner: Generator[Any, Any, object], error: BaseException) -> Generator[Any, Any, object]:
    """Throw an error into what runs, and go on with it."""
    try:
        waits_for = inner.throw(error)
    except StopIteration as done:
        return done.value
    while True:
        yield waits_for
        try:
            waits_for = next(inner)
        except StopIteration as done:
            return done.value


async def in_and_out(portal: Portal[str, str]) -> None:
    """Enter a portal and leave it, with work left in it."""
    async with portal:
        for item in "xy":
            await portal.enqueue(item)


CALLS: Final[dict[str, Call]] = {
    "process": lambda portal: portal.process("p"),
    "enqueue": lambda portal: portal.enqueue("e"),
}


@pytest.mark.parametrize("slow", [0.0, 0.01])
def test_entering_and_leaving_cancelled_anywhere_leaves_no_thread(slow: float) -> None:
    number = 1
    cancelled = True
    while cancelled:
        watched = Watched(slow)

        async def main(watched: Watched = watched, number: int = number) -> bool:
            run = CancelAt(in_and_out(Portal(watched.queue)), number)
            task = asyncio.ensure_future(_await(run))
            await asyncio.wait([task])
            assert task.cancelled() or task.exception() is None
            return run.cancelled

        cancelled = asyncio.run(main())
        watched.check_the_end()
        number += 1
    assert number > 3, "it has hardly a checkpoint"


async def _await(run: CancelAt) -> object:
    return await run


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("state", ["waits for room", "waits", "in flight", "settled"])
def test_a_call_cancelled_in_any_state_breaks_nothing(name: str, state: str) -> None:
    watched = Watched(0.02 if state == "in flight" else 0.0)

    async def main() -> None:
        async with Portal(watched.queue) as portal:
            if state != "in flight":
                await asyncio.to_thread(portal.call, watched.queue.pause)
            for item in "ab" if state == "waits for room" else "":
                await portal.enqueue(item)
            task = asyncio.ensure_future(CALLS[name](portal))
            await asyncio.sleep(0.01)
            if state == "settled":
                await asyncio.to_thread(portal.call, watched.queue.resume)
            task.cancel()
            await asyncio.wait([task])
            stats = await asyncio.to_thread(portal.call, watched.queue.stats)
            assert stats.enqueued == sum(getattr(stats, each.value) for each in EntryStatus)
            if state == "waits for room":
                assert stats.enqueued == 2
            if state == "waits" and name == "process":
                assert stats.cancelled == 1
            await asyncio.to_thread(portal.call, watched.queue.resume)

    asyncio.run(main())
    watched.check_the_end()


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("turns", range(0, 24, 3))
def test_a_call_cancelled_at_any_turn_of_the_loop_breaks_nothing(name: str, turns: int) -> None:
    """Many of them at once, against each other: whoever is first."""
    watched = Watched(0.0)

    async def main() -> None:
        async with Portal(watched.queue) as portal:
            tasks = [asyncio.ensure_future(CALLS[name](portal)) for _ in range(8)]
            for number, task in enumerate(tasks):
                for _ in range(turns):
                    await asyncio.sleep(0)
                if number % 2:
                    task.cancel()
            done, _ = await asyncio.wait(tasks)
            for task in done:
                assert task.cancelled() or task.exception() is None

    asyncio.run(main())
    watched.check_the_end()
