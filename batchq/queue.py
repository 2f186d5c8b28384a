"""`BatchedQueue`: what callers see. The core decides, the pump waits, this hands over.

Rule 1: no decision is made here: which items, when, again or not is the core's.
Rule 2: `enqueue` is a cancel point *before* admission; an item that was admitted is in.
Rule 3: whoever waits is woken by the very step that settles what they wait for.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Final, TypeVar, Unpack

import attrs
import trio

from batchq.blocking import BlockingTwins, Threads
from batchq.core.batcher import Batcher
from batchq.core.entry import IN_FLIGHT
from batchq.core.entry import Entry as CoreEntry
from batchq.core.numbers import NO_DELAY
from batchq.core.options import Options, PerCall, Settings, Special, gather, read_settings
from batchq.core.producer import Intake
from batchq.core.statistics import DrainReport, QueueStats
from batchq.entrance import Entrance
from batchq.errors import QueueClosed
from batchq.handle import Entry
from batchq.hooks import Watchers
from batchq.keeper import Keeper
from batchq.marks import in_a_call
from batchq.milestones import Milestones, seconds
from batchq.nest import Nest
from batchq.pump import Processor, Pump, Verdicts, the_processor

__all__ = ["BatchedQueue", "MayRetry"]

T = TypeVar("T")
R = TypeVar("R")

MayRetry = Callable[[CoreEntry[Any, Any], Exception], bool]

_SCHEDULE_EVERY: Final = 64  # calls of enqueue between two that let other tasks run


class BatchedQueue(BlockingTwins[T, R]):
    """Collects items into batches and hands each batch to one async function.

    Use it as a context manager; leaving the block drains it:

        async with BatchedQueue(send_all, batch_size=50, flush_interval=5.0) as queue:
            await queue.enqueue(message)

    Or subclass it: options become class attributes, or methods (`def weigh(self, item)`),
    the processor `process_batch`, and methods with a hook's name are told first. A function
    that has no place for self (`weigh = lambda item: ...`) is called as it is.

    Args:
        processor: `async (batch) -> results`: one answer per item, in order, where an
            answer is a `Result`, an exception (a failure) or any value (a success); or a
            mapping from entry id to answer; or None: all succeeded. Raising fails every
            item of the call that has no verdict yet.
        options: see `Options`, and the groups of `batchq.core.option_groups`.

    Attributes:
        name: label in logs and messages.

    Raises:
        TypeError: no such option, or the processor is missing or not async.
        OptionError: a value out of its range, or two at odds with each other.
    """

    name: str
    _verdicts: Verdicts[T] | None = None
    _may_retry: MayRetry | None = None

    def __init__(
        self, processor: Processor[T] | None = None, /, **options: Unpack[Options]
    ) -> None:
        given = gather(self, options)
        settings = read_settings(given)
        self.name = settings.name
        self._shutdown_timeout = seconds(settings.time.shutdown_timeout)
        self._cancel_abandoned = settings.time.cancel_abandoned
        self._watchers: Watchers[T, R] = Watchers(given.get("hooks"), self, BatchedQueue)
        self._batcher: Batcher[T, R] = Batcher(
            settings,
            name=self.name,
            owner=self,
            make=Entry,
            leave=self._verdicts is not None,
            may_retry=self._may_retry,
            outages=(trio.TooSlowError,),
        )
        self._batcher.renewed = self._renew
        self._renew()
        self._door.set_intake(Intake.UNOPENED)
        snapshots = given.get("persistence")
        self._keeper = Keeper(settings, self._batcher, self._watchers, snapshots=snapshots)
        self._milestones = Milestones(self.name, self._batcher)
        self._pump: Pump[T, R] = self._new_pump(processor, settings, given.get("rng"))
        self._milestones.pump = self._pump
        # Whether a new item may mean that somebody is told: most queues never tell.
        self._telling = bool(self._watchers.on_enqueue) or settings.room.drop_policy.drops
        self._pump.teller.of_entries = self._telling
        self._entrance: Entrance[T, R] = Entrance(self._batcher, self._pump)
        self._nest = Nest()
        self._threads = Threads(self._nest, self.close)
        self._calls = 0

    async def enqueue(
        self,
        item: T,
        priority: int | None = None,
        *,
        delay: float = NO_DELAY,
        **call: Unpack[PerCall],
    ) -> Entry[T, R]:
        """Hand an item over; returns at its admission, not at its completion.

        Waits for room if the queue is full and its `drop_policy` is to block. Always a
        cancel point, before admission; lets other tasks run at every 64th call and
        whenever it waits.

        Args:
            item: anything.
            priority: its level [0 goes first]; None: `default_priority`.
            delay: it does not start before so long from now [s].
            call: what goes before the queue's options, for this item; see `PerCall`.

        Returns:
            Its entry, which it may share with other items of its key; already DROPPED if
                the drop policy gave the incoming item up.

        Raises:
            QueueFull: no room, and the policy is to refuse, or this is the queue's own
                processor, where waiting could never end.
            QueueClosed, QueuePaused: nothing comes in.
            ItemTooLarge, DuplicateKey: see there.
            OptionError: no such priority, delay, weight or timeout.
            Exception: whatever `weigh`, `partition_by` and the like raise.
        """
        self._calls += 1
        if self._calls % _SCHEDULE_EVERY:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()
        now = self._pump.now or self._pump.begin()
        admit = self._asking_more(call, delay) if call or delay is not NO_DELAY else self._admit
        entry = admit(item, priority, now)
        if entry is None:
            return await self._entrance.wait(item, priority, delay=delay)
        if self._telling:
            self._pump.teller.tell_enqueued([entry])
        return entry  # type: ignore[return-value]  # made by `make`

    def enqueue_nowait(
        self,
        item: T,
        priority: int | None = None,
        *,
        delay: float = NO_DELAY,
        **call: Unpack[PerCall],
    ) -> Entry[T, R]:
        """Hand an item over without waiting; see `enqueue`.

        Raises:
            QueueFull: no room, where `enqueue` would wait or the policy is to refuse.
        """
        now = self._pump.now or self._pump.begin()
        admit = self._asking_more(call, delay) if call or delay is not NO_DELAY else self._admit
        entry = admit(item, priority, now)
        if entry is None:
            raise self._door.full_error()
        if self._telling:
            self._pump.teller.tell_enqueued([entry])
        return entry  # type: ignore[return-value]  # made by `make`

    async def enqueue_many(
        self,
        items: Iterable[T],
        priority: int | None = None,
        *,
        delay: float = NO_DELAY,
        **call: Unpack[PerCall],
    ) -> Sequence[Entry[T, R]]:
        """Hand items over, in order: one admission per item, one wake-up for all.

        Returns their entries, one per item, in order; of many items, those that nobody looks
        at are never made. An error is as `enqueue`'s; the entries of what was admitted before
        run on and are in its `entries`.
        """
        await trio.lowlevel.checkpoint()
        left: Sequence[T] = items if isinstance(items, list | tuple) else list(items)
        return await self._entrance.enter_many(left, priority, delay=delay, call=call)

    def enqueue_many_nowait(
        self,
        items: Sequence[T],
        priority: int | None = None,
        *,
        delay: float = NO_DELAY,
        **call: Unpack[Special],
    ) -> Sequence[Entry[T, R]]:
        """Hand all of the items over without waiting, or none of them.

        Raises:
            QueueFull: there is no room for all, where `enqueue_many` would wait or stop.
        """
        return self._entrance.enter_all(items, priority, delay=delay, call=call)

    async def process(
        self,
        item: T,
        priority: int | None = None,
        *,
        delay: float = NO_DELAY,
        **call: Unpack[PerCall],
    ) -> R:
        """Hand an item over, wait for it and return its own value.

        Cancelling this takes the item back if its batch has not started; else its result
        is recorded and nobody gets it.

        Raises:
            RuntimeError: called by the queue's own processor, where every call in flight
                waits like this: it could never end.
            Exception: as `enqueue`, and as `Entry.result`.
        """
        if in_a_call() is not None:
            enqueue, process = partial(BatchedQueue.enqueue, self), self._entrance.process_inside
            return await process(item, priority, delay=delay, call=call, enqueue=enqueue)
        await trio.lowlevel.checkpoint_if_cancelled()
        admit = self._asking_more(call, delay) if call or delay is not NO_DELAY else self._admit
        entry: Any = admit(item, priority, self._pump.now or self._pump.begin())
        if entry is None:
            entry = await self._entrance.wait(item, priority, delay=delay)
        elif self._telling:
            self._pump.teller.tell_enqueued([entry])
        if entry.code > IN_FLIGHT or entry.waiter is not None:
            await entry.wait_or(entry.cancel)
            return entry.value()  # type: ignore[no-any-return]  # made by `make`
        # The same, written out for the first waiter, who is mostly the only one.
        entry.waiter = trio.lowlevel.current_task()
        return await trio.lowlevel.wait_task_rescheduled(entry.withdraw)  # type: ignore[no-any-return]  # what `unwrap` returns

    def room(self) -> int:
        """Count the items that would come in now without waiting or dropping [items]."""
        self._check_open()
        return self._door.room()

    async def wait_room(self) -> None:
        """Wait until `room()` is at least 1.

        Raises:
            QueueClosed: nothing comes in any more.
            RuntimeError: as `process`.
        """
        self._check_open()
        await trio.lowlevel.checkpoint()
        while not self._door.room():
            self._check_open()
            self._door.check_not_closed()
            with self._pump.marks.holding_up("wait_room"):
                await self._milestones.wait_room()

    def pause(self, *, accept: bool = True) -> None:
        """Start no call until `resume`; what is in flight goes on. No effect in a drain.

        Args:
            accept: False: let nothing in either; `enqueue` raises `QueuePaused`, and
                producers that wait for room go on waiting.
        """
        self._check_open()
        self._batcher.pause(accept=accept)
        self._pump.teller.tell_changes()
        self._pump.wake()

    def resume(self) -> None:
        """Take back a `pause`: full concurrency at once."""
        self._check_open()
        self._batcher.resume(trio.current_time())
        self._pump.teller.tell_changes()
        self._pump.wake()

    def close(self) -> None:
        """Shut the intake for good; what is held goes on as usual."""
        self._door.set_intake(Intake.CLOSED)
        self._milestones.wake_room()
        self._pump.wake()

    async def flush(self, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Start what is pending now, and wait until it is settled or delayed.

        Later arrivals are not waited for. A pause is not lifted.

        Args:
            timeout: how long to wait [s]; None is no limit.

        Raises:
            trio.TooSlowError: the time was up; nothing is cancelled.
            RuntimeError: called by the queue's own processor, where it could never end.
        """
        self._check_outside("flush")
        await self._milestones.flush(seconds(timeout))

    async def wait_idle(self) -> None:
        """Wait until nothing waits and no call runs; raises as `flush` does."""
        self._check_outside("wait_idle")
        await self._milestones.wait_idle()

    async def drain(self, timeout: float | None = None) -> DrainReport:  # noqa: ASYNC109
        """Close, lift a pause, make everything due and wait until nothing is left.

        A second drain joins the first one, at the earlier of the two deadlines.
        Cancelling this ends the waiting only.

        Args:
            timeout: how long it may take [s]; None is no limit. When it is up, calls in
                flight are cancelled, their entries wait again with no attempt spent, and
                the queue is left paused and closed; draining again goes on.

        Returns:
            What settled since the drain began.

        Raises:
            DrainTimeout: the time was up; `remaining` entries are left.
            RuntimeError: as `flush`.
        """
        self._check_outside("drain")
        return await self._milestones.drain(seconds(timeout))

    async def save_state(self) -> int:
        """Save the entries that are not settled; callers who come meanwhile share the next.

        Returns:
            Entries saved [count].

        Raises:
            PersistenceError: they were not saved, or the queue has no `persistence`.
        """
        self._check_open()
        return await self._keeper.save()

    def stats(self, *, recount: bool = False) -> QueueStats:
        """Tell the counts; with `recount`, count what waits one by one instead."""
        now = trio.current_time() if self._nest.open else 0.0
        stats = self._batcher.stats(now, recount=recount)
        return attrs.evolve(stats, hook_errors=self._watchers.errors)

    def cancel_entry(self, entry: CoreEntry[Any, Any]) -> bool:
        """Do what `entry.cancel()` says, for an entry of this queue."""
        item = entry.item
        now = trio.current_time() if self._door.producers else None
        cancelled = self._batcher.cancel_entry(entry, now)
        if cancelled:
            self._watchers.tell(self._watchers.on_drop, item, "cancelled")
        elif self._cancel_abandoned:
            self._pump.cancel_unwanted(entry)
        self._pump.wake()
        return cancelled

    async def __aenter__(self) -> BatchedQueue[T, R]:
        nursery = await self._nest.enter()
        await self._keeper.begin(self._nest)
        self._door.set_intake(Intake.OPEN)
        self._pump.start(nursery)
        self._threads.begin(nursery)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None and not self._milestones.failed:
                await self._milestones.leave(self._shutdown_timeout)
        finally:
            self.close()
            try:
                await self._nest.leave(error)
            finally:
                await self._keeper.end()
                self._end()

    def _new_pump(
        self, processor: Processor[T] | None, settings: Settings, rng: random.Random | None
    ) -> Pump[T, R]:
        return Pump(
            batcher=self._batcher,
            processor=the_processor(processor, self),
            watchers=self._watchers,
            timeout=settings.time.processor_timeout or math.inf,
            rng=rng or random.Random(),  # noqa: S311 - jitter is no secret
            verdicts=self._verdicts,
            see=self._keeper.see(self._milestones.look),
            name=self.name,
        )

    def _renew(self) -> None:
        """Use the doors that the batcher has now."""
        self._door = self._batcher.door
        self._admit: Callable[..., CoreEntry[T, R] | None] = self._door.enqueue

    def _asking_more(
        self, call: PerCall, delay: float = NO_DELAY
    ) -> Callable[..., CoreEntry[T, R] | None]:
        """Return what admits an item of which more is said than its level."""
        if call:
            self._batcher.enrich()
        return partial(self._admit, delay=delay, **call)

    def _end(self) -> None:
        """Settle what is left, and say so."""
        self._pump.teller.tell_changes()
        error = QueueClosed(f"queue {self.name!r} ended before this item had a verdict")
        self._milestones.abandon(error)
        for item in self._batcher.end(error):
            self._watchers.tell(self._watchers.on_drop, item, "closed")
        self._pump.look(trio.current_time())
        self._milestones.wake_room()
        self._pump.wake()

    def _check_open(self) -> None:
        if not self._nest.open:
            raise QueueClosed(
                f"queue {self.name!r} is not running; use it inside its 'async with' block"
            )

    def _check_outside(self, call: str) -> None:
        self._check_open()
        self._pump.marks.check_outside(call)
