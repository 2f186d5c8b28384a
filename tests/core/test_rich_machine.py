"""Every history of a queue of which everything is asked: partitions, weights, keys, deadlines.

What holds at every step, whatever the options: the counts add up and equal a recount (I1,
I27); an entry settles once (I2); a batch is neither empty nor too long, nor too heavy unless
alone, and of one partition (I3, I4, I5); no more run at once than may, in the queue and in a
partition (I6); while there is capacity nothing is late and no bucket is full (I7, I8); what
waits past its deadline is settled (I29); what was settled never starts (I19); a key waits
once (I30); a drain ends and leaves nothing (I23, I28).
"""

from __future__ import annotations

import math
import weakref
from collections import Counter
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from batchq.core.batch import Batch
from batchq.core.batcher import Batcher
from batchq.core.entry import EntryStatus
from batchq.core.limits import SlidingWindow
from batchq.core.options import read_settings
from batchq.core.result import Result
from batchq.core.retry import RetryPolicy
from batchq.errors import ItemTooLarge, QueueClosed, QueueFull

WINDOWS: Final = st.sampled_from(
    [None, None, SlidingWindow(3, 2.0), SlidingWindow(2, 1.0, "batch")]
)
OPTIONS: Final = st.fixed_dictionaries(
    {
        "batch_size": st.integers(1, 4),
        "flush_interval": st.sampled_from([0.0, 0.5, 1.5, math.inf]),
        "priority_levels": st.integers(1, 3),
        "priority_aging": st.sampled_from([math.inf, 1.0]),
        "mix_priorities": st.booleans(),
        "concurrency": st.integers(1, 3),
        "partition_concurrency": st.sampled_from([None, 1, 2]),
        "max_batch_weight": st.sampled_from([None, 4.0, 4.0]),
        "max_queue_size": st.sampled_from([None, 5]),
        "max_outstanding": st.sampled_from([None, 6]),
        "max_queue_weight": st.sampled_from([None, 9.0]),
        "drop_policy": st.sampled_from(["reject-new", "drop-oldest", "drop-lowest-priority"]),
        "retry": st.sampled_from([None, RetryPolicy(1)]),
        "bisect": st.sampled_from([None, "off", "exhausted", "immediate"]),
        "rate_limit": WINDOWS,
        "throttle": st.sampled_from([0.0, 0.0, 0.25]),
        "ordered": st.booleans(),
        "batching_strategy": st.sampled_from([None, None, lambda items: [items[::2]]]),
    }
)


class Thing:
    """An item whose end can be watched."""


class RichMachine(RuleBasedStateMachine):
    """Drives a Batcher, and checks what must hold whatever it decides."""

    batcher: Batcher[Any, Any]

    @initialize(options=OPTIONS)
    def build(self, options: dict[str, Any]) -> None:
        if options["ordered"]:
            options |= {"priority_levels": 1, "batching_strategy": None}
            options["partition_concurrency"] = None
        self.options = options
        self.batcher = Batcher(read_settings(options))
        self.batcher.enrich()
        self.now = 0.0
        self.running: list[Batch[Any]] = []
        self.entries: dict[int, Any] = {}
        self.refs: list[weakref.ref[Thing]] = []
        self.answers: dict[int, Any] = {}
        self.deadlines: dict[int, float] = {}

    @rule(
        priority=st.none() | st.integers(0, 2),
        call=st.fixed_dictionaries(
            {},
            optional={
                "weight": st.sampled_from([0.0, 1.0, 3.0, 5.0]),
                "partition": st.sampled_from("abc"),
                "key": st.sampled_from("kl"),
                "queue_timeout": st.sampled_from([0.5, 2.0]),
                "delivery_timeout": st.sampled_from([1.0, 3.0]),
                "solo": st.booleans(),
            },
        ),
        delay=st.sampled_from([0.0, 0.0, 0.75]),
    )
    def enqueue(self, priority: int | None, call: dict[str, Any], delay: float) -> None:
        levels = self.options["priority_levels"]
        thing = Thing()
        level = None if priority is None else priority % levels
        door: Any = self.batcher.door
        try:
            entry = door.enqueue(thing, level, self.now, delay=delay, **call)
        except (QueueFull, QueueClosed, ItemTooLarge):
            return
        assert entry is not None
        self.entries[entry.id] = entry
        self.refs.append(weakref.ref(thing))
        door.dropped.clear()

    @rule(step=st.sampled_from([0.125, 0.5, 1.0, 4.0]))
    def time_passes(self, step: float) -> None:
        self.now += step

    @rule()
    def time_passes_until_the_deadline(self) -> None:
        deadline = self.batcher.next_deadline()
        if self.now < deadline < math.inf:
            self.now = deadline
            self.look()

    @rule()
    def look(self) -> None:
        """Start what may start; then there is nothing to do before the deadline."""
        while (batch := self.batcher.next_batch(self.now)) is not None:
            self.check(batch)
            self.running.append(batch)
        assert self.batcher.next_deadline() > self.now
        for entry in self.entries.values():
            if not entry.settled:
                assert entry.more.deadline > self.now
        self.nothing_waits_that_might_start()
        self.hear()

    def nothing_waits_that_might_start(self) -> None:
        """While there is capacity nothing is late, and no bucket is full (I7, I8)."""
        starter = self.batcher._starter
        open_ = not starter.paused and not self.batcher.splitting.waiting
        free = starter.slots < self.options["concurrency"]
        unlimited = (
            self.options["rate_limit"] is None and self.batcher.limits.next_start <= self.now
        )
        if not (open_ and free and unlimited) or self.options["ordered"]:
            return
        limit = self.options["partition_concurrency"] or math.inf
        runs = Counter(each.partition for each in self.running)
        waits: Counter[Any] = Counter()
        for entry in self.entries.values():
            if entry.status is EntryStatus.PENDING and runs[entry.more.partition] < limit:
                level = 0 if self.options["mix_priorities"] else entry.priority
                waits[entry.more.partition, level] += 1
                assert entry.enqueued_at + self.options["flush_interval"] > self.now
                assert entry.more.due is None
        if self.options["batching_strategy"] is None:
            assert max(waits.values(), default=0) < self.options["batch_size"]

    def check(self, batch: Batch[Any]) -> None:
        assert 1 <= len(batch) <= self.options["batch_size"]
        weights = [entry.more.weight for entry in batch.entries]
        limit = self.options["max_batch_weight"]
        assert limit is None or len(batch) == 1 or sum(weights) <= limit
        assert {entry.more.partition for entry in batch.entries} == {batch.partition}
        if not self.options["mix_priorities"] and batch.parent_id is None:
            assert len({entry.priority for entry in batch.entries}) == 1
        assert len(batch) == 1 or not any(entry.more.solo for entry in batch.entries)
        assert all(entry.status is EntryStatus.IN_FLIGHT for entry in batch.entries)
        flying = Counter(entry.id for each in self.running for entry in each.entries)
        assert not any(flying[entry.id] for entry in batch.entries if not entry.settled)
        slots = Counter((each.root or each).id for each in [*self.running, batch])
        assert len(slots) <= self.options["concurrency"]
        limit = 1 if self.options["ordered"] else self.options["partition_concurrency"]
        alike = [each for each in self.running if each.partition == batch.partition]
        roots = {(each.root or each).id for each in [*alike, batch]}
        assert limit is None or len(roots) <= limit

    @precondition(lambda self: self.running)
    @rule(index=st.integers(0, 2), poison=st.sampled_from([0, 1, 2]), draw=st.floats(0, 0.99))
    def a_call_ends(self, index: int, poison: int, draw: float) -> None:
        batch = self.running.pop(index % len(self.running))
        judged = None
        if poison and any(entry.id % 3 == poison for entry in batch.entries):
            judged = self.batcher.splitting.raised(batch, ValueError("poison"))
        else:
            self.batcher.splitting.returned(batch)
        concerns = None if judged is None else judged.batch
        results = None if judged is None else judged.results
        self.batcher.settle(batch, results, now=self.now, draw=draw, concerns=concerns)
        self.batcher.release(batch)

    @precondition(lambda self: self.running)
    @rule(after=st.sampled_from([0.0, 0.5]))
    def a_call_is_throttled(self, after: float) -> None:
        batch = self.running.pop(0)
        self.batcher.limits.hold(self.now + after)
        results = self.batcher.splitting.throttled(batch) or batch.no_verdicts()
        self.batcher.settle(batch, results, now=self.now, draw=0.5)
        self.batcher.release(batch)

    @precondition(lambda self: self.running)
    @rule(snooze=st.sampled_from([0.0, 0.5]))
    def a_call_says_not_now(self, snooze: float) -> None:
        batch = self.running.pop(0)
        self.batcher.splitting.returned(batch)
        results: list[Result[Any]] = [Result.snooze(snooze)] * len(batch)
        self.batcher.settle(batch, results, now=self.now, draw=0.5)
        self.batcher.release(batch)

    @precondition(lambda self: self.entries)
    @rule(index=st.integers(0, 30))
    def cancel(self, index: int) -> None:
        ids = sorted(self.entries)
        self.batcher.cancel_entry(self.entries[ids[index % len(ids)]], self.now)

    @rule()
    def flush(self) -> None:
        self.batcher.flush()

    @rule(stop=st.booleans())
    def pause_or_resume(self, *, stop: bool) -> None:
        if stop:
            self.batcher.pause(accept=True)
        else:
            self.batcher.resume(self.now)

    @invariant()
    def the_counts_add_up_and_equal_a_recount(self) -> None:
        if not hasattr(self, "entries"):
            return
        stats = self.batcher.stats(self.now)
        assert stats == self.batcher.stats(self.now, recount=True)
        counts = Counter(entry.status.value for entry in self.entries.values())
        found = {status.value: getattr(stats, status.value) for status in EntryStatus}
        assert sum(found.values()) == stats.enqueued
        assert all(found[name] >= count for name, count in counts.items())
        for id_, entry in self.entries.items():
            if entry.settled:
                assert self.answers.setdefault(id_, entry.answer) is entry.answer
                assert entry.item is None

    @invariant()
    def a_key_waits_once(self) -> None:
        if hasattr(self, "entries"):
            shared = self.batcher.waiting.shared._entries
            assert all(not entry.settled for entry in shared.values())

    def hear(self) -> None:
        self.batcher.news.take()
        self.batcher.complaints.clear()
        self.batcher.unwanted.clear()
        self.batcher.limits.waits.clear()

    def teardown(self) -> None:
        """Drain: every step starts a batch, settles something or goes to where one does."""
        if not hasattr(self, "entries"):
            return
        self.batcher.drain()
        for _ in range(40 + 20 * len(self.entries)):
            while self.running:
                self.a_call_ends(0, 0, 0.5)
            if self.batcher.idle:
                break
            self.look()
            if not self.running and not self.batcher.idle:
                self.now = self.batcher.next_deadline()
                assert self.now < math.inf
        assert self.batcher.idle
        assert all(entry.settled for entry in self.entries.values())
        assert not self.batcher.waiting._selection._partitions
        assert self.batcher.next_deadline() == math.inf
        self.hear()
        assert all(ref() is None for ref in self.refs)


TestRichMachine = RichMachine.TestCase
