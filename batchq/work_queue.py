"""A queue whose items come back from elsewhere: how the durable tier uses the engine."""

from __future__ import annotations

from typing import Any, TypeVar, Unpack

from batchq.core.options import Options
from batchq.pump import Processor, Verdicts
from batchq.queue import BatchedQueue, MayRetry

__all__ = ["work_queue"]

T = TypeVar("T")
R = TypeVar("R")


class _WorkQueue(BatchedQueue[T, R]):
    """A queue whose items come back from elsewhere; see `work_queue`."""

    def __init__(
        self,
        processor: Processor[T],
        verdicts: Verdicts[T],
        may_retry: MayRetry | None,
        **options: Unpack[Options],
    ) -> None:
        self._verdicts = verdicts
        self._may_retry = may_retry
        super().__init__(processor, **options)


def work_queue(
    processor: Processor[T],
    verdicts: Verdicts[T],
    *,
    may_retry: MayRetry | None = None,
    **options: Unpack[Options],
) -> BatchedQueue[T, Any]:
    """Make a queue for the durable tier.

    Args:
        processor: as for `BatchedQueue`.
        verdicts: awaited, shielded, when a call was judged, before its hooks and the
            release of its slot; gets the batch and one result per item, in order. What
            would return to the queue (retry, snooze, throttled) leaves it instead.
        may_retry: whether an entry's error may be retried and it has attempts left; asked
            where a bisect depends on it.
        options: as for `BatchedQueue`. `retry` says which errors are an outage's, where a
            bisect asks; nothing comes again by it.
    """
    return _WorkQueue(processor, verdicts, may_retry, **options)
