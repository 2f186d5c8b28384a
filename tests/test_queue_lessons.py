"""Mistakes that other engines made, each named for what must hold instead."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from batchq import Backoff, Hooks, Result, RetryPolicy
from tests.calls import Calls, Clock, batched


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
