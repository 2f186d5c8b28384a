"""Items that come in together: nobody can tell that their entries are made late, or never."""

from __future__ import annotations

import gc
import random
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final, NoReturn

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchq.core import admission
from batchq.core.batch import Batch
from batchq.core.batcher import Batcher
from batchq.core.entry import Entry, EntryStatus, Owner
from batchq.core.flushes import Flush
from batchq.core.lot import Cut, Lot
from batchq.core.options import read_settings
from batchq.core.result import Result
from batchq.core.retry import RetryPolicy
from batchq.errors import QueueClosed

OPTIONS: Final = st.fixed_dictionaries(
    {
        "batch_size": st.integers(1, 5),
        "flush_interval": st.sampled_from([0.0, 1.0]),
        "priority_levels": st.integers(1, 3),
        "concurrency": st.integers(1, 3),
        "bisect": st.sampled_from(["off", "exhausted", "immediate"]),
        "retry": st.sampled_from([None, RetryPolicy(max_retries=2)]),
    }
)
ROOM: Final = st.sampled_from(
    [(None, "block"), (8, "drop-oldest"), (8, "drop-lowest-priority"), (8, "drop-newest")]
)


@pytest.fixture(autouse=True, scope="module")
def even_few_items_make_a_lot() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(admission, "_LOT", 1)
        yield


def new_batcher(**options: Any) -> Batcher[Any, Any]:  # noqa: ANN401 - as read_settings takes them
    return Batcher(read_settings({"batch_size": 2, "flush_interval": 0.0} | options))


def seen(entry: Entry[Any, Any]) -> tuple[object, ...]:
    """What can be seen of an entry."""
    verdict = entry.verdict if entry.settled else None
    said = verdict and (verdict.success, verdict.value, repr(verdict.error))
    return entry.id, entry.status, entry.item, entry.attempts, entry.enqueued_at, said


@attrs.define
class Twins:
    """Two queues with one history: one takes items in bulk, the other one by one."""

    chance: random.Random
    bulk: Batcher[Any, Any]
    single: Batcher[Any, Any]
    now: float = 0.0
    offered: int = 0
    # What callers hold: of the same items, in both queues.
    held: list[tuple[Sequence[Any], Sequence[Any]]] = attrs.field(factory=list)
    running: list[tuple[Batch[Any], Batch[Any]]] = attrs.field(factory=list)
    ended: list[tuple[Batch[Any], Batch[Any]]] = attrs.field(factory=list)
    flushes: list[tuple[Flush, Flush]] = attrs.field(factory=list)

    @property
    def both(self) -> tuple[Batcher[Any, Any], Batcher[Any, Any]]:
        return self.bulk, self.single

    def live(self, steps: int) -> None:
        moves = [
            *[self.put_many] * 4,
            *[self.start] * 4,
            *[self.end] * 3,
            *[self.look_at_a_batch] * 2,
            *[self.let_go] * 2,
            self.put_one,
            self.look_at_an_entry,
            self.settle_early,
            self.cancel,
            self.interrupt,
            self.flush,
            self.look_at_the_whole,
            self.time_passes,
        ]
        for _ in range(steps):
            self.chance.choice(moves)()
            assert self.bulk.size == self.single.size
            assert self.bulk.next_deadline() == self.single.next_deadline()
            assert all(bulk.left == single.left for bulk, single in self.flushes)
        self.finish()

    def items(self, count: int) -> list[int]:
        self.offered += count
        return list(range(self.offered - count, self.offered))

    def put_many(self) -> None:
        items, level = self.items(self.chance.randrange(8)), self.level()
        bulk = self.bulk.door.enqueue_many(items, level, self.now)
        single = [self.single.door.enqueue(item, level, self.now) for item in items]
        assert len(bulk) == len(single)
        self.held.append((bulk, single))
        assert self.bulk.door.dropped == self.single.door.dropped

    def put_one(self) -> None:
        (item,), level = self.items(1), self.level()
        bulk, single = (batcher.door.enqueue(item, level, self.now) for batcher in self.both)
        self.held.append(([bulk], [single]))
        assert self.bulk.door.dropped == self.single.door.dropped

    def level(self) -> int:
        return self.chance.randrange(self.bulk.levels)

    def start(self) -> None:
        bulk, single = (batcher.next_batch(self.now) for batcher in self.both)
        assert (bulk is None) == (single is None)
        if bulk is not None and single is not None:
            assert list(bulk) == list(single)
            assert (bulk.trigger, bulk.attempt) == (single.trigger, single.attempt)
            self.running.append((bulk, single))

    def end(self) -> None:
        if not self.running:
            return
        pair = self.running.pop(self.chance.randrange(len(self.running)))
        answers = self.answers(len(pair[0]))
        raised = self.chance.random() < 0.1 and RuntimeError("all of it")
        for batcher, batch in zip(self.both, pair, strict=True):
            if raised:
                judged = batcher.splitting.raised(batch, raised)
                batcher.settle(
                    batch,
                    judged.results,
                    now=self.now,
                    draw=0.5,
                    concerns=judged.batch,
                    error=raised,
                )
            else:
                batcher.settle(batch, answers, now=self.now, draw=0.5)
            batcher.release(batch)
        self.ended.append(pair)

    def answers(self, count: int) -> list[object] | None:
        kind = self.chance.randrange(4)
        if kind < 3:
            return None if kind == 0 else [None if kind == 1 else n for n in range(count)]
        some = [7, ValueError("bad"), Result.ok("good"), Result(success=None), {"success": False}]
        return self.chance.choices(some, k=count)

    def settle_early(self) -> None:
        if self.running:
            pair = self.chance.choice(self.running)
            index = self.chance.randrange(len(pair[0]))
            result: Result[Any] = self.chance.choice([Result.ok(1), Result.discard("no")])
            for batch in pair:
                batch.settle(index, result)

    def interrupt(self) -> None:
        if self.running and self.chance.random() < 0.3:
            pair = self.running.pop()
            for batcher, batch in zip(self.both, pair, strict=True):
                batcher.interrupt(batch, self.now)
                batcher.release(batch)

    def cancel(self) -> None:
        if found := self.an_entry():
            bulk, single = found
            assert bulk.cancel() == single.cancel()

    def let_go(self) -> None:
        if self.held:
            del self.held[self.chance.randrange(len(self.held))]

    def look_at_an_entry(self) -> None:
        if found := self.an_entry():
            assert seen(found[0]) == seen(found[1])

    def an_entry(self) -> tuple[Entry[Any, Any], Entry[Any, Any]] | None:
        held = [pair for pair in self.held if pair[0]]
        if not held:
            return None
        bulk, single = self.chance.choice(held)
        index = self.chance.randrange(len(bulk))
        assert bulk[index] is bulk[index]
        return bulk[index], single[index]

    def look_at_a_batch(self) -> None:
        pairs = [*self.running, *self.running, *self.ended[-3:]]
        if pairs:
            self.compare(*(batch.entries for batch in self.chance.choice(pairs)))

    def look_at_the_whole(self) -> None:
        recount = self.chance.random() < 0.3
        bulk, single = (batcher.stats(self.now, recount=recount) for batcher in self.both)
        assert bulk == single
        if self.chance.random() < 0.3:
            assert self.bulk.unsettled() == self.single.unsettled()

    def flush(self) -> None:
        bulk, single = (batcher.flush() for batcher in self.both)
        assert bulk.left == single.left
        self.flushes.append((bulk, single))

    def time_passes(self) -> None:
        self.now += 0.5
        if self.chance.random() < 0.05:
            for batcher in self.both:
                batcher.enrich()

    def compare(self, bulk: Sequence[Any], single: Sequence[Any]) -> None:
        assert [seen(entry) for entry in bulk] == [seen(entry) for entry in single]

    def finish(self) -> None:
        """Let all that is left succeed, and compare what became of each item."""
        for batcher in self.both:
            batcher.drain()
        for _ in range(self.offered + 9):
            while self.running:
                self.end()
            self.now += 10.0
            self.start()
        assert self.bulk.stats(self.now, recount=True) == self.single.stats(self.now, recount=True)
        for bulk, single in self.held:
            self.compare(bulk, single)
        for pair in self.ended:
            self.compare(*(batch.entries for batch in pair))


@given(options=OPTIONS, room=ROOM, seed=st.integers(0, 10**6), steps=st.integers(1, 60))
def test_nobody_can_tell_whether_entries_are_made_late(
    options: dict[str, Any], room: tuple[int | None, str], seed: int, steps: int
) -> None:
    size, policy = room
    options = options | {"max_queue_size": size, "drop_policy": policy}
    Twins(random.Random(seed), new_batcher(**options), new_batcher(**options)).live(steps)


def enqueued(count: int, **options: int) -> tuple[Batcher[Any, Any], Sequence[Any]]:
    """Make a queue with one item in front, and so many behind it that came in together."""
    batcher = new_batcher(**options)
    batcher.door.enqueue("first", None, 0.0)
    return batcher, batcher.door.enqueue_many(list(range(count)), None, 0.0)


def batches(batcher: Batcher[Any, Any]) -> list[list[Any]]:
    """Start and end batch after batch until nothing is left."""
    found = []
    while (batch := batcher.next_batch(0.0)) is not None:
        found.append(list(batch))
        batcher.settle(batch, None, now=0.0, draw=0.5)
        batcher.release(batch)
    return found


def test_of_many_that_came_in_together_many_may_be_cancelled_wherever_they_stand() -> None:
    batcher, entries = enqueued(300, batch_size=100)
    assert all(entry.cancel() for entry in entries[:200])
    assert batcher.size == 101
    assert batcher.waiting.bucket.lots == 0
    assert batches(batcher) == [["first", *range(200, 299)], [299]]
    assert {entry.status for entry in entries[:200]} == {EntryStatus.CANCELLED}
    assert {entry.status for entry in entries[200:]} == {EntryStatus.SUCCEEDED}


def test_a_batch_makes_no_entry_that_nobody_looks_at() -> None:
    batcher, entries = enqueued(9, batch_size=4)
    first: Any = batcher.next_batch(0.0)
    assert list(first) == ["first", 0, 1, 2]
    assert [entry.item for entry in first.entries.look()[0]] == ["first"]
    batcher.settle(first, list("abcd"), now=0.0, draw=0.5)
    batcher.release(first)
    second: Any = batcher.next_batch(0.0)
    assert list(second) == [3, 4, 5, 6]
    assert not second.entries.look()[0]
    assert [entry.verdict.value for entry in first.entries] == list("abcd")
    assert [entry.status for entry in entries[2:4]] == [
        EntryStatus.SUCCEEDED,
        EntryStatus.IN_FLIGHT,
    ]


class Thing:
    """Something that can be looked for."""


def test_what_succeeds_lets_go_of_its_item_and_what_nobody_holds_of_its_value() -> None:
    batcher = new_batcher(batch_size=2)
    things = [Thing() for _ in range(4)]
    held = batcher.door.enqueue_many(things, None, 0.0)
    refs = [weakref.ref(thing) for thing in things]
    values = [Thing(), Thing()]
    refs += [weakref.ref(value) for value in values]
    del things
    batch: Any = batcher.next_batch(0.0)
    batcher.settle(batch, values, now=0.0, draw=0.5)
    batcher.release(batch)
    del values, batch
    assert [ref() is None for ref in refs] == [True, True, False, False, False, False]
    del held
    gc.disable()  # there is no cycle to be found
    batches(batcher)
    gc.enable()
    assert [ref() is None for ref in refs] == [True] * 6


@pytest.mark.parametrize("look", [False, True])
def test_what_is_left_at_the_end_is_told_its_error_even_if_asked_for_later(look: bool) -> None:  # noqa: FBT001 - a case
    batcher = new_batcher(batch_size=2)
    entries = batcher.door.enqueue_many(range(5), None, 0.0)
    batcher.next_batch(0.0)
    if look:
        assert entries[0].status is EntryStatus.IN_FLIGHT
    assert batcher.end(QueueClosed("the end")) == list(range(5))
    assert {entry.status for entry in entries} == {EntryStatus.CLOSED}


@pytest.mark.parametrize("held", [False, True])
def test_a_processor_that_looks_at_its_entries_sees_them_settle(held: bool) -> None:  # noqa: FBT001 - a case
    batcher = new_batcher(batch_size=2)
    entries = batcher.door.enqueue_many("ab", None, 0.0)
    if not held:
        del entries
    batch: Any = batcher.next_batch(0.0)
    looked_at = list(batch.entries)
    assert {entry.status for entry in looked_at} == {EntryStatus.IN_FLIGHT}
    batcher.settle(batch, ["A", "B"], now=0.0, draw=0.5)
    assert [entry.verdict.value for entry in looked_at] == ["A", "B"]
    assert {entry.status for entry in looked_at} == {EntryStatus.SUCCEEDED}


def test_entries_are_made_while_nothing_can_be_cut_from_their_lot() -> None:
    locked = list[bool]()

    def make(id_: int, priority: int, now: float, owner: Owner) -> Entry[Any, Any]:
        locked.append(batcher.waiting.bucket.fresh[0][0]._lock.locked())
        return Entry(id_, priority, now, owner)

    batcher: Batcher[Any, Any] = Batcher(read_settings({"batch_size": 2}), make=make)
    entries = batcher.door.enqueue_many("abc", None, 0.0)
    assert locked == []
    assert [entry.item for entry in entries] == list("abc")  # perhaps in another thread
    assert locked == [True] * 3


def test_a_flush_makes_no_entry_and_ends_with_the_last_of_what_waited() -> None:
    batcher = new_batcher(batch_size=2, flush_interval=60.0)
    batcher.door.enqueue_many("abc", None, 0.0)
    first: Any = batcher.next_batch(0.0)
    flush = batcher.flush()
    wakes = list[None]()
    flush.wake = lambda: wakes.append(None)
    batcher.door.enqueue_many("later", None, 0.0)
    assert flush.left == 3
    batcher.settle(first, None, now=0.0, draw=0.5)
    batcher.release(first)
    second: Any = batcher.next_batch(0.0)
    assert list(second) == ["c", "l"]
    assert [type(batch.entries) for batch in (first, second)] == [Cut, Cut]
    assert not any(batch.entries.made for batch in (first, second))
    assert (flush.left, wakes) == (1, [])
    batcher.settle(second, None, now=0.0, draw=0.5)
    assert (flush.left, wakes) == (0, [None])


def start(batcher: Batcher[Any, Any]) -> Any:  # noqa: ANN401 - a batch, for sure
    batch = batcher.next_batch(0.0)
    assert batch is not None
    return batch


def end(batcher: Batcher[Any, Any], batch: Batch[Any], answers: Sequence[object] | None) -> None:
    batcher.settle(batch, answers, now=0.0, draw=0.5)
    batcher.release(batch)


def things(count: int) -> tuple[list[Thing], list[weakref.ref[Thing]]]:
    found = [Thing() for _ in range(count)]
    return found, [weakref.ref(thing) for thing in found]


def alive(refs: Sequence[weakref.ref[Thing]]) -> list[int]:
    return [number for number, ref in enumerate(refs) if ref() is not None]


def test_what_fails_lets_go_of_its_item_while_the_rest_waits() -> None:
    batcher = new_batcher(batch_size=2)
    items, refs = things(4)
    batcher.door.enqueue_many(items, None, 0.0)
    items.clear()
    end(batcher, start(batcher), [Result.discard("no")] * 2)
    assert alive(refs) == [2, 3]


def test_what_was_opened_lets_go_of_its_items_while_a_piece_of_it_is_in_flight() -> None:
    batcher = new_batcher(batch_size=2, concurrency=2)
    items, refs = things(4)
    batcher.door.enqueue_many(items, None, 0.0)
    items.clear()
    first = start(batcher)
    entry: Any = batcher.door.enqueue("last", None, 0.0)
    assert entry.cancel()
    end(batcher, start(batcher), None)
    assert alive(refs) == [0, 1]
    assert [entry.item for entry in first.entries] == [ref() for ref in refs[:2]]


def test_values_are_let_go_of_while_the_rest_waits_once_nobody_can_ask_for_them() -> None:
    batcher = new_batcher(batch_size=2)
    held = batcher.door.enqueue_many(range(6), None, 0.0)
    values, refs = things(2)
    end(batcher, start(batcher), values)
    values.clear()
    assert alive(refs) == [0, 1]
    del held
    end(batcher, start(batcher), None)
    assert alive(refs) == []


def test_a_batch_that_is_kept_keeps_no_entry_of_another_one() -> None:
    batcher = new_batcher(batch_size=2)
    held = batcher.door.enqueue_many(range(4), None, 0.0)
    kept = start(batcher)
    values, refs = things(4)
    assert held[0] is kept.entries[0]
    end(batcher, kept, values[:2])
    end(batcher, start(batcher), values[2:])
    values.clear()
    del held
    assert alive(refs) == [0, 1]


def test_an_entry_that_another_thread_looks_at_as_its_batch_starts_takes_no_item_away() -> None:
    batcher = new_batcher(batch_size=3)
    entries = batcher.door.enqueue_many("abc", None, 0.0)
    cut: Any = batcher.waiting.bucket.take(2)
    assert entries[0].item == "a"
    assert cut.items() == ["a", "b"]
    assert [entry.status for entry in entries[1:]] == [EntryStatus.IN_FLIGHT, EntryStatus.PENDING]


def test_the_entries_of_a_batch_are_made_once_though_two_threads_may_ask() -> None:
    locked = list[bool]()

    def make(id_: int, priority: int, now: float, owner: Owner) -> Entry[Any, Any]:
        locked.append(batch.entries.lock.locked())
        return Entry(id_, priority, now, owner)

    batcher: Batcher[Any, Any] = Batcher(read_settings({"batch_size": 2}), make=make)
    batcher.door.enqueue_many("ab", None, 0.0)
    batch = start(batcher)
    assert [entry.item for entry in batch.entries] == ["a", "b"]
    assert locked == [True] * 2


def test_an_interrupt_while_entries_are_made_loses_no_item() -> None:
    class Interrupted(list[Any]):
        def clear(self) -> NoReturn:
            raise KeyboardInterrupt

    batcher = new_batcher(batch_size=2)
    entries = batcher.door.enqueue_many("ab", None, 0.0)
    lot = batcher.waiting.bucket.fresh[0][0]
    lot.items = Interrupted(lot.items)
    with pytest.raises(KeyboardInterrupt):
        entries[0]
    assert [entry.item for entry in entries] == ["a", "b"]
    assert batches(batcher) == [["a", "b"]]


def test_to_take_lots_among_entries_each_cell_is_looked_at_a_few_times_only() -> None:
    looks = 0

    class Line(deque[Any]):
        def __iter__(self) -> Iterator[Any]:
            nonlocal looks
            for cell in super().__iter__():
                looks += 1
                yield cell

    batcher = new_batcher(batch_size=1000)
    batcher.waiting.bucket.fresh[0] = Line()
    for number in range(0, 1000, 2):
        batcher.door.enqueue(number, None, 0.0)
        batcher.door.enqueue_many([number + 1], None, 0.0)
    assert batches(batcher) == [list(range(1000))]
    assert looks <= 5000


def test_a_flush_counts_what_ended_once_though_another_thread_asks_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batcher = new_batcher(batch_size=2)
    batcher.door.enqueue_many("abcd", None, 0.0)
    flush = batcher.flush()
    batch = start(batcher)
    ids = Lot.ids

    def ids_while_another_asks(lot: Lot, begin: int, stop: int) -> range:
        monkeypatch.undo()
        assert len(list(batch.entries)) == 2
        return ids(lot, begin, stop)

    monkeypatch.setattr(Lot, "ids", ids_while_another_asks)
    end(batcher, batch, None)
    assert flush.left == 2


def test_a_verdict_fixed_during_the_call_stays_whatever_the_call_returns() -> None:
    batcher = new_batcher(batch_size=2)
    entries = batcher.door.enqueue_many("ab", None, 0.0)
    batch = start(batcher)
    batch.settle(0, Result.ok("early"))
    end(batcher, batch, ["A", "B"])
    assert [entry.verdict.value for entry in entries] == ["early", "B"]
