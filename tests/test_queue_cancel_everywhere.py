"""Every public await, cancelled at each of its checkpoints: nothing is lost or doubled.

I1, I27: the counts add up and equal a recount. I2: each entry settles once. I22: after
the block every entry is settled. And what was told of: each admitted item once.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, Unpack

import attrs
import pytest
import trio
import trio.testing

import batchq
from batchq import BatchedQueue, Hooks, Persistence, Result, RetryPolicy
from batchq.core.batch import Batch
from batchq.core.entry import EntryStatus
from batchq.core.limits import SlidingWindow
from batchq.core.options import Options
from batchq.errors import DrainTimeout, Expired
from batchq.pump import Processor
from batchq.testing import FaultyStorage
from tests.calls import batched, echo
from tests.test_portal_cancel_everywhere import CALLS as PORTAL_CALLS

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
    "save_state": lambda queue: queue.save_state(),
}
# Which public await is cancelled under which name; those of `Portal` have a file of their own.
CASES: Final[dict[str, str]] = {
    "BatchedQueue.__aenter__": "enter and leave",
    "BatchedQueue.__aexit__": "enter and leave",
    **{
        f"BatchedQueue.{name}": name
        for name in (
            "enqueue", "enqueue_many", "process", "wait_room", "wait_idle", "flush", "drain",
            "save_state",
        )
    },
    "Entry.result": "result",
    "Entry.wait": "wait",
    "Entry.wait_or": "wait",
    "Portal.__aenter__": "Portal",
    "Portal.__aexit__": "Portal",
    "Portal.enqueue": "Portal",
    "Portal.process": "Portal",
}  # fmt: skip
# What else is public and awaited: the durable tier's, and what a queue calls itself.
ELSEWHERE: Final = {
    "BatchHandler", "Handle", "Handler", "JobHandle", "Persistence", "QueueManager",
}  # fmt: skip


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


PLAIN: Final[Options] = {"batch_size": 2, "max_queue_size": 2, "flush_interval": 1}
RICH: Final[dict[str, Options]] = {
    "by weight": {"max_queue_size": None, "max_queue_weight": 2, "max_batch_weight": 2},
    "all outstanding": {"max_queue_size": None, "max_outstanding": 2},
    "shared": {"coalesce_by": lambda _: "one", "delivery_timeout": 3},
    "delivery deadline": {"delivery_timeout": 1.5},
    "queue deadline": {"queue_timeout": 0.5, "flush_interval": 2},
    "partitions": {"partition_by": lambda item: item, "partition_concurrency": 1},
    "ordered": {"ordered": True, "concurrency": 2},
    "rate limit": {"rate_limit": SlidingWindow(1, 1.5), "throttle": 0.5},
    "unwanted": {"cancel_abandoned": True},
}


async def one_history(
    call: Call,
    number: int,
    *,
    paused: bool,
    processor: Processor[Any] | None = None,
    **options: Unpack[Options],
) -> bool:
    """Cancel `call` at checkpoint `number`; return whether it came so far."""
    told, cancel = Told(), CancelAt(number)
    how: Any = PLAIN | {"retry": RetryPolicy(1)} | options
    if call is CALLS["save_state"]:
        how["persistence"] = Persistence(storage=FaultyStorage(takes=0.5), save_interval=None)
    queue = batched(processor or half, hooks=told.hooks(), **how)
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
    assert len(told.ended) == stats.enqueued
    if not stats.coalesced:
        assert sorted(told.enqueued) == sorted(told.ended)
    assert told.calls[0] == told.calls[1]
    return cancel.scope.cancelled_caught or cancel.scope.cancel_called


async def act(queue: Queue, call: Call, cancel: CancelAt, *, resume: bool) -> None:
    async def run() -> None:
        cancel.task = trio.lowlevel.current_task()
        with cancel.scope, suppress(DrainTimeout, Expired):
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


async def poisoned(batch: Batch[Any]) -> None:
    """Raise where there is company, and once where one is alone."""
    await trio.sleep(0.5)
    if len(batch) > 1 or batch.attempt == 1:
        raise ValueError("poison")


@attrs.define
class Other:
    """A second caller, whom nobody cancels."""

    answer: object = None

    async def ask(self, queue: Queue) -> None:
        self.answer = await queue.process("q")


def cancel_everywhere(
    call: Call,
    **how: Any,  # noqa: ANN401 - as `one_history` has it
) -> None:
    """Cancel a call at its first checkpoint, at its second, and so on, to the last."""
    number = 1
    history = partial(one_history, call, **how)
    while trio.run(history, number, clock=trio.testing.MockClock(autojump_threshold=0)):
        number += 1
        assert number < 99, "it never ends"
    assert number > 1, "it has no checkpoint"


def public_awaits() -> set[str]:
    """Name what is public and awaited, of all classes that batchq offers."""
    found = set()
    for kind in (getattr(batchq, name) for name in batchq.__all__):
        if not inspect.isclass(kind) or kind.__name__ in ELSEWHERE:
            continue
        for name, method in inspect.getmembers(kind, callable):
            public = not name.startswith("_") or name in {"__aenter__", "__aexit__"}
            said = str(getattr(method, "__annotations__", {}).get("return", ""))
            awaited = inspect.iscoroutinefunction(method) or "Await" in said or "Corout" in said
            if public and awaited:
                found.add(f"{kind.__name__}.{name}")
    return found


def test_no_public_await_is_left_out() -> None:
    assert public_awaits() == set(CASES)
    assert set(CASES.values()) <= {*CALLS, "Portal"}
    own = {name.removeprefix("Portal.") for name in CASES if name.startswith("Portal.")}
    assert own == {*PORTAL_CALLS, "__aenter__", "__aexit__"}


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_a_call_cancelled_at_any_checkpoint_breaks_nothing(name: str, *, paused: bool) -> None:
    cancel_everywhere(CALLS[name], paused=paused)


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("options", RICH)
@pytest.mark.parametrize("name", CALLS)
def test_it_breaks_nothing_where_more_is_asked(name: str, options: str, *, paused: bool) -> None:
    cancel_everywhere(CALLS[name], paused=paused, **RICH[options])


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("bisect", ["immediate", "exhausted"])
def test_it_breaks_nothing_while_a_batch_is_taken_apart(name: str, bisect: str) -> None:
    cancel_everywhere(CALLS[name], paused=False, processor=poisoned, bisect=bisect)


@pytest.mark.parametrize("at", range(1, 6))
def test_one_of_two_who_share_an_entry_is_told_whatever_the_other_does(at: int) -> None:
    other = Other()

    async def live() -> None:
        cancel = CancelAt(at)
        async with batched(echo, coalesce_by=lambda _: "one", flush_interval=1) as queue:
            trio.lowlevel.add_instrument(cancel)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(other.ask, queue)
                nursery.start_soon(first, queue, cancel)
            trio.lowlevel.remove_instrument(cancel)
            check(queue)

    trio.run(live, clock=trio.testing.MockClock(autojump_threshold=0))
    assert other.answer in {"p", "q"}


async def first(queue: Queue, cancel: CancelAt) -> None:
    """Ask for the same key, until one is cancelled."""
    cancel.task = trio.lowlevel.current_task()
    with cancel.scope:
        await queue.process("p")


async def test_an_entry_that_is_shared_is_told_of_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    told = Told()
    async with batched(echo, coalesce_by=lambda _: "one", hooks=told.hooks()) as queue:
        await queue.enqueue("a")
        queue.enqueue_nowait("b")
        await queue.enqueue_many("cd")
    assert told.enqueued == ["a"]


async def test_a_producer_let_in_is_told_of_once_though_another_joins_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    told = Told()
    options: Any = {"coalesce_by": lambda item: item[0], "hooks": told.hooks()}
    async with batched(echo, batch_size=1, max_queue_size=1, **options) as queue:
        queue.pause()
        first = await queue.enqueue("a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(queue.enqueue, "b1")
            await trio.testing.wait_all_tasks_blocked()
            first.cancel()  # b1 comes in, and is told of when the pump next runs
            queue.enqueue_nowait("b2")
        queue.resume()
    assert told.enqueued == ["a", "b1"]
