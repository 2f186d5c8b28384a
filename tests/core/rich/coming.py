"""How items come to a queue of the rich rules, and leave it before their time."""

from __future__ import annotations

import random
from typing import Any, Final

from batchq.errors import (
    DuplicateKey,
    ItemTooLarge,
    OptionError,
    QueueClosed,
    QueueFull,
    QueuePaused,
)
from tests.core.rich.pair import Pair, Parked
from tests.core.rich.terms import Item, Offer, Producer

__all__ = ["Coming"]

REFUSALS: Final[dict[type[Exception], str]] = {
    OptionError: "bad priority",
    ItemTooLarge: "too large",
    QueueClosed: "closed",
    QueuePaused: "paused",
    QueueFull: "full",
    DuplicateKey: "duplicate",
}

# What may be said of an item.
SAID: Final[dict[str, tuple[Any, ...]]] = {
    "weight": (0.0, 1.0, 2.0, 3.0, 5.0),
    "partition": ("a", "a", "b", "c"),
    "key": ("k", "k", "l"),
    "queue_timeout": (0.5, 2.0, 9.0),
    "delivery_timeout": (1.0, 3.0, 9.0),
    "solo": (True, False, False),
}


class Coming(Pair):
    """Both, and who brings items; chance says what.

    Attributes:
        chance: where draws come from.
        habits: what callers say of their items: how often, and what.
    """

    chance: random.Random
    habits: dict[str, tuple[float, tuple[Any, ...]]]

    def draw_habits(self) -> None:
        """Draw how callers are: in each history otherwise, so that each thing is dense in some."""
        rates = {name: self.draw(0.0, 0.2, 0.8) for name in SAID}
        self.habits = {name: (rate, SAID[name]) for name, rate in rates.items()}

    def draw(self, *among: Any) -> Any:  # noqa: ANN401 - whatever there is
        return self.chance.choice(among)

    # Items come in.

    def draw_level(self) -> int | None:
        """Draw a level: now and then one that there is not."""
        if self.chance.random() < 0.05:
            return self.terms.levels
        return self.draw(None, *range(self.terms.levels))  # type: ignore[no-any-return]

    def draw_call(self) -> dict[str, Any]:
        """Draw what a caller says of an item."""
        said: dict[str, Any] = {}
        for name, (often, among) in self.habits.items():
            if self.chance.random() < often:
                said[name] = self.chance.choice(among)
        return said

    def offer_of(self, number: int, level: int | None, delay: float, said: Any) -> Offer:  # noqa: ANN401
        timeouts = {
            "queue_timeout": self.terms.queue_timeout,
            "delivery_timeout": self.terms.delivery_timeout,
        }
        return Offer(number=number, level=level, delay=delay, **timeouts | said)

    def enqueue(self) -> None:
        level, delay = self.draw_level(), self.draw(0.0, 0.0, 0.0, 0.5, 1.5)
        said, thing = self.draw_call(), self.make()
        offer = self.offer_of(thing.number, level, delay, said)
        expected = self.model.offer(offer, self.now)
        door = self.open_door(said)
        try:
            entry = door.enqueue(thing, level, self.now, delay=delay, **said)
        except tuple(REFUSALS) as error:
            self.compare_refusal(error, expected)
            return
        if expected == "wait":
            assert entry is None
            self.wait_or_not(thing, offer)
        else:
            assert isinstance(expected, Item), expected
            self.know(expected, entry)

    def compare_refusal(self, error: Exception, expected: Item | str) -> None:
        assert expected == REFUSALS[type(error)]

    def open_door(self, said: dict[str, Any]) -> Any:  # noqa: ANN401 - one of two kinds
        """Return where items come in, of which so much is said."""
        if said:
            self.batcher.enrich()
        return self.batcher.door

    def wait_or_not(self, thing: Any, offer: Offer) -> None:  # noqa: ANN401 - an object
        """Let whoever was turned away wait for room, or go."""
        if self.chance.random() < 0.7:
            self.park(thing, offer)
        else:
            assert isinstance(self.batcher.door.full_error(), QueueFull)

    def park(self, thing: Any, offer: Offer) -> None:  # noqa: ANN401 - an object
        wakes: list[None] = []
        door: Any = self.batcher.door
        real = door.park(thing, offer.level, delay=offer.delay, wake=lambda: wakes.append(None))
        model = Producer(offer)
        self.model.producers.append(model)
        self.parked.append(Parked(real, model, wakes))

    def enqueue_many(self) -> None:
        level, delay, said = self.draw_level(), self.draw(0.0, 0.0, 0.5), self.draw_call()
        things = [self.make() for _ in range(self.chance.randrange(5))]
        offers = [self.offer_of(thing.number, level, delay, said) for thing in things]
        if not things:
            return
        door = self.open_door(said)
        try:
            prepared = door.prepare(things, level, delay=delay, **said)
        except (OptionError, ItemTooLarge) as error:
            self.compare_refusal(error, self.model.offer(offers[0], self.now))
            return
        expected: list[Item | str] = []
        for offer in offers:
            expected.append(self.model.offer(offer, self.now))
            if isinstance(expected[-1], str):
                break
        try:
            entries = door.enqueue_many(prepared, level, self.now, delay=delay)
        except tuple(REFUSALS) as error:
            self.compare_refusal(error, expected[-1])
            entries = getattr(error, "entries", ())
        items = [item for item in expected if isinstance(item, Item)]
        for item, entry in zip(items, entries, strict=True):
            self.know(item, entry)
        if expected[-1:] == ["wait"]:
            self.wait_or_not(prepared[len(items)], offers[len(items)])

    def a_producer_gives_up(self) -> None:
        parked = self.parked.pop(self.chance.randrange(len(self.parked)))
        self.model.withdraw(parked.model, self.now)
        self.batcher.door.unpark(parked.real, self.now)
        assert not parked.wakes

    def cancel(self) -> None:
        alive = [item for item in self.model.items if not item.settled]
        item = self.chance.choice(alive or self.model.items)
        expected = self.model.cancel(item, self.now)
        assert self.batcher.cancel_entry(self.entries[item.id], self.now) == expected
