"""What a Batcher and the model of one must agree on, at every step and at the end."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import Any, Final

import attrs
from hypothesis.stateful import RuleBasedStateMachine, invariant

from batchq.core.backoff import Backoff, Jitter
from batchq.core.batch import Batch
from batchq.core.batcher import Batcher
from batchq.core.entry import Entry
from batchq.core.flushes import Flush
from batchq.core.options import Settings, read_settings
from batchq.core.producer import Producer as RealProducer
from batchq.core.retry import RetryPolicy
from batchq.errors import QueueClosed
from tests.core.model import Answer, Intake, Item, Model, Policy, Producer, Rules

__all__ = ["Call", "Comparison", "Flushed", "Parked", "Thing", "batcher_for"]


class Thing:
    """An item whose end can be watched."""


@attrs.define(eq=False)
class Call:
    """A batch that was started."""

    batch: Batch[Any]
    items: list[Item]
    interrupted: bool = False


@attrs.define(eq=False)
class Parked:
    """A producer who waits: what the code has of it, and the model."""

    real: RealProducer
    model: Producer
    ref: weakref.ref[Thing]
    wakes: list[None]


@attrs.define(eq=False)
class Flushed:
    """A flush that somebody waits for: what the code has of it, and the model."""

    real: Flush
    model: set[Item]
    wakes: list[None]


def _broken_check(_: Exception) -> bool:
    raise RuntimeError("the check itself is broken")


_CHECKS: Final[dict[Policy, Callable[[Exception], bool] | None]] = {
    Policy.ALWAYS: lambda _: True,
    Policy.NEVER: lambda _: False,
    Policy.RAISES: _broken_check,
    Policy.NO_CHECK: None,
}


def batcher_for(rules: Rules) -> Batcher[Any, Any]:
    return Batcher(_settings_for(rules), leave=rules.leave)


def _settings_for(rules: Rules) -> Settings:
    retry = None
    if rules.retries is not None:
        backoff = Backoff(schedule=rules.schedule, jitter=Jitter(rules.jitter))
        retry = RetryPolicy(rules.retries, _CHECKS[rules.check], backoff)
    return read_settings(
        {
            "batch_size": rules.batch_size,
            "flush_interval": rules.interval,
            "priority_levels": rules.levels,
            "concurrency": rules.concurrency,
            "throttle": rules.throttle,
            "max_queue_size": None if rules.limit == math.inf else rules.limit,
            "drop_policy": rules.drop_policy,
            "retry": retry,
        }
    )


class Comparison(RuleBasedStateMachine):
    """A Batcher beside the model."""

    batcher: Batcher[Any, Any]

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.model: Any = None  # a Model, once it is built
        self.ended = False
        self.offered = 0
        self.lifetime = 0
        self.ends_by_drain = True
        self.entries: list[Entry[Any, Any]] = []
        self.refs: list[weakref.ref[Thing]] = []
        self.parked: list[Parked] = []
        self.flushes: list[Flushed] = []
        self.calls: list[Call] = []
        self.to_release: list[Batch[Any]] = []
        self.complaints = 0
        self.verdicts: dict[int, Any] = {}

    def know(self, item: Item, entry: Entry[Any, Any], ref: weakref.ref[Thing]) -> None:
        """Remember an entry that was just made for `item`."""
        assert (entry.id, entry.priority, entry.enqueued_at) == (item.id, item.level, item.at)
        assert len(self.entries) == item.id - 1
        self.entries.append(entry)
        self.refs.append(ref)

    def compare_dropped(self) -> None:
        """See that the policy gave up the right items, and told so."""
        dropped, self.batcher.door.dropped = self.batcher.door.dropped, []
        assert dropped == [self.refs[item.id - 1]() for item in self.model.dropped]
        self.model.dropped.clear()

    def compare_producers(self) -> None:
        """See that the right producers came in or were sent away, in turn."""
        for parked in list(self.parked):
            real, model = parked.real, parked.model
            assert (real.entry is None) == (model.item is None)
            assert isinstance(real.error, QueueClosed) == model.refused
            done = model.item is not None or model.refused
            assert len(parked.wakes) == done  # once
            if done:
                self.parked.remove(parked)
            if model.item is not None and real.entry is not None:
                self.know(model.item, real.entry, parked.ref)
                assert self.batcher.door.admitted.pop(0) is real.entry
        assert not self.batcher.door.admitted
        assert len(self.parked) == len(self.model.producers)

    @invariant()
    def the_counts_add_up_and_equal_a_recount(self) -> None:
        if self.model is None:
            return
        model: Model = self.model
        stats = self.batcher.stats(self.now)
        assert stats == self.batcher.stats(self.now, recount=True)
        expected = {status: model.count(status) for status in (
            "pending", "delayed", "in_flight", "succeeded", "failed", "dropped", "cancelled",
            "closed",
        )}  # fmt: skip
        assert {status: getattr(stats, status) for status in expected} == expected
        assert stats.enqueued == sum(expected.values())
        assert (stats.batches, stats.running) == (model.batches, model.slots)
        assert stats.retries == model.retries
        self.hear_complaints()
        assert self.complaints == model.complaints
        assert stats.size == self.batcher.size
        assert stats.oldest == max(
            (self.now - item.at for item in model.items if item.waits), default=0
        )
        assert self.batcher.idle == (not stats.size and not stats.running)

    @invariant()
    def each_entry_is_where_the_model_has_it(self) -> None:
        if self.model is None:
            return
        self.hear_complaints()
        flying = {item.id for call in self.calls for item in call.items}
        flying |= {entry.id for batch in self.to_release for entry in batch.entries}
        for item, entry, ref in zip(self.model.items, self.entries, self.refs, strict=True):
            assert (entry.status.value, entry.attempts) == (item.status, item.attempts)
            assert entry.settled == item.settled
            assert entry.attempts <= 1 + (self.model.rules.retries or 0)
            if not item.settled:
                assert entry.item is ref()
                continue
            answer = self.verdicts.setdefault(item.id, entry.answer)
            assert answer is entry.answer  # for good
            assert entry.verdict.success is (item.status == "succeeded") or self.model.rules.leave
            assert entry.item is None
            assert item.id in flying or ref() is None

    def hear_complaints(self) -> None:
        """Take them, as the shell does: their tracebacks keep what the core was at."""
        self.complaints += len(self.batcher.complaints)
        self.batcher.complaints.clear()
        unwanted = [self.refs[item.id - 1]() for item in self.model.unwanted]
        assert self.batcher.unwanted == unwanted
        self.batcher.unwanted.clear()
        self.model.unwanted.clear()

    @invariant()
    def the_queue_has_room_for_what_the_model_has(self) -> None:
        if self.model is None:
            return
        model: Model = self.model
        rules = model.rules
        shut = model.intake is not Intake.OPEN or bool(model.producers)
        if rules.limit < math.inf:
            assert self.batcher.door.room() == (0 if shut else max(0, rules.limit - model.size))
            assert model.size <= rules.limit + rules.concurrency * rules.batch_size

    @invariant()
    def a_flush_waits_for_what_the_model_says(self) -> None:
        for flush in list(self.flushes):
            assert flush.real.left == len(flush.model)
            assert len(flush.wakes) == (not flush.model)
            if not flush.model:
                self.flushes.remove(flush)
        assert self.model is None or len(self.batcher.waiting.flushes.open) == len(self.flushes)

    def teardown(self) -> None:
        """End the queue: whatever happened, it can be drained, and keeps nothing."""
        if self.model is None or self.ended:
            return
        if self.ends_by_drain:
            while self.calls:
                self.end_the_call(self.calls.pop(0))
            self.free_the_slots()
            self.drain_it()
        else:
            self.leave_it()
        self.compare_producers()
        for check in (
            self.the_counts_add_up_and_equal_a_recount,
            self.each_entry_is_where_the_model_has_it,
            self.a_flush_waits_for_what_the_model_says,
        ):
            check()
        assert self.batcher.idle
        assert self.batcher.next_deadline() == math.inf
        assert self.batcher.next_batch(self.now + 1e6) is None
        assert not self.parked
        assert not self.flushes
        assert all(ref() is None for ref in self.refs)

    def drain_it(self) -> None:
        """Drain: every step starts a batch, or goes to where one starts."""
        self.batcher.drain()
        self.model.paused, self.model.draining = False, True
        self.shut()
        for _ in range(6 * len(self.entries)):
            if self.batcher.idle:
                break
            deadline = self.batcher.next_deadline()
            assert deadline < math.inf
            self.now = max(self.now, deadline)
            batch = self.batcher.next_batch(self.now)
            assert batch is not None
            self.end_the_call(Call(batch, self.model.start(self.now)))

    def leave_it(self) -> None:
        """End at once: what is left is closed and told of, by id."""
        self.shut()
        left = [item for item in self.model.items if not item.settled]
        items = self.batcher.end(QueueClosed("over"))
        assert items == [self.refs[item.id - 1]() for item in left]
        for item in left:
            self.model.settle(item, "closed")
        while self.calls:  # they end later, and nothing is heard of them
            batch = self.calls.pop().batch
            assert not self.batcher.settle(batch, None, now=self.now, draw=0.5)
            self.to_release.append(batch)
        self.free_the_slots()

    def end_the_call(self, call: Call) -> None:
        """Let a call succeed, and free every slot."""
        assert self.batcher.settle(call.batch, None, now=self.now, draw=0.5) != call.interrupted
        if not call.interrupted:
            self.model.end_call(call.items, [Answer(success=True)] * 9, self.now, 0.5)
        self.to_release.append(call.batch)
        self.free_the_slots()

    def free_the_slots(self) -> None:
        """Release the slots of the calls that have ended."""
        while self.to_release:
            self.model.slots -= 1
            self.batcher.release(self.to_release.pop(0))

    def shut(self) -> None:
        """Shut the model's door, as the batcher's was."""
        self.batcher.door.set_intake(type(self.batcher.door.intake).CLOSED)
        self.model.shut()
        self.compare_producers()
