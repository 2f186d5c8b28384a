"""Who has waited longest, whatever comes again, and that telling it costs no walk."""

from __future__ import annotations

import random
import sys
from typing import Any

from batchq.core.batcher import Batcher
from batchq.core.entry import Entry
from batchq.core.options import read_settings


def batcher_of(**options: object) -> Batcher[Any, Any]:
    return Batcher(read_settings({"partition_by": str, "max_queue_size": None} | options))


def steps_of(batcher: Batcher[Any, Any]) -> int:
    """Count the function calls that telling the counts takes."""
    count = 0

    def step(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(step)
    try:
        batcher.stats(1.0)
    finally:
        sys.setprofile(None)
    return count


def test_the_counts_are_told_without_a_look_at_all_that_waits() -> None:
    steps = []
    for size in (10, 5000):
        batcher = batcher_of(batch_size=10)
        for number in range(size):
            batcher.door.enqueue(number, None, 0.0, delay=float(number % 2))
        steps.append(steps_of(batcher))
    assert steps[0] == steps[1]


def test_the_oldest_is_the_one_that_waits_and_came_first() -> None:
    for seed in range(30):
        history(random.Random(seed))


def history(rng: random.Random) -> None:
    batcher = batcher_of(batch_size=3, concurrency=2, flush_interval=0)
    entries: list[Entry[Any, Any]] = []
    running: list[Any] = []
    now = 0.0
    for _ in range(300):
        now += 0.25
        if rng.random() < 0.7:
            entry = batcher.door.enqueue(rng.randrange(3), None, now, delay=rng.choice([0.0, 2.0]))
            assert entry is not None
            entries.append(entry)
        if (batch := batcher.next_batch(now)) is not None:
            running.append(batch)
        if running and rng.random() < 0.6:
            batch = running.pop(rng.randrange(len(running)))
            again = [{"success": None, "retry_after": rng.choice([0, 3])} for _ in batch]
            batcher.settle(batch, rng.choice([again, None]), now=now, draw=0.0)
            batcher.release(batch)
        if rng.random() < 0.1 and entries:
            rng.choice(entries).cancel()
        ages = [now - each.enqueued_at for each in entries if each.status.value in WAITS]
        assert batcher.stats(now).oldest == max(ages, default=0.0)
        alive = sum(not each.settled for each in entries)
        assert len(batcher.waiting._ages._line) <= 2 * alive + 70


WAITS = {"pending", "delayed"}
