"""Delays: a table that can be read, and bounds that hold however many retries there were."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchq.core.backoff import Backoff, Jitter
from batchq.errors import OptionError

RETRIES = st.integers(1, 1_000_000)
DRAWS = st.floats(0, 1, exclude_max=True)
SECONDS = st.floats(0, 1e9)
BACKOFFS = st.builds(
    Backoff,
    initial_delay=SECONDS,
    multiplier=st.floats(1, 1e9) | st.integers(1, 100),
    max_delay=SECONDS,
    jitter=st.sampled_from(Jitter),
)


def test_a_delay_doubles_up_to_its_cap() -> None:
    backoff = Backoff(jitter="none")
    assert [backoff.delay(retry, draw=0.5) for retry in range(1, 9)] == [
        1, 2, 4, 8, 16, 32, 60, 60
    ]  # fmt: skip


def test_a_schedule_is_taken_as_it_is_and_its_last_delay_repeats() -> None:
    backoff = Backoff(schedule=[0, 30, 90], jitter=Jitter.NONE)
    assert [backoff.delay(retry, draw=0.5) for retry in (1, 2, 3, 4, 9)] == [0, 30, 90, 90, 90]


@pytest.mark.parametrize(
    ("jitter", "draw", "delay"),
    [("full", 0, 0), ("full", 0.25, 2), ("equal", 0, 4), ("equal", 0.5, 6), ("none", 0.9, 8)],
)
def test_chance_takes_its_share(jitter: str, draw: float, delay: float) -> None:
    backoff = Backoff(initial_delay=8, jitter=jitter)
    assert backoff.delay(1, draw=draw) == delay


@given(BACKOFFS, RETRIES, DRAWS)
def test_a_delay_is_never_negative_nor_above_the_cap(
    backoff: Backoff, retry: int, draw: float
) -> None:
    assert 0 <= backoff.delay(retry, draw=draw) <= backoff.max_delay


@given(BACKOFFS, RETRIES, DRAWS)
def test_a_later_retry_never_waits_less(backoff: Backoff, retry: int, draw: float) -> None:
    assert backoff.delay(retry + 1, draw=draw) >= backoff.delay(retry, draw=draw)


@pytest.mark.parametrize("multiplier", [2, 2.0, 1.5])
def test_the_millionth_retry_waits_the_cap(multiplier: float) -> None:
    backoff = Backoff(multiplier=multiplier, jitter=Jitter.NONE)
    assert backoff.delay(1_000_000, draw=0) == 60
    assert Backoff(initial_delay=0, multiplier=multiplier).delay(1_000_000, draw=0.9) == 0


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("initial_delay", "a number of seconds from 0 to 3155760000 (100 years)"),
        ("multiplier", "a finite number from 1"),
        ("max_delay", "a number of seconds from 0 to 3155760000 (100 years)"),
    ],
)
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), True, "1", None])
def test_a_bad_value_is_refused_by_name_bound_and_value(
    name: str, allowed: str, value: object
) -> None:
    with pytest.raises(OptionError) as caught:
        Backoff(**{name: value})  # type: ignore[arg-type]
    assert str(caught.value) == f"{name} must be {allowed}, got {value!r}"


@pytest.mark.parametrize("name", ["initial_delay", "max_delay"])
def test_a_delay_beyond_a_hundred_years_is_refused(name: str) -> None:
    Backoff(**{name: 3_155_760_000})  # type: ignore[arg-type]
    for value in (3_155_760_001, 1e308):
        with pytest.raises(OptionError, match=f"{name} must be a number of seconds from 0 to 315"):
            Backoff(**{name: value})  # type: ignore[arg-type]
        with pytest.raises(OptionError, match="schedule must be a list of one or more"):
            Backoff(schedule=[1, value])


@pytest.mark.parametrize("value", [[], [1, -1], [float("nan")], [float("inf")], "12", 5, [True]])
def test_a_bad_schedule_is_refused(value: object) -> None:
    with pytest.raises(
        OptionError, match="schedule must be a list of one or more delays, each a number"
    ):
        Backoff(schedule=value)  # type: ignore[arg-type]


def test_a_bad_jitter_is_refused() -> None:
    with pytest.raises(OptionError, match="jitter must be one of full, equal, none, got 'some'"):
        Backoff(jitter="some")
