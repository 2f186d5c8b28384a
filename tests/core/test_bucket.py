"""What is taken from the middle leaves nothing behind, however much it is."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from batchq.core.bucket import Bucket
from batchq.core.entry import CANCELLED, PENDING, Entry, Owner
from batchq.core.expiry import Delays

COUNT = 1000


def entries(count: int = COUNT) -> list[Entry[Any, Any]]:
    owner = Owner(lambda: None)
    return [Entry(id_, 0, 0.0, owner, f"item {id_}") for id_ in range(1, count + 1)]


def forget(room: Bucket | Delays, each: Entry[Any, Any]) -> None:
    each.settle(CANCELLED, None)
    room.forget(each)


def test_a_bucket_keeps_no_more_dead_entries_than_live_ones_and_a_few() -> None:
    bucket, made = Bucket.of(1, 1.0), entries()
    bucket.fresh[0].extend(made)
    for each in made[1:-1]:  # the first keeps the others from being at the head
        forget(bucket, each)
    assert len(bucket.fresh[0]) < 70
    assert list(bucket) == [made[0], made[-1]]
    assert bucket.take(9) == [made[0], made[-1]]
    assert not bucket.fresh[0]


def test_the_youngest_is_one_that_still_waits() -> None:
    bucket, made = Bucket.of(1, 1.0), entries(3)
    bucket.fresh[0].extend(made)
    forget(bucket, made[2])
    assert bucket.youngest(0) is made[1]
    forget(bucket, made[1])
    forget(bucket, made[0])
    assert bucket.youngest(0) is bucket.oldest() is None


def test_delays_keep_no_more_dead_entries_than_live_ones_and_a_few() -> None:
    delays, made = Delays(), entries()
    for each in made:
        delays.add(each, float(each.id))
    for each in made[1:-1]:
        forget(delays, each)
    assert len(delays._heap) < 70
    assert delays.count == 2
    assert [delays.pop(1e9), delays.pop(1e9), delays.pop(1e9)] == [made[0], made[-1], None]


def test_what_comes_again_takes_its_old_place() -> None:
    bucket, made = Bucket.of(1, 1.0), entries(4)
    bucket.fresh[0].extend([made[1], made[3]])
    for each in (made[2], made[0]):
        bucket.put_back(each)
    assert {each.code for each in made} == {PENDING}
    assert [bucket.take(2), bucket.take(2)] == [made[:2], made[2:]]


@pytest.mark.parametrize("spoiled", ["by nothing", "by a dead entry", "by one that comes again"])
def test_a_batch_costs_no_more_with_many_levels_that_are_empty(spoiled: str) -> None:
    assert calls_to_take(100, spoiled) == calls_to_take(1, spoiled)


def calls_to_take(levels: int, spoiled: str) -> int:
    """Count the function calls of a batch from the last level, those in C included."""
    bucket, made, count = Bucket.of(levels, 1.0), entries(9), 0
    for each in made:
        each.priority = levels - 1
    bucket.fresh[-1].extend(made)
    if spoiled == "by a dead entry":
        forget(bucket, made[7])
    if spoiled == "by one that comes again":
        bucket.fresh[-1].popleft()
        bucket.put_back(made[0])

    def step(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(step)
    try:
        taken = bucket.take(5)
    finally:
        sys.setprofile(None)
    assert taken == made[:5]
    return count
