"""Every public await, cancelled at each of its checkpoints: nothing is lost or doubled.

I1, I27: the counts add up and equal a recount. I2: each entry settles once. I22: after
the block every entry is settled. And what was told of: each admitted item once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import attrs
import pytest
import trio
import trio.testing

from batchq import BatchedQueue, Hooks, Result, RetryPolicy
from batchq.core.batch import Batch
from batchq.core.entry import EntryStatus
from batchq.errors import DrainTimeout
from tests.calls import batched

Queue = BatchedQueue[Any, Any]
Call = Callable[[Queue], Awaitable[object]]


async def in_and_out(queue: Queue) -> None:
    """Enter a queue and leave it, with work left in it."""
    async with batched(half, batch_size=2, flush_interval=1) as inner:
        await inner.enqueue_many(range(3))


async def first_result(queue: Queue) -> None:
    await (await queue.enqueue("r")).result()


async def first_wait(queue: Queue) -> None:
    await (await queue.enqueue("w")).wait()


CALLS: Final[dict[str, Call]] = {
    "enqueue": lambda queue: queue.enqueue("e"),
    "enqueue a delayed one": lambda queue: queue.enqueue("d", delay=2),
    "enqueue_many": lambda queue: queue.enqueue_many("mnopq"),
    "process": lambda queue: queue.process("p"),
    "result": first_result,
    "wait": first_wait,
    "wait_room": lambda queue: queue.wait_room(),
    "wait_idle": lambda queue: queue.wait_idle(),
    "flush": lambda queue: queue.flush(),
    "drain": lambda queue: queue.drain(),
    "drain with a limit": lambda queue: queue.drain(1.5),
    "enter and leave": in_and_out,
}


async def half(batch: Batch[Any]) -> list[Any]:
    """Fail each second item."""
    await trio.sleep(1)
    return [Result.retry("no") if index % 2 else "ok" for index in range(len(batch))]


@attrs.define(eq=False)
class CancelAt(trio.abc.Instrument):
    """Cancels `scope` when `task` comes to its checkpoint number `number`."""

    number: int
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    task: trio.lowlevel.Task | None = None
    count: int = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.count += 1
            if self.count == self.number:
                self.scope.cancel()


@attrs.define(eq=False)
class Told:
    """What the hooks were told."""

    enqueued: list[Any] = attrs.field(factory=list)
    ended: list[Any] = attrs.field(factory=list)
    calls: list[int] = attrs.field(factory=lambda: [0, 0])

    def hooks(self) -> Hooks[Any, Any]:
        def started(_: Batch[Any]) -> None:
            self.calls[0] += 1

        def completed(_: Batch[Any], __: object) -> None:
            self.calls[1] += 1

        return Hooks(
            on_enqueue=self.enqueued.append,
            on_processed=lambda item, _: self.ended.append(item),
            on_drop=lambda item, _: self.ended.append(item),
            on_batch_start=started,
            on_batch_complete=completed,
        )


async def one_history(call: Call, number: int, *, paused: bool) -> bool:
    """Cancel `call` at checkpoint `number`; return whether it came so far."""
    told, cancel = Told(), CancelAt(number)
    queue = batched(
        half,
        batch_size=2,
        max_queue_size=2,
        flush_interval=1,
        retry=RetryPolicy(1),
        hooks=told.hooks(),
    )
    # Leaving joins a drain whose caller was cancelled, and keeps to its limit.
    with suppress(DrainTimeout):
        async with queue:
            await queue.enqueue_many("ab" if paused else "abc")
            if paused:
                queue.pause()
            await act(queue, call, cancel, resume=paused)
            check(queue)
    check(queue)
    stats = queue.stats()
    assert stats.outstanding == stats.running == 0
    assert sorted(told.enqueued) == sorted(told.ended)
    assert len(told.enqueued) == stats.enqueued
    assert told.calls[0] == told.calls[1]
    return cancel.scope.cancelled_caught or cancel.scope.cancel_called


async def act(queue: Queue, call: Call, cancel: CancelAt, *, resume: bool) -> None:
    async def run() -> None:
        cancel.task = trio.lowlevel.current_task()
        with cancel.scope, suppress(DrainTimeout):
            await call(queue)

    trio.lowlevel.add_instrument(cancel)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await trio.sleep(0.25)
            check(queue)
            if resume:
                queue.resume()
    finally:
        trio.lowlevel.remove_instrument(cancel)


def check(queue: Queue) -> None:
    """See that the counts add up and equal a recount."""
    stats = queue.stats()
    assert stats == queue.stats(recount=True)
    ends = sum(getattr(stats, status.value) for status in EntryStatus)
    assert ends == stats.enqueued


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_a_call_cancelled_at_any_checkpoint_breaks_nothing(name: str, *, paused: bool) -> None:
    number = 1
    history = partial(one_history, CALLS[name], paused=paused)
    while trio.run(history, number, clock=trio.testing.MockClock(autojump_threshold=0)):
        number += 1
        assert number < 99, "it never ends"
    assert number > 1, "it has no checkpoint"
