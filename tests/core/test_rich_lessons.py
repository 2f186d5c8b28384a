"""What the model of the rich rules taught: one test for each fault that it found."""

from __future__ import annotations

import gc
import math
import weakref
from typing import Any

import pytest

from batchq.core.adaptive import AdaptiveBatchSize
from batchq.core.batch import Batch
from batchq.core.batcher import Batcher
from batchq.core.entry import EntryStatus
from batchq.core.limits import SlidingWindow, TokenBucket
from batchq.core.options import read_settings
from batchq.core.result import Result
from batchq.core.snapshot import Saved
from batchq.errors import QueueFull


class Queue:
    """A batcher, with what the shell would do."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - any option of a queue
        self.batcher: Batcher[Any, Any] = Batcher(read_settings({"flush_interval": 0} | options))
        self.batcher.enrich()

    def enqueue(self, *items: object, now: float = 0.0, **how: Any) -> list[Any]:  # noqa: ANN401
        door: Any = self.batcher.door
        level = how.pop("priority", None)
        return [door.enqueue(item, level, now, **how) for item in items]

    def start(self, now: float = 0.0) -> list[Batch[Any]]:
        """Start what may start, and come to rest."""
        started = []
        while (batch := self.batcher.next_batch(now)) is not None:
            started.append(batch)
        assert self.batcher.next_deadline() > now
        return started

    def end(self, batch: Batch[Any], *answers: object, now: float = 0.0) -> None:
        self.batcher.splitting.returned(batch)
        self.batcher.settle(batch, answers or None, now=now, draw=0.5)
        self.batcher.release(batch)

    def fail(self, batch: Batch[Any], now: float = 0.0) -> None:
        """Let a call raise."""
        judged = self.batcher.splitting.raised(batch, ValueError("poison"))
        self.batcher.settle(batch, judged.results, now=now, draw=0.5, concerns=judged.batch)
        self.batcher.release(batch)

    def park(self, item: object, **how: Any) -> Any:  # noqa: ANN401 - a producer
        """Let a producer wait."""
        assert self.enqueue(item, **how) == [None]
        return self.batcher.door.park(item, None, delay=0.0, wake=lambda: None)


def test_a_paused_queue_is_idle_when_the_rest_of_a_bisect_has_expired() -> None:
    queue = Queue(bisect="immediate")
    queue.enqueue("a", "b", delivery_timeout=2.0)
    (batch,) = queue.start()
    queue.fail(batch)
    queue.batcher.pause(accept=True)
    queue.start(now=2.0)
    assert queue.batcher.idle


def test_an_early_verdict_makes_room_for_who_waits_for_what_is_outstanding() -> None:
    queue = Queue(max_outstanding=2, batch_size=2)
    queue.enqueue("a", "b")
    (batch,) = queue.start()
    producer, woken = queue.park("c"), list[int]()
    queue.batcher.news.ring = lambda: woken.append(1)
    batch.succeed(0)
    assert woken
    queue.start(now=5.0)
    assert producer.entry.enqueued_at == 5.0


@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_an_item_that_is_replaced_by_a_lighter_one_makes_room(weight: float) -> None:
    queue = Queue(coalesce_policy="replace", max_queue_weight=3.0, flush_interval=None)
    queue.enqueue("a", key="k", weight=3.0)
    producer = queue.park("b", weight=2.0)
    queue.enqueue("c", key="k", weight=weight)
    assert (producer.entry is not None) == (weight == 1.0)


def test_what_waits_to_be_tried_again_is_shared_once_the_newer_one_has_started() -> None:
    queue = Queue(batch_size=1, concurrency=2)
    (old,) = queue.enqueue("old", key="k")
    (first,) = queue.start()
    (new,) = queue.enqueue("new", key="k")
    queue.end(first, Result.snooze(9))
    assert queue.enqueue("newer", key="k") == [new]
    queue.start()
    assert queue.enqueue("newest", key="k") == [old]


def test_a_strategy_is_asked_again_when_something_better_arrives() -> None:
    asked = []

    def whole(items: list[str]) -> list[list[str]]:
        asked.append(items)
        return [items] if "better" in items else []

    queue = Queue(batching_strategy=whole, priority_levels=2, batch_size=2, flush_interval=None)
    queue.enqueue("a", "b", priority=1)
    assert queue.start() == []
    queue.enqueue("better", priority=0)
    assert [list(batch) for batch in queue.start()] == [["better", "a"]]
    assert asked == [["a", "b"], ["better", "a", "b"]]


class Item:
    """Something that can be watched."""


def test_an_item_that_found_no_room_is_not_kept() -> None:
    queue, item = Queue(max_queue_size=1, batch_size=1, concurrency=1), Item()
    queue.enqueue("a")
    assert queue.enqueue(item) == [None]
    assert isinstance(queue.batcher.door.full_error(), QueueFull)
    ref = weakref.ref(item)
    del item
    assert ref() is None


def test_a_flush_ends_when_an_interrupted_bisect_leaves_what_nobody_wants() -> None:
    queue = Queue(bisect="immediate")
    entries = queue.enqueue("a", "b", "c", "d")
    (batch,) = queue.start()
    flush = queue.batcher.flush()
    queue.fail(batch)
    for entry in entries:
        queue.batcher.cancel_entry(entry)
    queue.batcher.stop_draining(1.0)
    assert {entry.status for entry in entries} == {EntryStatus.CANCELLED}
    assert not flush.left


def test_what_nobody_wants_does_not_come_back_from_an_ordered_bisect() -> None:
    queue = Queue(bisect="immediate", ordered=True)
    entries = queue.enqueue("a", "b", "c")
    (whole,) = queue.start()
    queue.fail(whole)
    (part,) = queue.start()
    queue.batcher.cancel_entry(entries[2])
    queue.end(part, Result.snooze(1), Result.ok())
    assert entries[2].status is EntryStatus.CANCELLED


def test_a_queue_does_not_spin_over_a_group_that_has_to_wait_for_who_runs_alone() -> None:
    queue = Queue(
        batching_strategy=lambda items: [[item] for item in items],
        rate_limit=SlidingWindow(3, 1.0, "weight"),
        batch_size=2,
        priority_levels=2,
    )
    queue.enqueue("a", "b", priority=1)
    (first,) = queue.start()
    queue.enqueue("alone", weight=3.0, solo=True, priority=0)
    queue.end(first)
    assert queue.start() == []  # comes to rest
    assert queue.batcher.next_deadline() == 1.0


def test_producers_who_wait_let_no_queue_spin_whose_strategy_starts_nothing() -> None:
    queue = Queue(
        batching_strategy=lambda _: [], max_queue_size=2, batch_size=2, flush_interval=None
    )
    queue.enqueue("a", "b")
    queue.park("c")
    queue.start()  # comes to rest
    assert queue.batcher.next_deadline() == math.inf


def test_a_drain_starts_what_a_strategy_kept_back_from_producers_who_wait() -> None:
    queue = Queue(
        batching_strategy=lambda _: [], max_queue_size=2, batch_size=2, flush_interval=None
    )
    queue.enqueue("a", "b")
    queue.park("c")
    assert queue.start() == []
    queue.batcher.drain()
    assert [list(batch) for batch in queue.start()] == [["a", "b"]]


def test_what_a_limit_cuts_off_a_group_is_grouped_anew() -> None:
    queue = Queue(
        batching_strategy=lambda items: [items[:2], items[2:]] if "a" in items else [[items[0]]],
        rate_limit=TokenBucket(1.0, 4.0, "weight"),
        batch_size=2,
        concurrency=9,
    )
    for item, weight in (("a", 3.0), ("b", 2.0), ("c", 4.0)):
        queue.enqueue(item, weight=weight)
    assert [list(batch) for batch in queue.start()] == [["a"]]
    assert queue.batcher.next_deadline() == 1.0  # when "b" can be paid, not "c"
    assert [list(batch) for batch in queue.start(1.0)] == [["b"]]


def test_an_interrupted_call_teaches_nothing() -> None:
    queue = Queue(batch_size=AdaptiveBatchSize())
    queue.enqueue("a")
    queue.start()
    queue.batcher.stop_draining(9.0)
    assert queue.batcher.stats(9.0).batch_size == 1
    assert queue.batcher.waiting.slack.value == 0.0


def test_a_bucket_that_a_smaller_size_makes_full_starts() -> None:
    queue = Queue(batch_size=AdaptiveBatchSize(), flush_interval=None)
    queue.batcher.waiting.batch_size = 4  # what was learned
    queue.enqueue("a", "b", "c")
    assert queue.start() == []
    queue.batcher.waiting.batch_size = 3
    assert [list(batch) for batch in queue.start()] == [["a", "b", "c"]]


def test_a_bucket_keeps_the_place_of_its_best_entry_when_stale_places_go() -> None:
    queue = Queue(priority_levels=3, partition_by=lambda item: item[0])
    (busy,) = queue.enqueue("-busy")
    (batch,) = queue.start()
    assert batch.entries == [busy]
    queue.enqueue("a2", priority=2)
    queue.enqueue("a0", priority=0)
    queue.enqueue("b1", priority=1)
    for _ in range(100):  # each leaves a stale place
        (gone,) = queue.enqueue("gone", priority=0)
        assert queue.batcher.cancel_entry(gone, 0.0)
    queue.end(batch)
    assert [list(batch) for batch in queue.start()] == [["a0", "a2"]]


def test_a_bucket_that_never_empties_leaves_no_places_behind() -> None:
    queue = Queue(priority_levels=2, batch_size=2)
    queue.enqueue("old", priority=1)
    for _ in range(500):
        queue.enqueue("new", "new", priority=0)
        (batch,) = queue.start()
        assert list(batch) == ["new", "new"]
        queue.end(batch)
    line = queue.batcher.waiting._selection._ready
    assert len(line._run) + len(line._heap) < 100


@pytest.mark.parametrize("cancelled", [True, False])
def test_what_comes_and_goes_while_nothing_starts_leaves_no_places_behind(
    *, cancelled: bool
) -> None:
    queue = Queue(priority_levels=2, batch_size=1, coalesce_by=lambda item: item)
    queue.batcher.pause(accept=True)
    queue.enqueue("old", priority=1)
    for number in range(500):
        (entry,) = queue.enqueue("old" if not cancelled else number, priority=0)
        if cancelled:
            assert queue.batcher.cancel_entry(entry, 0.0)
    line = queue.batcher.waiting._selection._ready
    assert len(line._run) + len(line._heap) < 100


@pytest.mark.parametrize("levels", [1, 2])
def test_what_is_cancelled_leaves_no_dead_entries_behind(levels: int) -> None:
    queue = Queue(priority_levels=levels, batch_size=2, flush_interval=None)
    queue.batcher.pause(accept=True)
    first = queue.enqueue("first", priority=levels - 1)
    entries = queue.enqueue(*range(1000), priority=0)  # of a better level: not in line
    last = queue.enqueue("last", priority=levels - 1)
    for entry in entries:
        queue.batcher.cancel_entry(entry, 0.0)
    (bucket,) = queue.batcher.waiting._selection._buckets.values()
    assert (bucket._cells is None) == (levels == 1)
    held = bucket._next or bucket._last if levels == 1 else bucket._cells
    assert len(held) < 70
    queue.batcher.resume(0.0)
    assert [batch.entries for batch in queue.start()] == [first + last]


@pytest.mark.parametrize("again", [[0], [0, 1], [1], [1, 2], [2], [0, 3], [3], [0, 1, 2, 3]])
def test_what_comes_again_takes_its_old_place_in_a_line(again: list[int]) -> None:
    queue = Queue(batch_size=4, concurrency=9, batching_strategy=lambda items: [items[:4]])
    entries = queue.enqueue(*range(4))
    (batch,) = queue.start()
    queue.batcher.pause(accept=True)
    queue.enqueue(*range(4, 9))
    queue.batcher.cancel_entry(queue.enqueue("gone")[0], 0.0)
    queue.end(batch, *(Result.snooze(0) if item in again else None for item in batch))
    queue.start(now=0.0)
    queue.batcher.resume(0.0)
    queue.batcher._starter.waiting.batch_size = 20
    assert entries
    items = [item for batch in queue.start() for item in batch]
    assert items == [*again, *range(4, 9)]


def test_the_last_in_line_comes_again_and_waits_once() -> None:
    queue = Queue(batch_size=2, batching_strategy=lambda items: [items[-1:]])
    queue.enqueue("first", "last")
    (batch,) = queue.start()
    assert list(batch) == ["last"]
    queue.end(batch, Result.snooze(0))
    queue.batcher.waiting.advance(0.0)
    assert [entry.item for entry in queue.batcher.waiting] == ["first", "last"]


def test_what_comes_back_out_of_the_order_of_its_age_is_due_in_time() -> None:
    queue = Queue(flush_interval=10.0)
    kept: dict[str, Any] = {
        "priority": 0,
        "partition": None,
        "key": None,
        "weight": 1.0,
        "attempts": 0,
    }
    kept |= {"solo": False, "error": None, "due": None, "starts_by": None, "ends_by": None}
    young, old = (Saved(id=id_, item=id_, enqueued_at=-4.0 * id_, **kept) for id_ in (1, 2))
    queue.batcher.restore([young, old], 0.0)
    queue.batcher.next_batch(0.0)
    assert queue.batcher.next_deadline() == 2.0


def test_very_many_partitions_are_little_to_look_at_for_the_garbage_collector() -> None:
    def partition(item: int) -> int:
        return item

    queue = Queue(partition_by=partition, max_queue_size=None, flush_interval=None)
    queue.enqueue(*range(100))  # what is there once
    gc.collect()
    before = len(gc.get_objects())
    queue.enqueue(*range(100, 1100))
    queue.batcher.flush()
    gc.collect()
    assert len(gc.get_objects()) - before < 1200  # one list each
