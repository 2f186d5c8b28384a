"""Mistakes that other engines made, each named for what must hold instead."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from batchq import (
    AdaptiveConcurrency,
    Backoff,
    BatchedQueue,
    Hooks,
    ItemTooLarge,
    QueueClosed,
    Result,
    RetryPolicy,
    SlidingWindow,
    TokenBucket,
)
from batchq.core.batch import Batch
from batchq.hooks import EVENTS
from tests.calls import UNLOGGED, Calls, Clock, batched


async def test_an_item_that_a_hook_enqueues_in_mid_step_is_not_forgotten(
    autojump_clock: Clock,
) -> None:  # ray-project/ray#42705: a wake-up cleared although it was set meanwhile
    def once_more(size: int) -> None:
        if size == 0 and queue.stats().enqueued < 3:
            queue.enqueue_nowait("from a hook", delay=queue.stats().enqueued - 1)

    calls = Calls()
    hooks: Hooks[Any, Any] = Hooks(on_queue_size_change=once_more)
    async with batched(calls, flush_interval=0.5, hooks=hooks) as queue:
        await queue.enqueue("a")
        await trio.sleep(9)
        assert calls.times == [0.5, 1.0, 2.0]


async def test_full_and_due_in_one_instant_make_one_batch(autojump_clock: Clock) -> None:
    # ReactiveX/RxJava#5426, reactor-core#3634, akka-core#20232
    calls = Calls()
    async with batched(calls, batch_size=2, flush_interval=1) as queue:
        await queue.enqueue("a")
        await trio.sleep(1)
        await queue.enqueue("b")
        await trio.sleep(5)
    assert sorted(item for items in calls.items for item in items) == ["a", "b"]
    assert all(calls.items)


async def test_each_item_keeps_its_own_error_when_all_fail(autojump_clock: Clock) -> None:
    # aws-powertools/powertools-lambda-python#3716
    calls = Calls(lambda batch: [Result.fail(KeyError(item)) for item in batch])
    async with batched(calls, batch_size=3) as queue:
        entries = await queue.enqueue_many("abc")
        errors = [(await entry.wait()).error for entry in entries]
    assert [error.args for error in errors if isinstance(error, KeyError)] == [
        ("a",), ("b",), ("c",)
    ]  # fmt: skip


async def test_leaving_the_block_sends_what_still_waits_and_does_not_wait_its_interval(
    autojump_clock: Clock,
) -> None:  # dartastic_opentelemetry#38, opentelemetry-collector#10061
    calls = Calls()
    async with batched(calls, batch_size=100, flush_interval=60) as queue:
        await queue.enqueue("a")
    assert calls.seen == [(0, ["a"])]


async def test_a_waiting_retry_keeps_its_level_and_its_place(autojump_clock: Clock) -> None:
    # taskforcesh/bullmq#214, OptimalBits/bull#1925
    calls = Calls(
        lambda batch: [Result.retry()] if batch.attempt == 1 and batch[0] == "a" else None
    )
    policy = RetryPolicy(1, backoff=Backoff(initial_delay=1, jitter="none"))
    queue = batched(calls, batch_size=1, flush_interval=0, retry=policy, priority_levels=2)
    async with queue:
        await queue.enqueue("a", 1)
        await trio.sleep(0.5)
        queue.pause()
        await queue.enqueue_many("bc", 1)
        await queue.enqueue("first", 0)
        await trio.sleep(1)
        queue.resume()
    assert [items for _, items in calls.seen] == [["a"], ["first"], ["a"], ["b"], ["c"]]


async def test_pausing_often_loses_no_slot(autojump_clock: Clock) -> None:
    # caolan/async#508
    calls = Calls(takes=1)
    async with batched(calls, batch_size=1, concurrency=3) as queue:
        await queue.enqueue_many(range(12))
        for _ in range(8):
            await trio.sleep(0.125)
            queue.pause()
            queue.resume()
        await queue.wait_idle()
        assert trio.current_time() == 4
    assert calls.most == 3


async def test_the_counters_are_0_again_after_everything_that_can_happen(
    autojump_clock: Clock,
) -> None:  # triton-inference-server/server#8870
    calls = Calls(lambda batch: [ValueError()] * len(batch), takes=1)
    queue = batched(
        calls, batch_size=2, max_queue_size=2, drop_policy="drop-oldest", retry=RetryPolicy(1)
    )
    async with queue:
        for _ in range(20):
            entry = await queue.enqueue("a")
            with trio.move_on_after(0.25):
                await queue.process("b")
            entry.cancel()
        await queue.wait_idle()
        stats = queue.stats()
        assert stats == queue.stats(recount=True)
        assert (stats.pending, stats.delayed, stats.in_flight, stats.running) == (0, 0, 0, 0)
        assert queue.room() == 2


async def test_of_two_calls_that_end_the_queue_one_is_raised_by_itself(
    autojump_clock: Clock,
) -> None:
    def answer(_: object) -> None:
        raise SystemExit(3)

    async def block() -> None:
        async with batched(Calls(answer, takes=1), batch_size=1, concurrency=2) as queue:
            await queue.enqueue_many("ab")
            await trio.sleep(9)

    with pytest.raises(SystemExit):
        await block()


async def test_a_queue_that_was_idle_gathers_again(autojump_clock: Clock) -> None:
    # clokep/celery-batches#99, #107
    calls = Calls()
    async with batched(calls, batch_size=2, flush_interval=1) as queue:
        for _ in range(3):
            await queue.enqueue_many("abc")
            await queue.wait_idle()
            await trio.sleep(9)
    assert calls.seen == [
        (0, ["a", "b"]), (1, ["c"]), (10, ["a", "b"]), (11, ["c"]), (20, ["a", "b"]), (21, ["c"])
    ]  # fmt: skip


async def test_a_weight_that_cannot_be_told_is_its_callers_and_nobody_hangs(
    autojump_clock: Clock,
) -> None:  # ray-project/ray#66140
    calls = Calls()
    async with batched(calls, batch_size=2, flush_interval=1, weigh=len) as queue:
        await queue.enqueue("a")
        for call in (queue.enqueue, queue.process):
            with pytest.raises(TypeError):
                await call(1)
        await queue.enqueue("b")
        await queue.wait_idle()
    assert calls.seen == [(0, ["a", "b"])]


async def test_a_full_partition_holds_no_other_one_up(autojump_clock: Clock) -> None:
    # vectordotdev/vector#20764
    calls = Calls(takes=1)
    options: Any = {"partition_by": str.lower, "partition_concurrency": 1, "concurrency": 2}
    async with batched(calls, batch_size=2, flush_interval=0, **options) as queue:
        await queue.enqueue_many("aaaaaa")
        await trio.sleep(0.5)
        await queue.enqueue("b")
        await queue.wait_idle()
    assert calls.seen == [
        (0, ["a", "a"]), (0.5, ["b"]), (1, ["a", "a"]), (2, ["a", "a"])
    ]  # fmt: skip


async def test_an_item_taken_back_uses_nothing_up_of_the_rate(autojump_clock: Clock) -> None:
    # sindresorhus/p-queue#168
    calls = Calls()
    limit = SlidingWindow(2, 10)
    async with batched(calls, batch_size=1, flush_interval=0, rate_limit=limit) as queue:
        gone = [queue.enqueue_nowait(item) for item in "abc"]
        assert all(entry.cancel() for entry in gone)
        assert not any([(await entry.wait()).success for entry in gone])
        await queue.enqueue_many("def")
        await queue.wait_idle()
    assert calls.seen == [(0, ["d"]), (0, ["e"]), (10, ["f"])]


async def test_an_item_that_a_limit_holds_back_keeps_its_level_and_its_place(
    autojump_clock: Clock,
) -> None:  # taskforcesh/bullmq#1929, OptimalBits/bull#1925
    calls = Calls()
    options: Any = {"rate_limit": SlidingWindow(1, 1), "priority_levels": 2}
    async with batched(calls, batch_size=1, flush_interval=0, **options) as queue:
        await queue.enqueue_many("abc", 1)
        await trio.sleep(0.5)
        await queue.enqueue("d", 1)
        await queue.enqueue("first", 0)
        await queue.wait_idle()
    assert calls.seen == [(0, ["a"]), (1, ["first"]), (2, ["b"]), (3, ["c"]), (4, ["d"])]


@pytest.mark.parametrize("limit", [SlidingWindow(2, 1), TokenBucket(2, 2)])
async def test_a_rate_limited_queue_goes_on_after_any_time_and_owes_none_for_idle_time(
    limit: Any,  # noqa: ANN401 - of either kind
    autojump_clock: Clock,
) -> None:  # OptimalBits/bull#1110, sindresorhus/p-queue#251
    calls = Calls()
    async with batched(calls, batch_size=2, flush_interval=0, rate_limit=limit) as queue:
        for _ in range(50):
            await queue.enqueue_many("abcdef")
            await queue.wait_idle()
            await trio.sleep(98)
    assert calls.times == [start + step for start in range(0, 5000, 100) for step in range(3)]
    assert all(len(items) == 2 for items in calls.items)


async def test_an_item_settled_twice_is_retried_as_the_first_time_said(
    autojump_clock: Clock,
) -> None:  # aws-samples/sample-voice-of-customer-datalake#304
    def answer(batch: Batch[Any]) -> Any:  # noqa: ANN401 - as each attempt says
        if batch.attempt > 1:
            return None
        batch.settle(0, Result.retry())
        batch.settle(0, Result.retry())
        batch.fail(0, OSError())
        return {batch.entries[0].id: Result.retry(), batch.entries[1].id: None}

    calls = Calls(answer)
    policy = RetryPolicy(5, backoff=Backoff(schedule=[1], jitter="none"))
    async with batched(calls, batch_size=2, retry=policy) as queue:
        entries = await queue.enqueue_many("ab")
        await queue.wait_idle()
        assert [entry.attempts for entry in entries] == [2, 1]
    assert calls.seen == [(0, ["a", "b"]), (1, ["a"])]


@pytest.mark.parametrize("poison", ["cd", "c", "ab", "ah"])
async def test_poison_items_in_a_row_are_told_apart_and_good_ones_written_once(
    poison: str, autojump_clock: Clock
) -> None:  # spring-projects/spring-batch#4370, #5091, #5128, #5210, #5361
    written, alone = list[str](), list[str]()

    async def write(batch: Batch[str]) -> None:
        await trio.lowlevel.checkpoint()
        if set(batch) & set(poison):
            if len(batch) == 1:
                alone.append(batch[0])
            raise ValueError(f"one of {list(batch)}")
        written.extend(batch)

    async with batched(write, batch_size=8, bisect="immediate", hooks=UNLOGGED) as queue:
        entries = await queue.enqueue_many("abcdefgh")
        results = [await entry.wait() for entry in entries]
    assert "".join(sorted(written)) == "".join(sorted(set("abcdefgh") - set(poison)))
    assert sorted(alone) == sorted(poison)  # a batch of one is not called again
    failed = [item for item, it in zip("abcdefgh", results, strict=True) if not it.success]
    assert failed == sorted(poison)


async def test_items_whose_hooks_raise_are_neither_lost_nor_called_done(
    autojump_clock: Clock,
) -> None:  # spring-projects/spring-batch#5493
    def broken(*_: object) -> None:
        raise RuntimeError("a listener")

    calls = Calls(lambda batch: [ValueError(item) if item == "b" else item for item in batch])
    hooks: Hooks[Any, Any] = Hooks(**dict.fromkeys(EVENTS, broken))
    async with batched(calls, batch_size=3, hooks=hooks) as queue:
        entries = await queue.enqueue_many("abc")
        report = await queue.drain()
    assert (report.succeeded, report.failed) == (2, 1)
    assert [entry.status.value for entry in entries] == ["succeeded", "failed", "succeeded"]


async def test_a_dropped_connection_takes_slots_and_a_wait_between_attempts_takes_none(
    autojump_clock: Clock,
) -> None:  # vectordotdev/vector#4082, #26123
    def answer(batch: Batch[Any]) -> list[Any]:
        if "reset" in batch and batch.attempt == 1:
            raise ConnectionResetError
        return [Result.retry() if batch.attempt == 1 else None for _ in batch]

    calls = Calls(answer, takes=1)
    slots = AdaptiveConcurrency(initial=10)
    policy = RetryPolicy(1, backoff=Backoff(schedule=[60], jitter="none"))
    options: Any = {"concurrency": slots, "retry": policy, "bisect": "off", "hooks": UNLOGGED}
    async with batched(calls, batch_size=1, flush_interval=0, **options) as queue:
        await queue.enqueue_many(range(5))
        await queue.wait_idle()  # 1 s of calls, and 60 s of waiting
        assert queue.stats().concurrency == 10
        await queue.enqueue("reset")
        await trio.sleep(2)
        assert queue.stats().concurrency == 9
        await queue.wait_idle()


async def test_a_flush_sees_what_was_enqueued_in_the_same_instant(autojump_clock: Clock) -> None:
    # open-telemetry/opentelemetry-rust#3453
    calls = Calls()
    async with batched(calls, batch_size=100, flush_interval=60) as queue:
        entries = [queue.enqueue_nowait("a"), *queue.enqueue_many_nowait("bc")]
        await queue.flush()
        assert all(entry.settled for entry in entries)
    assert calls.seen == [(0, ["a", "b", "c"])]


async def test_a_producer_that_waits_for_room_does_not_keep_the_queue_from_ending(
    autojump_clock: Clock,
) -> None:  # open-telemetry/opentelemetry-go#4353
    refused: list[str] = []

    async def produce(queue: BatchedQueue[str, None], item: str) -> None:
        try:
            await queue.enqueue(item)
        except QueueClosed:
            refused.append(item)

    calls = Calls(takes=1)
    async with trio.open_nursery() as outside:
        async with batched(calls, batch_size=1, max_queue_size=1, flush_interval=0) as queue:
            await queue.enqueue("a")
            await trio.sleep(0.5)
            await queue.enqueue("b")
            for item in "cd":
                outside.start_soon(produce, queue, item)  # noqa: ASYNC111 - they outlive it
            await trio.testing.wait_all_tasks_blocked()
        assert trio.current_time() == 2
    assert sorted(refused) == ["c", "d"]
    assert [items for _, items in calls.seen] == [["a"], ["b"]]


async def test_an_item_too_heavy_takes_no_valid_one_with_it(autojump_clock: Clock) -> None:
    # open-telemetry/opentelemetry-collector#15936
    calls = Calls()
    options: Any = {"weigh": len, "max_batch_weight": 3, "batch_size": 9, "flush_interval": 1}
    async with batched(calls, **options) as queue:
        await queue.enqueue_many(["a", "too heavy", "b", "c"])
        await queue.wait_idle()
    # What is behind it is not yet full; what is before it can't be joined by it.
    assert calls.seen == [(0, ["a"]), (0, ["too heavy"]), (1, ["b", "c"])]
    async with batched(calls, oversize="reject", **options) as queue:
        await queue.enqueue("a")
        with pytest.raises(ItemTooLarge):
            await queue.enqueue("too heavy")
        await queue.enqueue_many("bc")
        await queue.wait_idle()
    assert calls.seen[3:] == [(1, ["a", "b", "c"])]
