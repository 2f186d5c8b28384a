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
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import Any, Final, Generic, TypeVar

import attrs
import trio

from batchq.core.batch import Batch
from batchq.core.batcher import Batcher
from batchq.core.checks import attribute_of
from batchq.core.entry import Entry
from batchq.core.result import Result, read_answers
from batchq.core.splitting import Judged
from batchq.errors import BatchTimeout, ContractError, Throttled
from batchq.hooks import Watchers
from batchq.teller import Teller, results_of

__all__ = ["Processor", "Pump", "Verdicts", "in_a_call", "the_processor"]

T = TypeVar("T")
R = TypeVar("R")

Processor = Callable[[Batch[T]], Awaitable[Any]]
Verdicts = Callable[[Batch[T], Sequence[Result[Any]]], Awaitable[None]]


@attrs.define(eq=False)
class _Inside:
    """Marks the tasks of a processor's call, and those they start, while it runs."""

    pump: Pump[Any, Any]
    outer: _Inside | None
    task: trio.lowlevel.Task
    active: bool = True

    def holds(self) -> bool:
        """Whether the call can't end before the current task does: that is one of its own."""
        task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
        while task is not None and task is not self.task:
            task = None if task.parent_nursery is None else task.parent_nursery.parent_task
        return task is not None


_inside: ContextVar[_Inside | None] = ContextVar("batchq_inside", default=None)
# Whether the current task, or what it was started by, is part of a call of any queue.
in_a_call: Final = _inside.get


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
    teller: Teller[T, R] = attrs.field(init=False)
    _nursery: trio.Nursery = attrs.field(init=False)
    _context: Context = attrs.field(init=False)
    _until: float = -math.inf
    # The calls that wait for another call, each as often as it does.
    _held: Counter[_Inside] = attrs.field(factory=Counter)
    _timer: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    def __attrs_post_init__(self) -> None:
        self.teller = Teller(self.batcher, self.watchers, self.name)
        self.batcher.news.ring = self.wake

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
                with trio.move_on_at(self._until) as self._timer:
                    await self._changed.wait()

    def _step(self, now: float) -> None:
        """Start what may start now, and tell who wants to know."""
        self.teller.tell_changes()
        while (batch := self.batcher.next_batch(now)) is not None:
            # Here, not in the call: it can be interrupted before its task first runs.
            self._scopes[batch] = trio.CancelScope()
            self._context.run(self._nursery.start_soon, self._call, batch)
            self.teller.tell_changes()
        self.teller.tell_changes()  # of what has expired
        self.look(now)

    def _deadline(self) -> float:
        return min(self.batcher.next_deadline(), self.limit)

    def look(self, now: float) -> None:
        """End a step: tell of the size, and wake those who wait for the queue."""
        self.teller.tell_state()
        self.see(now)

    def inside(self) -> bool:
        """Whether the current task belongs to a call of this very pump."""
        return self._mark() is not None

    def check_outside(self, method: str) -> None:
        """Refuse to wait, as part of a call, for the end of all calls.

        Raises:
            RuntimeError: the current task belongs to a call of this very pump.
        """
        if self.inside():
            raise RuntimeError(
                f"{method}() by the queue's own processor could never end: it would wait for"
                " the call that waits for it"
            )

    @contextmanager
    def holding_up(self, method: str) -> Iterator[None]:
        """Wait, perhaps as part of a call, for what another call of this pump brings.

        Args:
            method: what the waiting is for, for the message.

        Raises:
            RuntimeError: all slots are held by calls that wait so: none would ever end.
        """
        mark = self._mark()
        if mark is None or not mark.holds():
            yield
            return
        self._held[mark] += 1
        try:
            if len(self._held) >= self.batcher.concurrency:
                raise RuntimeError(_NEVER.format(method))
            yield
        finally:
            self._held[mark] -= 1
            if not self._held[mark]:
                del self._held[mark]

    def _mark(self) -> _Inside | None:
        mark = _inside.get()
        while mark is not None and not (mark.pump is self and mark.active):
            mark = mark.outer
        return mark

    def cancel_calls(self) -> None:
        """Cancel every call; its entries are elsewhere already."""
        for scope in self._scopes.values():
            scope.cancel()
        self._scopes.clear()
        self.teller.tell_changes()

    def cancel_unwanted(self, entry: Entry[Any, Any]) -> None:
        """Cancel the call of `entry` if nobody wants any of its entries any more."""
        for batch in list(self._scopes):
            if entry in batch.entries and not batch.wanted:
                self._scopes.pop(batch).cancel()
                now = trio.current_time()
                self.batcher.interrupt(batch, now)
                self.teller.tell_changes()

    async def _call(self, batch: Batch[T]) -> None:
        scope = self._scopes.get(batch)
        if scope is None or _cancelled():  # taken back before it began
            self.batcher.release(batch)
        else:
            await self._run(batch, scope)
        self._go_on()

    async def _run(self, batch: Batch[T], scope: trio.CancelScope) -> None:
        watchers = self.watchers
        if watchers.on_batch_start:
            watchers.tell(watchers.on_batch_start, batch)
        mark = _Inside(self, _inside.get(), trio.lowlevel.current_task())
        _inside.set(mark)
        judged = Judged(batch, batch.no_verdicts())
        try:
            judged = await self._judge(batch, scope)
            if self.verdicts is not None and batch in self._scopes:
                with trio.CancelScope(shield=True):
                    await self.verdicts(judged.batch, results_of(judged))
        finally:
            mark.active = False
            self._scopes.pop(batch, None)
            self._end(batch, judged)

    async def _judge(self, batch: Batch[T], scope: trio.CancelScope) -> Judged:
        """Call the processor; return what came of it."""
        scope.deadline = trio.current_time() + self.timeout
        try:
            with scope:
                return self._read(batch, await self.processor(batch))
        # Around the scope: what it lets through of a group of errors and its own Cancelled
        # is an error of the processor, too.
        except Throttled as throttled:
            return Judged(batch, self._throttled(batch, throttled.retry_after), throttled)
        except Exception as error:  # the processor is the user's code
            return self._failed(batch, error)
        if batch not in self._scopes:  # it was interrupted, or nobody wanted it any more
            return Judged(batch, batch.no_verdicts())
        limit = f"processor_timeout={self.timeout:g} s"
        return self._failed(batch, BatchTimeout(f"a call for {len(batch)} items took {limit}"))

    def _read(self, batch: Batch[T], answers: object) -> Judged:
        try:
            found = read_answers(batch, answers)
        except ContractError as error:
            # It was raised here, which helps nobody; its frames would keep the batch.
            return self._failed(batch, error.with_traceback(None))
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
        if batch not in self._scopes:  # it was interrupted: nobody asks for its end
            return Judged(batch, batch.no_verdicts())
        return self.batcher.splitting.raised(batch, error)

    def _end(self, batch: Batch[T], judged: Judged) -> None:
        """Settle, tell the hooks, release the slot; without a checkpoint."""
        now, draw = trio.current_time(), self.rng.random()
        settle = partial(
            self.batcher.settle,
            batch,
            now=now,
            draw=draw,
            concerns=judged.batch,
            error=judged.error,
            spread=self.rng.random() if self.batcher.learns else 0.5,
        )
        if self.watchers.of_calls:
            results = results_of(judged)
            current = settle(results)
            self.teller.tell_call(batch, judged.batch, results, now=now, current=current)
        else:
            settle(judged.results)
        self.teller.tell_changes()
        self.batcher.release(batch)

    def _go_on(self) -> None:
        """Start the next batch right after a call: a task switch less than by the pump."""
        if _cancelled():
            return  # nothing starts any more
        self._step(trio.current_time())
        until = self._deadline()
        if until < self._until:
            self._changed.set()
        elif until == math.inf:
            self._until = self._timer.deadline = until  # nothing is left to wait for


_NEVER: Final = (
    "{}() by the queue's own processor could never end: every slot is held by a call that waits"
    " like this one; let the call end first, or allow more concurrency"
)


def _cancelled() -> bool:
    return trio.current_effective_deadline() == -math.inf


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
    inner = processor.func if isinstance(processor, partial) else processor
    call = getattr(processor, "__call__", None)  # noqa: B004 - objects may be async too
    if not (inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(call)):
        raise TypeError(f"the processor must be an async function, got {processor!r}")
    return processor  # type: ignore[no-any-return]  # checked just now
