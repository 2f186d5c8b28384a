"""Sizes and slots are found on models of what calls cost, and nothing throws them off."""

from __future__ import annotations

import heapq
import itertools
import math
import random
import statistics
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from batchq.core.adaptive import (
    AdaptiveBatchSize,
    AdaptiveConcurrency,
    BatchSizer,
    SlotLimit,
    fit,
    is_backpressure,
)
from batchq.errors import BatchTimeout, OptionError, Throttled

Cost = Callable[[int], float]


def sizes(
    cost: Cost,
    *,
    calls: int = 150,
    seed: int = 1,
    sizer: BatchSizer | None = None,
    **settings: Any,  # noqa: ANN401
) -> list[int]:
    """Run full batches whose calls cost so much; return the size after each."""
    rng = random.Random(seed)
    sizer = sizer or BatchSizer(AdaptiveBatchSize(**settings))
    return [sizer.learn(sizer.size, cost(sizer.size), draw=rng.random()) for _ in range(calls)]


def noisy(cost: Cost, noise: float, *, seed: int = 5, outliers: float = 0.0) -> Cost:
    rng = random.Random(seed)

    def spoilt(count: int) -> float:
        factor = 50.0 if rng.random() < outliers else 1.0
        return cost(count) * max(0.01, rng.gauss(1, noise)) * factor

    return spoilt


@pytest.mark.parametrize(
    ("fixed", "each", "expected"),
    [(0.1, 0.01, 190), (0.002, 0.002, 19), (0.1, 0.0001, 1000), (0.0, 0.01, 1), (1.0, 1.0, 9)],
)
def test_the_size_is_that_of_the_target_overhead_or_duration(
    fixed: float, each: float, expected: int
) -> None:
    """19 * fixed / each is where the fixed cost is 5 % of a call; 9 items take 10 s."""
    found = sizes(lambda count: fixed + each * count)
    assert statistics.median(found[50:]) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("seed", range(5))
def test_noise_and_outliers_do_not_throw_it_off(seed: int) -> None:
    cost = noisy(lambda count: 0.1 + 0.01 * count, 0.05, seed=seed, outliers=0.03)
    assert 95 < statistics.median(sizes(cost, seed=seed)[50:]) < 380


def test_a_first_call_that_opens_connections_is_forgiven() -> None:
    calls = iter([10.0])
    found = sizes(lambda count: 0.1 + 0.01 * count + next(calls, 0.0))
    assert statistics.median(found[20:]) == pytest.approx(190, rel=0.1)


def test_old_samples_fade() -> None:
    sizer = BatchSizer(AdaptiveBatchSize())
    sizes(lambda count: 0.1 + 0.01 * count, sizer=sizer)
    after = sizes(lambda count: 0.5 + 0.1 * count, sizer=sizer)
    assert statistics.median(after[60:]) == pytest.approx(95, rel=0.15)


@given(
    calls=st.lists(
        st.tuples(st.floats(0.0, 3.0), st.floats(0.0, 1e6), st.floats(0, 1, exclude_max=True)),
        max_size=80,
    ),
    low=st.integers(1, 20),
    room=st.integers(0, 500),
)
def test_whatever_calls_take_no_step_more_than_doubles_or_halves_the_size(
    calls: list[tuple[float, float, float]], low: int, room: int
) -> None:
    sizer = BatchSizer(AdaptiveBatchSize(min_size=low, max_size=low + room))
    assert sizer.size == low
    for share, duration, draw in calls:
        before = sizer.size
        count = max(1, round(share * before))
        size = sizer.learn(count, duration, draw=draw)
        assert low <= size <= low + room
        assert before / 2 <= size <= 2 * before
        assert size <= max(before, 2 * count), "no growth without evidence"


def test_sizes_vary_by_a_quarter_so_that_the_fit_has_a_base() -> None:
    found = sizes(lambda count: 0.1 + 0.01 * count)[50:]
    assert min(found) >= 190 * 0.75 - 1
    assert max(found) <= 190 * 1.25 + 1
    assert len(set(found)) > 30


def test_batches_that_are_never_full_prove_nothing() -> None:
    sizer = BatchSizer(AdaptiveBatchSize(min_size=10))
    assert {sizer.learn(3, 1.0, draw=0.5) for _ in range(100)} == {10}


def test_calls_that_take_no_time_are_no_trouble() -> None:
    assert sizes(lambda _: 0.0)[-1] <= 1000


def test_the_fit_finds_what_calls_cost_whatever_a_few_of_them_say() -> None:
    exact = [(count, 0.5 + 0.25 * count) for count in range(1, 11)]
    assert fit(exact) == pytest.approx((0.5, 0.25))
    assert fit([*exact, (5, 100.0), *exact, (9, 0.0)]) == pytest.approx((0.5, 0.25), rel=1e-3)
    assert fit([(3, 1.0), (3, 2.0)])[1] is None


def test_a_newer_call_counts_more_in_the_fit_than_an_older_one() -> None:
    older = [(count, 1.0 + 0.1 * count) for count in range(1, 31)]
    newer = [(count, 1.1 + 0.1 * count) for count in range(1, 31)]
    assert fit([*older, *newer])[0] > 1.06


def test_the_size_that_a_run_gives_is_that_of_its_replay() -> None:
    runs = [sizes(noisy(lambda count: 0.1 + 0.01 * count, 0.2)) for _ in range(2)]
    assert runs[0] == runs[1]


# ---- Slots.


def simulate(
    took: Callable[[int], float | Exception],
    *,
    until: float,
    **settings: Any,  # noqa: ANN401
) -> list[tuple[float, int]]:
    """Keep all slots busy with calls; return (instant, limit) at each change.

    `took` says what a call takes when so many are in flight, or what it raises at once.
    """
    slots = SlotLimit(AdaptiveConcurrency(**settings))
    ends: list[tuple[float, int, float, Exception | None]] = []
    changes, now, serial = [(0.0, slots.limit)], 0.0, 0
    while now < until:
        while len(ends) < slots.limit:
            slots.started(len(ends) + 1)
            said = took(len(ends) + 1)
            error, duration = (said, 0.5) if isinstance(said, Exception) else (None, said)
            heapq.heappush(ends, (now + duration, serial := serial + 1, duration, error))
        now, _, duration, error = heapq.heappop(ends)
        if slots.ended(now, duration, error) != changes[-1][1]:
            changes.append((now, slots.limit))
    return changes


def test_while_calls_are_as_fast_as_ever_there_is_one_more_slot_per_mean_duration() -> None:
    changes = simulate(lambda _: 0.5, until=10.0, max_limit=8)
    assert [limit for _, limit in changes] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert all(b[0] - a[0] >= 0.5 for a, b in itertools.pairwise(changes[1:]))


def test_where_the_other_side_pushes_back_the_limit_stays_near_what_it_bears() -> None:
    def server(in_flight: int) -> float | Exception:
        return 1.0 if in_flight <= 20 else Throttled(1.0)

    changes = simulate(server, until=400.0)
    late = [limit for at, limit in changes if at > 60]
    assert 14 <= min(late) <= max(late) <= 22


def test_a_server_that_slows_down_is_not_buried() -> None:
    rng = random.Random(3)

    def server(in_flight: int) -> float:
        return max(1.0, in_flight / 10) ** 2 * rng.gauss(1.0, 0.05)

    changes = simulate(server, until=300.0)
    assert 8 <= statistics.median(limit for at, limit in changes if at > 60) <= 20


@pytest.mark.parametrize(
    "error",
    [Throttled(1.0), BatchTimeout("late"), ConnectionResetError(), TimeoutError(), OSError()],
)
def test_backpressure_takes_a_tenth_of_the_slots_at_once(error: Exception) -> None:
    slots = SlotLimit(AdaptiveConcurrency(initial=100))
    assert slots.ended(1.0, 0.5, error) == 90


def test_at_most_one_change_per_mean_duration() -> None:
    slots = SlotLimit(AdaptiveConcurrency(initial=100))
    slots.ended(0.0, 1.0)
    limits = [slots.ended(eighth / 8, 1.0, Throttled(1.0)) for eighth in range(17)]
    assert limits == [90] * 8 + [81] * 8 + [72]


def test_a_call_much_longer_than_usual_takes_slots_and_a_little_longer_does_not() -> None:
    slots = SlotLimit(AdaptiveConcurrency(initial=10, rtt_deviation_scale=2.0))
    slots.ended(0.0, 1.0)
    for second, duration in enumerate([2.0, 1.0, 2.0, 1.0], start=1):
        slots.ended(second * 10.0, duration)
    before = slots.limit
    slots.started(1)
    assert slots.ended(100.0, 1.7) == before, "no slot was missing"
    assert slots.ended(200.0, 9.0) == int(before * 0.9)


def test_slots_that_nobody_needed_are_no_reason_for_more() -> None:
    slots = SlotLimit(AdaptiveConcurrency(initial=5))
    for second in range(100):
        slots.started(4)
        assert slots.ended(float(second), 0.5) == 5


def test_a_failed_call_is_no_sample() -> None:
    slots = SlotLimit(AdaptiveConcurrency(initial=5))
    for second in range(100):
        slots.started(5)
        assert slots.ended(float(second), 0.001, ValueError("no")) == 5
    slots.ended(100.0, 1.0)
    slots.started(5)
    assert slots.ended(102.0, 1.0) == 6


@given(
    st.lists(
        st.tuples(
            st.floats(0, 10), st.floats(0, 1e6), st.sampled_from([None, OSError(), ValueError()])
        )
    ),
    st.integers(1, 5),
    st.integers(0, 5),
)
def test_the_limit_never_leaves_its_bounds(
    calls: list[tuple[float, float, Exception | None]], low: int, room: int
) -> None:
    slots = SlotLimit(AdaptiveConcurrency(min_limit=low, initial=low, max_limit=low + room))
    now = 0.0
    for pause, duration, error in calls:
        now += pause
        before = slots.limit
        slots.started(slots.limit)
        limit = slots.ended(now, duration, error)
        assert low <= limit <= low + room
        assert limit - before <= 1


def test_a_group_with_a_sign_of_too_much_is_one() -> None:
    assert is_backpressure(ExceptionGroup("two", [ValueError(), Throttled(1.0)]))
    assert not is_backpressure(ExceptionGroup("one", [ValueError()]))
    assert not is_backpressure(ValueError())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdaptiveBatchSize(min_size=0), "min_size must be a whole number from 1, got 0"),
        (lambda: AdaptiveBatchSize(max_size=True), "max_size must be a whole number from 1"),
        (lambda: AdaptiveBatchSize(min_size=9, max_size=8), r"max_size \(8\) must be at least"),
        (lambda: AdaptiveBatchSize(target_overhead=1), "above 0 and below 1, got 1"),
        (lambda: AdaptiveBatchSize(target_overhead=math.nan), "above 0 and below 1, got nan"),
        (lambda: AdaptiveBatchSize(target_duration=0), "target_duration must be .* above 0"),
        (lambda: AdaptiveConcurrency(min_limit=2), r"initial \(1\) must be from min_limit \(2\)"),
        (lambda: AdaptiveConcurrency(initial=300), r"to max_limit \(200\)"),
        (lambda: AdaptiveConcurrency(decrease_ratio=1.0), "decrease_ratio must be .* below 1"),
        (lambda: AdaptiveConcurrency(ewma_alpha=1.5), "ewma_alpha must be .* up to 1, got 1.5"),
        (lambda: AdaptiveConcurrency(rtt_deviation_scale=-1), "finite number from 0, got -1"),
    ],
)
def test_settings_of_no_sense_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make()
