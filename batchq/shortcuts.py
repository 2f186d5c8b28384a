"""Ready-made queues in one line: each is a `BatchedQueue` with a few options chosen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, Unpack

from batchq.core.batch import Batch
from batchq.core.checks import check_async
from batchq.core.limits import SlidingWindow
from batchq.core.options import Options
from batchq.core.result import Result
from batchq.errors import OptionError
from batchq.queue import BatchedQueue

__all__ = ["batch_queue", "in_memory_queue", "rate_limited_queue"]

T = TypeVar("T")
R = TypeVar("R")


def in_memory_queue(
    work: Callable[[T], Awaitable[R]], **options: Unpack[Options]
) -> BatchedQueue[T, R]:
    """Make a queue that works on items one by one, as soon as there is a slot.

    Args:
        work: `async (item) -> value`; a `Result` decides as in any queue.
        options: of `BatchedQueue`; `concurrency` is how many items at once.

    Raises:
        OptionError: `batch_size` is given: that is `batch_queue`'s.
        TypeError: `work` is not async.
    """
    check_async("work", work)
    if "batch_size" in options:
        raise OptionError(
            "batch_size must not be given to a queue that works on items one by one;"
            f" batch_queue() takes it, got {options['batch_size']!r}"
        )

    async def process(batch: Batch[T]) -> list[Result[Any]]:
        value = await work(batch[0])
        return [value if isinstance(value, Result) else Result.ok(value)]

    settled: Options = {"flush_interval": 0, **options, "batch_size": 1}
    return BatchedQueue(process, **settled)


def rate_limited_queue(
    work: Callable[[T], Awaitable[R]],
    *,
    limit: float,
    per: float,
    **options: Unpack[Options],
) -> BatchedQueue[T, R]:
    """Make a queue that works on items one by one, `limit` of them in any `per` seconds.

    Args:
        work: as for `in_memory_queue`.
        limit: most items that start in any window [items].
        per: the window's length [s].
        options: of `BatchedQueue`; no `rate_limit` and no `batch_size`.

    Raises:
        OptionError: `limit` or `per` is out of its range.
        TypeError: `rate_limit` is given as well, or `work` is not async.
    """
    if "rate_limit" in options:
        raise TypeError("rate_limited_queue() takes limit= and per=, and no rate_limit")
    limited: Options = {**options, "rate_limit": SlidingWindow(limit, per)}
    return in_memory_queue(work, **limited)


def batch_queue(
    processor: Callable[[Batch[T]], Awaitable[Any]], **options: Unpack[Options]
) -> BatchedQueue[T, Any]:
    """Make a queue that hands over batches: of 100, or what came within a second.

    Args:
        processor: as for `BatchedQueue`.
        options: of `BatchedQueue`.
    """
    return BatchedQueue(processor, **options)
