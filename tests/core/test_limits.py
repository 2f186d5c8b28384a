"""Throttle, rate limits and processors that said when: what starts, and from when."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import attrs
import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from batchq.core.limits import Cause, Limits, Per, SlidingWindow, TokenBucket, limits_of
from batchq.errors import OptionError

# Numbers that binary does not hold as well as some that it does.
SECONDS = st.sampled_from([0.1, 0.125, 0.3, 1 / 3, 1.0, 7.7])
UNITS = st.sampled_from([0.1, 0.25, 1 / 3, 0.7, 1.0, 2.0, 3.0])
PER = st.sampled_from(Per)
BUCKETS = st.builds(
    TokenBucket,
    rate=st.sampled_from([0.1, 1 / 3, 1.0, 3.0, 10.0, 997.0]),
    burst=st.sampled_from([3, 3.5, 4.7, 10]),
    per=PER,
)
WINDOWS = st.builds(SlidingWindow, limit=st.sampled_from([3, 3.3, 5, 10]), window=SECONDS, per=PER)
RATES = st.lists(st.one_of(BUCKETS, WINDOWS), min_size=1, max_size=3)


@attrs.define
class Start:
    """A batch that started, and what it counted."""

    at: float
    weights: Sequence[float]

    def units(self, per: Per) -> float:
        if per is Per.BATCH:
            return 1
        return len(self.weights) if per is Per.ITEM else math.fsum(self.weights)


def run(
    limits: Limits, waiting: Sequence[float], *, batch_size: int, begin: float = 0.0
) -> list[Start]:
    """Start all that waits as early as the limits allow; the clock stands in between."""
    now, left, starts = begin, list(waiting), list[Start]()
    while left:
        now = max(now, limits.next_start)
        candidate = left[:batch_size]
        count, opens = limits.affordable(now, len(candidate), candidate)
        if not count:
            assert now < opens < math.inf
            now = opens
            count, opens = limits.affordable(now, len(candidate), candidate)
            assert count, "the instant that was computed is not early"
        assert opens == -math.inf
        limits.pay(now, count, math.fsum(left[:count]))
        starts.append(Start(now, left[:count]))
        del left[:count]
    return starts


def held(starts: Sequence[Start], limit: SlidingWindow) -> float:
    """Return the most units that any half-open window holds."""
    windows = [
        [other for other in starts if start.at <= other.at < start.at + limit.window]
        for start in starts
    ]
    return max(math.fsum(each.units(limit.per) for each in window) for window in windows)


def overflow(starts: Sequence[Start], limit: TokenBucket) -> float:
    """Return how far any interval exceeds `burst + rate * its length` [units]."""
    return max(
        math.fsum(each.units(limit.per) for each in starts[first : last + 1])
        - limit.burst
        - limit.rate * (starts[last].at - starts[first].at)
        for last in range(len(starts))
        for first in range(last + 1)
    )


@given(
    rates=RATES,
    waiting=st.lists(UNITS, min_size=1, max_size=40),
    batch_size=st.integers(1, 12),
    throttle=st.sampled_from([0.0, 0.0, 0.3]),
    begin=st.sampled_from([0.0, 0.1, 12345.678, 1e6 / 3]),
)
def test_no_window_holds_more_than_its_limit_and_no_start_comes_later_than_it_could(
    rates: list[TokenBucket | SlidingWindow],
    waiting: list[float],
    batch_size: int,
    throttle: float,
    begin: float,
) -> None:
    """I9, I10."""
    starts = run(Limits(throttle, rates), waiting, batch_size=batch_size, begin=begin)
    assert [weight for start in starts for weight in start.weights] == waiting
    assert all(a.at + throttle <= b.at for a, b in pairwise(starts))
    for limit in rates:
        if isinstance(limit, SlidingWindow):
            assert held(starts, limit) <= limit.limit * (1 + 1e-12)
        else:
            assert overflow(starts, limit) <= 1e-9 * max(1.0, limit.rate * begin)


@given(
    limit=st.one_of(BUCKETS, WINDOWS),
    steps=st.lists(st.tuples(SECONDS, UNITS, st.integers(1, 12)), min_size=1, max_size=25),
)
def test_a_start_is_possible_at_the_instant_announced_and_not_before(
    limit: TokenBucket | SlidingWindow, steps: list[tuple[float, float, int]]
) -> None:
    limits, now = Limits(0.0, [limit]), 0.0
    for pause, weight, items in steps:
        now += pause
        weights = [weight] * items
        count, opens = limits.affordable(now, items, weights)
        if not count:
            before = math.nextafter(opens, -math.inf)
            assert before < now or limits.affordable(before, items, weights) == (0, opens)
            now = opens
            count, _ = limits.affordable(now, items, weights)
        assert count
        limits.pay(now, count, weight * count)


def test_a_sliding_window_lets_five_start_each_second() -> None:
    """S14."""
    starts = run(Limits(0.0, [SlidingWindow(5, 1.0)]), [1.0] * 12, batch_size=10)
    assert [(start.at, len(start.weights)) for start in starts] == [(0, 5), (1, 5), (2, 2)]


def test_a_window_is_free_unit_by_unit_at_exactly_start_plus_window() -> None:
    limits = Limits(0.0, [SlidingWindow(3, 1.0)])
    limits.pay(0.25, 2)
    limits.pay(0.75, 1)
    assert limits.affordable(1.0, 1) == (0, 1.25)
    assert limits.affordable(1.25, 2) == (2, -math.inf)
    assert limits.affordable(1.25, 3) == (0, 1.75)


def test_a_token_bucket_starts_full_and_fills_no_further() -> None:
    limits = Limits(0.0, [TokenBucket(2.0, 4)])
    assert limits.affordable(0.0, 10) == (4, -math.inf)
    limits.pay(0.0, 4)
    assert limits.affordable(0.0, 1) == (0, 0.5)
    assert limits.affordable(0.0, 10) == (0, 2.0)
    assert limits.affordable(1000.0, 10) == (4, -math.inf)


def test_a_full_bucket_may_be_emptied_in_two_steps_of_one_instant() -> None:
    limits = Limits(0.0, [TokenBucket(10.0, 5)])
    limits.pay(12345.678, 1)
    assert limits.affordable(12345.678, 4) == (4, -math.inf)


def test_a_trickle_of_tokens_makes_no_batches_of_one() -> None:
    starts = run(Limits(0.0, [TokenBucket(1.0, 5)]), [1.0] * 15, batch_size=10)
    assert [len(start.weights) for start in starts] == [5, 5, 5]


def test_a_prefix_goes_that_all_limits_can_pay() -> None:
    limits = Limits(0.0, [TokenBucket(1, 4), SlidingWindow(6, 1.0, "weight")])
    assert limits.affordable(0.0, 5, [1, 4, 2, 1, 1]) == (2, -math.inf)


def test_a_limit_per_batch_cuts_no_batch() -> None:
    limits = Limits(0.0, [SlidingWindow(1, 2.0, per="batch")])
    assert limits.affordable(0.0, 50) == (50, -math.inf)
    limits.pay(0.0, 50)
    assert limits.affordable(1.0, 50) == (0, 2.0)


def test_all_limits_are_kept_so_the_latest_instant_counts() -> None:
    limits = Limits(0.0, [SlidingWindow(1, 1.0), TokenBucket(0.25, 1), SlidingWindow(9, 9.0)])
    limits.pay(0.0, 1)
    assert limits.affordable(0.0, 1) == (0, 4.0)


def test_ten_weights_of_a_tenth_fill_a_limit_of_one() -> None:
    limits = Limits(0.0, [SlidingWindow(1, 1.0, "weight")])
    for _ in range(10):
        assert limits.affordable(0.0, 1, [0.1]) == (1, -math.inf)
        limits.pay(0.0, 1, 0.1)
    assert limits.affordable(0.0, 1, [0.1]) == (0, 1.0)


@example([0.1, 0.2, 0.7])
@given(st.lists(UNITS, min_size=1, max_size=9))
def test_a_window_that_has_passed_leaves_nothing_behind(weights: list[float]) -> None:
    limits = Limits(0.0, [SlidingWindow(3, 1.0, "weight")])
    for step, weight in enumerate(weights * 30):  # sums of floats drift slowly
        limits.pay(step * 0.4, 1, weight)
    assert limits.affordable(1000.0, 1, [3.0]) == (1, -math.inf)


def test_weightless_items_are_never_held_back() -> None:
    limits = Limits(0.0, [SlidingWindow(1, 1.0, "weight"), TokenBucket(1, 1, "weight")])
    limits.pay(0.0, 1, 1.0)
    assert limits.affordable(0.0, 2, [0.0, 0.0]) == (2, -math.inf)
    limits.pay(0.0, 2, 0.0)
    assert limits.affordable(1.0, 1, [1.0]) == (1, -math.inf)


def test_what_no_limit_could_ever_pay_is_known_beforehand() -> None:
    limits = Limits(0.0, [TokenBucket(1, 9, "weight"), SlidingWindow(5, 1, "weight")])
    assert limits.max_unit == 5
    assert limits.weighs
    assert limits.affordable(0.0, 2, [6, 1]) == (0, math.inf)
    assert Limits(0.0, [TokenBucket(1, 2), SlidingWindow(1, 1, "batch")]).max_unit == math.inf
    assert not Limits(0.0, [TokenBucket(1, 2)]).weighs


def test_without_limits_all_may_start() -> None:
    limits = Limits()
    limits.pay(1.0, 3)
    assert limits.next_start == -math.inf
    assert limits.affordable(1.0, 3) == (3, -math.inf)


def test_a_throttle_counts_from_start_to_start_and_gives_no_credit() -> None:
    limits = Limits(0.5)
    limits.pay(0.0, 1)
    assert limits.next_start == 0.5
    limits.pay(8.0, 1)
    assert limits.next_start == 8.5


def test_a_hold_brings_no_start_forward() -> None:
    limits = Limits(0.5)
    limits.hold(3.0)
    limits.hold(2.0)
    limits.pay(0.0, 1)
    assert limits.next_start == 3.0


def test_each_wait_is_noted_once_with_its_cause() -> None:
    limits = Limits(0.5, [SlidingWindow(1, 1.0)])
    limits.pay(0.0, 1)
    limits.put_off(0.125)
    limits.put_off(0.25)
    limits.put_off(0.5, 1.0)
    limits.put_off(0.75, 1.0)
    assert limits.waits == [(0.375, Cause.THROTTLE), (0.5, Cause.RATE_LIMIT)]
    limits.pay(1.0, 1)
    limits.put_off(1.0)
    limits.hold(9.0)
    limits.put_off(1.0)
    limits.hold(10.0)
    limits.put_off(2.0)
    assert limits.waits[2:] == [
        (0.5, Cause.THROTTLE),
        (8.0, Cause.PROCESSOR),
        (8.0, Cause.PROCESSOR),
    ]


def test_a_busy_window_keeps_no_more_than_what_it_counts() -> None:
    limits = Limits(0.0, [SlidingWindow(10, 1.0)])
    for step in range(1000):
        limits.pay(step * 0.5, 1)
        limits.pay(step * 0.5, 2)
    (_, _, window) = limits._at_work[0]
    paid: Any = window
    assert len(paid._paid) == 2
    assert paid._used == 6


@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf, True, "1", None])
def test_a_limit_of_no_sense_is_refused_by_name(bad: Any) -> None:  # noqa: ANN401
    for make, name in (
        (lambda: TokenBucket(bad, 1), "rate of a TokenBucket [units/s] must be a finite number"),
        (lambda: TokenBucket(1, bad), "burst of a TokenBucket [units] must be a finite number"),
        (lambda: SlidingWindow(bad, 1), "limit of a SlidingWindow [units] must be a finite"),
        (lambda: SlidingWindow(1, bad), "window of a SlidingWindow [s] must be a finite number"),
    ):
        with pytest.raises(OptionError) as caught:
            make()
        assert str(caught.value).startswith(name)
        assert repr(bad) in str(caught.value)


def test_less_than_one_item_is_no_limit_but_less_than_one_kilogram_is() -> None:
    assert SlidingWindow(0.5, 1, "weight").most == 0.5
    with pytest.raises(OptionError, match=r"from 1, got 0\.5"):
        SlidingWindow(0.5, 1)
    with pytest.raises(OptionError, match=r"from 1, got 0\.5"):
        TokenBucket(1, 0.5, "weight")


def test_a_unit_has_one_of_three_names() -> None:
    with pytest.raises(OptionError, match="item, batch, weight, got 'job'"):
        TokenBucket(1, 1, "job")
    assert TokenBucket(1, 1, "batch") == TokenBucket(1, 1, Per.BATCH)


def test_one_limit_is_as_good_as_a_list_of_it() -> None:
    limit = TokenBucket(1, 2)
    assert limits_of(limit) == limits_of([limit]) == (limit,)
    assert limits_of(None) == limits_of([]) == ()
    for bad in (5, [limit, 5], "TokenBucket"):
        with pytest.raises(OptionError, match="rate_limit must be a TokenBucket"):
            limits_of(bad)
