"""A failed batch is taken apart until what spoiled it is found."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from batchq.core.bisect import (
    Alone,
    Bisect,
    BisectMode,
    Outage,
    Split,
    bisect_mode,
    is_transient,
)
from batchq.core.entry import FAILED, IN_FLIGHT, SUCCEEDED, Entry, Owner
from batchq.errors import BatchTimeout, OptionError, Throttled

Item = Entry[int, None]


class Nobody:
    def cancel_entry(self, entry: Entry[Any, Any]) -> bool:
        return False


NOBODY = Owner(weakref.ref(Nobody()))
POISON = ValueError("poison")
OUTAGE = ConnectionError("no route")


def flying(count: int) -> list[Item]:
    return [Entry(id_, 0, 0.0, NOBODY, id_, IN_FLIGHT) for id_ in range(count)]


def ids(entries: Iterable[Entry[Any, Any]]) -> list[int]:
    return [entry.id for entry in entries]


def ceil_log2(number: int) -> int:
    return next(power for power in range(64) if 2**power >= number)


class Run:
    """Calls the parts of a batch, one after another, and settles its entries."""

    def __init__(
        self,
        entries: list[Item],
        error_of: Callable[[list[int]], Exception | None],
        *,
        transient: Callable[[Exception], bool] = is_transient,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        self.calls: list[list[int]] = [ids(entries)]
        self.alone: list[int] = []
        self.outage: list[int] = []
        self.errors: dict[int, Exception] = {}
        first = error_of(ids(entries))
        assert first is not None
        bisect = Bisect.of(entries, first, transient=transient)
        while part := bisect.part():
            assert bisect.begin() == part
            assert all(entry.code == IN_FLIGHT for entry in part)
            self.calls.append(ids(part))
            error = error_of(ids(part))
            meanwhile()
            if error is None:
                bisect.returned()
                self.settle(SUCCEEDED, part)
            else:
                self.follow(bisect.raised(error), part)
        assert bisect.done
        assert all(entry.settled for entry in entries)

    def settle(self, code: int, entries: Iterable[Entry[Any, Any]]) -> None:
        for entry in entries:
            if entry.code == IN_FLIGHT:
                entry.settle(code, None)

    def follow(self, came: Split | Alone | Outage, part: list[Entry[Any, Any]]) -> None:
        match came:
            case Split(left, right):
                assert [*left, *right] == [entry for entry in part if not entry.settled]
                assert 0 <= len(left) - len(right) <= 1
            case Alone(entry, error):
                assert part == [entry]
                self.alone.append(entry.id)
                self.errors[entry.id] = error
                self.settle(FAILED, [entry])
            case Outage(entries, error):
                self.outage = ids(entries)
                self.errors |= dict.fromkeys(self.outage, error)
                self.settle(FAILED, entries)


@example((16, {5}))
@example((2, {0, 1}))
@given(
    st.integers(2, 200).flatmap(
        lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), min_size=1, max_size=n))
    )
)
def test_exactly_the_poison_fails_in_few_calls(case: tuple[int, set[int]]) -> None:
    """I18."""
    count, poison = case
    run = Run(flying(count), lambda part: POISON if poison & set(part) else None)
    assert run.alone == sorted(poison)
    assert not run.outage
    assert len(run.calls) <= 1 + 2 * len(poison) * ceil_log2(count)
    assert len(run.calls) <= 2 * count - 1


def test_one_poison_item_of_sixteen_takes_nine_calls() -> None:
    """S5."""
    run = Run(flying(16), lambda part: POISON if 5 in part else None)
    assert run.alone == [5]
    assert [len(call) for call in run.calls] == [16, 8, 4, 4, 2, 1, 1, 2, 8]


def test_the_left_part_is_the_larger_one_and_goes_first() -> None:
    first = Bisect.of(flying(5), POISON, transient=is_transient)
    assert ids(first.part()) == [0, 1, 2]
    assert (ids(first.first.left), ids(first.first.right)) == ([0, 1, 2], [3, 4])
    run = Run(flying(5), lambda part: POISON)
    assert run.calls[1:] == [[0, 1, 2], [0, 1], [0], [1], [2], [3, 4], [3], [4]]


@given(st.integers(2, 300))
def test_an_outage_is_not_answered_with_a_call_per_item(count: int) -> None:
    errors = [ConnectionError(str(number)) for number in range(2 * count)]
    left = iter(errors)
    run = Run(flying(count), lambda _: next(left))
    assert len(run.calls) <= 1 + 2 * (ceil_log2(count) + 1)
    assert all(run.errors[id_] is errors[0] for id_ in run.outage), "the error of the whole"
    assert sorted([*run.alone, *run.outage]) == list(range(count))


def test_two_poison_items_in_two_halves_are_no_outage() -> None:
    for poison in ({0, 63}, {0, 31, 63}, {0, 7, 31, 40, 63}):
        run = Run(flying(64), lambda part, bad=poison: OUTAGE if bad & set(part) else None)  # type: ignore[misc]
        assert run.alone == sorted(poison)
        assert not run.outage


def test_one_error_of_another_kind_rules_an_outage_out() -> None:
    """Were it the first one or a later one."""
    for other in range(5):
        errors = iter([OUTAGE] * other + [POISON] + [OUTAGE] * 50)
        run = Run(flying(16), lambda _, errors=errors: next(errors))  # type: ignore[misc]
        assert run.alone == list(range(16))


@given(
    count=st.integers(2, 40),
    poison=st.sets(st.integers(0, 39)),
    settles=st.lists(st.integers(0, 39), max_size=40),
)
def test_what_was_settled_meanwhile_is_never_called_again(
    count: int, poison: set[int], settles: list[int]
) -> None:
    entries, gone = flying(count), set[int]()

    def expire() -> None:
        if settles and (id_ := settles.pop()) < count and entries[id_].code == IN_FLIGHT:
            entries[id_].settle(FAILED, None)
            gone.add(id_)

    run = Run(
        entries,
        lambda part: POISON if len(part) == count or poison & set(part) else None,
        meanwhile=expire,
    )
    assert set(run.alone) <= poison - gone
    assert len(run.calls) <= 2 * count - 1
    done = {entry.id for entry in entries if entry.code == SUCCEEDED}
    assert done == set(range(count)) - gone - set(run.alone), "no innocent item fails"


def test_the_last_one_of_several_is_tried_alone_before_it_is_blamed() -> None:
    entries = flying(4)
    bisect = Bisect.of(entries, POISON, transient=is_transient)
    bisect.begin()
    entries[0].settle(FAILED, None)  # it may have been this one
    assert bisect.raised(POISON) == Split([entries[1]], [])
    assert bisect.begin() == [entries[1]]
    assert bisect.raised(OUTAGE) == Alone(entries[1], OUTAGE)


def test_a_throttled_part_is_called_again_as_it_was() -> None:
    entries = flying(4)
    bisect = Bisect.of(entries, OUTAGE, transient=is_transient)
    for _ in range(20):
        assert bisect.begin() == entries[:2]
        assert not bisect.part(), "one at a time"
        assert not bisect.done
        bisect.again()
    entries[0].settle(FAILED, None)
    assert bisect.part() == [entries[1]]


def test_in_an_ordered_queue_what_comes_again_ends_it() -> None:
    entries = flying(4)
    bisect = Bisect.of(entries, POISON, transient=is_transient, ordered=True)
    bisect.begin()
    bisect.returned()
    entries[0].settle(SUCCEEDED, None)
    assert bisect.judged(comes_again=False) == []
    bisect.begin()
    assert isinstance(bisect.raised(POISON), Split)
    bisect.begin()
    assert bisect.raised(POISON) == Alone(entries[2], POISON)
    entries[2].code = 1  # it is delayed now
    assert bisect.judged(comes_again=True) == [entries[3]]
    assert bisect.done


def test_elsewhere_what_comes_again_holds_nobody_up() -> None:
    bisect = Bisect.of(flying(2), POISON, transient=is_transient)
    bisect.begin()
    bisect.raised(POISON)
    assert bisect.judged(comes_again=True) == []
    assert ids(bisect.part()) == [1]


def test_given_up_it_returns_all_without_a_verdict_in_order() -> None:
    entries = flying(8)
    bisect = Bisect.of(entries, POISON, transient=is_transient)
    bisect.begin()
    bisect.raised(POISON)
    bisect.begin()
    entries[5].settle(FAILED, None)
    assert ids(bisect.give_up()) == [0, 1, 2, 3, 4, 6, 7]
    assert bisect.done


def test_a_single_entry_is_never_taken_apart() -> None:
    for mode in BisectMode:
        assert not mode.splits(flying(1), lambda _: False)


def test_the_modes_differ_in_when() -> None:
    entries = flying(3)

    def splits(mode: BisectMode, *tired: int) -> bool:
        return mode.splits(entries, lambda entry: entry.id not in tired)

    assert not splits(BisectMode.OFF, 0, 1, 2)
    assert splits(BisectMode.IMMEDIATE)
    assert not splits(BisectMode.EXHAUSTED)
    assert splits(BisectMode.EXHAUSTED, 1)


def test_the_option_takes_words_and_members() -> None:
    assert bisect_mode("exhausted") is bisect_mode(BisectMode.EXHAUSTED) is BisectMode.EXHAUSTED
    with pytest.raises(OptionError, match="off, exhausted, immediate, got 'on'"):
        bisect_mode("on")


def test_errors_of_the_system_are_transient_and_so_are_groups_of_them() -> None:
    assert is_transient(BatchTimeout("late"))
    assert is_transient(TimeoutError())
    assert is_transient(ExceptionGroup("two", [OUTAGE, OSError()]))
    assert not is_transient(ExceptionGroup("two", [OUTAGE, POISON]))
    assert not is_transient(POISON)
    assert not is_transient(Throttled(1.0))
    assert is_transient(POISON, ValueError)
