"""A queue keeps nothing of what has ended: no entry, bucket, timer, task or reference (I28)."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import pytest
import trio
import trio.testing

from batchq import BatchedQueue, EntryStatus, Result, RetryPolicy
from batchq.core.batch import Batch
from tests.calls import UNLOGGED, Clock, batched

MANY: Final = 10_000


@attrs.frozen(eq=False)
class Thing:
    """An item, a partition or a key whose end can be watched."""

    partition: Any = None
    key: Any = None


@attrs.define
class Watched:
    """What is to be gone in the end."""

    refs: list[weakref.ref[Thing]] = attrs.field(factory=list)

    def thing(self) -> Thing:
        """Make an item of a partition and a key that nothing else has."""
        partition, key = Thing(), Thing()
        found = Thing(partition, key)
        self.refs += [weakref.ref(each) for each in (found, partition, key)]
        return found

    def things(self, count: int = MANY) -> list[Thing]:
        return [self.thing() for _ in range(count)]

    def alive(self) -> int:
        gc.collect()
        return sum(ref() is not None for ref in self.refs)


@asynccontextmanager
async def watched(
    processor: Any = None,  # noqa: ANN401 - any processor
    **options: Any,  # noqa: ANN401 - any option
) -> AsyncIterator[tuple[BatchedQueue[Any, Any], Watched]]:
    """Open a queue; at the end of the block see that it is idle and has kept nothing."""
    how: Any = {
        "partition_by": lambda thing: thing.partition,
        "coalesce_by": lambda thing: thing.key,
        "max_queue_size": None,
    }
    async with batched(processor or nothing, **how | options) as queue:
        queue.resume()
        await trio.testing.wait_all_tasks_blocked()
        tasks, things = trio.lowlevel.current_statistics().tasks_living, Watched()
        yield queue, things
        await queue.wait_idle()
        await trio.testing.wait_all_tasks_blocked()
        # Tasks that have run calls rest until there are more: one per slot at most.
        left = trio.lowlevel.current_statistics().tasks_living - tasks
        assert left <= queue.stats().concurrency
        see_that_it_is_empty(queue)
        assert not things.alive()


async def nothing(batch: Batch[Any]) -> None:
    """Succeed."""


def see_that_it_is_empty(queue: BatchedQueue[Any, Any]) -> None:
    stats = queue.stats(recount=True)
    assert (stats.size, stats.in_flight, stats.running, stats.weight) == (0, 0, 0, 0)
    waiting: Any = queue._batcher.waiting
    selection, deadlines = waiting._selection, waiting._deadlines
    agendas = [each for each in attrs.astuple(deadlines, recurse=False) if hasattr(each, "_heap")]
    assert agendas
    assert not deadlines._by_age
    assert not any(each._heap for each in (waiting.delays, *agendas))
    assert not any(each._run or each._heap for each in (selection._ready, selection._all))
    assert not selection._partitions
    assert not selection._buckets
    assert not waiting._ages._line
    assert not waiting.shared._entries
    assert not waiting.flushes.open
    assert not queue._batcher.door.producers
    assert queue._batcher.next_deadline() == math.inf


@pytest.mark.parametrize("limit", [None, 1])
@pytest.mark.parametrize("interval", [0.0, 1.0])
async def test_partitions_used_once_leave_nothing(
    interval: float, limit: int | None, autojump_clock: Clock
) -> None:
    options = {"concurrency": 4, "partition_concurrency": limit}
    async with watched(flush_interval=interval, **options) as (queue, things):
        entries = await queue.enqueue_many(things.things())
        await queue.wait_idle()
        assert {entry.status for entry in entries} == {EntryStatus.SUCCEEDED}
        del entries


async def test_partitions_that_come_one_by_one_leave_nothing_on_the_way(
    autojump_clock: Clock,
) -> None:
    async with watched(flush_interval=0) as (queue, things):
        for _ in range(50):
            await queue.enqueue_many(things.things(20))
            await queue.wait_idle()
            see_that_it_is_empty(queue)
        assert things.alive() <= 60  # of the last round, at most


async def test_what_was_cancelled_leaves_nothing(autojump_clock: Clock) -> None:
    async with watched(flush_interval=60, queue_timeout=50, delivery_timeout=55) as (queue, things):
        entries = list(await queue.enqueue_many(things.things(), delay=0))
        entries += await queue.enqueue_many(things.things(1000), delay=30)
        assert all(entry.cancel() for entry in entries)
        assert queue.stats().cancelled == len(entries)
        del entries
        await trio.testing.wait_all_tasks_blocked()
        see_that_it_is_empty(queue)


async def test_cancelled_callers_leave_nothing(autojump_clock: Clock) -> None:
    async with watched(flush_interval=60, batch_size=7) as (queue, things):
        with trio.move_on_after(1):
            async with trio.open_nursery() as nursery:
                for thing in things.things(1000):
                    nursery.start_soon(queue.process, thing)
                    nursery.start_soon(queue.process, thing)
                del thing
        assert queue.stats().cancelled == queue.stats().enqueued == 1000


async def test_cancelled_producers_leave_nothing(autojump_clock: Clock) -> None:
    async with watched(max_queue_weight=3, batch_size=10) as (queue, things):
        queue.pause()
        await queue.enqueue(things.thing(), weight=3)
        with trio.move_on_after(1):
            async with trio.open_nursery() as nursery:
                for thing in things.things(1000):
                    nursery.start_soon(queue.enqueue, thing)
                del thing
        assert queue.stats().enqueued == 1
        queue.resume()
        await queue.flush()


@pytest.mark.parametrize("policy", ["drop-oldest", "drop-newest", "drop-lowest-priority"])
async def test_what_was_dropped_leaves_nothing(policy: str, autojump_clock: Clock) -> None:
    rules = {"drop_policy": policy, "max_queue_size": 100, "priority_levels": 2}
    async with watched(**rules, flush_interval=1, delivery_timeout=30) as (queue, things):
        queue.pause()
        for count, thing in enumerate(things.things(2000)):
            queue.enqueue_nowait(thing, 1 - count // 1000, delay=count % 2)
        del thing
        assert queue.stats().dropped == 1900
        queue.resume()


async def test_what_shared_an_entry_leaves_nothing(autojump_clock: Clock) -> None:
    for policy in ("join", "replace", lambda _, new: new):
        async with watched(coalesce_policy=policy, flush_interval=1) as (queue, things):
            whole = things.thing()
            await queue.enqueue_many(again(things, whole, 1000))
            assert queue.stats().coalesced == 1000
            assert queue.stats().size == 1
            await queue.enqueue(again_one(things, whole), delivery_timeout=0.5)
            del whole


def again(things: Watched, whole: Thing, count: int) -> Iterable[Thing]:
    """Make an item, and many more of its partition and key."""
    return [whole, *(again_one(things, whole) for _ in range(count))]


def again_one(things: Watched, whole: Thing) -> Thing:
    other = Thing(whole.partition, whole.key)
    things.refs.append(weakref.ref(other))
    return other


async def test_what_expired_leaves_nothing(autojump_clock: Clock) -> None:
    async with watched(flush_interval=0) as (queue, things):
        queue.pause()
        entries = list(await queue.enqueue_many(things.things(1000), queue_timeout=1))
        entries += await queue.enqueue_many(things.things(1000), delay=9, delivery_timeout=2)
        await trio.sleep(3)
        assert {entry.status for entry in entries} == {EntryStatus.EXPIRED}
        del entries
        await trio.testing.wait_all_tasks_blocked()
        see_that_it_is_empty(queue)
        queue.resume()


async def test_what_failed_and_was_taken_apart_leaves_nothing(autojump_clock: Clock) -> None:
    def answer(batch: Batch[Any]) -> list[Any]:
        if len(batch) > 1:
            raise ValueError("too many")
        return [Result.retry("no")] * len(batch)

    rules: Any = {"bisect": "exhausted", "retry": RetryPolicy(1), "partition_by": None}
    rules["hooks"] = UNLOGGED
    calls = Answering(answer)
    async with watched(calls, flush_interval=0, **rules) as (queue, things):
        entries = await queue.enqueue_many(things.things(50))
        await queue.wait_idle()
        assert {entry.status for entry in entries} == {EntryStatus.FAILED}
        del entries


@attrs.define
class Answering:
    """A processor that keeps nothing."""

    answer: Callable[[Batch[Any]], Any]

    async def __call__(self, batch: Batch[Any]) -> Any:  # noqa: ANN401 - as the test says
        return self.answer(batch)


async def test_an_item_taken_back_leaves_no_timer(autojump_clock: Clock) -> None:
    async with batched(nothing, flush_interval=60, delivery_timeout=90) as queue:
        (await queue.enqueue("a")).cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == math.inf


async def test_a_processed_item_leaves_no_timer(autojump_clock: Clock) -> None:
    async with batched(nothing, flush_interval=0, delivery_timeout=90) as queue:
        await queue.process("a")
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == math.inf


async def test_deadlines_of_what_has_gone_are_let_go_though_one_lasts(
    autojump_clock: Clock,
) -> None:
    things = Watched()
    async with batched(nothing, partition_by=lambda thing: thing.partition) as queue:
        lasts = await queue.enqueue(things.thing(), delay=500, delivery_timeout=600)
        for _ in range(10):
            await queue.enqueue_many(things.things(100), delivery_timeout=900)
            await queue.flush()
        await trio.testing.wait_all_tasks_blocked()
        assert queue.stats().succeeded == 1000
        assert things.alive() < 300
        lasts.cancel()
