"""How items come in, by the model: room, drop policies, keys, producers that wait."""

from __future__ import annotations

import math

import attrs

from tests.core.rich.state import State
from tests.core.rich.terms import Item, Offer, Producer

__all__ = ["Entering"]


@attrs.define(eq=False)
class Entering(State):
    """A queue into which items come, and out of which they are taken again."""

    def offer(self, offer: Offer, now: float) -> Item | str:
        """Offer one item; return its entry, or what happens instead."""
        if offer.level is not None and not 0 <= offer.level < self.terms.levels:
            return "bad priority"
        if offer.weight > self.terms.heaviest:
            return "too large"
        if self.intake != "open":
            return self.intake
        shared = self.sharer(offer)
        if shared is not None:
            return self.share(shared, offer, now)
        return self.find_room(offer, now)

    def find_room(self, offer: Offer, now: float) -> Item | str:
        full = self.producers or not self.fits(offer.weight)
        if full and self.terms.drop_policy in {"block", "reject-new"}:
            return "wait" if self.terms.drop_policy == "block" else "full"
        while not self.fits(offer.weight):
            victim = self.victim(offer)
            if victim is None:
                return self.turn_away(offer, now)
            self.evicted.append(victim)
            self.settle(victim, "dropped")
        return self.admit(offer, now)

    def fits(self, weight: float) -> bool:
        return (
            len(self.waiting) + 1 <= self.terms.most_waiting
            and self.outstanding + 1 <= self.terms.most_outstanding
            and sum(item.weight for item in self.waiting) + weight <= self.terms.most_weight
        )

    def victim(self, offer: Offer) -> Item | None:
        """Name the entry that has to go; None: the incoming one."""
        if self.terms.drop_policy == "drop-oldest":
            waiting = self.of("pending") or self.of("delayed")
            return min(waiting, key=lambda item: item.id, default=None)
        if self.terms.drop_policy == "drop-lowest-priority":
            worse = [item for item in self.waiting if item.level > self.level_of(offer)]
            return max(worse, key=lambda item: (item.level, item.id), default=None)
        return None

    def turn_away(self, offer: Offer, now: float) -> Item:
        item = self.make(offer, now)
        self.evicted.append(item)
        self.settle(item, "dropped")
        return item

    def admit(self, offer: Offer, now: float) -> Item:
        item = self.make(offer, now)
        item.since = self.tick()
        if offer.delay:
            item.status, item.until = "delayed", now + offer.delay
            return item
        self.enter(item)
        self.watch(item, now)
        return item

    def make(self, offer: Offer, now: float) -> Item:
        starts_by, ends_by, early = deadlines(offer, now)
        item = Item(
            id=self.next_id(),
            number=offer.number,
            level=self.level_of(offer),
            at=now,
            weight=offer.weight,
            partition=offer.partition,
            key=offer.key,
            starts_by=starts_by,
            ends_by=ends_by,
            early=early,
            solo=offer.solo,
            status="new",
        )
        self.items.append(item)
        return item

    def next_id(self) -> int:
        return max((item.id for item in self.items), default=0) + 1

    def level_of(self, offer: Offer) -> int:
        return self.terms.default_level if offer.level is None else offer.level

    # Keys.

    def sharer(self, offer: Offer) -> Item | None:
        """Return the entry that an item shares: the one that has waited longest."""
        if offer.key is None:
            return None
        same = [
            item
            for item in self.waiting
            if (item.partition, item.key) == (offer.partition, offer.key)
        ]
        return min(same, key=lambda item: item.since, default=None)

    def share(self, item: Item, offer: Offer, now: float) -> Item | str:
        if self.terms.coalesce == "reject":
            return "duplicate"
        if self.terms.coalesce == "replace":
            item.number, item.weight = offer.number, offer.weight
        if self.terms.coalesce == "merge":
            item.number, item.weight = merged(item.number, offer.number), 1.0
        self.coalesced += 1
        item.callers += 1
        item.solo = item.solo or offer.solo
        starts_by, ends_by, early = deadlines(offer, now)
        item.starts_by = min(item.starts_by, starts_by)
        item.ends_by = min(item.ends_by, ends_by)
        item.early = min(item.early, early)
        if self.level_of(offer) < item.level:
            self.promote(item, self.level_of(offer))
        self.watch(item, now)
        self.let_in(now)
        return item

    def promote(self, item: Item, level: int) -> None:
        """Give an entry a better level: to another bucket, where levels do not mix."""
        was, due = self.place(item), item.due
        item.level = level
        if item.status == "pending" and self.place(item) != was:
            self.enter(item)
            if due:
                self.mark(item, due)

    # Producers who wait.

    def let_in(self, now: float) -> None:
        """Let producers in, in turn, while there is room for the first."""
        while self.producers and self.intake == "open":
            first = self.producers[0]
            if self.sharer(first.offer) is None and not self.fits(first.offer.weight):
                return
            del self.producers[0]
            shared = self.sharer(first.offer)
            if shared is None:
                first.item = self.admit(first.offer, now)
            else:
                answer = self.share(shared, first.offer, now)
                first.item = answer if isinstance(answer, Item) else None
                first.refused = first.item is None

    def withdraw(self, producer: Producer, now: float) -> None:
        self.producers.remove(producer)
        self.let_in(now)

    def shut(self, intake: str) -> None:
        if self.intake != "closed":
            self.intake = intake
        if self.intake == "closed":
            for producer in self.producers:
                producer.refused = True
            self.producers.clear()

    def cancel(self, item: Item, now: float) -> bool:
        """Withdraw one caller; tell whether the entry was cancelled."""
        if item.callers > 1 and not item.settled:
            item.callers -= 1
            return False
        if item.flies:
            item.abandoned = True
        if not item.waits:
            return False
        self.settle(item, "cancelled")
        self.let_in(now)
        return True

    def flush(self) -> set[Item]:
        for item in self.of("pending"):
            self.mark(item, "flush")
        self.flushes.append(set(self.of("pending", "in_flight")))
        return self.flushes[-1]


def deadlines(offer: Offer, now: float) -> tuple[float, float, float]:
    """Say by when an item has to start, by when to end, and when it is urgent, at the latest."""
    starts_by = now + offer.delay + offer.queue_timeout
    ends_by = now + offer.delivery_timeout
    early = min(
        starts_by - offer.queue_timeout / 10 if starts_by < math.inf else math.inf,
        ends_by - offer.delivery_timeout / 10 if ends_by < math.inf else math.inf,
    )
    return starts_by, ends_by, early


def merged(old: int, new: int) -> int:
    """Make one item of two."""
    return old + new
