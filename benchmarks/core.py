"""The decisions alone: no trio, no clock. An aid for profiling more than a promise.

Run:    python -m benchmarks.run --only core [--profile]
Shows:  what the batching state machine itself costs per item, admission and settling apart.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from batchq.core.batcher import Batcher
from batchq.core.options import read_settings
from benchmarks.harness import Case, Reading, Stopwatch

__all__ = ["CASES"]

BATCH: Final = 100


def _batcher() -> Batcher[dict[str, int], None]:
    return Batcher(read_settings({"batch_size": BATCH, "max_queue_size": None}))


def whole_ours(size: int) -> Reading:
    """Admit a batch's worth of items, start the batch, settle it; again and again."""
    batcher = _batcher()
    enqueue = batcher.door.enqueue
    with Stopwatch() as watch:
        for start in range(0, size, BATCH):
            for number in range(start, start + BATCH):
                enqueue({"id": number}, None, 0.0)
            _run_batch(batcher)
    return watch.rate(size)


def whole_floor(size: int) -> Reading:
    """Do the same with a deque."""
    line: deque[Any] = deque()
    handled = 0
    with Stopwatch() as watch:
        for start in range(0, size, BATCH):
            for number in range(start, start + BATCH):
                line.append({"id": number})
            handled += len([line.popleft() for _ in range(BATCH)])
    assert handled == size
    return watch.rate(size)


def enqueue_ours(size: int) -> Reading:
    """Only admit."""
    batcher = _batcher()
    enqueue = batcher.door.enqueue
    items = [{"id": number} for number in range(size)]
    with Stopwatch() as watch:
        for item in items:
            enqueue(item, None, 0.0)
    return watch.rate(size)


def enqueue_floor(size: int) -> Reading:
    """Only append."""
    line: deque[Any] = deque()
    items = [{"id": number} for number in range(size)]
    with Stopwatch() as watch:
        for item in items:
            line.append(item)
    return watch.rate(size)


def batches_ours(size: int) -> Reading:
    """Only start and settle batches of what was admitted before."""
    batcher = _batcher()
    batcher.door.enqueue_many([{"id": number} for number in range(size)], None, 0.0)
    with Stopwatch() as watch:
        for _ in range(0, size, BATCH):
            _run_batch(batcher)
    return watch.rate(size)


def batches_floor(size: int) -> Reading:
    """Only take batches out."""
    line: deque[Any] = deque({"id": number} for number in range(size))
    with Stopwatch() as watch:
        for _ in range(0, size, BATCH):
            handled = [line.popleft() for _ in range(BATCH)]
    assert handled
    return watch.rate(size)


def _run_batch(batcher: Batcher[dict[str, int], None]) -> None:
    batch = batcher.next_batch(0.0)
    assert batch is not None
    batcher.settle(batch, None, now=0.0, draw=0.0)
    batcher.release(batch)


CASES: Final = (
    Case(
        name="core/whole",
        ours=whole_ours,
        floor=whole_floor,
        beside="deque, batches taken by popleft",
        size=200_000,
        smoke=2_000,
    ),
    Case(
        name="core/enqueue",
        ours=enqueue_ours,
        floor=enqueue_floor,
        beside="deque.append in a loop",
        size=200_000,
        smoke=2_000,
    ),
    Case(
        name="core/batches",
        ours=batches_ours,
        floor=batches_floor,
        beside="popleft in a loop",
        size=200_000,
        smoke=2_000,
    ),
)
