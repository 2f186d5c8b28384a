"""Whole lives of a queue, of any options, any callers and any luck: what holds at their end.

The core's histories prove its decisions; these see that the shell around it loses nothing:
every entry is settled (I22) and counted once (I1, I27), hooks were told of each (I20), the
last size is 0, and no task is left.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import attrs
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from batchq import (
    AdaptiveBatchSize,
    AdaptiveConcurrency,
    Backoff,
    BatchedQueue,
    BatchqError,
    DrainTimeout,
    Entry,
    Hooks,
    OptionError,
    Persistence,
    Result,
    RetryPolicy,
    SlidingWindow,
    Throttled,
    TokenBucket,
)
from batchq.core.batch import Batch
from batchq.testing import FaultyStorage

OPTIONS: Final[dict[str, list[Any]]] = {
    "batch_size": [1, 2, 3, AdaptiveBatchSize(max_size=4)],
    "flush_interval": [0, 0.5, 2, None],
    "weigh": [lambda item: item % 5],
    "max_batch_weight": [3, 6],
    "oversize": ["reject"],
    "priority_levels": [3],
    "priority_by": [lambda item: item % 3],
    "priority_aging": [1.0],
    "mix_priorities": [False],
    "partition_by": [lambda item: item % 2, lambda item: item % 7],
    "partition_concurrency": [1],
    "ordered": [True],
    "batching_strategy": [
        lambda items: [items[::2], items[1::2]], lambda items: [items[:1]], lambda _: []
    ],
    "concurrency": [2, 3, AdaptiveConcurrency(initial=2)],
    "throttle": [0.25],
    "rate_limit": [SlidingWindow(2, 1), TokenBucket(3, 2), SlidingWindow(4, 1, "weight")],
    "max_queue_size": [4, None],
    "max_outstanding": [5],
    "max_queue_weight": [9],
    "drop_policy": ["reject-new", "drop-oldest", "drop-newest", "drop-lowest-priority"],
    "coalesce_by": [lambda item: item % 4],
    "coalesce_policy": ["replace", max, "reject"],
    "retry": [RetryPolicy(1, backoff=Backoff(schedule=[0.5, 1])), RetryPolicy(2)],
    "bisect": ["off", "immediate", "exhausted"],
    "processor_timeout": [0.75],
    "cancel_abandoned": [True],
    "shutdown_timeout": [None, 1],
    "queue_timeout": [1.5],
    "delivery_timeout": [2.5],
    "persistence": [Persistence(storage=FaultyStorage(), save_interval=1)],
}  # fmt: skip
ERRORS: Final = (ValueError("no"), OSError("gone"), Throttled(0.5), ExceptionGroup("", [OSError()]))
VERDICTS: Final[tuple[Result[Any], ...]] = (
    Result.ok(), Result.retry(), Result.snooze(0.5), Result.discard()
)  # fmt: skip


@attrs.define
class Told:
    """What hooks were told."""

    starts: int = 0
    ends: int = 0
    processed: int = 0
    dropped: Counter[str] = attrs.field(factory=Counter)
    sizes: list[int] = attrs.field(factory=lambda: [0])

    def hooks(self) -> Hooks[Any, Any]:
        return Hooks(
            on_batch_start=self._start,
            on_batch_complete=self._end,
            on_processed=self._processed,
            on_drop=lambda _, reason: self.dropped.update([reason]),
            on_queue_size_change=self.sizes.append,
            on_error=lambda _: None,
        )

    def _start(self, batch: Batch[Any]) -> None:
        assert len(batch)
        self.starts += 1

    def _end(self, batch: Batch[Any], results: Any) -> None:  # noqa: ANN401 - a sequence
        assert len(results) == len(batch)
        self.ends += 1

    def _processed(self, _: object, result: Result[Any]) -> None:
        assert result.success is not None
        self.processed += 1


class Life:
    """A queue, those who use it, and what they saw; all by the luck of one draw."""

    def __init__(self, luck: random.Random) -> None:
        self.luck = luck
        self.told = Told()
        self.entries: list[Entry[Any, Any]] = []
        names = luck.sample(list(OPTIONS), luck.randint(1, 7))
        options = {name: luck.choice(OPTIONS[name]) for name in names}
        storage = {"persistence": Persistence(storage=FaultyStorage(), save_interval=1)}
        options |= storage if "persistence" in options else {}
        self.queue: BatchedQueue[int, Any] = BatchedQueue(
            self.process, rng=random.Random(luck.random()), hooks=self.told.hooks(), **options
        )

    def happens(self, chance: float) -> bool:
        return self.luck.random() < chance

    async def process(self, batch: Batch[int]) -> object:
        """Take some time; answer, raise, settle early, say nothing of use."""
        if self.happens(0.3):
            batch.settle(self.luck.randrange(len(batch)), self.luck.choice(VERDICTS))
        await trio.sleep(self.luck.choice([0, 0, 0.25, 1]))
        if self.happens(0.15):
            raise self.luck.choice(ERRORS)
        if self.happens(0.05):
            return ["of another length"] * (len(batch) + 1)
        return [
            self.luck.choice([None, ValueError(), *VERDICTS]) if self.happens(0.4) else item
            for item in batch
        ]

    async def produce(self) -> None:
        """Hand items over in every way there is; take some back."""
        for _ in range(self.luck.randint(1, 8)):
            item, said = self.luck.randrange(1000), dict[str, Any]()
            if self.happens(0.2):
                said["delay"] = self.luck.choice([0.5, 1])
            if self.happens(0.1):
                said |= self.luck.choice([{"weight": 2.5}, {"delivery_timeout": 0.5}])
            await self.hand_over(item, said)
            if self.entries and self.happens(0.15):
                self.luck.choice(self.entries).cancel()
            await trio.sleep(self.luck.choice([0, 0, 0.25]))

    async def hand_over(self, item: int, said: dict[str, Any]) -> None:
        way, queue = self.luck.random(), self.queue
        try:
            if way < 0.3:
                self.entries.append(await queue.enqueue(item, **said))
            elif way < 0.5:
                self.entries.append(queue.enqueue_nowait(item, **said))
            elif way < 0.7:
                self.entries += await queue.enqueue_many([item, item + 1, item + 2], **said)
            else:
                with trio.move_on_after(self.luck.choice([0.25, 1, 5])):
                    await queue.process(item, **said)
        except BatchqError as error:  # there is no room, or its time is up
            self.entries += getattr(error, "entries", ())
        except (ValueError, OSError, ExceptionGroup):
            assert way >= 0.7

    async def meddle(self) -> None:
        """Pause, flush, wait, drain, close; see that the counters are right at any time."""
        queue = self.queue
        ways: list[Callable[[], Any]] = [
            lambda: queue.flush(self.luck.choice([0.5, 2])), queue.wait_idle, queue.wait_room
        ]  # fmt: skip
        if self.happens(0.2):
            ways += [lambda: queue.drain(self.luck.choice([0.25, 3]))]
        for _ in range(6):
            await trio.sleep(self.luck.choice([0.25, 0.5]))
            with suppress(trio.TooSlowError, BatchqError), trio.move_on_after(1):
                if self.happens(0.2):
                    queue.pause(accept=self.happens(0.5))
                    await trio.sleep(0.5)
                    queue.resume()
                elif self.happens(0.6):
                    await self.luck.choice(ways)()
            assert queue.stats() == queue.stats(recount=True)

    async def live(self) -> None:
        """Use the queue until all have had enough, or until its block is cancelled."""
        with trio.move_on_after(self.luck.choice([3, 1000, 1000, 1000])), suppress(DrainTimeout):
            async with self.queue, trio.open_nursery() as nursery:
                for _ in range(self.luck.randint(1, 4)):
                    nursery.start_soon(self.produce)
                nursery.start_soon(self.meddle)

    def check(self) -> None:
        """See what holds when a queue has ended."""
        stats, told = self.queue.stats(recount=True), self.told
        assert all(entry.settled for entry in self.entries)
        assert stats.size == stats.outstanding == stats.running == 0
        assert told.processed == stats.succeeded + stats.failed
        assert told.dropped["overflow"] == stats.dropped
        assert told.dropped["cancelled"] == stats.cancelled
        assert told.dropped["expired"] == stats.expired
        assert told.dropped["closed"] == stats.closed
        assert told.processed + told.dropped.total() == stats.enqueued
        # One that is chosen at the instant at which all ends may be taken back uncalled.
        assert told.starts == told.ends <= stats.batches
        assert told.sizes[-1] == 0
        assert stats.hook_errors == 0


@given(seed=st.integers(0, 2**32))
def test_a_queue_leaves_nothing_undone_whatever_its_life(seed: int) -> None:
    try:
        life = Life(random.Random(seed))
    except OptionError:
        return  # refused together: another test has them all

    async def main() -> None:
        before = trio.lowlevel.current_statistics().tasks_living
        with trio.fail_after(5000):  # of virtual time: it hangs
            await life.live()
        assert trio.lowlevel.current_statistics().tasks_living == before
        life.check()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
