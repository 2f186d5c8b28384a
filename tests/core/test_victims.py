"""Whom a full queue gives up, and that finding it costs no more where much waits."""

from __future__ import annotations

import random
import sys
from typing import Any

import pytest

from batchq.core.backoff import Backoff
from batchq.core.batcher import Batcher
from batchq.core.entry import DELAYED, DROPPED, PENDING, Entry, EntryStatus
from batchq.core.options import read_settings
from batchq.core.result import Result
from batchq.core.retry import RetryPolicy

KINDS = {
    "plain": {"priority_levels": 4},
    "rich": {"priority_levels": 4, "partition_by": lambda item: item % 7},
    "weighed": {"priority_levels": 4, "weigh": lambda _: 1.0},
    "timed": {"priority_levels": 4, "delivery_timeout": 1e6},
    "shared": {"priority_levels": 4, "coalesce_by": lambda item: item},
}
POLICIES = ["drop-oldest", "drop-lowest-priority"]
SIZE = 8
RETRY = RetryPolicy(2, backoff=Backoff(schedule=(0.0, 2.0), jitter="none"))


def batcher_of(kind: str, policy: str, size: int) -> Batcher[Any, Any]:
    rules: Any = {
        "batch_size": 4, "max_queue_size": size, "drop_policy": policy, "retry": RETRY
    }  # fmt: skip
    return Batcher(read_settings(KINDS[kind] | rules))


def fill(batcher: Batcher[Any, Any], size: int, *, delayed: int) -> list[Entry[Any, Any]]:
    """Put so many in, every `delayed`-th of them for later, all at the worst level."""
    delays = [float(number) if not number % delayed else 0.0 for number in range(1, size + 1)]
    found = [batcher.door.enqueue(1, 3, 0.0, delay=delay) for delay in delays]
    return [entry for entry in found if entry is not None]


def steps_of(kind: str, policy: str, size: int, *, delayed: int) -> int:
    """Count the function calls that 500 drops cost where so many wait."""
    batcher, count = batcher_of(kind, policy, size), 0
    fill(batcher, size, delayed=delayed)

    def step(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(step)
    try:
        for number in range(500):
            batcher.door.enqueue(number, 3 - number * 4 // 500, 0.0, delay=float(delayed == 1))
    finally:
        sys.setprofile(None)
    # The first ones are of the worst level themselves: drop-lowest-priority gives them up.
    assert batcher.stats(0.0, recount=True).dropped == 500
    return count


@pytest.mark.parametrize("delayed", [1, 2, 10**6])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "shared"])
def test_a_drop_costs_no_more_where_much_waits(kind: str, policy: str, delayed: int) -> None:
    few = steps_of(kind, policy, 1000, delayed=delayed)
    many = steps_of(kind, policy, 20_000, delayed=delayed)
    assert many < 1.5 * few


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_victim_is_the_one_that_the_policy_names(kind: str, policy: str) -> None:
    for seed in range(20):
        history(batcher_of(kind, policy, SIZE), random.Random(seed), policy)


def history(batcher: Batcher[Any, Any], rng: random.Random, policy: str) -> None:
    """Fill a queue, let some start, come again and be cancelled, and see each victim."""
    entries: list[Entry[Any, Any]] = []
    now = 0.0
    for _ in range(400):
        now += 0.25
        if rng.random() < 0.2:
            batch = batcher.next_batch(now)
            if batch is not None:
                batcher.settle(batch, [verdict(rng) for _ in batch], now=now, draw=0.0)
                batcher.release(batch)
        if entries and rng.random() < 0.05:
            rng.choice(entries).cancel()
        level, before = rng.randrange(4), [each for each in entries if not each.settled]
        full = batcher.size >= SIZE
        wanted = victim(before, level, policy) if full else None
        entry = batcher.door.enqueue(rng.randrange(99), level, now, delay=rng.choice([0.0, 0.0, 9]))
        assert entry is not None
        dropped = [each for each in before if each.code == DROPPED]
        if entry in before:  # it is shared, and needs no room
            assert not dropped
            continue
        assert dropped == ([] if wanted is None else [wanted])
        assert (entry.status is EntryStatus.DROPPED) == (full and wanted is None)
        entries.append(entry)


def verdict(rng: random.Random) -> object:
    """Let an entry come again, with an attempt spent or without."""
    return rng.choice([Result.snooze(0), Result.snooze(2), Result.retry(), Result.retry()])


def victim(entries: list[Entry[Any, Any]], level: int, policy: str) -> Entry[Any, Any] | None:
    """Name the victim as the specification does."""
    waiting = [each for each in entries if each.code in {PENDING, DELAYED}]
    if policy == "drop-oldest":
        pending = [each for each in waiting if each.code == PENDING]
        return min(pending or waiting, key=lambda each: each.id, default=None)
    worst = max((each.priority for each in waiting), default=0)
    found = [each for each in waiting if each.priority == worst > level]
    return max(found, key=lambda each: each.id, default=None)
