"""The door of a queue that asks more of its items: weights, partitions, keys, deadlines.

It stands in the place of `Admission`, and keeps its rules.

    item ─▶ appraise: the user's functions ─▶ share: its key waits? ─▶ room? ─▶ admit
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, Unpack

from msgspec.structs import force_setattr

from batchq.core.admission import Admission
from batchq.core.checks import checked_wait
from batchq.core.coalescing import Coalescing
from batchq.core.entry import DROPPED, Entry, More
from batchq.core.news import News
from batchq.core.offer import Appraiser, Offer
from batchq.core.option_groups import DropPolicy
from batchq.core.options import Settings, Special
from batchq.core.producer import Intake, Producer
from batchq.core.rich_waiting import RichWaiting
from batchq.core.saving import come_back, more_of
from batchq.core.snapshot import Saved
from batchq.errors import QueueError, QueueFull

__all__ = ["RichAdmission"]

T = TypeVar("T")
R = TypeVar("R")


class RichAdmission(Admission[T, R]):
    """The door of a queue; see `Admission` for what is not explained here."""

    def __init__(
        self,
        plain: Admission[T, R],
        settings: Settings,
        *,
        waiting: RichWaiting,
        news: News,
        outstanding: Callable[[], int],
    ) -> None:
        """Take over from a plain door: what came in there, and who waits.

        Args:
            plain: the door until now.
            settings: what to go by.
            waiting: what waits.
            news: whom to tell.
            outstanding: counts the entries that are not settled.
        """
        vars(self).update(vars(plain))
        self._waiting: Any = waiting
        self._room = settings.room
        self._outstanding = outstanding
        self._turned_away: Offer | None = None
        self.appraiser = Appraiser(self._name, settings, self._check_level)
        self.coalescing = Coalescing(settings.room.coalesce_policy, self.appraiser, waiting, news)
        for producer in self.producers:
            more = More(told=False)
            producer.item = Offer(producer.item, producer.priority, more, producer.delay)

    def enqueue(
        self,
        item: T,
        priority: int | None,
        now: float,
        *,
        delay: float = 0.0,
        **call: Unpack[Special],
    ) -> Entry[T, R] | None:
        """Admit one item; see `Admission.enqueue`, and `Appraiser.offer` for `call`.

        Raises:
            ItemTooLarge, DuplicateKey: see there.
            Exception: whatever the user's functions raise.
        """
        if isinstance(item, Offer):
            return self._enter(item, now)
        checked_wait("delay", delay)
        return self._enter(self.appraiser.offer(item, priority, delay=delay, **call), now)

    def prepare(
        self,
        items: Sequence[T],
        priority: int | None,
        *,
        delay: float = 0.0,
        **call: Unpack[Special],
    ) -> Sequence[Any]:
        """Ask the user's functions for all items, before any of them is admitted."""
        checked_wait("delay", delay)
        return [self.appraiser.offer(item, priority, delay=delay, **call) for item in items]

    def enqueue_many(
        self, items: Sequence[T], priority: int | None, now: float, *, delay: float = 0.0
    ) -> list[Entry[T, R]]:
        """Admit items in order, up to the first that would have to wait for room."""
        offers: Sequence[Any] = items
        if not all(isinstance(offer, Offer) for offer in offers):
            offers = self.prepare(items, priority, delay=delay)
        entries: list[Entry[T, R]] = []
        for offer in offers:
            try:
                entry = self._enter(offer, now)
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
        offer, self._turned_away = self._turned_away, None
        if offer is None:  # it was prepared elsewhere
            offer = self._prepared(item, priority, delay=delay)
        producer = Producer(item=offer, priority=offer.priority, delay=offer.delay, wake=wake)
        self.producers.append(producer)
        self._set_gate()
        return producer

    def let_in(self, now: float) -> None:
        """Admit blocked producers while there is room, in order."""
        while (producer := self._next_producer()) is not None:
            offer: Offer = producer.item
            self._let_in(producer, offer, now)
            producer.item = None
            producer.wake()
        self._set_gate()

    def _let_in(self, producer: Producer, offer: Offer, now: float) -> None:
        try:
            producer.entry = self.coalescing.share(offer, now)
        except Exception as error:  # the user's function to merge; it is its own producer's
            producer.error = error
            return
        self.coalesced += producer.entry is not None
        if producer.entry is None:
            producer.entry = self._admit_offer(offer, now)
            producer.entry.more.told = True  # by way of `admitted`
            self.admitted.append(producer.entry)

    def restore(self, records: Sequence[Saved[Any]], now: float) -> list[Exception]:
        """Let entries come back from a snapshot, past any limit; see `Batcher.restore`."""
        errors: list[Exception] = []
        for record in records:
            try:
                more = more_of(record, self.appraiser)
            except Exception as error:  # the user's functions; the entry is not lost for it
                errors.append(error)
                more = More(weight=record.weight, solo=record.solo)
            entry = self._make(record.id, record.priority, record.enqueued_at, self._owner)
            come_back(entry, record, more, waiting=self._waiting, now=now)
        self.restored += len(records)
        self.last_id = self._first_id = max([self.last_id, *(each.id for each in records)])
        return errors

    def room(self) -> int:
        """Count the items that would come in now without waiting or dropping [items]."""
        room = super().room()
        if self._room.max_outstanding is not None:
            room = min(room, max(0, self._room.max_outstanding - self._outstanding()))
        limit = self._room.max_queue_weight
        return 0 if limit is not None and self._waiting.weight >= limit else room

    def full_error(self) -> QueueFull:
        """Make the error of a full queue: nobody waits with what was turned away."""
        self._turned_away = None
        error = super().full_error()
        room, weight = self._room, self._waiting.weight
        more = []
        if room.max_outstanding is not None:
            more.append(f"max_outstanding={room.max_outstanding}")
        if room.max_queue_weight is not None:
            more.append(f"{weight:g} of max_queue_weight={room.max_queue_weight:g}")
        if not more:
            return error
        return QueueFull(", ".join((str(error), *more)), size=error.size, limit=error.limit)

    def _enter(self, offer: Offer, now: float) -> Entry[T, R] | None:
        self._check_open()
        shared = self.coalescing.share(offer, now)
        if shared is not None:
            self.coalesced += 1
            if self.producers:  # it may weigh less than before
                self.let_in(now)
            return shared
        if self.producers or not self._fits(offer.more.weight):
            if self._policy is DropPolicy.BLOCK:
                self._turned_away = offer
                return None
            if not self._make_room_for(offer):
                return self._drop_offer(offer, now)
        return self._admit_offer(offer, now)

    def _prepared(self, item: object, priority: int | None, *, delay: float) -> Offer:
        if isinstance(item, Offer):
            return item
        return self.appraiser.offer(item, priority, delay=delay)

    def _fits(self, weight: float) -> bool:
        room = self._room
        if self._waiting.size >= self._limit:
            return False
        if room.max_outstanding is not None and self._outstanding() >= room.max_outstanding:
            return False
        limit = room.max_queue_weight
        return limit is None or self._waiting.weight + weight <= limit

    def _make_room_for(self, offer: Offer) -> bool:
        """Evict what the policy allows until an offer fits; tell whether it does."""
        if self._policy is DropPolicy.REJECT_NEW:
            raise self.full_error()
        while not self._fits(offer.more.weight):
            victim = self._victim(offer.priority)
            if victim is None:
                return False
            self.dropped.append(victim.item)
            self._waiting.remove(victim, DROPPED, self._dropped_error(victim.id))
        return True

    def _first_pending(self, priority: int) -> Entry[T, R] | None:
        """Name the victim among what is PENDING, at any level."""
        del priority
        return self._waiting.victims.first()  # type: ignore[no-any-return]  # a RichWaiting's

    def _admit_offer(self, offer: Offer, now: float) -> Entry[T, R]:
        entry = self._entry(offer, now)
        self._waiting.admit(entry, now, delay=offer.delay)
        return entry

    def _drop_offer(self, offer: Offer, now: float) -> Entry[T, R]:
        return self._drop(offer.item, offer.priority, now)

    def _entry(self, offer: Offer, now: float) -> Entry[T, R]:
        entry = self._new(offer.item, offer.priority, now)
        more = offer.more
        if offer.expires:
            more.starts_by, more.ends_by, more.early = offer.times(now)
        force_setattr(entry, "more", more)
        return entry

    def _next_producer(self) -> Producer | None:
        """Give out the next producer whose item may enter now."""
        if self.intake is not Intake.OPEN:
            return None
        while self.producers:
            first = self.producers[0]
            shared = not first.withdrawn and self._waiting.shared.find(first.item) is not None
            if not first.withdrawn and not shared and not self._fits(first.item.more.weight):
                return None
            self.producers.popleft()
            if not first.withdrawn:
                return first
        return None

    def _check_level(self, level: object) -> int:
        if type(level) is not int or not 0 <= level < self._levels:
            raise self._bad_priority(level)
        return level
