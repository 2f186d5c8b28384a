"""Starts batches, calls the processor under its time limit, tells the hooks.

Rule 1: make a new event, *then* look, then wait; the other order loses wake-ups.
Rule 2: choosing a batch and starting its call have no checkpoint between them.
Rule 3: a call settles its entries in `finally`, without a checkpoint: whoever waits for
them is told, however the call ended.
Rule 4: `trio.Cancelled` always travels on.
Rule 5: every call runs in the context that the pump began with: what one call sets, the
next does not see.

    wake ─▶ run: look ─▶ next_batch ─▶ call: on_batch_start, processor | time limit
             ▲                            ├─▶ verdicts (durable queues: write them down)
             └──────── release ◀── hooks ◀┴── settle
"""

from __future__ import annotations

import inspect
import logging
import math
import random
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import Any, Final, Generic, TypeVar

import attrs
import trio

from batchq.core.batch import Batch
from batchq.core.batcher import Batcher
from batchq.core.entry import DELAYED, FAILED, SUCCEEDED, Entry
from batchq.core.result import Result, read_answer, read_answers
from batchq.core.retry import error_of
from batchq.errors import BatchTimeout, ContractError, Throttled
from batchq.hooks import Watchers

__all__ = ["Processor", "Pump", "Verdicts", "the_processor"]

T = TypeVar("T")
R = TypeVar("R")

Processor = Callable[[Batch[T]], Awaitable[Any]]
Verdicts = Callable[[Batch[T], Sequence[Result[Any]]], Awaitable[None]]


@attrs.define(eq=False)
class _Inside:
    """Marks the tasks of a processor's call, and those they start, while it runs."""

    pump: Pump[Any, Any]
    outer: _Inside | None
    active: bool = True


logger = logging.getLogger("batchq")

_WARN_EVERY: Final = 60.0  # seconds between two warnings of dropped items
_inside: ContextVar[_Inside | None] = ContextVar("batchq_inside", default=None)


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
    _changed: trio.Event = attrs.field(factory=trio.Event)
    _scopes: dict[Batch[T], trio.CancelScope] = attrs.field(factory=dict)
    _nursery: trio.Nursery = attrs.field(init=False)
    _context: Context = attrs.field(init=False)
    _until: float = -math.inf
    _told_size: int = 0
    _warned_at: float = -math.inf
    _warned_of: int = 0

    def begin(self) -> float:
        """Read the clock for what happens until the pump runs next, and wake it."""
        self.now = trio.current_time()
        self._changed.set()
        return self.now

    def wake(self) -> None:
        """Let the pump look again."""
        self._changed.set()

    async def run(self, nursery: trio.Nursery) -> None:
        """Start batches in `nursery` until cancelled."""
        self._nursery = nursery
        self._context = copy_context()
        while True:
            self._changed = trio.Event()
            self.now = None
            self._step(trio.current_time())
            self._until = self._deadline()
            if self._until == math.inf:
                await self._changed.wait()
            else:
                with trio.move_on_at(self._until):
                    await self._changed.wait()

    def _step(self, now: float) -> None:
        """Start what may start now, and tell who wants to know."""
        self.tell_changes()
        while (batch := self.batcher.next_batch(now)) is not None:
            # Here, not in the call: it can be interrupted before its task first runs.
            self._scopes[batch] = trio.CancelScope()
            self._context.run(self._nursery.start_soon, self._call, batch)
            self.tell_changes()
        self.look(now)

    def _deadline(self) -> float:
        return min(self.batcher.next_deadline(), self.limit)

    def look(self, now: float) -> None:
        """End a step: tell of the size, and wake those who wait for the queue."""
        size = self.batcher.size
        if size != self._told_size:
            self._told_size = size
            self.watchers.tell(self.watchers.on_queue_size_change, size)
        self.see(now)

    def inside(self) -> bool:
        """Whether the current task belongs to a call of this very pump."""
        mark = _inside.get()
        while mark is not None:
            if mark.pump is self and mark.active:
                return True
            mark = mark.outer
        return False

    def cancel_calls(self) -> None:
        """Cancel every call; its entries are elsewhere already."""
        for scope in self._scopes.values():
            scope.cancel()
        self._scopes.clear()
        self.tell_changes()

    def cancel_unwanted(self, entry: Entry[Any, Any]) -> None:
        """Cancel the call of `entry` if nobody wants any of its entries any more."""
        for batch in list(self._scopes):
            if entry in batch.entries and not batch.wanted:
                self._scopes.pop(batch).cancel()
                now = trio.current_time()
                self.batcher.settle(batch, batch.no_verdicts(), now=now, draw=0.0)
                self.tell_changes()

    def tell_changes(self) -> None:
        """Tell the hooks of producers let in, items given up and checks that raised."""
        door, watchers = self.batcher.door, self.watchers
        if door.admitted:
            admitted, door.admitted = door.admitted, []
            for entry in admitted:
                watchers.tell(watchers.on_enqueue, entry.item)
        while self.batcher.unwanted:
            watchers.tell(watchers.on_drop, self.batcher.unwanted.pop(0), "cancelled")
        while self.batcher.complaints:
            watchers.tell(watchers.on_error, self.batcher.complaints.pop(0))

    def tell_enqueued(self, entries: Sequence[Entry[Any, Any]]) -> None:
        """Tell the hooks of entries just admitted, and of items dropped for them."""
        door, watchers = self.batcher.door, self.watchers
        dropped, door.dropped = door.dropped, []
        for entry in entries:
            if not entry.settled:
                watchers.tell(watchers.on_enqueue, entry.item)
        for item in dropped:
            watchers.tell(watchers.on_drop, item, "overflow")
        if dropped:
            self._warn_of_drops(len(dropped))

    async def _call(self, batch: Batch[T]) -> None:
        scope = self._scopes.get(batch)
        if scope is None or _cancelled():  # taken back before it began
            self.batcher.release()
        else:
            await self._run(batch, scope)
        self._go_on()

    async def _run(self, batch: Batch[T], scope: trio.CancelScope) -> None:
        watchers = self.watchers
        if watchers.on_batch_start:
            watchers.tell(watchers.on_batch_start, batch)
        mark = _Inside(self, _inside.get())
        _inside.set(mark)
        answers: Sequence[object] | None = batch.no_verdicts()
        try:
            answers = await self._answers(batch, scope)
            if self.verdicts is not None and batch in self._scopes:
                with trio.CancelScope(shield=True):
                    await self.verdicts(batch, _results(batch, answers))
        finally:
            mark.active = False
            self._scopes.pop(batch, None)
            self._end(batch, answers)

    async def _answers(self, batch: Batch[T], scope: trio.CancelScope) -> Sequence[object] | None:
        """Call the processor; None: all succeeded."""
        scope.deadline = trio.current_time() + self.timeout
        try:
            with scope:
                return self._read(batch, await self.processor(batch))
        # Around the scope: what it lets through of a group of errors and its own Cancelled
        # is an error of the processor, too.
        except Throttled as throttled:
            self.batcher.pace.hold(trio.current_time() + throttled.retry_after)
            return self._throttled(batch, throttled.retry_after)
        except Exception as error:  # the processor is the user's code
            return self._failed(batch, error)
        if batch not in self._scopes:  # it was interrupted, or nobody wanted it any more
            return batch.no_verdicts()
        limit = f"processor_timeout={self.timeout:g} s"
        return self._failed(batch, BatchTimeout(f"a call for {len(batch)} items took {limit}"))

    def _read(self, batch: Batch[T], answers: object) -> Sequence[object] | None:
        try:
            return read_answers(batch, answers)
        except ContractError as error:
            # It was raised here, which helps nobody; its frames would keep the batch.
            return self._failed(batch, error.with_traceback(None))

    def _throttled(self, batch: Batch[T], retry_after: float) -> Sequence[object]:
        # Jobs go back to their store, which has to know for how long.
        result: Result[Any] = Result(
            success=None, retry_after=retry_after if self.verdicts else None
        )
        return [result] * len(batch)

    def _failed(self, batch: Batch[T], error: Exception) -> Sequence[object]:
        self.watchers.tell(self.watchers.on_error, error)
        retryable = False if isinstance(error, ContractError) else None
        return [Result(success=False, error=error, retryable=retryable)] * len(batch)

    def _end(self, batch: Batch[T], answers: Sequence[object] | None) -> None:
        """Settle, tell the hooks, release the slot; without a checkpoint."""
        now, draw = trio.current_time(), self.rng.random()
        if self.watchers.of_calls:
            results = _results(batch, answers)
            current = self.batcher.settle(batch, results, now=now, draw=draw)
            self._tell_call(batch, results, now, current=current)
        else:
            self.batcher.settle(batch, answers, now=now, draw=draw)
        self.tell_changes()
        self.batcher.release()

    def _go_on(self) -> None:
        """Start the next batch right after a call: a task switch less than by the pump."""
        if _cancelled():
            return  # nothing starts any more
        self._step(trio.current_time())
        if self._deadline() < self._until:
            self._changed.set()

    def _warn_of_drops(self, count: int) -> None:
        self._warned_of += count
        now = trio.current_time()
        if now - self._warned_at >= _WARN_EVERY:
            logger.warning("queue %r is full: %d items dropped", self.name, self._warned_of)
            self._warned_at, self._warned_of = now, 0

    def _tell_call(
        self, batch: Batch[T], results: Sequence[Result[Any]], now: float, *, current: bool
    ) -> None:
        """Tell what became of each entry of a call, then of the call."""
        watchers = self.watchers
        # Looked at before anybody is told: a hook may cancel an entry that comes again.
        ends = [
            (entry.code, item, result, entry.attempts, entry.due - now)
            for index, (entry, item, result) in enumerate(
                zip(batch.entries, batch.items, results, strict=True)
            )
            if current or index in batch.early
        ]
        for code, item, result, attempts, delay in ends:
            if code in {SUCCEEDED, FAILED}:
                watchers.tell(watchers.on_processed, item, result)
            elif code == DELAYED and result.success is False:
                error = error_of(result, item, attempts)
                watchers.tell(watchers.on_retry, item, error, attempts, delay)
        watchers.tell(watchers.on_batch_complete, batch, results)


def _cancelled() -> bool:
    return trio.current_effective_deadline() == -math.inf


def _results(batch: Batch[Any], answers: Sequence[object] | None) -> list[Result[Any]]:
    """Read the answers as one result per item, in order, early verdicts in their place."""
    found = [None] * len(batch) if answers is None else answers
    results = [read_answer(answer) for answer in found]
    for index, result in batch.early.items():
        results[index] = result
    return results


def the_processor(given: Processor[T] | None, method: Processor[T] | None) -> Processor[T]:
    """Find the one processor, and check it.

    Raises:
        TypeError: there is none, or two, or it is not async.
    """
    if (given is None) == (method is None):
        found = "neither" if given is None else "both"
        raise TypeError(
            f"give a processor or define the method process_batch, one of the two; found {found}"
        )
    processor: Any = method if given is None else given
    inner = processor.func if isinstance(processor, partial) else processor
    call = getattr(processor, "__call__", None)  # noqa: B004 - objects may be async too
    if not (inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(call)):
        raise TypeError(f"the processor must be an async function, got {processor!r}")
    return processor  # type: ignore[no-any-return]  # checked just now
