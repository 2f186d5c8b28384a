"""The numbers of queues: counted by hooks, in plain dicts, for whoever puts them on show."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from functools import partial
from typing import Any, Final

import trio

from batchq.core.batch import Batch
from batchq.hooks import Hooks

__all__ = ["BOUNDS", "Tally"]

_SIZES: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)  # items
_TIMES: Final = (0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # seconds
# The upper bounds of the buckets of each spread; what is above the last has one more.
BOUNDS: Final = {"batch_size": _SIZES, "wait_seconds": _TIMES, "call_seconds": _TIMES}


class Tally:
    """Counts what happens in any number of queues.

    Attributes:
        numbers: by a number's name, the queue and its label if it has one: enqueued; items,
            by outcome; retries; batches, by trigger; errors; waiting; running.
        buckets: by a spread's name, the queue and the bucket: values in it [count].
        sums: by a spread's name and the queue: the sum of its values.
    """

    def __init__(self) -> None:
        self.numbers: Counter[tuple[str, ...]] = Counter()
        self.buckets: Counter[tuple[str, str, int]] = Counter()
        self.sums: dict[tuple[str, str], float] = {}

    def watch(self, queue: str, kind: type[Hooks[Any, Any]] = Hooks) -> Hooks[Any, Any]:
        """Make the hooks of a queue: `Hooks`, or `JobHooks` for a durable handler."""
        count = partial(self._count, queue)
        waiting: Any = partial(self.numbers.__setitem__, ("waiting", queue))
        self.numbers["waiting", queue] = 0
        return kind(
            on_enqueue=lambda _: count("enqueued"),
            on_batch_start=partial(self._start, queue),
            on_batch_complete=partial(self._complete, queue),
            on_processed=lambda _, it: count("items", "succeeded" if it.success else "failed"),
            on_queue_size_change=waiting,
            on_error=lambda _: count("errors"),
            on_retry=lambda *_: count("retries"),
            on_drop=lambda _, reason: count("items", reason),
        )

    def _count(self, queue: str, name: str, *labels: str) -> None:
        self.numbers[name, queue, *labels] += 1

    def _add(self, queue: str, name: str, value: float) -> None:
        self.buckets[name, queue, bisect_left(BOUNDS[name], value)] += 1
        self.sums[name, queue] = self.sums.get((name, queue), 0.0) + value

    def _start(self, queue: str, batch: Batch[Any]) -> None:
        self._count(queue, "batches", batch.trigger.value)
        self.numbers["running", queue] += 1
        self._add(queue, "batch_size", len(batch))
        for entry in batch.entries:
            if not entry.attempts:
                self._add(queue, "wait_seconds", batch.started_at - entry.enqueued_at)

    def _complete(self, queue: str, batch: Batch[Any], _: object) -> None:
        self.numbers["running", queue] -= 1
        self._add(queue, "call_seconds", trio.current_time() - batch.started_at)
