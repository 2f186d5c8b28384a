"""The public API as a user's type checker sees it: checked by mypy --strict, never run.

`assert_type` says what a call gives. A `type: ignore[...]` marks a mistake that must be
found: when it no longer is, warn_unused_ignores makes that an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_type

from batchq import (
    Backoff,
    Batch,
    BatchedQueue,
    DrainReport,
    DropPolicy,
    Entry,
    EntryStatus,
    Hooks,
    QueueStats,
    Result,
    RetryPolicy,
    Trigger,
)

# ---- BatchedQueue: the processor


async def lengths(texts: Sequence[str]) -> list[Result[int]]:
    return [Result.ok(len(text)) for text in texts]


async def plain_values(texts: Batch[str]) -> list[int | Exception]:
    return [len(text) or ValueError("empty") for text in texts]


async def by_id(batch: Batch[str]) -> dict[int, Result[int]]:
    assert_type(batch[0], str)
    assert_type(batch[:1], Sequence[str])
    assert_type(batch.trigger, Trigger)
    assert_type(batch.attempt, int)
    batch.settle(0, Result.ok(1))
    return {entry.id: Result.ok(1) for entry in batch.entries}


async def nothing(texts: Sequence[str]) -> None:
    pass


def not_async(texts: Sequence[str]) -> None:
    pass


async def one_text(text: str) -> None:
    pass


async def a_queue() -> None:
    async with BatchedQueue[str, int](lengths, batch_size=50, flush_interval=5.0) as queue:
        assert_type(queue, BatchedQueue[str, int])
        assert_type(await queue.process("a"), int)
        assert_type(await queue.process("a", priority=0, delay=1.5), int)
        entry = await queue.enqueue("a")
        assert_type(entry, Entry[str, int])
        assert_type(entry.id, int)
        assert_type(entry.status, EntryStatus)
        assert_type(entry.cancel(), bool)
        assert_type(await entry.wait(), Result[int])
        assert_type(await entry.result(), int)
        assert_type(queue.enqueue_nowait("a"), Entry[str, int])
        assert_type(await queue.enqueue_many(["a", "b"]), Sequence[Entry[str, int]])
        assert_type(queue.stats(), QueueStats)
        assert_type(queue.room(), int)
        assert_type(await queue.drain(timeout=5), DrainReport)
        await queue.enqueue(1)  # type: ignore[arg-type]
        await queue.process(b"a")  # type: ignore[arg-type]
        await queue.enqueue("a", priority="high")  # type: ignore[arg-type]
        await queue.enqueue("a", 0, 1.5)  # type: ignore[call-arg]
        await queue.enqueue_many([1, 2])  # type: ignore[list-item]


def processors() -> None:
    BatchedQueue[str, int](plain_values)
    BatchedQueue[str, int](by_id)
    BatchedQueue[str, None](nothing)
    BatchedQueue[str, None](not_async)  # type: ignore[arg-type]
    BatchedQueue[str, None](one_text)  # type: ignore[arg-type]
    BatchedQueue[bytes, int](lengths)  # type: ignore[arg-type]


# ---- BatchedQueue: options


def a_hook(item: str) -> None:
    pass


def options() -> None:
    BatchedQueue[str, int](
        lengths,
        name="lengths",
        priority_levels=3,
        max_queue_size=None,
        drop_policy=DropPolicy.DROP_OLDEST,
        retry=RetryPolicy(max_retries=5, backoff=Backoff(schedule=(1, 10), jitter="none")),
        hooks=Hooks[str, int](on_enqueue=a_hook),
    )
    BatchedQueue[str, int](lengths, drop_policy="block")
    BatchedQueue[str, int](lengths, batchsize=50)  # type: ignore[call-arg]
    BatchedQueue[str, int](lengths, batch_size="50")  # type: ignore[arg-type]
    BatchedQueue[str, int](lengths, retry=3)  # type: ignore[arg-type]
    RetryPolicy(max_retries=None)  # type: ignore[arg-type]
    Backoff(1.0)  # type: ignore[call-arg]
    Hooks[int, int](on_enqueue=a_hook)  # type: ignore[arg-type]
    Hooks[str, int](on_error=a_hook)  # type: ignore[arg-type]


class Lengths(BatchedQueue[str, int]):
    batch_size = 50

    async def process_batch(self, batch: Batch[str]) -> list[Result[int]]:
        return [Result.ok(len(text)) for text in batch]


async def a_subclass() -> None:
    async with Lengths() as queue:
        assert_type(await queue.process("a"), int)


# ---- Result


def results() -> None:
    assert_type(Result.ok(1), Result[int])
    failed: Result[int] = Result.fail("no")
    assert_type(failed.value, int | None)
    later: Result[int] = Result.retry(OSError(), after=2.5)
    assert_type(later.retry_after, float | None)
    gone: Result[int] = Result.discard()
    assert_type(gone.success, bool | None)
    snoozed: Result[int] = Result.snooze(60)
    assert_type(snoozed, Result[int])
    Result.retry(2.5, 2.5)  # type: ignore[call-arg]
    Result.snooze("60")  # type: ignore[arg-type]
    failed.value = 1  # type: ignore[misc]
