"""May an item enter? Room, drop policies, waiting producers.

Rule 1: blocked producers enter strictly in the order of their arrival; nobody overtakes
them.
Rule 2: an item in flight is never a victim.
Rule 3: what is refused was never there; what is dropped is settled, counted and told.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar, Unpack

from msgspec.structs import force_setattr

from batchq.core.checks import checked_wait
from batchq.core.entry import DROPPED, Entry, Owner
from batchq.core.lot import Lot
from batchq.core.numbers import NO_DELAY
from batchq.core.option_groups import DropPolicy, OrderOptions, RoomOptions
from batchq.core.options import Special
from batchq.core.producer import Intake, Producer
from batchq.core.result import Result
from batchq.core.waiting import Waiting
from batchq.errors import (
    Dropped,
    OptionError,
    QueueClosed,
    QueueError,
    QueueFull,
    QueuePaused,
)

__all__ = ["Admission"]

T = TypeVar("T")
R = TypeVar("R")

_LOT: Final = 8  # fewer items cost less as entries than as a lot


class Admission(Generic[T, R]):
    """The door of a queue.

    Attributes:
        intake: whether it is open at all.
        last_id: the id of the newest entry.
        restored: entries that came in from a snapshot [entries].
        coalesced: items that came to share an entry [items].
        producers: who waits for room, in order.
        admitted: entries of blocked producers let in since the shell last looked.
        dropped: items given up by the drop policy since the shell last looked.
    """

    def __init__(
        self,
        name: str,
        room: RoomOptions,
        order: OrderOptions,
        waiting: Waiting,
        make: Callable[..., Entry[T, R]],
        owner: Owner,
    ) -> None:
        self.intake = Intake.OPEN
        self.last_id = 0
        self.restored = 0
        self.coalesced = 0
        self._first_id = 0
        self.producers: deque[Producer] = deque()
        self.admitted: list[Entry[T, R]] = []
        self.dropped: list[T] = []
        self._name = name
        self._limit = sys.maxsize if room.max_queue_size is None else room.max_queue_size
        self._policy = room.drop_policy
        # A queue of this size or more lets nothing in just like that: it is full, or
        # somebody else waits already, or the door is shut.
        self._gate = self._limit
        self._levels = order.priority_levels
        self._default = order.level
        self._waiting = waiting
        self._bucket = waiting.bucket
        self._fresh = waiting.bucket.fresh
        self._make = make
        self._owner = owner

    def enqueue(
        self, item: T, priority: int | None, now: float, *, delay: float = NO_DELAY
    ) -> Entry[T, R] | None:
        """Admit one item.

        Returns:
            Its entry; one that is DROPPED already if the drop policy gave the incoming
            item up; None: no room, and the policy is to wait for some (`park`).

        Raises:
            QueueFull: no room, and the policy is to refuse.
            QueueClosed, QueuePaused: nothing comes in.
            OptionError: no such priority, or no such delay.
        """
        if priority is None:
            priority = self._default
        elif type(priority) is not int or not 0 <= priority < self._levels:
            raise self._bad_priority(priority)
        waiting = self._waiting
        if delay is not NO_DELAY:
            checked_wait("delay", delay)
        if waiting.size >= self._gate and not self._make_room(priority):
            return None if self._policy is DropPolicy.BLOCK else self._drop(item, priority, now)
        if delay:
            return self._admit(item, priority, now=now, delay=delay)
        # The same as _admit: written out, for it happens to every item.
        self.last_id = id_ = self.last_id + 1
        entry = self._make(id_, priority, now, self._owner)
        force_setattr(entry, "item", item)
        self._fresh[priority].append(entry)
        waiting.size += 1
        return entry

    def prepare(
        self,
        items: Sequence[T],
        priority: int | None,
        *,
        delay: float = 0.0,
        **call: Unpack[Special],
    ) -> Sequence[Any]:
        """Make of items what `enqueue_many` and `park` take, before any is admitted."""
        del priority, call  # nothing is asked of them here
        checked_wait("delay", delay)
        return items

    def enqueue_many(
        self, items: Sequence[T], priority: int | None, now: float, *, delay: float = 0.0
    ) -> Sequence[Entry[T, R]]:
        """Admit items in order, up to the first that would have to wait for room.

        Returns:
            The entries of those admitted or dropped, in order; fewer than `items` only
            under the policy to wait.

        Raises:
            QueueFull, QueueClosed, QueuePaused: as `enqueue`; what was admitted before
                is in the error's `entries`.
            OptionError: no such priority or delay; nothing was admitted.
        """
        level = self._default if priority is None else priority
        if type(level) is not int or not 0 <= level < self._levels:
            raise self._bad_priority(level)
        few = len(items) < _LOT
        if not (few or delay) and self._waiting.size + len(items) <= self._gate:
            return self._admit_all(items, level, now)
        entries: list[Entry[T, R]] = []
        for item in items:
            try:
                entry = self.enqueue(item, level, now, delay=delay)
            except QueueError as error:
                error.entries = entries
                raise
            if entry is None:
                break
            entries.append(entry)
        return entries

    def park(
        self, item: T, priority: int | None, *, delay: float, wake: Callable[[], object]
    ) -> Producer:
        """Let a producer wait for room; `enqueue` has just returned None for this item."""
        level = self._default if priority is None else priority
        producer = Producer(item=item, priority=level, delay=delay, wake=wake)
        self.producers.append(producer)
        self._set_gate()
        return producer

    def unpark(self, producer: Producer, now: float) -> None:
        """Take a producer back who does not want to wait any more."""
        producer.withdrawn = True
        producer.item = None
        self.let_in(now)

    def let_in(self, now: float) -> None:
        """Admit blocked producers while there is room, in order."""
        while (producer := self._next_producer()) is not None:
            producer.entry = self._admit(
                producer.item, producer.priority, now=now, delay=producer.delay
            )
            self.admitted.append(producer.entry)
            producer.wake()
        self._set_gate()

    def set_intake(self, intake: Intake) -> None:
        """Open or shut the door; a closed one stays closed and sends those who wait away."""
        if self.intake is not Intake.CLOSED:
            self.intake = intake
        if self.intake is Intake.CLOSED:
            while self.producers:
                producer = self.producers.popleft()
                if not producer.withdrawn:
                    producer.error = self._closed_error()
                    producer.wake()
        self._set_gate()

    @property
    def accepted(self) -> int:
        """How many items came in here, incoming ones that were dropped included [items]."""
        return self.last_id - self._first_id

    def room(self) -> int:
        """Count the items that would come in now without waiting or dropping [items]."""
        return max(0, self._gate - self._waiting.size)

    def check_not_closed(self) -> None:
        """Raise `QueueClosed` where nothing comes in any more."""
        if self.intake is Intake.CLOSED:
            raise self._closed_error()

    def check_room_for_all(self) -> None:
        """Raise why more than `room()` items at once may not come in, if they may not."""
        self._check_open()
        if not self._policy.drops:
            raise self.full_error()

    def full_error(self) -> QueueFull:
        """Make the error of a full queue."""
        size = self._waiting.size
        waiting = f", {len(self.producers)} producers wait" if self.producers else ""
        return QueueFull(
            f"queue {self._name!r} is full: {size} items wait{waiting},"
            f" max_queue_size={self._limit}",
            size=size,
            limit=self._limit,
        )

    def _admit(self, item: T, priority: int, *, now: float, delay: float) -> Entry[T, R]:
        entry = self._new(item, priority, now)
        if delay:
            self._waiting.delay(entry, now + delay)
            return entry
        self._fresh[priority].append(entry)
        self._waiting.size += 1
        return entry

    def _new(self, item: T, priority: int, now: float) -> Entry[T, R]:
        self.last_id += 1
        entry = self._make(self.last_id, priority, now, self._owner)
        # An assignment would show the entry to the garbage collector: too early, see there.
        force_setattr(entry, "item", item)
        return entry

    def _admit_all(self, items: Sequence[T], level: int, now: float) -> Sequence[Entry[T, R]]:
        lot = Lot(self.last_id + 1, level, now, self._owner, self._make, list(items))
        self.last_id += len(items)
        self._fresh[level].append(lot)
        self._bucket.lots += 1
        self._waiting.size += len(items)
        return lot.hand_out()

    def _make_room(self, priority: int) -> bool:
        """Evict what the policy allows until one more fits; tell whether it does."""
        self._check_open()
        if self._policy is DropPolicy.REJECT_NEW:
            raise self.full_error()
        while self._waiting.size >= self._gate:
            victim = self._victim(priority)
            if victim is None:
                return False
            self.dropped.append(victim.item)
            self._waiting.remove(victim, DROPPED, self._dropped_error(victim.id))
        return True

    def _victim(self, priority: int) -> Entry[T, R] | None:
        """Name the entry that makes room for an item of level `priority`; None: nobody."""
        victims = self._waiting.delays.victims
        if victims is None:
            return None
        pending, delayed = self._first_pending(priority), victims.first()
        if self._policy is DropPolicy.DROP_OLDEST:
            return pending or delayed
        found = [each for each in (pending, delayed) if each is not None]
        worse = [each for each in found if each.priority > priority]
        return max(worse, key=_by_level_and_age, default=None)

    def _first_pending(self, priority: int) -> Entry[T, R] | None:
        """Name the victim among what is PENDING, for an item of level `priority`."""
        if self._policy is DropPolicy.DROP_OLDEST:
            return self._bucket.oldest()
        for level in reversed(range(priority + 1, self._levels)):
            youngest = self._bucket.youngest(level)
            if youngest is not None:
                return youngest
        return None

    def _drop(self, item: T, priority: int, now: float) -> Entry[T, R]:
        """Give the incoming item up."""
        entry = self._new(item, priority, now)
        self.dropped.append(item)
        self._waiting.settling.count(DROPPED)
        entry.settle(DROPPED, Result.fail(self._dropped_error(entry.id)))
        return entry

    def _next_producer(self) -> Producer | None:
        """Give out the next producer whose item may enter now."""
        if self.intake is not Intake.OPEN:
            return None
        while self.producers and self._waiting.size < self._limit:
            producer = self.producers.popleft()
            if not producer.withdrawn:
                return producer
        return None

    def _set_gate(self) -> None:
        while self.producers and self.producers[0].withdrawn:
            self.producers.popleft()
        free = self.intake is Intake.OPEN and not self.producers
        self._gate = self._limit if free else -1

    def _check_open(self) -> None:
        if self.intake is Intake.CLOSED:
            raise self._closed_error()
        if self.intake is Intake.UNOPENED:
            raise QueueClosed(
                f"queue {self._name!r} is not running yet; enter it with 'async with queue:'"
            )
        if self.intake is Intake.PAUSED:
            raise QueuePaused(
                f"queue {self._name!r} is paused and accepts nothing; resume() opens it"
            )

    def _closed_error(self) -> QueueClosed:
        return QueueClosed(f"queue {self._name!r} is closed and accepts no more items")

    def _dropped_error(self, id_: int) -> Dropped:
        return Dropped(
            f"entry {id_} was dropped: queue {self._name!r} is full"
            f" (max_queue_size={self._limit}, drop_policy={self._policy.value})"
        )

    def _bad_priority(self, priority: object) -> OptionError:
        return OptionError(
            f"priority must be a whole number from 0 to {self._levels - 1}"
            f" (priority_levels={self._levels}), got {priority!r}"
        )


def _by_level_and_age(entry: Entry[Any, Any]) -> tuple[int, int]:
    return entry.priority, entry.id
