"""How several items come in, and how a producer waits for room."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any, Generic, TypeVar

import attrs
import trio

from batchq.core.batcher import Batcher
from batchq.core.lot import Joined
from batchq.core.offer import Offer
from batchq.core.options import PerCall, Special
from batchq.errors import QueueError
from batchq.handle import Entry
from batchq.pump import Pump

__all__ = ["Entrance"]

T = TypeVar("T")
R = TypeVar("R")


@attrs.define(eq=False)
class Entrance(Generic[T, R]):
    """Brings items in that have to wait, or that come in numbers.

    Attributes:
        batcher: decides.
        pump: is woken, and tells the hooks.
    """

    batcher: Batcher[T, R]
    pump: Pump[T, R]

    async def enter_many(
        self, items: Sequence[T], priority: int | None, *, delay: float, call: PerCall | Special
    ) -> Sequence[Entry[T, R]]:
        """Admit items in order, and wait for room where there is none."""
        left = self._prepare(items, priority, delay=delay, call=call)
        door = self.batcher.door
        if len(left) <= door.room():
            return self._admit(left, priority, delay=delay)
        parts: list[Sequence[Entry[T, R]]] = []
        done = 0
        try:
            while done < len(left):
                # No more than has room: what is left is not copied each time there is some.
                part = left[done : done + max(1, door.room())]
                parts.append(self._admit(part, priority, delay=delay))
                done += len(parts[-1])
                if len(parts[-1]) < len(part):
                    parts.append([await self.wait(left[done], priority, delay=delay)])
                    done += 1
        except QueueError as error:
            error.entries = [*chain.from_iterable(parts), *error.entries]
            raise
        return Joined(parts)

    def enter_all(
        self, items: Sequence[T], priority: int | None, *, delay: float, call: PerCall | Special
    ) -> Sequence[Entry[T, R]]:
        """Admit all of the items without waiting, or none of them."""
        left = self._prepare(items, priority, delay=delay, call=call)
        if len(left) > self.batcher.door.room():
            self.batcher.door.check_room_for_all()
        return self._admit(left, priority, delay=delay)

    async def wait(self, item: T, priority: int | None, *, delay: float) -> Entry[T, R]:
        """Wait for room for an item that has just been turned away."""
        door = self.batcher.door
        if self.pump.marks.inside():
            # Its own call holds the slot that would make room.
            raise door.full_error()
        wake = partial(trio.lowlevel.reschedule, trio.lowlevel.current_task())
        producer = door.park(item, priority, delay=delay, wake=wake)
        self.pump.wake()

        def withdraw(_: object) -> trio.lowlevel.Abort:
            self.batcher.door.unpark(producer, trio.current_time())
            self.pump.wake()
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(withdraw)
        if producer.error is not None:
            raise producer.error
        entry: Any = producer.entry
        return entry  # type: ignore[no-any-return]  # admitted, or it had an error

    async def process_inside(
        self,
        item: T,
        priority: int | None,
        *,
        delay: float,
        call: PerCall,
        enqueue: Callable[..., Awaitable[Entry[T, R]]],
    ) -> R:
        """Do what `process` does, in a call of a queue that may be this very one.

        Raises:
            RuntimeError: it could never end.
        """
        (offer,) = self._prepare([item], priority, delay=delay, call=call)
        partition = offer.more.partition if isinstance(offer, Offer) else None
        limit = self.batcher.partition_limit
        with self.pump.marks.holding_up("process", partition, limit):
            entry = await enqueue(offer, priority, delay=delay)
            await entry.wait_or(entry.cancel)
            return entry.value()

    def _prepare(
        self, items: Sequence[T], priority: int | None, *, delay: float, call: PerCall | Special
    ) -> Sequence[Any]:
        if call:
            self.batcher.enrich()
        return self.batcher.door.prepare(items, priority, delay=delay, **call)

    def _admit(
        self, items: Sequence[T], priority: int | None, *, delay: float
    ) -> Sequence[Entry[T, R]]:
        pump = self.pump
        now = pump.begin() if pump.now is None else pump.now
        try:
            entries: Any = self.batcher.door.enqueue_many(items, priority, now, delay=delay)
        except QueueError as error:
            admitted: Any = error.entries
            pump.teller.tell_enqueued(admitted)
            raise
        if self.pump.teller.of_entries:
            pump.teller.tell_enqueued(entries)
        return entries  # type: ignore[no-any-return]  # made by `make`
