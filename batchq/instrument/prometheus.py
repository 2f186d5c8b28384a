"""Numbers of queues for Prometheus: counted by hooks, put together when somebody looks.

metrics = QueueMetrics()
prometheus_client.REGISTRY.register(metrics)
queue = BatchedQueue(send, hooks=metrics.watch("mail"))
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, Final

import trio

from batchq.core.batch import Batch
from batchq.errors import MissingExtra
from batchq.hooks import Hooks

try:
    from prometheus_client import core
    from prometheus_client.registry import Collector
except ImportError as missing:
    raise MissingExtra("QueueMetrics", "prometheus-client", "metrics") from missing

__all__ = ["QueueMetrics"]

_SIZES: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)  # items
_TIMES: Final = (0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # seconds
_COUNTER, _GAUGE = core.CounterMetricFamily, core.GaugeMetricFamily
_NUMBERS: Final[dict[str, tuple[type[Any], str, list[str]]]] = {
    "batchq_enqueued": (_COUNTER, "Items admitted.", ["queue"]),
    "batchq_items": (_COUNTER, "Items that left the queue.", ["queue", "outcome"]),
    "batchq_retries": (_COUNTER, "Failed items that came again.", ["queue"]),
    "batchq_batches": (_COUNTER, "Calls, by what started them.", ["queue", "trigger"]),
    "batchq_errors": (_COUNTER, "Calls, hooks and checks that raised.", ["queue"]),
    "batchq_waiting": (_GAUGE, "Items that wait.", ["queue"]),
    "batchq_running": (_GAUGE, "Calls in flight.", ["queue"]),
}
_SPREADS: Final = {
    "batchq_batch_size": ("Items per call.", _SIZES),
    "batchq_wait_seconds": ("From an item's admission to its first call.", _TIMES),
    "batchq_call_seconds": ("How long calls take.", _TIMES),
}


class QueueMetrics(Collector):
    """The numbers of any number of queues; register it once."""

    def __init__(self) -> None:
        # By metric and labels; of a spread, by metric, queue and bucket.
        self._numbers: Counter[tuple[str, ...]] = Counter()
        self._buckets: Counter[tuple[str, str, int]] = Counter()
        self._sums: Counter[tuple[str, str]] = Counter()
        self._began: dict[tuple[str, int], float] = {}

    def watch(self, queue: str, kind: type[Hooks[Any, Any]] = Hooks) -> Hooks[Any, Any]:
        """Make the hooks of a queue: `Hooks`, or `JobHooks` for a durable handler."""
        count = partial(self._count, queue)
        waiting: Any = partial(self._numbers.__setitem__, ("batchq_waiting", queue))
        self._numbers["batchq_waiting", queue] = 0
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

    def collect(self) -> Iterator[core.Metric]:
        """Put the numbers together, as Prometheus' registry asks."""
        numbers, buckets = dict(self._numbers), dict(self._buckets)
        for name, (kind, text, labels) in _NUMBERS.items():
            metric = kind(name, text, labels=labels)
            for key, value in numbers.items():
                if key[0] == name:
                    metric.add_metric(key[1:], value)
            yield metric
        for name, (text, bounds) in _SPREADS.items():
            spread = core.HistogramMetricFamily(name, text, labels=["queue"])
            for queue in {key[1] for key in buckets if key[0] == name}:
                counts = (buckets.get((name, queue, at), 0) for at in range(len(bounds) + 1))
                names = [*map(str, bounds), "+Inf"]
                pairs: Sequence[tuple[str, float]] = list(
                    zip(names, accumulate(counts), strict=True)
                )
                spread.add_metric([queue], pairs, self._sums[name, queue])
            yield spread

    def _count(self, queue: str, name: str, *labels: str) -> None:
        self._numbers[f"batchq_{name}", queue, *labels] += 1

    def _add(self, queue: str, name: str, value: float) -> None:
        self._buckets[name, queue, bisect_left(_SPREADS[name][1], value)] += 1
        self._sums[name, queue] += value  # type: ignore[assignment]  # a Counter of floats

    def _start(self, queue: str, batch: Batch[Any]) -> None:
        now = self._began[queue, batch.id] = trio.current_time()
        self._count(queue, "batches", batch.trigger.value)
        self._numbers["batchq_running", queue] += 1
        self._add(queue, "batchq_batch_size", len(batch))
        for entry in batch.entries:
            if not entry.attempts:
                self._add(queue, "batchq_wait_seconds", now - entry.enqueued_at)

    def _complete(self, queue: str, batch: Batch[Any], _: object) -> None:
        self._numbers["batchq_running", queue] -= 1
        began = self._began.pop((queue, batch.id))
        self._add(queue, "batchq_call_seconds", trio.current_time() - began)
