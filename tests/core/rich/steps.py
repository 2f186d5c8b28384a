"""What may happen to a queue of the rich rules, step by step; chance chooses."""

from __future__ import annotations

import gc
import math
import random
from collections.abc import Callable
from typing import Any, Final

from batchq.core.answers import read_answer
from batchq.core.producer import Intake
from batchq.core.result import Result
from batchq.errors import QueueClosed
from tests.core.rich.coming import Coming
from tests.core.rich.ending import FAILED, OK
from tests.core.rich.options import LARGEST, MOST_SLOTS
from tests.core.rich.pair import Flushed, Started
from tests.core.rich.terms import Answer

__all__ = ["Steps"]

# What a processor may say of one item, and what it means.
SAYS: Final[tuple[tuple[Answer, Callable[[], object]], ...]] = (
    (OK, lambda: "value"),
    (OK, lambda: Result.ok("value")),
    (FAILED, lambda: ValueError("no")),
    (Answer(success=False, retryable=True), Result.retry),
    (Answer(success=False, retryable=True, after=2.0), lambda: Result.retry(after=2.0)),
    (Answer(success=False, retryable=False), Result.discard),
    (Answer(success=None, after=0.5), lambda: Result.snooze(0.5)),
    (Answer(success=None, after=0.0), lambda: Result.snooze(0)),
)
MOMENT: Final = 2.0**-20  # seconds; less than any two instants are apart


class Steps(Coming):
    """A history: what happens is drawn from `chance`."""

    def live(self, chance: random.Random, steps: int) -> None:
        """Take so many steps, then end."""
        self.chance = chance
        self.draw_habits()
        # How often calls raise, and whether it looks like an outage.
        self.moody, self.down = chance.choice([1, 4, 15]), chance.choice([0.0, 0.5, 1.0])
        for number in range(steps):
            table = self.table(near_the_end=number * 4 > steps * 3)
            weights = [weight for weight, _ in table]
            ((_, act),) = chance.choices(table, weights)
            self.model.rich = self.rich
            act()
            if self.eager:
                self.look()
            self.compare()
        self.end()

    def table(self, *, near_the_end: bool) -> list[tuple[int, Callable[[], object]]]:
        """Return what may happen now, and how often it does."""
        always: list[tuple[int, Callable[[], object]]] = [
            (9, self.enqueue),
            (2, self.enqueue_many),
            (3, self.time_passes),
            (4, self.the_deadline_comes),
            (1, self.pause),
            (6 if self.model.paused else 1, self.resume),
            (1, self.flush),
            (3, self.look),
        ]
        if self.chance.random() < 0.02:
            always += [(20, self.it_crashes_and_is_restored)]
        if self.entries:
            always += [(2, self.cancel)]
        if self.parked:
            always += [(2, self.a_producer_gives_up)]
        if self.started:
            always += [
                (4, self.a_call_returns),
                (self.moody, self.a_call_raises),
                (1, self.a_call_is_throttled),
                (3, self.a_call_settles_early),
                (1, self.an_unwanted_call_is_cancelled),
            ]
        if near_the_end:
            always += [(1, self.close), (3, self.drain)]
            always += [(4, self.the_drain_runs_out_of_time)] if self.model.draining else []
        return always

    # Time.

    def time_passes(self) -> None:
        self.now += self.draw(0.125, 0.25, 0.5, 1.0, 4.0)

    def the_deadline_comes(self) -> None:
        """Go to the deadline that was announced: nothing happens before, something then."""
        self.look()
        deadline = self.batcher.next_deadline()
        assert deadline > self.now
        early = [self.now + 64.0]
        if deadline < math.inf:
            early = [(self.now + deadline) / 2, deadline - MOMENT]
        for now in early:
            if self.now < now < deadline:
                self.now = now
                # Asked again earlier, a strategy may answer otherwise, with what costs less.
                happened = self.look()
                assert not happened or (self.terms.strategy and self.terms.limits)
        if deadline < math.inf:
            self.now = deadline
            # What may hold a bucket back is looked at when it is due.
            held = self.terms.limits or self.terms.strategy or self.terms.ordered
            assert self.look() or held or self.terms.partition_limit < math.inf

    # Calls end.

    def pick(self) -> Started:
        return self.started.pop(self.chance.randrange(len(self.started)))

    def a_call_returns(self) -> None:
        started = self.pick()
        said = self.chance.choices((*SAYS, *SAYS[:1] * 8), k=len(started.batch))
        self.batcher.splitting.returned(started.batch)
        draw = self.draw(0.0, 0.25, 0.5)
        self.model.returned(started.call, [answer for answer, _ in said], self.now, draw)
        self.settle(started, [make() for _, make in said], draw=draw)

    def a_call_raises(self) -> None:
        started, outage = self.pick(), self.chance.random() < self.down
        error = OSError("down") if outage else ValueError("no")
        self.model.raised(
            started.call, transient=isinstance(error, OSError), now=self.now, draw=0.5
        )
        if started.batch in self.batcher._starter.running:
            judged = self.batcher.splitting.raised(started.batch, error)
            self.settle(started, judged.results, concerns=judged.batch, error=error)
        else:
            self.settle(started, started.batch.no_verdicts())

    def a_call_is_throttled(self) -> None:
        started, after = self.pick(), self.draw(0.0, 0.5, 1.5)
        self.batcher.limits.hold(self.now + after)
        self.model.throttled(started.call, after, self.now, 0.5)
        results: Any = started.batch.no_verdicts()
        if not started.call.over or started.batch in self.batcher._starter.running:
            results = self.batcher.splitting.throttled(started.batch) or results
        self.settle(started, results)

    def an_unwanted_call_is_cancelled(self) -> None:
        for started in self.started:
            left = [item for item in started.call.items if item.flies]
            wanted = any(not item.abandoned for item in left)
            if not started.call.over:
                assert started.batch.wanted == wanted
                if left and not wanted:
                    self.batcher.interrupt(started.batch, self.now)
                    self.model.interrupt(started.call, self.now)

    def settle(self, started: Started, results: Any, *, draw: float = 0.5, **how: Any) -> None:  # noqa: ANN401
        self.batcher.settle(started.batch, results, now=self.now, draw=draw, **how)
        self.model.release(started.call)
        self.batcher.release(started.batch)
        self.learn()

    def learn(self) -> None:
        """Take what adaptive sizes have become: they are within their bounds."""
        stats, model = self.batcher.stats(self.now), self.model
        found = stats.batch_size, stats.concurrency
        if not self.terms.adaptive:
            assert found == (model.size, model.slots)
            return
        assert model.size / 2 <= stats.batch_size <= min(2 * model.size, LARGEST)
        assert model.slots * 0.9 - 1 < stats.concurrency <= min(model.slots + 1, MOST_SLOTS)
        model.size, model.slots = found

    def a_call_settles_early(self) -> None:
        started = self.chance.choice(self.started)
        index = self.chance.randrange(len(started.batch))
        answer, make = self.chance.choice(SAYS)
        started.batch.settle(index, read_answer(make()))
        self.model.early(started.call, started.call.items[index], answer)

    # The queue as a whole.

    def pause(self) -> None:
        accept = self.chance.random() < 0.7
        self.batcher.pause(accept=accept)
        if not self.model.draining:
            self.model.paused = True
            if not accept:
                self.model.shut("paused")

    def resume(self) -> None:
        self.batcher.resume(self.now)
        self.model.paused = False
        self.model.shut("open")
        self.model.let_in(self.now)

    def flush(self) -> None:
        wakes: list[None] = []
        flush, model = self.batcher.flush(), self.model.flush()
        flush.wake = lambda: wakes.append(None)
        assert flush.left == len(model)
        if model:
            self.flushes.append(Flushed(flush, model, wakes))
        else:
            self.model.flushes.remove(model)

    def close(self) -> None:
        self.batcher.door.set_intake(Intake.CLOSED)
        self.model.shut("closed")

    def drain(self) -> None:
        self.batcher.drain()
        self.model.paused, self.model.draining = False, True
        self.model.shut("closed")

    def the_drain_runs_out_of_time(self) -> None:
        self.batcher.stop_draining(self.now)
        self.model.stop_draining(self.now)

    def it_crashes_and_is_restored(self) -> None:
        """Let another queue begin with what is not settled; whoever waited is gone."""
        records = self.batcher.unsettled()
        self.batcher.end(QueueClosed("over"))  # a process that ends leaves nothing behind
        left = sorted((i for i in self.model.items if not i.settled), key=lambda item: item.id)
        other = type(self)(self.terms, eager=self.eager, plain=not self.rich)
        other.batcher.restore(records, self.now)
        other.model.restore(left, self.now)
        self.batcher, self.model = other.batcher, other.model
        self.started, self.parked, self.flushes, self.verdicts = [], [], [], {}
        self.entries = {entry.id: entry for entry in self.batcher.waiting}
        self.restored = True

    def end(self) -> None:
        """Drain: whatever happened it ends, and keeps nothing."""
        self.drain()
        for _ in range(40 + 20 * len(self.entries)):
            while self.started:
                self.a_call_returns()
            self.look()
            self.compare()
            if self.batcher.idle:
                break
            if not self.started:
                self.now = self.batcher.next_deadline()
                assert self.now < math.inf
        assert self.batcher.idle
        assert all(entry.settled for entry in self.entries.values())
        assert not self.rich or not self.batcher.waiting._selection._partitions
        assert self.batcher.next_deadline() == math.inf
        assert not self.flushes
        assert not self.parked
        self.hear()
        self.batcher.door.dropped.clear()
        if self.terms.strategy == "raises" or self.restored:
            gc.collect()  # the user's error and its frames are a circle, and so is a queue
        assert all(ref() is None for ref in self.refs)
