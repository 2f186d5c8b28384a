"""Partitions, weights, limits, deadlines, keys, bisects: at exact times of a virtual clock."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
import trio

from batchq import (
    Backoff,
    BatchedQueue,
    DuplicateKey,
    EntryStatus,
    Expired,
    Hooks,
    ItemTooLarge,
    OptionError,
    QueueFull,
    Result,
    RetryPolicy,
)
from batchq.core.adaptive import AdaptiveBatchSize, AdaptiveConcurrency
from batchq.core.batch import Batch
from batchq.core.limits import RateLimit, SlidingWindow, TokenBucket
from batchq.errors import Throttled
from tests.calls import UNLOGGED, Calls, Clock, batched, echo, spell

# ---- Bisect.


async def test_s5_one_poison_item_fails_alone(autojump_clock: Clock) -> None:
    def answer(batch: Batch[Any]) -> None:
        if 5 in batch:
            raise ValueError("five")

    calls, starts, ends = Calls(answer), list[Any](), list[Any]()
    splits = list[Any]()
    hooks: Hooks[int, None] = Hooks(
        on_batch_start=starts.append,
        on_batch_complete=lambda *told: ends.append(told),
        on_bisect=lambda *told: splits.append(told),
    )
    async with batched(calls, batch_size=16, bisect="immediate", hooks=hooks) as queue:
        entries = await queue.enqueue_many(range(16))
        await queue.flush()
        assert (queue.stats().succeeded, queue.stats().failed) == (15, 1)
        assert entries[5].status is EntryStatus.FAILED
        with pytest.raises(ValueError, match="five"):
            await entries[5].result()
        assert entries[5].attempts == entries[0].attempts == 1
    assert len(calls.seen) == len(starts) == len(ends) <= 9
    root = calls.batches[0]
    assert {batch.parent_id for batch in calls.batches[1:]} == {root.id}
    assert {batch.trigger.value for batch in calls.batches[1:]} == {"bisect"}
    assert splits[0][2:] == (list(range(8)), list(range(8, 16)))
    assert all(len(results) == len(batch) for batch, results in ends)


async def test_an_exhausted_batch_is_bisected_and_a_poison_item_runs_alone_from_then_on(
    autojump_clock: Clock,
) -> None:
    def answer(batch: Batch[Any]) -> None:
        if "x" in batch:
            raise ValueError("x")

    calls = Calls(answer)
    policy = RetryPolicy(1, backoff=Backoff(initial_delay=1, jitter="none"))
    async with batched(calls, batch_size=4, flush_interval=0, retry=policy) as queue:
        entries = await queue.enqueue_many("axbc")
        await queue.wait_idle()
        assert [entry.status.value for entry in entries] == [
            "succeeded", "failed", "succeeded", "succeeded"
        ]  # fmt: skip
    assert spell(calls) == [(0, "axbc"), (1, "axbc"), (1, "ax"), (1, "a"), (1, "x"), (1, "bc")]


async def test_a_solo_entry_goes_in_a_batch_of_its_own(autojump_clock: Clock) -> None:
    raised = 0

    def answer(batch: Batch[Any]) -> None:
        nonlocal raised
        if "x" in batch and raised < 2:
            raised += 1
            raise ValueError("x")

    calls = Calls(answer)
    policy = RetryPolicy(3, backoff=Backoff(initial_delay=1, jitter="none"))
    options: dict[str, Any] = {"bisect": "immediate", "retry": policy, "flush_interval": 0}
    async with batched(calls, batch_size=2, **options) as queue:
        await queue.enqueue_many("ax")
        await trio.sleep(0.5)
        await queue.enqueue_many("b", delay=0.5)
        await queue.wait_idle()
    assert spell(calls) == [(0, "ax"), (0, "a"), (0, "x"), (1, "x"), (1, "b")]


async def test_an_outage_is_not_answered_with_a_call_per_item(autojump_clock: Clock) -> None:
    def answer(_: Batch[Any]) -> None:
        raise OSError("down")

    calls, processed = Calls(answer), list[Any]()
    hooks: Hooks[int, None] = Hooks(on_processed=lambda item, _: processed.append(item))
    async with batched(calls, batch_size=64, bisect="immediate", hooks=hooks) as queue:
        await queue.enqueue_many(range(64))
        await queue.drain()
    assert len(calls.seen) == 1 + 2 * (6 + 1)
    assert sorted(processed) == list(range(64))


async def test_a_bisect_keeps_its_slot_and_waits_for_a_throttled_part(
    autojump_clock: Clock,
) -> None:
    waited = False

    def answer(batch: Batch[Any]) -> None:
        nonlocal waited
        if len(batch) == 1 and batch[0] == "a" and not waited:
            waited = True
            raise Throttled(2)
        if "x" in batch:
            raise ValueError("x")

    calls = Calls(answer)
    async with batched(calls, batch_size=2, flush_interval=0, bisect="immediate") as queue:
        await queue.enqueue_many("ax")
        await queue.enqueue_many("bc")
        await queue.wait_idle()
        assert (queue.stats().succeeded, queue.stats().failed) == (3, 1)
    assert spell(calls) == [(0, "ax"), (0, "a"), (2, "a"), (2, "x"), (2, "bc")]


# ---- Weights.


async def test_s7_a_batch_never_weighs_too_much(autojump_clock: Clock) -> None:
    calls = Calls()
    options: dict[str, Any] = {"max_batch_weight": 10, "batch_size": 100, "flush_interval": 1}
    async with batched(calls, weigh=lambda item: item, **options) as queue:
        await queue.enqueue_many([6, 5, 4, 12, 1])
        await trio.sleep(2)
    assert calls.seen == [(0, [6]), (0, [5, 4]), (0, [12]), (1, [1])]


async def test_an_item_too_heavy_is_refused_where_that_was_asked_for(
    autojump_clock: Clock,
) -> None:
    options: dict[str, Any] = {"max_batch_weight": 10, "oversize": "reject"}
    async with batched(echo, weigh=lambda item: item, **options) as queue:
        with pytest.raises(ItemTooLarge, match="nothing heavier than 10"):
            await queue.enqueue(12)
        await queue.enqueue(12, weight=3)
        assert queue.stats().weight == 3


async def test_a_queue_is_full_by_weight(autojump_clock: Clock) -> None:
    options: dict[str, Any] = {"max_queue_weight": 10, "drop_policy": "reject-new"}
    async with batched(echo, weigh=lambda item: item, **options) as queue:
        queue.pause()
        await queue.enqueue_many([6, 4])
        with pytest.raises(QueueFull, match="10 of max_queue_weight=10"):
            await queue.enqueue(1)
        with pytest.raises(ItemTooLarge):
            await queue.enqueue(11)
        queue.resume()


async def test_max_outstanding_counts_what_is_in_flight(autojump_clock: Clock) -> None:
    calls = Calls(takes=1)
    async with batched(calls, batch_size=2, flush_interval=0, max_outstanding=3) as queue:
        await queue.enqueue_many(range(6))
        assert trio.current_time() == 2
        await queue.wait_idle()
    assert [len(items) for items in calls.items] == [2, 2, 2]


async def test_an_early_verdict_makes_room_at_once(autojump_clock: Clock) -> None:
    admitted: dict[str, float] = {}

    async def processor(batch: Batch[str]) -> None:
        await trio.sleep(1)
        batch.succeed(0)
        await trio.sleep(9)

    async def produce(queue: BatchedQueue[str, None], item: str) -> None:
        await queue.enqueue(item)
        admitted[item] = trio.current_time()

    async with batched(processor, batch_size=2, max_outstanding=2, flush_interval=0) as queue:
        await queue.enqueue_many("ab")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(produce, queue, "c")
            await trio.sleep(0.5)
            nursery.start_soon(queue.wait_room)
            nursery.start_soon(produce, queue, "d")
    assert admitted == {"c": 1, "d": 10}


# ---- Partitions.


async def test_a_batch_holds_one_partition(autojump_clock: Clock) -> None:
    calls = Calls()
    async with batched(calls, batch_size=3, flush_interval=1, partition_by=str.lower) as queue:
        await queue.enqueue_many("aBAbAB")
        await queue.enqueue_many("c")
        await trio.sleep(2)
    assert spell(calls) == [(0, "aAA"), (0, "BbB"), (1, "c")]
    assert [batch.partition for batch in calls.batches] == ["a", "b", "c"]


async def test_a_hot_partition_does_not_shut_out_a_cold_one(autojump_clock: Clock) -> None:
    calls = Calls(takes=1)
    async with batched(calls, batch_size=2, flush_interval=0, partition_by=str.lower) as queue:
        await queue.enqueue_many("aaaa")
        await trio.sleep(0.5)
        await queue.enqueue_many("b")
        await trio.sleep(0.25)
        await queue.enqueue_many("aa")
        await queue.wait_idle()
    assert spell(calls) == [(0, "aa"), (1, "aa"), (2, "b"), (3, "aa")]


async def test_partition_concurrency_holds_and_others_go_on(autojump_clock: Clock) -> None:
    calls = Calls(takes=1)
    options: dict[str, Any] = {"concurrency": 3, "partition_concurrency": 1}
    async with batched(
        calls, batch_size=1, flush_interval=0, partition_by=str.lower, **options
    ) as queue:
        await queue.enqueue_many("aaab")
        await queue.wait_idle()
    assert sorted(spell(calls)) == [(0, "a"), (0, "b"), (1, "a"), (2, "a")]


async def test_an_ordered_partition_waits_for_a_retry_and_others_do_not(
    autojump_clock: Clock,
) -> None:
    failed: set[str] = set()

    def answer(batch: Batch[Any]) -> list[Any]:
        if batch[0] == "a1" and "a1" not in failed:
            failed.add("a1")
            return [Result.retry()]
        return [None] * len(batch)

    calls = Calls(answer)
    policy = RetryPolicy(3, backoff=Backoff(initial_delay=2, jitter="none"))
    async with batched(
        calls, batch_size=1, flush_interval=0, ordered=True, retry=policy,
        partition_by=lambda item: item[0],
    ) as queue:  # fmt: skip
        await queue.enqueue_many(["a1", "a2", "b1", "a3"])
        await queue.wait_idle()
    assert calls.seen == [(0, ["a1"]), (0, ["b1"]), (2, ["a1"]), (2, ["a2"]), (2, ["a3"])]


async def test_one_call_may_say_its_own_partition_on_a_plain_queue(autojump_clock: Clock) -> None:
    calls = Calls()
    async with batched(calls, batch_size=3, flush_interval=1) as queue:
        await queue.enqueue("a")
        await queue.enqueue("b", partition="other")
        await queue.enqueue("c")
        await trio.sleep(2)
    assert spell(calls) == [(1, "ac"), (1, "b")]


async def test_levels_that_do_not_mix_go_in_batches_of_their_own(autojump_clock: Clock) -> None:
    calls = Calls()
    options: dict[str, Any] = {"priority_levels": 2, "mix_priorities": False}
    async with batched(calls, batch_size=3, flush_interval=1, **options) as queue:
        for item, level in (("a", 1), ("b", 0), ("c", 1), ("d", 0)):
            await queue.enqueue(item, level)
        await trio.sleep(2)
    assert spell(calls) == [(1, "bd"), (1, "ac")]


async def test_waiting_makes_up_for_a_worse_level(autojump_clock: Clock) -> None:
    calls = Calls(takes=1)
    options: dict[str, Any] = {"priority_levels": 2, "priority_aging": 2.0}
    async with batched(calls, batch_size=1, flush_interval=0, **options) as queue:
        await queue.enqueue("first", 0)
        await queue.enqueue("old", 1)
        await trio.sleep(0.5)
        await queue.enqueue("urgent", 0)
        await trio.sleep(2)
        await queue.enqueue("late", 0)
        await queue.wait_idle()
    assert [item for items in calls.items for item in items] == ["first", "urgent", "old", "late"]


# ---- Limits.


async def test_s14_a_sliding_window_lets_so_many_start(autojump_clock: Clock) -> None:
    calls, waits = Calls(), list[Any]()
    hooks: Hooks[int, None] = Hooks(on_throttled=lambda *told: waits.append(told))
    options: dict[str, Any] = {"rate_limit": SlidingWindow(5, 1.0), "concurrency": 10}
    async with batched(calls, batch_size=10, flush_interval=0, hooks=hooks, **options) as queue:
        await queue.enqueue_many(range(12))
        await queue.wait_idle()
    assert calls.seen == [(0, [0, 1, 2, 3, 4]), (1, [5, 6, 7, 8, 9]), (2, [10, 11])]
    assert waits == [(1, "rate_limit"), (1, "rate_limit")]


async def test_several_limits_hold_together(autojump_clock: Clock) -> None:
    calls = Calls()
    limits: list[RateLimit] = [SlidingWindow(4, 1.0), TokenBucket(1, 1, per="batch")]
    async with batched(calls, batch_size=2, flush_interval=0, rate_limit=limits) as queue:
        await queue.enqueue_many(range(8))
        await queue.wait_idle()
    assert calls.times == [0, 1, 2, 3]


async def test_a_limit_by_weight_takes_what_it_can_pay_for(autojump_clock: Clock) -> None:
    calls = Calls()
    limit = SlidingWindow(10, 1.0, per="weight")
    options: dict[str, Any] = {"rate_limit": limit, "weigh": lambda item: item}
    async with batched(calls, batch_size=10, flush_interval=0, **options) as queue:
        await queue.enqueue_many([6, 4, 5, 3])
        with pytest.raises(ItemTooLarge, match="rate_limit"):
            await queue.enqueue(11)
        await queue.wait_idle()
    assert calls.seen == [(0, [6, 4]), (1, [5, 3])]


# ---- Deadlines.


async def test_an_entry_expires_exactly_at_its_queue_timeout_though_the_slot_is_busy(
    autojump_clock: Clock,
) -> None:
    calls, told = Calls(takes=10), list[Any]()
    hooks: Hooks[str, None] = Hooks(
        on_drop=lambda *what: told.append((trio.current_time(), *what)),
        on_dead_letter=lambda item, error: told.append((item, type(error))),
    )
    async with batched(
        calls, batch_size=1, flush_interval=0, queue_timeout=4, hooks=hooks
    ) as queue:
        first = await queue.enqueue("a")
        entry = await queue.enqueue("b")
        with pytest.raises(Expired):
            await entry.result()
        assert trio.current_time() == 4
        assert entry.status is EntryStatus.EXPIRED
        assert told == [(4, "b", "expired"), ("b", Expired)]
        await first.result()
        assert queue.stats().expired == 1
    assert spell(calls) == [(0, "a")]


async def test_a_deadline_brings_a_batch_forward(autojump_clock: Clock) -> None:
    calls = Calls()
    async with batched(calls, batch_size=10, flush_interval=60, queue_timeout=10) as queue:
        await queue.enqueue("a")
        await trio.sleep(20)
    assert spell(calls) == [(9, "a")]
    assert calls.batches[0].trigger.value == "deadline"


async def test_in_flight_at_its_delivery_deadline_it_expires_and_the_call_goes_on(
    autojump_clock: Clock,
) -> None:
    calls = Calls(takes=5)
    async with batched(calls, batch_size=2, flush_interval=0) as queue:
        entry = await queue.enqueue("a", delivery_timeout=2)
        other = await queue.enqueue("b")
        assert (await entry.wait()).success is False
        assert trio.current_time() == 2
        await other.result()
        assert trio.current_time() == 5
        assert (queue.stats().expired, queue.stats().succeeded) == (1, 1)


async def test_a_retry_that_would_come_too_late_expires_at_once(autojump_clock: Clock) -> None:
    def fail(_: Batch[Any]) -> None:
        raise ValueError("no")

    policy = RetryPolicy(3, backoff=Backoff(initial_delay=4, jitter="none"))
    options: dict[str, Any] = {"delivery_timeout": 6, "retry": policy}
    async with batched(Calls(fail), batch_size=1, flush_interval=0, **options) as queue:
        entry = await queue.enqueue("a")
        with pytest.raises(Expired) as caught:
            await entry.result()
        assert trio.current_time() == 4
        assert isinstance(caught.value.__cause__, ValueError)
        assert queue.stats().retries == 1


# ---- Keys.


async def test_s13_the_newest_item_of_a_key_goes_and_all_callers_get_its_result(
    autojump_clock: Clock,
) -> None:
    def versions(batch: Batch[Any]) -> list[Any]:
        return [version for _, version in batch]

    calls = Calls(versions, takes=1)
    options: dict[str, Any] = {"coalesce_by": lambda item: item[0], "coalesce_policy": "replace"}
    async with batched(calls, batch_size=2, flush_interval=1, **options) as queue:
        first = await queue.enqueue((1, "v1"))
        second = await queue.enqueue((1, "v2"))
        assert first is second
        await queue.enqueue((2, "x"))
        await trio.sleep(0.5)
        third = await queue.enqueue((1, "v3"))
        assert third is not first
        assert await first.result() == "v2"
        assert await third.result() == "v3"
        assert (queue.stats().enqueued, queue.stats().coalesced) == (3, 1)
    assert calls.seen == [(0, [(1, "v2"), (2, "x")]), (1.5, [(1, "v3")])]


async def test_the_other_policies_join_merge_and_reject(autojump_clock: Clock) -> None:
    for policy, kept in (("join", "a1"), (lambda old, new: old + new, "a1a2")):
        calls = Calls()
        async with batched(
            calls, batch_size=5, coalesce_by=lambda item: item[0], coalesce_policy=policy
        ) as queue:
            await queue.enqueue_many(["a1", "a2", "b"])
        assert calls.items == [[kept, "b"]]
    async with batched(echo, coalesce_policy="reject") as queue:
        await queue.enqueue("a", key=1)
        with pytest.raises(DuplicateKey):
            await queue.enqueue("b", key=1)
        await queue.enqueue("c", key=2)


async def test_a_retry_keeps_its_seat_beside_a_newer_item_of_its_key(
    autojump_clock: Clock,
) -> None:
    def answer(batch: Batch[str]) -> list[object]:
        return [OSError() if (item, batch.attempt) == ("k1", 1) else item for item in batch]

    calls = Calls(answer, takes=1)
    retry = RetryPolicy(1, backoff=Backoff(schedule=[2], jitter="none"))
    policy: Any = {"coalesce_by": lambda item: item[0], "coalesce_policy": "replace"}
    async with batched(calls, flush_interval=0, batch_size=2, retry=retry, **policy) as queue:
        old = await queue.enqueue("k1")
        await trio.sleep(0.5)
        new = await queue.enqueue("k2", delay=9)  # one in flight is not shared
        await trio.sleep(1)
        assert old.status is EntryStatus.DELAYED
        assert await queue.enqueue("k3") is new
        await queue.wait_idle()
        assert (await old.result(), await new.result()) == ("k1", "k3")
    assert calls.seen == [(0, ["k1"]), (3, ["k1"]), (9.5, ["k3"])]


async def test_a_shared_entry_is_cancelled_by_the_last_of_its_callers(
    autojump_clock: Clock,
) -> None:
    async with batched(echo, coalesce_by=str.lower) as queue:
        entry = await queue.enqueue("a")
        await queue.enqueue("A")
        assert not entry.cancel()
        assert entry.status.value == "pending"
        assert entry.cancel()
        assert entry.status.value == "cancelled"


# ---- Bad input.


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"ordered": True, "priority_levels": 2}, "ordered=True does not go with priority_levels"),
        ({"ordered": True, "partition_concurrency": 2}, "partition_concurrency > 1"),
        ({"ordered": True, "batching_strategy": list}, "batching_strategy"),
        ({"max_outstanding": 5}, "max_outstanding"),
        ({"weigh": 5}, "weigh must be a function"),
        ({"weigh": echo}, "plain function"),
        ({"bisect": "sometimes"}, "bisect must be one of"),
        ({"rate_limit": 5}, "rate_limit must be"),
        ({"queue_timeout": 0}, "queue_timeout must be a number of seconds above 0"),
        ({"delivery_timeout": float("nan")}, "delivery_timeout"),
        ({"max_batch_weight": 0}, "max_batch_weight must be a weight above 0"),
        ({"priority_aging": 0}, "priority_aging"),
        ({"coalesce_policy": "merge"}, "coalesce_policy must be one of join, replace, reject"),
        ({"oversize": True}, "oversize must be one of alone, reject"),
        ({"mix_priorities": 1}, "mix_priorities must be True or False"),
    ],
)
def test_options_that_cannot_work_are_refused_with_the_reason(
    options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(OptionError, match=complaint):
        batched(echo, **options)


async def test_what_a_user_function_raises_is_its_own_callers(autojump_clock: Clock) -> None:
    def weigh(item: int) -> float:
        return 1 / item

    calls = Calls()
    async with batched(calls, weigh=weigh, flush_interval=0) as queue:
        with pytest.raises(ZeroDivisionError):
            await queue.enqueue(0)
        with pytest.raises(ZeroDivisionError):
            await queue.enqueue_many([1, 2, 0])
        with pytest.raises(OptionError, match="weight must be"):
            await queue.enqueue(1, weight=-1)
        assert queue.stats().enqueued == 0
        await queue.enqueue(4)
    assert calls.items == [[4]]


# ---- Strategies.


def by_type(items: list[str]) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for item in items:
        groups.setdefault(item[0], []).append(item)
    return [group[:5] for group in groups.values()]


async def test_s12_a_strategy_that_forgets_items_is_asked_again(autojump_clock: Clock) -> None:
    calls = Calls()
    async with batched(calls, batch_size=5, flush_interval=15, batching_strategy=by_type) as queue:
        await queue.enqueue_many([*["A"] * 12, *["B"] * 3])
        await trio.sleep(20)
    assert calls.seen[:2] == [(0, ["A"] * 5), (0, ["A"] * 5)]
    assert sorted(calls.seen[2:]) == [(15, ["A"] * 2), (15, ["B"] * 3)]


@pytest.mark.parametrize(
    "hostile",
    [
        lambda _: 1 / 0,
        lambda _: [["stranger"]],
        lambda items: [items, items],
        lambda _: 5,
        lambda _: [],
        lambda _: [[], []],
        lambda items: [items[::-1]],
        lambda items: [[item] for item in items],
        lambda items: [items[-1:]],
    ],
)
async def test_no_answer_of_a_strategy_loses_or_doubles_an_item(
    hostile: Any,  # noqa: ANN401
    autojump_clock: Clock,
) -> None:
    calls = Calls()
    options: dict[str, Any] = {"batching_strategy": hostile, "concurrency": 2}
    async with batched(calls, batch_size=3, flush_interval=1, **options) as queue:
        await queue.enqueue_many(list("abcdefgh"))
        await trio.sleep(10)
        assert queue.stats().outstanding == 0
    assert sorted(item for items in calls.items for item in items) == list("abcdefgh")
    assert max(len(items) for items in calls.items) <= 3
    assert max(calls.times) <= 1


# ---- Adaptivity.


async def test_an_adaptive_batch_size_grows_with_the_fixed_cost_of_a_call(
    autojump_clock: Clock,
) -> None:
    sizes: list[int] = []

    async def process(batch: Batch[Any]) -> None:
        sizes.append(len(batch))
        await trio.sleep(1 + len(batch) / 64)

    size = AdaptiveBatchSize(max_size=500, target_duration=3.0)
    rng = random.Random(1)
    async with batched(process, batch_size=size, flush_interval=0, rng=rng) as queue:
        await queue.enqueue_many(range(3000))
        await queue.wait_idle()
        assert queue.stats().batch_size > 64
    assert sizes[0] == 1
    assert max(later / size for size, later in pairwise(sizes)) <= 2
    assert 90 <= max(sizes) <= 200


async def test_adaptive_concurrency_finds_slots_and_gives_them_back(
    autojump_clock: Clock,
) -> None:
    fails = False

    def answer(_: Batch[Any]) -> None:
        if fails:
            raise OSError("down")

    calls = Calls(answer, takes=1)
    limit = AdaptiveConcurrency(max_limit=8)
    async with batched(calls, batch_size=1, flush_interval=0, concurrency=limit) as queue:
        await queue.enqueue_many(range(200))
        await queue.wait_idle()
        most = queue.stats().concurrency
        assert most == calls.most == 8
        fails = True
        await queue.enqueue_many(range(20))
        await queue.wait_idle()
        assert queue.stats().concurrency < most


# ---- Subclasses.


async def test_rules_may_be_methods_of_a_subclass(autojump_clock: Clock) -> None:
    class Parcels(BatchedQueue[str, None]):
        batch_size = 10
        flush_interval = 1.0
        max_batch_weight = 6.0
        priority_levels = 3
        heavy = 5.0

        async def process_batch(self, batch: Batch[str]) -> None:
            seen.append((batch.partition, list(batch)))

        def weigh(self, item: str) -> float:
            return self.heavy if item.isupper() else 1.0

        def partition_by(self, item: str) -> str:
            return item[0].lower()

        def priority_by(self, item: str) -> int:
            return 0 if self.weigh(item) == self.heavy else 2

        def coalesce_by(self, item: str) -> str:
            return item.lower()

        def batching_strategy(self, items: list[str]) -> list[list[str]]:
            return [items[:1], items[1:]] if len(items) > 1 and self.heavy else [items]

    seen = list[tuple[object, list[str]]]()
    async with Parcels() as queue:
        await queue.enqueue_many(["a1", "A2", "a2", "b1"])
        assert queue.stats().pending == 3
    assert sorted(item for _, batch in seen for item in batch) == ["A2", "a1", "b1"]
    assert all(partition == item[0].lower() for partition, batch in seen for item in batch)
    assert max(map(len, (batch for _, batch in seen))) == 1


async def test_rules_of_a_subclass_may_be_plain_functions(autojump_clock: Clock) -> None:
    told, dropped = list[Any](), list[Any]()

    async def processor(batch: Batch[str]) -> None:
        seen.append((batch.partition, list(batch)))

    def policy(old: str, new: str) -> str:
        return f"{old}+{new}"

    class Parcels(BatchedQueue[str, None]):
        process_batch = processor
        priority_levels = 2
        max_batch_weight = 4.0
        weigh = len
        partition_by = lambda item: item[0]  # noqa: E731 - as users write it
        coalesce_by = lambda item, length=2: item[:length]  # noqa: E731
        coalesce_policy = policy
        priority_by = staticmethod(lambda item: int(item > "b"))
        on_processed = lambda item, _: told.append(item)  # noqa: E731
        on_idle = lambda: told.append("idle")  # noqa: E731
        on_drop = lambda self, item, reason: dropped.append((self.name, item, reason))  # noqa: E731

    seen = list[Any]()
    async with Parcels() as queue:
        await queue.enqueue_many(["a1x", "a1y", "b2", "b34", "c"])
        (await queue.enqueue("d")).cancel()
    assert seen == [("a", ["a1x+a1y"]), ("b", ["b2"]), ("c", ["c"]), ("b", ["b34"])]
    assert told == ["a1x+a1y", "b2", "c", "b34", "idle"]
    assert dropped == [("default", "d", "cancelled")]


async def test_a_batch_taken_apart_when_the_queue_ends_gives_its_slot_back(
    autojump_clock: Clock,
) -> None:
    calls = Calls(lambda _: 1 / 0)
    options: Any = {"bisect": "immediate", "throttle": 1, "hooks": UNLOGGED}
    with trio.move_on_after(1.5):  # between the second call and the third
        async with batched(calls, batch_size=4, **options) as queue:
            entries = await queue.enqueue_many("abcd")
            await trio.sleep_forever()
    assert calls.times == [0, 1]
    assert {entry.status for entry in entries} == {EntryStatus.CLOSED}
    stats = queue.stats(recount=True)
    assert (stats.running, stats.in_flight, stats.closed) == (0, 0, 4)
