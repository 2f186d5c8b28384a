"""Histories of a queue of which everything is asked, beside the model of one."""

from __future__ import annotations

import gc
import math
import random
from typing import Final

import attrs
from hypothesis import given
from hypothesis import strategies as st

from tests.core.rich.options import LARGEST
from tests.core.rich.starting import BROKEN, STRATEGIES
from tests.core.rich.steps import Steps
from tests.core.rich.terms import Limit, Terms

PERS: Final = st.sampled_from(["item", "batch", "weight"])
LIMIT: Final = st.builds(
    Limit,
    window=st.booleans(),
    most=st.sampled_from([2.0, 3.0, 5.0]),
    pace=st.sampled_from([0.5, 1.0, 2.0]),
    per=PERS,
)


def often_off(off: object, *on: object) -> st.SearchStrategy[object]:
    """Leave an option off in half of all histories."""
    return st.sampled_from([off] * len(on) + [*on])


def possible(terms: Terms) -> Terms:
    """Make options of draws that do not go together."""
    if terms.ordered:
        terms = attrs.evolve(terms, levels=1, strategy=None, partition_limit=math.inf)
    least = max(terms.batch_size, LARGEST if terms.adaptive else 1)
    room, outstanding = max(terms.most_waiting, least), max(terms.most_outstanding, least)
    return attrs.evolve(terms, most_waiting=room, most_outstanding=outstanding)


TERMS: Final = st.builds(
    Terms,
    batch_size=st.sampled_from([1, 2, 3, 4, 4, 8]),
    interval=st.sampled_from([0.0, 0.5, 1.5, math.inf]),
    levels=st.integers(1, 3),
    aging=often_off(math.inf, 1.0),
    mix=st.booleans(),
    concurrency=st.integers(1, 3),
    partition_limit=often_off(math.inf, 1, 2),
    ordered=st.sampled_from([False, False, True]),
    budget=often_off(math.inf, 4.0),
    oversize=st.sampled_from(["alone", "alone", "reject"]),
    limits=st.lists(LIMIT, max_size=2).map(tuple),
    throttle=often_off(0.0, 0.25),
    most_waiting=often_off(math.inf, 6),
    most_outstanding=often_off(math.inf, 6),
    most_weight=often_off(math.inf, 9.0),
    drop_policy=st.sampled_from(
        ["block", "block", "reject-new", "drop-oldest", "drop-newest", "drop-lowest-priority"]
    ),
    coalesce=st.sampled_from(["join", "replace", "reject", "merge"]),
    queue_timeout=often_off(math.inf, 4.0),
    delivery_timeout=often_off(math.inf, 6.0),
    retries=st.sampled_from([None, 0, 1, 2]),
    check=st.sampled_from([None, None, True, False]),
    schedule=st.sampled_from([(1.0, 0.0, 2.5), (0.5,)]),
    jitter=st.sampled_from(["none", "equal", "full"]),
    bisect=st.sampled_from(["off", "exhausted", "immediate"]),
    strategy=st.sampled_from([None] * 12 + [*STRATEGIES, *BROKEN]),
    adaptive=st.sampled_from([False, False, False, True]),
).map(possible)
HOW: Final = {"eager": st.booleans(), "plain": st.booleans()}


def live(terms: Terms, chance: random.Random, steps: int, *, eager: bool, plain: bool) -> None:
    """Live one history."""
    gc.freeze()  # it looks for circles of its own; in all that Hypothesis keeps it took longest
    try:
        Steps(terms, eager=eager, plain=plain).live(chance, steps)
    finally:
        gc.unfreeze()


@given(terms=TERMS, seed=st.integers(0, 2**32 - 1), steps=st.integers(1, 150), **HOW)
def test_a_history_is_that_of_the_model(
    terms: Terms, seed: int, steps: int, *, eager: bool, plain: bool
) -> None:
    live(terms, random.Random(seed), steps, eager=eager, plain=plain)


@given(terms=TERMS, chance=st.randoms(use_true_random=False), steps=st.integers(1, 40), **HOW)
def test_a_short_one_is_too(
    terms: Terms, chance: random.Random, steps: int, *, eager: bool, plain: bool
) -> None:
    """Of less, which Hypothesis can make shorter still."""
    live(terms, chance, steps, eager=eager, plain=plain)
