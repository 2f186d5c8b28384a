"""Every history of a queue, beside the simplest model of one.

What holds at every step: the counts add up and equal a recount (I1, I27); an entry
settles once, for good, and lets go of its item (I2, I28); a batch is never empty nor too
long, starts neither early nor late, in order, within its slots and its pace (I3, I6-I9,
I11, I12, I24); a full queue takes nothing but by its policy, and blocked producers enter
in turn (I14, I15, I35); attempts and delays are those of the policy (I16, I17); what was
cancelled or dropped is never started (I19); a drain ends, and leaves nothing (I23, I36).
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from batchq.core.answers import read_answer, read_answers
from batchq.core.producer import Intake as RealIntake
from batchq.core.result import Result
from batchq.errors import ContractError, OptionError, QueueClosed, QueueFull, QueuePaused
from tests.core.comparison import Call, Comparison, Flushed, Parked, Thing, batcher_for
from tests.core.model import Answer, Intake, Item, Model, Policy, Producer, Rules

# What a processor may say of one item, and what it means.
SAYS: Final[dict[str, tuple[Answer, Callable[[], object]]]] = {
    "value": (Answer(success=True), lambda: "value"),
    "ok": (Answer(success=True), lambda: Result.ok("value")),
    "plain dict": (Answer(success=True), lambda: {"success": False, "other": 1}),
    "exception": (Answer(success=False), lambda: ValueError("no")),
    "fail": (Answer(success=False), lambda: Result.fail("no")),
    "dict": (Answer(success=False), lambda: {"success": False, "error": "no"}),
    "retry": (Answer(success=False, retryable=True), Result.retry),
    "later": (Answer(success=False, retryable=True, after=2.0), lambda: Result.retry(after=2.0)),
    "discard": (Answer(success=False, retryable=False), Result.discard),
    "snooze": (Answer(success=None, after=0.5), lambda: Result.snooze(0.5)),
    "at once": (Answer(success=None, after=0.0), lambda: Result.snooze(0)),
}
SAID: Final = st.sampled_from(sorted(SAYS))
SCHEDULE: Final = (1.0, 0.0, 2.5)
DROP_POLICIES: Final = (
    "block", "block", "reject-new", "drop-oldest", "drop-newest", "drop-lowest-priority"
)  # fmt: skip
PRIORITIES: Final = st.sampled_from([None, None, 0, 1, 2, -1])
DELAYS: Final = st.sampled_from([0.0, 0.0, 0.0, 0.5, 1.3])
RULES: Final = st.builds(
    Rules,
    batch_size=st.integers(1, 3),
    interval=st.sampled_from([0.0, 0.5, 1.1, math.inf]),
    levels=st.integers(1, 3),
    default=st.just(0),
    concurrency=st.integers(1, 2),
    throttle=st.sampled_from([0.0, 0.0, 0.3]),
    limit=st.sampled_from([3, 3, 4, 6, math.inf]),
    drop_policy=st.sampled_from(DROP_POLICIES),
    retries=st.sampled_from([None, 0, 1, 1, 2, 3]),
    check=st.sampled_from(Policy),
    schedule=st.sampled_from([SCHEDULE, SCHEDULE[:1]]),
    jitter=st.sampled_from(["none", "equal", "full"]),
    leave=st.sampled_from([False, False, False, True]),
)
REFUSALS: Final = (QueueFull, QueueClosed, QueuePaused, OptionError)


class BatcherMachine(Comparison):
    """Drives a Batcher beside the model, and compares them at every step."""

    # An eager queue looks after every change, as the shell makes it; the others get all
    # sorts of changes between two looks.
    eager = False

    @initialize(
        rules=RULES,
        lifetime=st.integers(0, 40),
        ends_by_drain=st.booleans(),
        eager=st.booleans(),
    )
    def build(self, rules: Rules, lifetime: int, *, ends_by_drain: bool, eager: bool) -> None:
        default = {1: 0, 2: 1, 3: 1}[rules.levels]
        # Where nothing comes again, nothing asks a policy.
        retries = None if rules.leave else rules.retries
        rules = attrs.evolve(rules, default=default, retries=retries)
        self.model = Model(rules)
        self.batcher = batcher_for(rules)
        self.lifetime = lifetime
        self.ends_by_drain = ends_by_drain
        self.eager = eager

    def look(self) -> None:
        """Let an eager queue start what may start."""
        if self.eager:
            self.next_batch()

    # Time.

    @rule(step=st.sampled_from([0.1, 0.125, 0.3, 0.5, 1.0, 4.0]))
    def time_passes(self, step: float) -> None:
        self.now += step
        self.look()

    @rule()
    def time_passes_until_the_deadline(self) -> None:
        deadline = self.batcher.next_deadline()
        if not self.now < deadline < math.inf:
            return
        for now in ((self.now + deadline) / 2, math.nextafter(deadline, -math.inf)):
            if self.now < now < deadline:  # not rounded to it
                self.now = now
                assert not self.model.starts(now)
                self.next_batch()
        self.now = deadline
        assert self.model.starts(deadline)
        self.next_batch()

    # Items come in.

    @rule(priority=PRIORITIES, delay=DELAYS, waits=st.sampled_from([True, True, False]))
    def enqueue(self, priority: int | None, delay: float, *, waits: bool) -> None:
        self.offered += 1
        expected = self.model.offer(priority, delay, self.now)
        thing = Thing()
        try:
            entry = self.batcher.door.enqueue(thing, priority, self.now, delay=delay)
        except REFUSALS as error:
            self.compare_refusal(error, expected)
            return
        if isinstance(expected, str):
            assert (expected, entry) == ("wait", None)
            if waits:
                self.park(thing, priority, delay)
                del thing
                self.look()
            return
        assert entry is not None
        self.know(expected, entry, weakref.ref(thing))
        self.compare_dropped()
        del thing
        self.look()

    @rule(count=st.integers(0, 5), priority=PRIORITIES, delay=DELAYS)
    def enqueue_many(self, count: int, priority: int | None, delay: float) -> None:
        self.offered += count
        things = [Thing() for _ in range(count)]
        expected: list[Item | str] = []
        for _ in things:
            expected.append(self.model.offer(priority, delay, self.now))
            if isinstance(expected[-1], str):
                break
        try:
            entries: Any = self.batcher.door.enqueue_many(things, priority, self.now, delay=delay)
        except REFUSALS as error:
            self.compare_refusal(error, expected[-1] if count else None)
            entries = getattr(error, "entries", ())
        else:
            assert all(word in {"", "wait"} for word in expected if isinstance(word, str))
        items = [item for item in expected if isinstance(item, Item)]
        assert len(entries) == len(items)
        for item, entry, thing in zip(items, entries, things, strict=False):
            self.know(item, entry, weakref.ref(thing))
        self.compare_dropped()
        del things
        self.look()

    def compare_refusal(self, error: Exception, expected: Item | str | None) -> None:
        words = {QueueFull: "full", QueueClosed: "closed", QueuePaused: "paused"}
        assert expected in {None, words.get(type(error), "bad priority")}

    def park(self, thing: Thing, priority: int | None, delay: float) -> None:
        level = self.model.rules.default if priority is None else priority
        wakes: list[None] = []
        real = self.batcher.door.park(thing, priority, delay=delay, wake=lambda: wakes.append(None))
        producer = Producer(level, delay)
        self.model.producers.append(producer)
        self.parked.append(Parked(real, producer, weakref.ref(thing), wakes))

    @precondition(lambda self: self.parked)
    @rule(index=st.integers(0, 5))
    def a_producer_gives_up(self, index: int) -> None:
        parked = self.parked.pop(index % len(self.parked))
        self.model.producers.remove(parked.model)
        self.model.let_in(self.now)
        self.batcher.door.unpark(parked.real, self.now)
        assert not parked.wakes
        self.compare_producers()

    # Items leave.

    @precondition(lambda self: self.entries)
    @rule(index=st.integers(0, 30), among=st.sampled_from(["any", "recent", "waits", "in_flight"]))
    def cancel(self, index: int, among: str) -> None:
        places = {
            "any": range(len(self.entries)),
            "recent": range(len(self.entries))[-3:],
            "waits": [item.id - 1 for item in self.model.items if item.waits],
            "in_flight": [item.id - 1 for item in self.model.of("in_flight")],
        }[among]
        if not places:
            return
        place = places[index % len(places)]
        expected = self.model.cancel(self.model.items[place], self.now)
        assert self.batcher.cancel_entry(self.entries[place], self.now) == expected
        self.compare_producers()

    @rule()
    def next_batch(self) -> None:
        starts = self.model.starts(self.now)
        assert (self.batcher.next_deadline() <= self.now) == starts  # never late, never early
        reasons = self.model.reasons(self.now)
        pace = self.model.not_before
        batch = self.batcher.next_batch(self.now)
        assert (batch is not None) == starts
        if batch is None:
            self.model.advance(self.now)
            return
        items = self.model.start(self.now)
        assert [entry.id for entry in batch.entries] == [item.id for item in items]
        assert list(batch) == [self.refs[item.id - 1]() for item in items]
        assert 1 <= len(batch) <= self.model.rules.batch_size
        assert batch.trigger.value in reasons
        assert batch.attempt == 1 + max(item.attempts for item in items)
        assert batch.priority == items[0].level
        assert pace <= self.now
        self.calls.append(Call(batch, items))
        self.compare_producers()

    # Calls end.

    @precondition(lambda self: self.calls)
    @rule(said=st.lists(SAID, min_size=3, max_size=3), keyed=st.booleans(), draw=st.floats(0, 0.99))
    def a_call_returns(self, said: list[str], *, keyed: bool, draw: float) -> None:
        call = self.calls.pop(0)
        returned: Any = [SAYS[each][1]() for each in said[: len(call.items)]]
        if keyed:
            named = zip(call.items, returned, strict=True)
            returned = {item.id: answer for item, answer in named if not item.settled}
        answers = read_answers(call.batch, returned)
        self.settle(call, answers, [SAYS[each][0] for each in said], draw)

    @precondition(lambda self: self.calls)
    @rule(last=st.booleans())
    def a_call_returns_nothing(self, *, last: bool) -> None:
        call = self.calls.pop(-1 if last else 0)
        self.settle(call, read_answers(call.batch, None), [Answer(success=True)] * 3)

    @precondition(lambda self: self.calls)
    @rule(returned=st.sampled_from([[], [1] * 7, "abc", {0: True}, iter(()), 5]))
    def a_call_returns_nonsense(self, returned: object) -> None:
        call = self.calls.pop(0)
        try:
            read_answers(call.batch, returned)
        except ContractError as error:
            # As the pump does: its frames would keep the items.
            error = error.with_traceback(None)
            failure: Result[Any] = Result(success=False, error=error, retryable=False)
        answers = [failure] * len(call.items)
        self.settle(call, answers, [Answer(success=False, retryable=False)] * 3)

    @precondition(lambda self: self.calls)
    @rule(draw=st.floats(0, 0.99))
    def a_call_raises(self, draw: float) -> None:
        call = self.calls.pop(0)
        answers = [Result[Any].fail(OSError("gone"))] * len(call.items)
        self.settle(call, answers, [Answer(success=False)] * 3, draw)

    @precondition(lambda self: self.calls)
    @rule(after=st.sampled_from([0.0, 0.7, 3.0]))
    def a_call_is_throttled(self, after: float) -> None:
        call = self.calls.pop(0)
        self.model.not_before = max(self.model.not_before, self.now + after)
        self.batcher.limits.hold(self.now + after)
        self.settle(call, call.batch.no_verdicts(), [Answer(success=None)] * 3)

    def settle(
        self,
        call: Call,
        answers: Sequence[object] | None,
        expected: list[Answer],
        draw: float = 0.5,
    ) -> None:
        current = self.batcher.settle(call.batch, answers, now=self.now, draw=draw)
        assert current != call.interrupted
        if current:
            self.model.end_call(call.items, expected, self.now, draw)
        assert not self.batcher.settle(call.batch, answers, now=self.now, draw=draw)  # once
        self.to_release.append(call.batch)
        if self.eager:
            self.a_slot_is_free()
            self.look()

    @precondition(lambda self: self.calls)
    @rule(index=st.integers(0, 2), backwards=st.booleans(), said=SAID)
    def a_call_settles_early(self, index: int, said: str, *, backwards: bool) -> None:
        call = self.calls[0]
        index %= len(call.items)
        place = index - len(call.items) if backwards else index
        call.batch.settle(place, read_answer(SAYS[said][1]()))
        if not call.interrupted:
            self.model.early(call.items[index], SAYS[said][0])

    @precondition(lambda self: self.to_release)
    @rule()
    def a_slot_is_free(self) -> None:
        self.model.slots -= 1
        self.batcher.release(self.to_release.pop(0))

    # The queue as a whole.

    @rule(accept=st.sampled_from([True, True, False]))
    def pause(self, *, accept: bool) -> None:
        self.batcher.pause(accept=accept)
        if self.model.draining:
            return
        self.model.paused = True
        if not accept and self.model.intake is Intake.OPEN:
            self.model.intake = Intake.PAUSED

    @rule()
    def resume(self) -> None:
        self.batcher.resume(self.now)
        self.model.paused = False
        if self.model.intake is Intake.PAUSED:
            self.model.intake = Intake.OPEN
        self.model.let_in(self.now)
        self.compare_producers()

    @precondition(lambda self: self.parked and self.model.intake is Intake.OPEN)
    @rule(index=st.integers(0, 30))
    def a_seat_gets_free_while_nothing_comes_in(self, index: int) -> None:
        self.pause(accept=False)
        self.cancel(index, "waits")
        self.resume()

    @rule()
    def flush(self) -> None:
        wakes: list[None] = []
        flush, model = self.batcher.flush(), self.model.flush()
        flush.wake = lambda: wakes.append(None)
        assert flush.left == len(model)
        if model:
            self.flushes.append(Flushed(flush, model, wakes))

    @precondition(lambda self: self.offered >= 2 * self.lifetime)
    @rule()
    def close(self) -> None:
        self.batcher.door.set_intake(RealIntake.CLOSED)
        self.shut()

    @precondition(lambda self: self.offered >= self.lifetime)
    @rule()
    def drain(self) -> None:
        self.batcher.drain()
        self.model.paused, self.model.draining = False, True
        self.shut()

    @precondition(lambda self: self.model.draining)
    @rule()
    def the_time_for_the_drain_is_up(self) -> None:
        self.batcher.stop_draining(self.now)
        self.model.paused, self.model.draining = True, False
        for call in self.calls:
            if not call.interrupted:
                self.model.end_call(call.items, [Answer(success=None)] * 3, self.now, 0.0)
                call.interrupted = True


TestBatcherMachine = BatcherMachine.TestCase
