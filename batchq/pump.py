"""Starts batches, calls the processor under its time limit, tells the hooks.

Rule 1: look, *then* rest, without a checkpoint between them unless something has changed
meanwhile; the other order loses wake-ups.
Rule 2: choosing a batch and starting its call have no checkpoint between them.
Rule 3: a call settles its entries in `finally`, without a checkpoint: whoever waits for
them is told, however the call ended.
Rule 4: `trio.Cancelled` always travels on.
Rule 5: while something is due some day, one task keeps watch; of the others, some make calls
and some are free. One that keeps watch gets no batch from anybody else.
Rule 6: every call runs in the context that the pump began with: what one call sets, the
next does not see.

    wake ─▶ watch: look ─▶ next_batch ─▶ call: on_batch_start, processor | time limit
    alarm ─┘         ▲                      ├─▶ verdicts (durable queues: write them down)
                     └─── release ◀── hooks ◀┴── settle
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context, copy_context
from typing import Any, Generic, TypeVar

import attrs
import trio

from batchq.carrier import Carrier
from batchq.core.answers import read_answers
from batchq.core.batch import Batch, Trigger
from batchq.core.batcher import Batcher
from batchq.core.checks import attribute_of, check_async
from batchq.core.entry import Entry
from batchq.core.result import Result
from batchq.core.splitting import Judged
from batchq.errors import BatchTimeout, ContractError, Throttled
from batchq.hooks import Watchers
from batchq.marks import Marks
from batchq.teller import Teller, results_of

__all__ = ["Processor", "Pump", "Verdicts", "the_processor"]

T = TypeVar("T")
R = TypeVar("R")

Processor = Callable[[Batch[T]], Awaitable[Any]]
Verdicts = Callable[[Batch[T], Sequence[Result[Any]]], Awaitable[None]]


@attrs.define(eq=False)
class Pump(Generic[T, R]):
    """The only place where the engine waits.

    Attributes:
        batcher: decides.
        processor: the user's function.
        watchers: whom to tell.
        timeout: longest call [s]; inf is no limit.
        rng: where jitter comes from.
        verdicts: awaited, shielded, once a call is judged and before its hooks and the
            release of its slot; one result per entry, in order.
        see: called at the end of each step with its time [s].
        name: the queue's, for messages.
        now: the time of this step [s]; None: nobody has asked since the pump last ran.
        teller: tells the hooks.
        marks: of its calls.
        limit: look again no later than at this time [s].
    """

    batcher: Batcher[T, R]
    processor: Processor[T]
    watchers: Watchers[T, R]
    timeout: float
    rng: random.Random
    verdicts: Verdicts[T] | None
    see: Callable[[float], None]
    name: str
    now: float | None = None
    limit: float = math.inf
    # Whether something has changed since somebody last looked.
    _changed: bool = False
    _carriers: dict[Batch[T], Carrier[T]] = attrs.field(factory=dict)
    _free: dict[Carrier[T], None] = attrs.field(factory=dict)  # the last comes first
    _watcher: Carrier[T] | None = None  # who keeps watch, or is about to
    teller: Teller[T, R] = attrs.field(init=False)
    marks: Marks = attrs.field(init=False)
    _nursery: trio.Nursery | None = None
    _context: Context = attrs.field(init=False)
    _alarm: trio.CancelScope | None = None  # of who keeps watch, while it rests
    _alarm_at: float = math.inf
    # Whether a task that has just ended a call looks in the next round of the loop.
    _looks_soon: bool = False

    def __attrs_post_init__(self) -> None:
        self.teller = Teller(self.batcher, self.watchers, self.name)
        self.marks = Marks(lambda: self.batcher.concurrency)
        self.batcher.news.ring = self.wake

    def begin(self) -> float:
        """Read the clock for what happens until the pump runs next, and wake it."""
        self.now = trio.current_time()
        self.wake()
        return self.now

    def wake(self) -> None:
        """Let the pump look again."""
        if self._looks_soon:
            return
        self._changed = True
        if self._watcher is None:
            self._relieve()
        else:
            self._watcher.wake()

    def start(self, nursery: trio.Nursery) -> None:
        """Start batches in `nursery` until that is cancelled."""
        self._nursery = nursery
        self._context = copy_context()
        self._relieve()

    def look(self, now: float) -> None:
        """End a step: tell of the size, and wake those who wait for the queue."""
        self.teller.tell_state()
        self.see(now)

    def cancel_calls(self) -> None:
        """Cancel every call; its entries are elsewhere already."""
        for carrier in self._carriers.values():
            carrier.cancel()
        self._carriers.clear()
        self.teller.tell_changes()

    def cancel_unwanted(self, entry: Entry[Any, Any]) -> None:
        """Cancel the call of `entry` if nobody wants any of its entries any more."""
        for batch in list(self._carriers):
            if entry in batch.entries and not batch.wanted:
                self._carriers.pop(batch).cancel()
                now = trio.current_time()
                self.batcher.interrupt(batch, now)
                self.teller.tell_changes()

    def _hand_over(self, batch: Batch[T]) -> None:
        """Let a task carry a batch: one that is free, or else a new one."""
        carrier = self._free.popitem()[0] if self._free else self._new_carrier()
        carrier.take(batch)
        # Here, not in its task: the call can be interrupted before that first runs.
        self._carriers[batch] = carrier

    def _relieve(self) -> None:
        """Let a task keep watch: one that is free, or else a new one."""
        if self._free:
            self._watcher = self._free.popitem()[0]
            self._watcher.wake()
        elif self._nursery is not None and not self._nursery.cancel_scope.cancel_called:
            self._watcher = self._new_carrier()

    def _new_carrier(self) -> Carrier[T]:
        assert self._nursery is not None, "nothing starts before it begins"  # noqa: S101 - for the type checker
        carrier: Carrier[T] = Carrier(self._context)
        self._context.run(self._nursery.start_soon, self._serve, carrier)
        return carrier

    async def _serve(self, carrier: Carrier[T]) -> None:
        """Make call after call in one task, for as long as it is as good as new."""
        try:
            with carrier.scope:
                await self._make_calls(carrier)
        except Exception as error:
            if carrier.calling is None:
                raise
            # What the scope lets through of a group of errors and its own Cancelled.
            await self._end(carrier, carrier.calling, self._raised(carrier.calling, error))
        else:
            if carrier.calling is not None:
                await self._end(carrier, carrier.calling, self._cut_short(carrier.calling))
        finally:
            self._give_up(carrier)
        await trio.lowlevel.checkpoint_if_cancelled()  # or nothing starts any more
        self._look()

    async def _make_calls(self, carrier: Carrier[T]) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            while carrier.batch is None:
                if carrier is self._watcher:
                    await self._watch(carrier)
                else:
                    await carrier.rest()
                    await trio.lowlevel.checkpoint_if_cancelled()
            if carrier.batch not in self._carriers:  # it was taken back in time
                return
            full = carrier.batch.trigger is Trigger.SIZE
            now = await self._call(carrier, carrier.batch)
            if not carrier.is_fit(limited=self.timeout < math.inf):
                return
            self._free[carrier] = None
            if full or not self.batcher.idle:  # those who are woken may bring the next batch
                self._looks_soon = True
                await trio.lowlevel.checkpoint()
                now = trio.current_time()
            self._look(now)

    async def _watch(self, carrier: Carrier[T]) -> None:
        """Look whenever something changes, until the time that it waits for has come.

        Then it is free, and may carry what that time has brought.
        """
        self._alarm_at, woken = math.inf, True
        self._look()
        with trio.CancelScope(deadline=self._alarm_at) as self._alarm:
            while woken:
                if self._changed:  # by a hook, while it looked
                    await trio.lowlevel.cancel_shielded_checkpoint()
                else:
                    woken = await carrier.rest()
                if woken:
                    self._look()
        self._alarm = self._watcher = None
        await trio.lowlevel.checkpoint_if_cancelled()
        self._free[carrier] = None
        self._look()

    def _give_up(self, carrier: Carrier[T]) -> None:
        """Let go of a batch whose call was cancelled from outside, or never made."""
        self._free.pop(carrier, None)  # if it was cancelled there, it carries nothing more
        if carrier.calling is not None:
            batch = carrier.calling
            self._settle(carrier, batch, Judged(batch, batch.no_verdicts()))
        elif carrier.batch is not None:
            self.batcher.release(carrier.batch)

    async def _call(self, carrier: Carrier[T], batch: Batch[T]) -> float:
        """Call the processor, and end the call; return the time [s]."""
        if self.watchers.on_batch_start:
            self.watchers.tell(self.watchers.on_batch_start, batch)
        carrier.begin(self.marks, batch)
        if self.timeout < math.inf:
            carrier.scope.deadline = trio.current_time() + self.timeout
        try:
            judged = self._read(batch, await self.processor(batch))
        except Exception as error:  # the processor is the user's code
            judged = self._raised(batch, error)
        if self.verdicts is None:
            return self._settle(carrier, batch, judged)
        return await self._end(carrier, batch, judged)

    def _raised(self, batch: Batch[T], error: Exception) -> Judged:
        """Say what a call comes to that raised."""
        if isinstance(error, Throttled):
            return Judged(batch, self._throttled(batch, error.retry_after), error)
        return self._failed(batch, error)

    def _cut_short(self, batch: Batch[T]) -> Judged:
        """Say what a call comes to whose scope was cancelled."""
        if batch not in self._carriers:  # it was interrupted, or nobody wanted it any more
            return Judged(batch, batch.no_verdicts())
        limit = f"processor_timeout={self.timeout:g} s"
        return self._failed(batch, BatchTimeout(f"a call for {len(batch)} items took {limit}"))

    def _read(self, batch: Batch[T], answers: object) -> Judged:
        try:
            found = read_answers(batch, answers)
        except ContractError as error:
            # It was raised here, which helps nobody; its frames would keep the batch.
            return self._failed(batch, error.with_traceback(None))
        if batch.bisect is not None:
            self.batcher.splitting.returned(batch)
        return Judged(batch, found)

    def _throttled(self, batch: Batch[T], retry_after: float) -> Sequence[Result[Any]]:
        self.batcher.limits.hold(trio.current_time() + retry_after)
        results = self.batcher.splitting.throttled(batch)
        if self.verdicts is not None and batch.bisect is None:
            # Jobs go back to their store, which has to know for how long.
            return [Result(success=None, retry_after=retry_after)] * len(batch)
        return batch.no_verdicts() if results is None else results

    def _failed(self, batch: Batch[T], error: Exception) -> Judged:
        self.watchers.tell(self.watchers.on_error, error)
        if batch not in self._carriers:  # it was interrupted: nobody asks for its end
            return Judged(batch, batch.no_verdicts())
        return self.batcher.splitting.raised(batch, error)

    async def _end(self, carrier: Carrier[T], batch: Batch[T], judged: Judged) -> float:
        """End a call whose verdicts are known; return the time [s]."""
        try:
            if self.verdicts is not None and batch in self._carriers:
                with trio.CancelScope(shield=True):
                    await self.verdicts(judged.batch, results_of(judged))
        finally:
            now = self._settle(carrier, batch, judged)
        return now

    def _settle(self, carrier: Carrier[T], batch: Batch[T], judged: Judged) -> float:
        """Settle, tell the hooks, release the slot, without a checkpoint; return the time [s]."""
        carrier.leave()
        if self.timeout < math.inf:
            carrier.scope.deadline = math.inf
        self._carriers.pop(batch, None)
        now = trio.current_time()
        results = results_of(judged) if self.watchers.of_calls else None
        current = self.batcher.settle(
            batch,
            judged.results if results is None else results,
            now=now,
            draw=self.rng.random(),
            concerns=judged.batch,
            error=judged.error,
            spread=self.rng.random() if self.batcher.learns else 0.5,
        )
        if results is not None:
            self.teller.tell_call(batch, judged.batch, results, now=now, current=current)
        self.teller.tell_changes()
        self.batcher.release(batch)
        carrier.end()
        return now

    def _look(self, now: float | None = None) -> None:
        """Do what is due, and see that somebody looks when more is; too early does no harm."""
        self._looks_soon, self._changed, self.now = False, False, None
        now = trio.current_time() if now is None else now
        while (batch := self.batcher.next_batch(now)) is not None:
            self._hand_over(batch)
        self.teller.tell_changes()
        self.look(now)
        due = min(self.batcher.next_deadline(), self.limit)
        if self._watcher is None:
            if due < math.inf:
                self._relieve()
        elif due < self._alarm_at or self._alarm_at < due == math.inf:  # nothing to wait for
            self._alarm_at = due
            if self._alarm is not None:
                self._alarm.deadline = due


def the_processor(given: Processor[T] | None, owner: object) -> Processor[T]:
    """Find the one processor, given or a method of a subclass of the queue, and check it.

    Raises:
        TypeError: there is none, or two, or it is not async.
    """
    method = None
    if hasattr(owner, "process_batch"):
        method = attribute_of(owner, "process_batch", takes=1)
    if (given is None) == (method is None):
        found = "neither" if given is None else "both"
        raise TypeError(
            f"give a processor or define the method process_batch, one of the two; found {found}"
        )
    processor: Any = method if given is None else given
    check_async("the processor", processor)
    return processor  # type: ignore[no-any-return]  # checked just now
