"""The simplest model of a queue: one list, walked from end to end for every question.

It has its own due rule, its own order, its own drop policies, its own arithmetic of
retries. It never asks the code that it judges.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import Enum

import attrs

__all__ = ["Answer", "Intake", "Item", "Model", "Policy", "Producer", "Rules"]


class Policy(Enum):
    """What a retry check says."""

    ALWAYS = "always"
    NEVER = "never"
    RAISES = "raises"
    NO_CHECK = "no check"


class Intake(Enum):
    """Whether items come in."""

    OPEN = "open"
    PAUSED = "paused"
    CLOSED = "closed"


@attrs.frozen
class Rules:
    """The options of a queue."""

    batch_size: int
    interval: float
    levels: int
    default: int
    concurrency: int
    throttle: float
    limit: float
    drop_policy: str
    retries: int | None
    check: Policy
    schedule: tuple[float, ...]
    jitter: str
    leave: bool


@attrs.frozen
class Answer:
    """A verdict: success, and what else was said."""

    success: bool | None
    retryable: bool | None = None
    after: float | None = None


@attrs.define(eq=False)
class Item:
    """One item that was accepted."""

    id: int
    level: int
    at: float
    status: str = "pending"
    until: float = 0.0
    again: bool = False  # it was held back or in flight before: it may start at once
    flushed: bool = False
    attempts: int = 0
    abandoned: bool = False
    early: Answer | None = None

    @property
    def waits(self) -> bool:
        return self.status in {"pending", "delayed"}

    @property
    def settled(self) -> bool:
        return not self.waits and self.status != "in_flight"


@attrs.define(eq=False)
class Producer:
    """A caller with one item in hand."""

    level: int
    delay: float
    item: Item | None = None
    refused: bool = False


@attrs.define(eq=False)
class Model:
    """A queue."""

    rules: Rules
    items: list[Item] = attrs.field(factory=list)
    producers: list[Producer] = attrs.field(factory=list)
    flushes: list[set[Item]] = attrs.field(factory=list)
    slots: int = 0
    batches: int = 0
    retries: int = 0
    complaints: int = 0
    intake: Intake = Intake.OPEN
    paused: bool = False
    draining: bool = False
    not_before: float = -math.inf
    dropped: list[Item] = attrs.field(factory=list)
    unwanted: list[Item] = attrs.field(factory=list)

    # What is there.

    def of(self, *statuses: str) -> list[Item]:
        return [item for item in self.items if item.status in statuses]

    def count(self, status: str) -> int:
        return len(self.of(status))

    @property
    def size(self) -> int:
        return len(self.of("pending", "delayed"))

    def in_order(self, now: float) -> list[Item]:
        """Return what may start at `now`, first things first."""
        over = [item for item in self.of("delayed") if item.until <= now]
        return sorted([*self.of("pending"), *over], key=lambda item: (item.level, item.id))

    def reasons(self, now: float) -> set[str]:
        """Return why a batch is ready at `now`; nothing: none is."""
        pending = self.in_order(now)
        said = set()
        if pending and (len(pending) >= self.rules.batch_size or self.producers):
            said.add("size")
        if pending and self.draining:
            said.add("drain")
        for item in pending:
            if item.again or item.status == "delayed":
                said.add("retry" if item.attempts else "delay")
            elif item.flushed:
                said.add("flush")
            elif item.at + self.rules.interval <= now:
                said.add("interval")
        return said

    def starts(self, now: float) -> bool:
        capacity = not self.paused and self.slots < self.rules.concurrency
        return capacity and self.not_before <= now and bool(self.reasons(now))

    # Coming in.

    def offer(self, level: int | None, delay: float, now: float) -> Item | str:
        """Offer one item; return its entry, or what happens instead."""
        level = self.rules.default if level is None else level
        if not 0 <= level < self.rules.levels:
            return "bad priority"
        if self.intake is not Intake.OPEN:
            return "closed" if self.intake is Intake.CLOSED else "paused"
        if self.producers:
            return "wait"
        while self.size >= self.rules.limit:
            if self.rules.drop_policy in {"block", "reject-new"}:
                return "wait" if self.rules.drop_policy == "block" else "full"
            victim = self.victim(level)
            goes = victim or self.admit(level, 0.0, now)  # or the incoming one
            self.dropped.append(goes)
            self.settle(goes, "dropped")
            if victim is None:
                return goes
        return self.admit(level, delay, now)

    def victim(self, level: int) -> Item | None:
        """Name the item that has to go for one of `level`; None: that one itself."""
        if self.rules.drop_policy == "drop-oldest":
            waiting = self.of("pending") or self.of("delayed")
            return min(waiting, key=lambda item: item.id)
        if self.rules.drop_policy == "drop-lowest-priority":
            worse = [item for item in self.items if item.waits and item.level > level]
            return max(worse, key=lambda item: (item.level, item.id), default=None)
        return None

    def admit(self, level: int, delay: float, now: float) -> Item:
        item = Item(len(self.items) + 1, level, now)
        if delay:
            item.status, item.until = "delayed", now + delay
        self.items.append(item)
        return item

    def let_in(self, now: float) -> None:
        while self.producers and self.intake is Intake.OPEN and self.size < self.rules.limit:
            producer = self.producers.pop(0)
            producer.item = self.admit(producer.level, producer.delay, now)

    # Going out.

    def start(self, now: float) -> list[Item]:
        """Start what `starts` says does."""
        self.advance(now)
        chosen = self.in_order(now)[: self.rules.batch_size]
        for item in chosen:
            item.status = "in_flight"
        self.slots += 1
        self.batches += 1
        if self.rules.throttle:
            self.not_before = max(self.not_before, now + self.rules.throttle)
        self.let_in(now)
        return chosen

    def advance(self, now: float) -> None:
        """Let those whose delay is over wait for a batch."""
        for item in self.of("delayed"):
            if item.until <= now:
                item.status, item.again = "pending", True

    def early(self, item: Item, answer: Answer) -> None:
        """Fix a verdict during the call."""
        if item.status != "in_flight" or item.early is not None:
            return
        item.early = answer
        final = self.rules.leave or (answer.success is False and not self.again(item, answer))
        if answer.success or (answer.success is False and final):
            item.attempts += 1
            self.settle(item, "succeeded" if answer.success else "failed")

    def end_call(
        self, items: Iterable[Item], answers: Iterable[Answer], now: float, draw: float
    ) -> None:
        for item, late in zip(items, answers, strict=False):
            if item.status == "in_flight":
                answer = item.early or late
                item.early = None
                self.judge(item, answer, now, draw)

    def judge(self, item: Item, answer: Answer, now: float, draw: float) -> None:
        if answer.success is None:
            if item.abandoned or self.rules.leave:
                self.settle(item, "cancelled")
                if not self.rules.leave:
                    self.unwanted.append(item)
            elif answer.after is None:
                item.status, item.again = "pending", True
            else:
                self.hold_back(item, now + answer.after)
            return
        again = not answer.success and not self.rules.leave and self.again(item, answer)
        item.attempts += 1
        if again:
            self.retries += 1
            self.hold_back(item, now + max(self.delay(item.attempts, draw), answer.after or 0))
        else:
            self.settle(item, "succeeded" if answer.success else "failed")

    def again(self, item: Item, answer: Answer) -> bool:
        """Say whether a failed item is tried again."""
        if self.rules.retries is None or item.attempts >= self.rules.retries or item.abandoned:
            return False
        if answer.retryable is not None:
            return answer.retryable
        self.complaints += self.rules.check is Policy.RAISES
        return self.rules.check in {Policy.ALWAYS, Policy.NO_CHECK}

    def delay(self, attempts: int, draw: float) -> float:
        whole = [*self.rules.schedule, *[self.rules.schedule[-1]] * attempts][attempts - 1]
        return whole * {"full": draw, "equal": (1 + draw) / 2, "none": 1.0}[self.rules.jitter]

    def hold_back(self, item: Item, until: float) -> None:
        item.status, item.until = "delayed", until
        self.leave(item)

    def settle(self, item: Item, status: str) -> None:
        item.status = status
        self.leave(item)

    def leave(self, item: Item) -> None:
        for flush in self.flushes:
            flush.discard(item)

    def cancel(self, item: Item, now: float) -> bool:
        if item.status == "in_flight":
            item.abandoned = True
        if not item.waits:
            return False
        self.settle(item, "cancelled")
        self.let_in(now)
        return True

    # Everything at once.

    def shut(self) -> None:
        self.intake = Intake.CLOSED
        for producer in self.producers:
            producer.refused = True
        self.producers.clear()

    def flush(self) -> set[Item]:
        for item in self.of("pending"):
            item.flushed = True
        self.flushes.append(set(self.of("pending", "in_flight")))
        return self.flushes[-1]
