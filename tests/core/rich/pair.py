"""A Batcher of the rich rules beside the model of one: every step is taken by both."""

from __future__ import annotations

import weakref
from typing import Any, Final

import attrs

from batchq.core.batch import Batch
from batchq.core.batcher import Batcher
from batchq.core.entry import Entry
from batchq.core.flushes import Flush
from batchq.core.options import read_settings
from batchq.core.producer import Producer as RealProducer
from batchq.core.rich_waiting import RichWaiting
from tests.core.rich.ending import Ending
from tests.core.rich.options import LARGEST, Thing, options_of
from tests.core.rich.terms import Call, Item, Producer, Terms

__all__ = ["Flushed", "Pair", "Parked", "Started"]

# The code computes instants with floats, and may be later than the model by so much [s].
_ROUNDING: Final = 1e-9


@attrs.define(eq=False)
class Started:
    """A call, as the code has it and as the model."""

    batch: Batch[Any]
    call: Call


@attrs.define(eq=False)
class Parked:
    """A producer who waits, likewise."""

    real: RealProducer
    model: Producer
    wakes: list[None]


@attrs.define(eq=False)
class Flushed:
    """A flush, likewise."""

    real: Flush
    model: set[Item]
    wakes: list[None]


class Pair:
    """Both, what is known of them, and what they must agree on."""

    def __init__(self, terms: Terms, *, eager: bool, plain: bool) -> None:
        self.terms = terms
        self.eager = eager  # it looks after every change, as the shell makes it
        self.batcher: Batcher[Any, Any] = Batcher(read_settings(options_of(terms)))
        if not plain:
            self.batcher.enrich()
        stats = self.batcher.stats(0.0)
        self.model = Ending(terms, stats.batch_size, stats.concurrency)
        self.now = 0.0
        self.numbers = 0
        self.entries: dict[int, Entry[Any, Any]] = {}
        self.refs: list[weakref.ref[Thing]] = []
        self.started: list[Started] = []
        self.parked: list[Parked] = []
        self.flushes: list[Flushed] = []
        self.verdicts: dict[int, Any] = {}
        self.restored = False

    # What happens.

    def make(self) -> Thing:
        thing = Thing(2**self.numbers)  # so that no two sums are the same
        self.numbers += 1
        self.refs.append(weakref.ref(thing))
        return thing

    def look(self) -> int:
        """Start what may start, and let expire what must; return how much happened."""
        before = self.settled()
        starts = 0
        for _ in range(99):
            batch = self.batcher.next_batch(self.now)
            soon = self.batcher.next_deadline()
            if batch is None and self.now < soon <= self.now + _ROUNDING:
                self.now = soon
                batch = self.batcher.next_batch(soon)
            call = self.model.next_call(self.now)
            self.compare_start(batch, call)
            if batch is not None and call is not None:
                starts += 1
                self.started.append(Started(batch, call))
            elif self.batcher.next_deadline() > self.now:
                return starts + self.settled() - before
        raise AssertionError("it never comes to rest")

    @property
    def rich(self) -> bool:
        """Whether anything was asked for beyond first come, first served, by level."""
        return isinstance(self.batcher.waiting, RichWaiting)

    def settled(self) -> int:
        return len([item for item in self.model.items if item.settled])

    # What must hold.

    def compare_start(self, batch: Batch[Any] | None, call: Call | None) -> None:
        ids = None if batch is None else [entry.id for entry in batch.entries]
        expected = None if call is None else [item.id for item in call.items]
        assert ids == expected, f"started {ids}, not {expected}"
        self.compare_producers()
        if batch is None or call is None:
            return
        assert [thing.number for thing in batch] == [item.number for item in call.items]
        assert batch.partition == call.partition
        assert (batch.parent_id is None) == (call.root is None)
        assert batch.attempt == 1 + max(item.attempts for item in call.items)
        assert batch.priority == min(item.level for item in call.items)
        self.check_batch(batch)

    def check_batch(self, batch: Batch[Any]) -> None:
        """See what must hold of any batch, whatever the model says: I3, I4, I5, I6."""
        stats = self.batcher.stats(self.now)
        assert 1 <= len(batch) <= (LARGEST if self.terms.adaptive else self.terms.batch_size)
        more = [entry.more for entry in batch.entries if self.rich]
        assert len(batch) == 1 or sum(each.weight for each in more) <= self.terms.budget
        assert len({each.partition for each in more}) <= 1
        assert self.terms.mix or len({entry.priority for entry in batch.entries}) == 1
        assert len(batch) == 1 or not any(each.solo for each in more)
        assert batch.parent_id or stats.running <= stats.concurrency
        running = [each.batch for each in self.started if not each.call.over]
        flying = [entry.id for each in running for entry in each.entries]
        assert not {entry.id for entry in batch.entries if not entry.settled} & set(flying)

    def compare_producers(self) -> None:
        for parked in list(self.parked):
            real, model = parked.real, parked.model
            done = model.item is not None or model.refused
            assert (real.entry is None) == (model.item is None)
            assert (real.error is not None) == model.refused
            assert len(parked.wakes) == done
            if done:
                self.parked.remove(parked)
                real.error = None  # its frames keep what they held
            if model.item is not None:
                self.know(model.item, real.entry)
        self.batcher.door.admitted.clear()

    def know(self, item: Item, entry: Entry[Any, Any] | None) -> None:
        """Remember the entry of an item."""
        assert entry is not None
        assert entry.id == item.id
        assert self.entries.setdefault(item.id, entry) is entry

    def compare(self) -> None:
        """See that both are in the same state: each entry, each count, each flush."""
        model = self.model
        self.compare_producers()
        assert len(self.entries) == len(model.items)
        for item in model.items:
            self.compare_entry(item, self.entries[item.id])
        dropped, self.batcher.door.dropped = self.batcher.door.dropped, []
        assert [thing.number for thing in dropped] == [item.number for item in model.evicted]
        model.evicted.clear()
        self.compare_counts()
        self.compare_flushes()
        self.hear()

    def compare_entry(self, item: Item, entry: Entry[Any, Any]) -> None:
        found = (entry.status.value, entry.attempts, entry.priority, entry.enqueued_at)
        assert found == (item.status, item.attempts, item.level, item.at), entry
        if item.settled:
            assert self.verdicts.setdefault(item.id, entry.answer) is entry.answer
            assert entry.item is None
        else:
            assert entry.item.number == item.number
        if entry.more is not None:
            assert (entry.more.weight, entry.more.solo) == (item.weight, item.solo)

    def compare_counts(self) -> None:
        model, stats = self.model, self.batcher.stats(self.now)
        assert stats == self.batcher.stats(self.now, recount=True)
        names = ("pending", "delayed", "in_flight", "succeeded", "failed", "dropped")
        for name in (*names, "expired", "cancelled", "closed"):
            assert getattr(stats, name) == len(model.of(name)), name
        assert stats.enqueued + stats.restored == len(model.items)
        assert stats.weight == sum(item.weight for item in model.waiting)
        found = (stats.batches, stats.coalesced, stats.retries)
        assert found == (model.batches, model.coalesced, model.retries)
        assert self.batcher.idle == model.idle

    def compare_flushes(self) -> None:
        for flush in list(self.flushes):
            assert flush.real.left == len(flush.model)
            assert len(flush.wakes) == (not flush.model)
            if not flush.model:
                self.flushes.remove(flush)
                self.model.flushes.remove(flush.model)

    def hear(self) -> None:
        """Take what the shell would be told: it keeps items."""
        events = self.batcher.news.take()
        halves = [
            [each.number for each in half]
            for name, args in events
            if name == "on_bisect"
            for half in args[2:]
        ]
        assert halves == self.model.told
        self.model.told.clear()
        self.batcher.complaints.clear()
        self.batcher.unwanted.clear()
        self.batcher.limits.waits.clear()
