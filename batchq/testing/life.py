"""One history of a queue, lived on a virtual clock and watched at every step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs
import trio
import trio.testing

from batchq.core.batch import Batch
from batchq.core.entry import EntryStatus
from batchq.core.options import Options
from batchq.core.result import Result
from batchq.errors import ContractError, DrainTimeout, StrategyError, Throttled
from batchq.handle import Entry
from batchq.hooks import Hooks
from batchq.queue import BatchedQueue
from batchq.testing.capacity import Capacity

__all__ = ["Life", "Step"]

_FOR_EVER: Final = 1e9  # longer than any history [s]
_MOST_CALLS: Final = 5_000  # more than any history has, where items settle


@attrs.define(eq=False)
class Life:
    """A queue and what is known of it from outside.

    Attributes:
        processor: the user's.
        expected: what whoever waits for an item gets; NotImplemented: unknown.
        options: the queue's; no hooks.
        faults: what did not hold, in words.
    """

    processor: Callable[[Batch[Any]], Any]
    expected: Callable[[Any], object]
    options: Options
    faults: list[str] = attrs.field(factory=list)
    _queue: BatchedQueue[Any, Any] = attrs.field(init=False)
    _tasks: trio.Nursery = attrs.field(init=False)
    _items: dict[Entry[Any, Any], Any] = attrs.field(factory=dict, init=False)
    _cancelled: set[object] = attrs.field(factory=set, init=False)
    _running: set[object] = attrs.field(factory=set, init=False)
    _settled: dict[object, Result[Any]] = attrs.field(factory=dict, init=False)
    _paused: bool = False
    _capacity: Capacity = attrs.field(init=False)
    _given_up: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)

    def live(self, steps: Sequence[Step]) -> None:
        """Take the steps one after another, then drain.

        Raises:
            TypeError: the processor is not async, or an option is not for histories.
        """
        BatchedQueue(self.processor, **self.options)  # it checks both
        taken = {"hooks", "persistence"} & self.options.keys()
        if taken:
            raise TypeError(
                f"the options of a QueueMachine may not have {', '.join(sorted(taken))}"
            )
        self._capacity = Capacity(self.options)
        trio.run(self._live, steps, clock=trio.testing.MockClock(autojump_threshold=0))

    # What may happen.

    async def enqueue(self, items: Sequence[Any], priority: int | None) -> None:
        """Enqueue items, each by itself."""
        for item in items:
            entry = await self._queue.enqueue(item, priority)
            self._items[entry] = item

    async def process(self, item: object, patience: float) -> None:
        """Let somebody wait for an item, for at most `patience` [s]."""
        self._tasks.start_soon(self._wait_for, item, patience)
        await trio.lowlevel.checkpoint()

    async def cancel(self, index: int) -> None:
        """Cancel one of the entries."""
        if self._items:
            entry = list(self._items)[index % len(self._items)]
            if entry.cancel():
                self._cancelled.add(entry)
        await trio.lowlevel.checkpoint()

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        await trio.sleep(seconds)

    async def pause(self) -> None:
        """Pause the queue."""
        self._queue.pause()
        self._paused = True
        await trio.lowlevel.checkpoint()

    async def resume(self) -> None:
        """Resume the queue."""
        self._queue.resume()
        self._paused = False
        await trio.lowlevel.checkpoint()

    async def flush(self) -> None:
        """Let somebody flush the queue."""
        self._tasks.start_soon(self._queue.flush)
        await trio.lowlevel.checkpoint()

    # What must hold.

    async def _live(self, steps: Sequence[Step]) -> None:
        hooks = Hooks[Any, Any](
            on_batch_start=self._batch_starts,
            on_batch_complete=self._batch_ends,
            on_error=self._look_at_error,
        )
        options: dict[str, Any] = {**self.options, "hooks": hooks}
        self._queue = BatchedQueue(self._process, **options)
        with self._given_up:
            async with trio.open_nursery() as self._tasks, self._queue:
                for step in steps:
                    await step(self)
                    await trio.testing.wait_all_tasks_blocked()
                    self._look()
                await self._end()
        for entry, item in self._items.items():
            self._look_at_answer(entry, item)
        if self._queue.stats().hook_errors:
            self.faults.append("a check raised; see the log")

    async def _end(self) -> None:
        try:
            await self._queue.drain(_FOR_EVER)
        except DrainTimeout as error:
            self.faults.append(f"{error.remaining} items never settle")
        self._look()

    def _look(self) -> None:
        stats = self._queue.stats(recount=True)
        if stats != self._queue.stats():
            self.faults.append(f"I1: a recount gives {stats}, not {self._queue.stats()}")
        ends = {status.value: getattr(stats, status.value) for status in EntryStatus}
        if sum(ends.values()) != stats.enqueued:
            self.faults.append(f"I1: {stats.enqueued} items came in, and {ends} add up otherwise")
        now = trio.current_time()
        idle = stats.running < stats.concurrency and not self._paused and self._capacity.open(now)
        for entry in self._items:
            if entry.settled:
                if self._settled.setdefault(entry, entry.verdict) is not entry.verdict:
                    self.faults.append(f"I2: {entry} settled twice")
            elif idle and self._is_late(entry, now):
                self.faults.append(f"I7: {entry} is late at {now:g} s, and a slot is free")
            elif self._has_expired(entry, now):
                self.faults.append(f"I29: {entry} waits at {now:g} s, past its deadline")

    def _is_late(self, entry: Entry[Any, Any], now: float) -> bool:
        interval = self.options.get("flush_interval", 1.0)
        interval = math.inf if interval is None else interval
        waits = entry.status is EntryStatus.PENDING
        due = entry.attempts > 0 or entry.enqueued_at + interval <= now
        return waits and due and self._capacity.may_start(entry)

    def _has_expired(self, entry: Entry[Any, Any], now: float) -> bool:
        timeout = self.options.get("delivery_timeout")
        waits = entry.status in {EntryStatus.PENDING, EntryStatus.DELAYED}
        return waits and timeout is not None and entry.enqueued_at + timeout <= now

    async def _process(self, batch: Batch[Any]) -> Any:  # noqa: ANN401 - a processor's answers
        try:
            return await self.processor(batch)
        except AssertionError as error:  # in a test that is no failure of an item
            self.faults.append(f"the processor's own check failed: {error!r}")
            raise
        except Throttled as throttled:
            self._capacity.hold(trio.current_time() + throttled.retry_after)
            raise

    def _batch_starts(self, batch: Batch[Any]) -> None:
        self._capacity.started(batch, trio.current_time())
        if self._capacity.calls > _MOST_CALLS:
            self.faults.append(f"after {_MOST_CALLS} calls some items never settle")
            self._given_up.cancel()
        if not 1 <= len(batch) <= self._capacity.largest:
            self.faults.append(f"I3: a batch of {len(batch)} items")
        for entry in batch.entries:
            if entry in self._cancelled:
                self.faults.append(f"I19: {entry} was cancelled, and is processed")
            if entry in self._running:
                self.faults.append(f"{entry} is in two calls at once")
        self._running.update(batch.entries)

    def _batch_ends(self, batch: Batch[Any], _: object) -> None:
        self._capacity.ended(batch)
        self._running.difference_update(batch.entries)

    def _look_at_error(self, error: Exception) -> None:
        if isinstance(error, ContractError | StrategyError):
            self.faults.append(f"{type(error).__name__}: {error}")

    def _look_at_answer(self, entry: Entry[Any, Any], item: object) -> None:
        if not entry.settled:
            self.faults.append(f"I2: {entry} never settled")
        elif entry.status is EntryStatus.SUCCEEDED:
            self._compare(item, entry.value())

    def _compare(self, item: object, value: object) -> None:
        expected = self.expected(item)
        if expected is not NotImplemented and value != expected:
            self.faults.append(f"I32: {item!r} got {value!r}, not {expected!r}")

    async def _wait_for(self, item: object, patience: float) -> None:
        with trio.move_on_after(patience):
            try:
                value = await self._queue.process(item)
            except Exception:  # what the processor makes of an item is its own business
                return
            self._compare(item, value)


Step = Callable[[Life], Any]
