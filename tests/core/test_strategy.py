"""A batching strategy may say anything: nothing is lost, doubled or held up."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from batchq.core.entry import CANCELLED, IN_FLIGHT, PENDING, Entry, More, Owner
from batchq.core.strategy import Plan, plan
from batchq.errors import StrategyError

Item = Entry[Any, None]
Answers = Callable[[list[Any]], object]


class Nobody:
    def cancel_entry(self, entry: Entry[Any, Any]) -> bool:
        return False


class Thing:
    """Compares, hashes and shows itself in no way."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("compared")

    def __hash__(self) -> int:
        raise RuntimeError("hashed")

    def __repr__(self) -> str:
        raise RuntimeError("shown")


NOBODY = Owner(weakref.ref(Nobody()))


def waiting(items: Sequence[Any], *, weights: Sequence[float] = ()) -> list[Item]:
    """Make entries; their ids are their places."""
    found = itertools.zip_longest(items, weights, fillvalue=1.0)
    return [
        Entry(place, 0, 0.0, NOBODY, item, more=More(weight=weight))
        for place, (item, weight) in enumerate(found)
    ]


def ask(
    strategy: Answers,
    entries: Sequence[Item],
    *,
    due: set[int] | range = frozenset(),  # type: ignore[assignment]
    size: int = 5,
    budget: float = float("inf"),
    anything: bool = False,
) -> Plan:
    return plan(
        strategy,
        entries,
        batch_size=size,
        budget=budget,
        is_due=lambda entry: entry.id in due,
        anything=anything,
    )


def ids(found: Plan) -> list[list[int]]:
    return [[entry.id for entry in group] for group in found.groups]


def by_kind(items: list[str]) -> list[list[str]]:
    return [[item for item in items if item[0] == kind] for kind in "AB"]


def raises(items: list[Any]) -> object:
    raise ZeroDivisionError("no groups today")


def stops_half_way(items: list[Any]) -> object:
    yield items[:2]
    raise ValueError(items)


def ends_never(items: list[Any]) -> object:
    return itertools.repeat(items[:1])


def spoils_its_argument(items: list[Any]) -> object:
    taken = items[:2]
    items.clear()
    return [taken]


async def waits(items: list[Any]) -> object:
    return [items]


# Whatever comes to mind; each gets the items of one bucket.
HOSTILE: dict[str, Answers] = {
    "nothing": lambda items: [],
    "none": lambda items: None,
    "a number": lambda items: 7,
    "a text": lambda items: "groups",
    "texts": lambda items: ["ab", "c"],
    "a flat list": lambda items: items,
    "one group": lambda items: [items],
    "singles": lambda items: [[item] for item in items],
    "backwards": lambda items: [items[::-1]],
    "every other": lambda items: [items[::2]],
    "the last": lambda items: [items[-1:]],
    "twice": lambda items: [items, items],
    "copies": lambda items: [[Thing() for _ in items]],
    "strangers too": lambda items: [items[:1], [object()]],
    "empty ones": lambda items: [[], items[:1], [], []],
    "empty for ever": lambda items: itertools.repeat([]),
    "one for ever": ends_never,
    "a generator": lambda items: (iter([item]) for item in items),
    "a mapping": lambda items: {1: items},
    "its values": lambda items: {1: items[:2], 2: items[2:]}.values(),
    "half a generator": stops_half_way,
    "clears": spoils_its_argument,
    "awaits": waits,
    "raises": raises,
}


@given(
    name=st.sampled_from(sorted(HOSTILE)),
    names=st.text("abc", min_size=1, max_size=14),
    size=st.integers(1, 4),
    budget=st.sampled_from([float("inf"), 2.0, 3.5]),
    due=st.sets(st.integers(0, 13)),
    slots=st.integers(1, 20),
    cancel=st.sets(st.integers(0, 13), max_size=3),
)
def test_any_answer_loses_doubles_and_holds_up_nothing(
    name: str,
    names: str,
    size: int,
    budget: float,
    due: set[int],
    slots: int,
    cancel: set[int],
) -> None:
    """I31: I1, I2, I3 and I7 hold."""
    things = {letter: Thing() for letter in "abc"}  # the same object may wait twice
    entries = waiting([things[letter] for letter in names])
    started: list[Item] = []

    def strategy(items: list[Any]) -> object:
        for entry in entries:
            if entry.id in cancel and entry.code == PENDING:
                entry.settle(CANCELLED, None)
        return HOSTILE[name](items)

    while slots:
        left = [entry for entry in entries if entry.code == PENDING]
        found = ask(strategy, left, due=due, size=size, budget=budget)
        if not found.groups:
            break
        for group in found.groups[:slots]:
            assert 1 <= len(group) <= size
            assert len(group) == 1 or len(group) <= budget
            assert all(entry.code == PENDING for entry in group)
            for entry in group:
                entry.code = IN_FLIGHT
            started += group
        slots -= len(found.groups[:slots])
    assert len({entry.id for entry in started}) == len(started)
    assert all(entry.code in {PENDING, IN_FLIGHT, CANCELLED} for entry in entries)
    if slots:
        assert not [entry for entry in entries if entry.code == PENDING and entry.id in due]


@example("twice")
@given(
    st.sampled_from(
        sorted(HOSTILE.keys() - {"nothing", "one group", "singles", "backwards", "every other"}
               - {"the last", "empty ones", "a generator", "its values", "clears"})
    )
)  # fmt: skip
def test_what_is_no_list_of_groups_is_told_and_the_default_rule_serves(name: str) -> None:
    entries = waiting([Thing() for _ in range(7)])
    found = ask(HOSTILE[name], entries, due={6}, size=3)
    assert isinstance(found.error, StrategyError)
    assert ids(found) == [[0, 1, 2], [3, 4, 5], [6]]
    assert ids(ask(HOSTILE[name], entries, size=3)) == [[0, 1, 2], [3, 4, 5]]


def test_the_seeds_strategy_starts_full_groups_at_once_and_the_rest_when_due() -> None:
    """S12."""
    entries = waiting([f"{kind}{number}" for kind in "A" * 12 + "B" * 3 for number in [0]])

    def report_queue(items: list[str]) -> list[list[str]]:
        return [group[:5] for group in by_kind(items)]

    assert ids(ask(report_queue, entries)) == [[0, 1, 2, 3, 4]]
    assert ids(ask(report_queue, entries[5:])) == [[5, 6, 7, 8, 9]]
    assert ids(ask(report_queue, entries[10:])) == []
    assert ids(ask(report_queue, entries[10:], due=range(15))) == [[10, 11], [12, 13, 14]]


def test_an_object_enqueued_twice_is_two_entries_and_both_can_be_claimed() -> None:
    thing = Thing()
    entries = waiting([thing, Thing(), thing])
    found = ask(lambda items: [[items[2]], [items[1], items[0]]], entries, anything=True)
    assert ids(found) == [[0], [1, 2]], "first in first out"
    too_often = ask(lambda items: [[items[0]] * 3], entries)
    assert "more often than it waits" in str(too_often.error)


def test_a_group_too_long_or_too_heavy_is_cut_and_a_short_rest_waits() -> None:
    entries = waiting("abcdefgh", weights=[6, 5, 4, 12, 1, 1, 1, 1])
    assert ids(ask(lambda items: [items], entries, size=3)) == [[0, 1, 2], [3, 4, 5]]
    found = ask(lambda items: [items], entries, size=9, budget=10)
    assert ids(found) == [[0], [1, 2], [3]]
    late = ask(lambda items: [items], entries, size=9, budget=10, due={7})
    assert ids(late) == [[0], [1, 2], [3], [4, 5, 6, 7]]


def test_a_group_as_heavy_as_a_batch_may_be_is_full() -> None:
    entries = waiting("ab", weights=[4, 6])
    assert ids(ask(lambda items: [items], entries, budget=10)) == [[0, 1]]


def test_groups_start_in_the_order_returned() -> None:
    entries = waiting("abcd")
    found = ask(lambda items: [items[2:], items[:2]], entries, size=2)
    assert ids(found) == [[2, 3], [0, 1]]


def test_due_entries_that_no_group_holds_start_by_themselves_and_only_they() -> None:
    entries = waiting("abcdef")
    found = ask(lambda items: [items[:2]], entries, size=2, due={2, 4, 5})
    assert ids(found) == [[2, 4], [5]]
    assert found.error is None


def test_a_group_with_one_due_entry_starts_whole() -> None:
    assert ids(ask(lambda items: [items[:2], items[2:]], waiting("abcd"), due={3})) == [[2, 3]]


def test_any_group_starts_when_a_producer_is_blocked() -> None:
    entries = waiting("abcd")
    assert ids(ask(lambda items: [items[:1], items[2:]], entries, anything=True)) == [[0], [2, 3]]


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_an_error_keeps_no_item(name: str) -> None:
    entries = waiting([Thing() for _ in range(3)])
    gone = [weakref.ref(entry.item) for entry in entries]
    error = ask(HOSTILE[name], entries).error
    for entry in entries:
        entry.settle(CANCELLED, None)
    del entry
    kept = name in {"half a generator", "raises"}  # by the user's own frame
    assert kept or not any(ref() is not None for ref in gone), error


def test_an_error_names_what_was_wrong_and_keeps_the_cause() -> None:
    error = ask(raises, waiting("ab")).error
    assert str(error).startswith("the batching strategy raised ZeroDivisionError: no groups today")
    assert error is not None
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert error.__cause__.__traceback__ is not None
    assert error.__cause__.__traceback__.tb_frame.f_code is raises.__code__
    flat = ask(lambda items: items, waiting("ab")).error
    assert "as a list of lists; instead of items it gave a value of type str" in str(flat)


def test_what_ends_the_program_is_not_caught() -> None:
    def leave(items: list[Any]) -> object:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(leave, waiting("ab"))
