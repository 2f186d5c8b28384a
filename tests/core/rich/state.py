"""What the model of the rich rules knows, and what follows from it at once.

One list of entries, walked from end to end for every question.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import attrs

from tests.core.rich.terms import Call, Item, Producer, Terms

__all__ = ["Place", "State"]

Place: TypeAlias = tuple[str | None, int]  # a bucket: partition, and level where they do not mix


@attrs.define(eq=False)
class State:
    """A queue as it stands.

    Attributes:
        size: entries that make a full batch, as things are.
        slots: batches that may be in flight, as things are.
        rich: whether anything was asked for that notes how long calls take.
        calls: what runs, and what has ended and was not released.
        torn: calls that raised, whose next part waits for its start.
        turns: when each bucket last went behind its equals.
        hushed: buckets of which the strategy starts nothing, and why they were ready.
        plan: the groups of the strategy's last answer in this step.
        paid: starts so far: when, how many items, of what weight.
        evicted: what the drop policy gave up, since somebody last looked.
        told: the halves of calls that raised, since somebody last looked.
    """

    terms: Terms
    size: int
    slots: int
    items: list[Item] = attrs.field(factory=list)
    producers: list[Producer] = attrs.field(factory=list)
    calls: list[Call] = attrs.field(factory=list)
    torn: list[Call] = attrs.field(factory=list)
    flushes: list[set[Item]] = attrs.field(factory=list)
    paid: list[tuple[float, int, float]] = attrs.field(factory=list)
    turns: dict[Place, int] = attrs.field(factory=dict)
    hushed: dict[Place, str | None] = attrs.field(factory=dict)
    plan: tuple[Place, list[list[Item]]] | None = None
    intake: str = "open"
    paused: bool = False
    draining: bool = False
    rich: bool = False
    not_before: float = -math.inf
    slack: float = 0.0
    ticks: int = 0
    coalesced: int = 0
    retries: int = 0
    batches: int = 0
    evicted: list[Item] = attrs.field(factory=list)
    told: list[list[int]] = attrs.field(factory=list)

    def of(self, *statuses: str) -> list[Item]:
        return [item for item in self.items if item.status in statuses]

    @property
    def waiting(self) -> list[Item]:
        return self.of("pending", "delayed")

    @property
    def outstanding(self) -> int:
        return len([item for item in self.items if not item.settled])

    def tick(self) -> int:
        self.ticks += 1
        return self.ticks

    # Calls.

    def roots(self) -> list[Call]:
        """Return the batches in flight, each once, whatever became of it."""
        found = [call.root or call for call in self.calls]
        found += [call for call in self.torn if call.split and call.split.left()]
        return list(dict.fromkeys(found))

    @property
    def idle(self) -> bool:
        return not self.waiting and not self.roots()

    # Buckets.

    def place(self, item: Item) -> Place:
        return item.partition, 0 if self.terms.mix else item.level

    def places(self) -> list[Place]:
        return list(dict.fromkeys(map(self.place, self.of("pending"))))

    def key(self, item: Item) -> tuple[float, int]:
        if self.terms.aging == math.inf:
            return item.level, item.id
        return item.at + item.level * self.terms.aging, item.id

    def bucket(self, place: Place) -> list[Item]:
        """Return what may start of a bucket, first things first."""
        here = [item for item in self.of("pending") if self.place(item) == place]
        return sorted(here, key=self.key)

    def enter(self, item: Item) -> None:
        """Let an entry be PENDING: a bucket that was empty goes behind its equals."""
        place = self.place(item)
        if not [each for each in self.bucket(place) if each is not item]:
            self.turns[place] = self.tick()
        item.status, item.due = "pending", None
        self.hushed.pop(place, None)

    def mark(self, item: Item, why: str) -> None:
        """Note that an entry may not wait for company any longer."""
        item.due = why
        self.hushed.pop(self.place(item), None)

    def why(self) -> str | None:
        """Say why each bucket is ready; None: each for itself."""
        if self.draining:
            return "drain"
        return "size" if self.producers else None

    def full(self, place: Place) -> set[str]:
        """Say by what a bucket is full."""
        here = self.bucket(place)
        said = {"size"} if len(here) >= self.size else set()
        if sum(item.weight for item in here) >= self.terms.budget:
            said.add("weight")
        return said

    def reasons(self, place: Place) -> set[str]:
        """Say why a bucket is ready; nothing: it is not."""
        said = self.full(place) | {item.due for item in self.bucket(place) if item.due}
        why = self.why()
        return said | {why} if why else said

    # Time.

    def watch(self, item: Item, now: float, *, slack: float = 0.0) -> None:
        """See whether an entry that is PENDING is due at `now`."""
        if item.status != "pending" or item.due:
            return
        if item.at + self.terms.interval <= now:
            self.mark(item, "interval")
        elif min(item.early, item.deadline - slack) <= now:
            self.mark(item, "deadline")

    def advance(self, now: float) -> None:
        """Let delays end, and see who is due."""
        over = [item for item in self.of("delayed") if item.until <= now]
        for item in sorted(over, key=lambda item: (item.until, item.id)):
            self.return_to_its_place(item)
        for item in self.items:
            self.watch(item, now, slack=self.slack)

    def return_to_its_place(self, item: Item) -> None:
        """Let an entry that was here before be PENDING: it may start at once."""
        if not item.waits:
            item.since = self.tick()
        self.enter(item)
        self.mark(item, "retry" if item.attempts else "delay")

    def hold_back(self, item: Item, until: float) -> None:
        """Let an entry be DELAYED."""
        if not item.waits:
            item.since = self.tick()
        item.status, item.until, item.due = "delayed", until, None
        self.leave_flushes(item)

    def settle(self, item: Item, status: str) -> None:
        item.status, item.due, item.verdict = status, None, None
        self.leave_flushes(item)

    def leave_flushes(self, item: Item) -> None:
        for flush in self.flushes:
            flush.discard(item)
