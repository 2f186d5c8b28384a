"""The scenarios of the specification, at exact times of a virtual clock."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from batchq import Backoff, BatchedQueue, Hooks, Result, RetryPolicy
from batchq.core.batch import Batch
from batchq.core.entry import EntryStatus
from batchq.errors import Dropped, QueueClosed, QueueFull
from batchq.handle import Entry
from tests.calls import Calls, Clock, batched, echo, spell


async def test_s1_full_batches_leave_at_once_and_the_rest_at_its_interval(
    autojump_clock: Clock,
) -> None:
    calls = Calls()
    async with batched(calls, batch_size=3, flush_interval=10) as queue:
        await queue.enqueue_many(range(7))
        await trio.sleep(11)
        assert calls.seen == [(0, [0, 1, 2]), (0, [3, 4, 5]), (10, [6])]


async def test_s2_at_interval_0_items_gather_while_the_slot_is_busy(autojump_clock: Clock) -> None:
    calls = Calls(takes=1)
    async with batched(calls, batch_size=4, flush_interval=0) as queue:
        for letter in "abcde":
            await queue.enqueue(letter)
            await trio.sleep(0.125)
    assert spell(calls) == [(0, "a"), (1, "bcde")]


async def test_s3_a_cancelled_caller_costs_the_others_nothing(autojump_clock: Clock) -> None:
    calls = Calls(echo_now, takes=1)
    got: dict[int, tuple[float, int]] = {}
    scopes = [trio.CancelScope() for _ in range(3)]

    async def ask(number: int) -> None:
        with scopes[number]:
            got[number] = (trio.current_time() + 1, await queue.process(number))

    async with batched(calls, batch_size=3, flush_interval=10) as queue:
        before = trio.lowlevel.current_statistics().tasks_living
        async with trio.open_nursery() as callers:
            for number in range(3):
                callers.start_soon(ask, number)
            await trio.sleep(0.5)
            scopes[0].cancel()
        assert trio.current_time() == 1
        assert got == {1: (1, 1), 2: (1, 2)}
        assert [len(items) for items in calls.items] == [3]
        # One task more: it has run the call, and rests.
        assert trio.lowlevel.current_statistics().tasks_living == before + 1
        assert (queue.stats().succeeded, queue.stats().outstanding) == (3, 0)


def echo_now(batch: Batch[Any]) -> list[Any]:
    return list(batch)


async def test_s4_a_cancelled_entry_never_reaches_the_processor(autojump_clock: Clock) -> None:
    calls, sizes = Calls(), list[int]()
    hooks: Hooks[str, None] = Hooks(on_queue_size_change=sizes.append)
    async with batched(calls, flush_interval=1, hooks=hooks) as queue:
        entry = await queue.enqueue("a")
        await trio.sleep(0.5)
        assert entry.cancel()
        await trio.sleep(5)
        assert queue.stats().cancelled == 1
    assert not calls.seen
    assert sizes == [1, 0]


async def test_s6_each_item_goes_by_its_own_result(autojump_clock: Clock) -> None:
    answers: dict[int, Result[Any]] = {
        0: Result.ok(),
        1: Result.retry(),
        2: Result.discard(),
        3: Result.ok(),
    }
    calls = Calls(lambda batch: [answers[item] for item in batch] if len(batch) > 1 else None)
    policy = RetryPolicy(backoff=Backoff(initial_delay=1, jitter="none"))
    async with batched(calls, batch_size=4, flush_interval=10, retry=policy) as queue:
        entries = await queue.enqueue_many(range(4))
        await trio.sleep(5)
        assert calls.seen == [(0, [0, 1, 2, 3]), (1, [1])]
        assert [entry.status.value for entry in entries] == [
            "succeeded", "succeeded", "failed", "succeeded"
        ]  # fmt: skip


async def fill(queue: BatchedQueue[Any, Any]) -> dict[str, Entry[Any, Any]]:
    queue.pause()
    levels = {"a": 1, "b": 0, "c": 2}
    return {item: await queue.enqueue(item, level) for item, level in levels.items()}


def full_queue(
    processor: Calls, policy: str, hooks: Hooks[str, None] | None = None
) -> BatchedQueue[Any, Any]:
    return batched(
        processor,
        batch_size=3,
        priority_levels=3,
        max_queue_size=3,
        drop_policy=policy,
        flush_interval=0,
        hooks=hooks,
    )


async def test_s8_reject_new_refuses_and_keeps_what_waits(autojump_clock: Clock) -> None:
    calls = Calls()
    async with full_queue(calls, "reject-new") as queue:
        await fill(queue)
        with pytest.raises(QueueFull) as caught:
            await queue.enqueue("d", 1)
        assert (caught.value.size, caught.value.limit) == (3, 3)
        queue.resume()
    assert calls.items == [["b", "a", "c"]]


@pytest.mark.parametrize(
    ("policy", "victim", "left"),
    [
        ("drop-oldest", "a", ["b", "d", "c"]),
        ("drop_newest", "d", ["b", "a", "c"]),
        ("drop-lowest-priority", "c", ["b", "a", "d"]),
    ],
)
async def test_s8_a_full_queue_drops_the_right_one(
    policy: str, victim: str, left: list[str], autojump_clock: Clock
) -> None:
    calls, dropped = Calls(), list[tuple[str, str]]()
    hooks: Hooks[str, None] = Hooks(on_drop=lambda *told: dropped.append(told))
    async with full_queue(calls, policy, hooks=hooks) as queue:
        entries = await fill(queue)
        entries["d"] = await queue.enqueue("d", 1)
        assert entries[victim].status is EntryStatus.DROPPED
        with pytest.raises(Dropped, match=r"max_queue_size=3"):
            await entries[victim].result()
        assert dropped == [(victim, "overflow")]
        assert queue.stats().dropped_by_policy == 1
        queue.resume()
    assert calls.items == [left]


async def test_s8_an_item_of_the_worst_level_is_itself_dropped(autojump_clock: Clock) -> None:
    calls = Calls()
    async with full_queue(calls, "drop-lowest-priority") as queue:
        entries = await fill(queue)
        await queue.enqueue("d", 1)
        entry = await queue.enqueue("e", 2)
        assert entry.status is entries["c"].status is EntryStatus.DROPPED
        queue.resume()
    assert calls.items == [["b", "a", "d"]]


async def test_s9_a_drain_lifts_a_pause_and_does_all_at_once(autojump_clock: Clock) -> None:
    async with batched(echo, batch_size=10, flush_interval=60) as queue:
        await queue.enqueue_many(range(5))
        queue.pause()
        report = await queue.drain(5)
        assert report.succeeded == 5
        assert trio.current_time() == 0
        with pytest.raises(QueueClosed):
            await queue.enqueue(5)


async def test_s10_resume_starts_overdue_batches_within_slots_and_throttle(
    autojump_clock: Clock,
) -> None:
    calls = Calls(takes=5)
    async with batched(calls, batch_size=10, concurrency=2, throttle=1) as queue:
        queue.pause()
        await queue.enqueue_many(range(100))
        await trio.sleep(60)
        assert not calls.seen
        queue.resume()
        await queue.wait_idle()
    assert calls.times == [60, 61, 65, 66, 70, 71, 75, 76, 80, 81]
    assert [len(items) for items in calls.items] == [10] * 10
    assert calls.most == 2


async def test_s11_retries_come_at_the_delays_of_the_policy_and_end(autojump_clock: Clock) -> None:
    calls, retried, processed = Calls(fail), list[Any](), list[Any]()
    hooks: Hooks[str, None] = Hooks(
        on_retry=lambda *told: retried.append(told),
        on_processed=lambda *told: processed.append(told),
    )
    backoff = Backoff(initial_delay=1, multiplier=2, max_delay=3, jitter="none")
    policy = RetryPolicy(4, backoff=backoff)
    async with batched(calls, flush_interval=0, retry=policy, hooks=hooks) as queue:
        entry = await queue.enqueue("a")
        await entry.wait()
        assert trio.current_time() == 9
        assert (entry.status, entry.attempts) == (EntryStatus.FAILED, 5)
    assert calls.times == [0, 1, 3, 6, 9]
    assert [(item, attempt, delay) for item, _, attempt, delay in retried] == [
        ("a", 1, 1), ("a", 2, 2), ("a", 3, 3), ("a", 4, 3)
    ]  # fmt: skip
    assert [item for item, _ in processed] == ["a"]


def fail(_: Batch[Any]) -> None:
    raise ValueError("no")


async def test_a_lone_item_waits_exactly_its_flush_interval(autojump_clock: Clock) -> None:
    async with batched(echo, batch_size=10, flush_interval=0.5) as queue:
        assert await queue.process(21) == 21
        assert trio.current_time() == 0.5


async def test_later_arrivals_do_not_put_a_batch_off(autojump_clock: Clock) -> None:  # jasperfx#533
    calls = Calls()
    async with batched(calls, batch_size=100, flush_interval=1) as queue:
        for number in range(8):
            await queue.enqueue(number)
            await trio.sleep(0.375)
    assert calls.seen[0] == (1, [0, 1, 2])


async def test_the_interval_counts_anew_after_a_batch_that_left_by_size(
    autojump_clock: Clock,
) -> None:  # akka.net#7879
    calls = Calls()
    async with batched(calls, batch_size=2, flush_interval=1) as queue:
        await queue.enqueue(0)
        await trio.sleep(0.5)
        await queue.enqueue_many([1, 2])
        await trio.sleep(5)
    assert calls.seen == [(0.5, [0, 1]), (1.5, [2])]


async def test_the_count_begins_anew_after_a_batch_that_left_by_time(
    autojump_clock: Clock,
) -> None:  # celery-batches#95
    calls = Calls()
    async with batched(calls, batch_size=3, flush_interval=1) as queue:
        await queue.enqueue_many([0, 1])
        await trio.sleep(1.5)
        await queue.enqueue_many([2, 3])
        await trio.sleep(5)
    assert calls.seen == [(1, [0, 1]), (2.5, [2, 3])]


async def test_retries_that_are_due_together_keep_to_the_batch_size(
    autojump_clock: Clock,
) -> None:  # celery-batches#84
    calls = Calls(lambda _: [Result.retry(after=10)] * 2 if trio.current_time() < 10 else None)
    policy = RetryPolicy(1, backoff=Backoff(initial_delay=0))
    async with batched(calls, batch_size=2, flush_interval=0, retry=policy) as queue:
        await queue.enqueue_many(range(6))
        await trio.sleep(11)
    assert calls.seen[3:] == [(10, [0, 1]), (10, [2, 3]), (10, [4, 5])]  # in their old order


async def test_idle_time_earns_no_credit_with_the_throttle(
    autojump_clock: Clock,
) -> None:  # p-queue#251
    calls = Calls()
    async with batched(calls, batch_size=1, flush_interval=0, throttle=1) as queue:
        await queue.enqueue(0)
        await trio.sleep(10)
        await queue.enqueue_many([1, 2, 3])
    assert calls.times == [0, 10, 11, 12]


async def test_batches_by_time_that_outrun_a_slow_processor_wait(
    autojump_clock: Clock,
) -> None:  # reactor-core#1557
    calls = Calls(takes=10)
    async with batched(calls, batch_size=5, flush_interval=0.5, concurrency=1) as queue:
        for number in range(7):
            await queue.enqueue(number)
            await trio.sleep(1)
    assert calls.seen == [(0.5, [0]), (10.5, [1, 2, 3, 4, 5]), (20.5, [6])]


async def test_a_delayed_item_starts_when_its_delay_ends_and_waits_for_nobody(
    autojump_clock: Clock,
) -> None:
    calls = Calls()
    async with batched(calls, batch_size=10, flush_interval=5) as queue:
        await queue.enqueue("later", delay=2)
        await queue.enqueue("now")
        await trio.sleep(10)
    assert calls.seen == [(2, ["later", "now"])]
    assert calls.batches[0].trigger.value == "delay"


async def test_the_best_level_goes_first_and_mixes_with_the_rest(autojump_clock: Clock) -> None:
    calls = Calls()
    async with batched(calls, batch_size=2, flush_interval=0, priority_levels=3) as queue:
        for item, level in (("a", None), ("b", 2), ("c", 0), ("d", None)):
            queue.enqueue_nowait(item, level)
    assert calls.items == [["c", "a"], ["d", "b"]]
    assert [batch.priority for batch in calls.batches] == [0, 1]
