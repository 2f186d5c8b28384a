"""Which calls start, by the model, and who expires: sections 4 to 6 of the specification."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import accumulate
from typing import Final

import attrs

from tests.core.rich.entering import Entering
from tests.core.rich.state import Place
from tests.core.rich.terms import Call, Groups, Item, Limit, Split

__all__ = ["STRATEGIES", "Starting"]

# What a strategy makes of the numbers of items. These are honest; those of BROKEN are not.
STRATEGIES: Final[dict[str, Groups]] = {
    "every second": lambda numbers: [numbers[::2]],
    "odd and even": lambda numbers: [
        [n for n in numbers if n.bit_length() % 2 == odd] for odd in (0, 1)
    ],
    "one by one, backwards": lambda numbers: [[n] for n in reversed(numbers)],
    "nothing": lambda _: [],
    "all, and empty ones": lambda numbers: [[], numbers[2:], [], numbers[:2]],
    "young ones only": lambda numbers: [numbers[-2:]],
}
TOLERANCE: Final = Fraction(1, 2**30)  # units; the code computes instants with floats
BROKEN: Final = ("raises", "strangers", "twice", "no groups")


@attrs.define(eq=False)
class Starting(Entering):
    """A queue that starts calls."""

    def next_call(self, now: float) -> Call | None:
        """Start the next call, if one may start now; what does not start may expire."""
        self.advance(now)
        self.expire(now, late=True)
        call = self.start(now)
        while call is None and self.expire(now, late=False):
            call = self.start(now)
        if call is None:
            self.plan = None
        return call

    def expire(self, now: float, *, late: bool) -> bool:
        """Settle whom the deadline has passed, or reached; tell whether there was one."""
        ends = [
            item
            for item in self.items
            if not item.settled and (item.deadline < now or (item.deadline == now and not late))
        ]
        for item in ends:
            self.settle(item, "expired")
        self.let_in(now)
        return bool(ends)

    def start(self, now: float) -> Call | None:
        self.torn = [call for call in self.torn if call.split and call.split.left()]
        free = self.torn or len(self.roots()) < self.slots
        if self.paused or not free or now < self.not_before:
            return None
        if self.torn:
            return self.start_part(self.torn[0], now)
        choice = self.choose()
        return None if choice is None else self.start_fresh(*choice, now)

    def start_fresh(self, place: Place, whole: list[Item], now: float) -> Call | None:
        chosen = whole[: self.payable(whole, now)]
        if not chosen:
            return None
        for item in chosen:
            item.status, item.due, item.starts_by = "in_flight", None, math.inf
        if self.bucket(place):
            self.turns[place] = self.tick()
        if self.plan is not None and self.plan[1]:
            del self.plan[1][0 : 1 if chosen == whole else None]
        return self.begin(Call(chosen, now, chosen[0].partition), now)

    def start_part(self, root: Call, now: float) -> Call | None:
        split = root.split
        assert isinstance(split, Split)
        split.parts = [[item for item in part if item.flies] for part in split.parts]
        split.parts = [part for part in split.parts if part]
        if self.payable(split.parts[0], now) == 0:
            return None
        self.torn.remove(root)
        return self.begin(Call(split.parts.pop(0), now, root.partition, root, split), now)

    def begin(self, call: Call, now: float) -> Call:
        self.calls.append(call)
        self.batches += 1
        self.paid.append((now, len(call.items), sum(item.weight for item in call.items)))
        if self.terms.throttle:
            self.not_before = max(self.not_before, now + self.terms.throttle)
        self.let_in(now)
        return call

    # Whose turn it is.

    def choose(self) -> tuple[Place, list[Item]] | None:
        if self.terms.strategy is not None:
            return self.choose_by_strategy()
        place = self.best(self.places())
        return None if place is None else (place, self.head(place))

    def best(self, places: list[Place]) -> Place | None:
        """Return the ready bucket of the best level, then of the longest wait for its turn."""
        ready = [place for place in places if self.reasons(place) and self.may_start(place)]
        rank = {place: (self.key(self.bucket(place)[0])[0], self.turns[place]) for place in ready}
        return min(ready, key=lambda place: rank[place], default=None)

    def may_start(self, place: Place) -> bool:
        """Say whether the partition of a bucket may start one more batch."""
        running = len([root for root in self.roots() if root.partition == place[0]])
        if self.terms.ordered:
            return not running and bool(self.head(place))
        return running < self.terms.partition_limit

    def head(self, place: Place) -> list[Item]:
        """Return the first entries of a bucket, as far as they fit one batch."""
        chosen: list[Item] = []
        for item in self.bucket(place):
            weight = sum(each.weight for each in chosen) + item.weight
            if len(chosen) == self.size or (chosen and weight > self.terms.budget):
                break
            if (chosen and (item.solo or chosen[0].solo)) or self.held_up(item):
                break
            chosen.append(item)
        return chosen

    def held_up(self, item: Item) -> bool:
        """Say whether an entry has to wait for one before it that is DELAYED."""
        before = [each for each in self.of("delayed") if each.partition == item.partition]
        return self.terms.ordered and any(each.id < item.id for each in before)

    # The user's strategy.

    def choose_by_strategy(self) -> tuple[Place, list[Item]] | None:
        held = self.first_of_plan()
        if held is not None:
            return held
        why = self.why()
        while True:
            loud = [place for place in self.places() if self.hushed.get(place, "") != why]
            place = self.best(loud)
            if place is None:
                return None
            here = self.bucket(place)
            if here[0].solo:
                return place, here[:1]
            self.plan = (place, self.groups(place))
            held = self.first_of_plan()
            if held is not None:
                return held
            alone = [item for item in here if item.solo and (item.due or why == "drain")]
            if alone:
                return place, alone[:1]
            self.hushed[place] = why

    def first_of_plan(self) -> tuple[Place, list[Item]] | None:
        if self.plan is None:
            return None
        place, groups = self.plan
        while groups:
            groups[0] = [
                item for item in groups[0] if item.status == "pending" and self.place(item) == place
            ]
            if groups[0] and self.may_start(place):
                return place, groups[0]
            del groups[0]
        return None

    def groups(self, place: Place) -> list[list[Item]]:
        """Ask the strategy; return the batches that may start."""
        offered = [item for item in self.bucket(place) if not item.solo]
        due = [item for item in offered if item.due or self.draining]
        if self.terms.strategy in BROKEN:
            groups = [offered]
        else:
            known = {item.number: item for item in offered}
            answer = STRATEGIES[str(self.terms.strategy)]([item.number for item in offered])
            groups = [[known[number] for number in group] for group in answer]
        if due and not any(item in due for group in groups for item in group):
            groups = [due]
        pieces = [piece for group in groups for piece in self.cut(group)]
        return [
            items
            for items, full in pieces
            if full or self.why() or any(item in due for item in items)
        ]

    def cut(self, group: list[Item]) -> list[tuple[list[Item], bool]]:
        """Cut a group into batches, and tell of each whether it is full."""
        pieces: list[list[Item]] = []
        for item in group:
            last = pieces[-1] if pieces else []
            heavy = sum(each.weight for each in last) + item.weight > self.terms.budget
            if not last or len(last) == self.size or heavy:
                pieces.append([])
            pieces[-1].append(item)
        full = [
            len(piece) == self.size or sum(each.weight for each in piece) >= self.terms.budget
            for piece in pieces
        ]
        return [
            (piece, is_full or piece is not pieces[-1])
            for piece, is_full in zip(pieces, full, strict=True)
        ]

    # Rate limits.

    def payable(self, chosen: list[Item], now: float) -> int:
        """Count how many of a candidate may start: none until each limit pays its part."""
        count = len(chosen)
        for limit in self.terms.limits:
            has = self.left(limit, now)
            costs = list(accumulate(self.units(limit, [item]) for item in chosen))
            if limit.per == "batch":
                costs = [Fraction(1)] * len(chosen)
            least = min(costs[-1], Fraction(limit.most))
            has += TOLERANCE
            if least > has and least:
                return 0
            count = min(count, len([cost for cost in costs if cost <= has or not cost]))
        return count

    def units(self, limit: Limit, items: list[Item]) -> Fraction:
        if limit.per == "item":
            return Fraction(len(items))
        return Fraction(sum(item.weight for item in items))

    def left(self, limit: Limit, now: float) -> Fraction:
        """Return what a limit can pay now, from all that was ever paid."""
        has, last = Fraction(limit.most), -math.inf
        for at, items, weight in self.paid:
            cost = {"item": items, "batch": 1, "weight": weight}[limit.per]
            if limit.window:
                has -= 0 if at + limit.pace <= now else Fraction(cost)
            else:
                has = self.filled(limit, has, last, at) - Fraction(cost)
            last = at
        return has if limit.window else self.filled(limit, has, last, now)

    def filled(self, limit: Limit, has: Fraction, since: float, now: float) -> Fraction:
        """Return what a token bucket has at `now`, if it had so much at `since`."""
        if since == -math.inf:
            return Fraction(limit.most)
        return min(Fraction(limit.most), has + Fraction(now - since) * Fraction(limit.pace))
