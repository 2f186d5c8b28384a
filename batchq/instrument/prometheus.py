"""Numbers of queues for Prometheus: counted by hooks, put together when somebody looks.

metrics = QueueMetrics()
prometheus_client.REGISTRY.register(metrics)
queue = BatchedQueue(send, hooks=metrics.watch("mail"))
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Final

from batchq.errors import MissingExtra
from batchq.hooks import Hooks
from batchq.instrument.tally import BOUNDS, Tally

try:
    from prometheus_client import core
    from prometheus_client.registry import Collector
except ImportError as missing:
    raise MissingExtra("QueueMetrics", "prometheus-client", "metrics") from missing

__all__ = ["QueueMetrics"]

_COUNTER, _GAUGE = core.CounterMetricFamily, core.GaugeMetricFamily
_NUMBERS: Final[dict[str, tuple[type[Any], str, list[str]]]] = {
    "enqueued": (_COUNTER, "Items admitted.", ["queue"]),
    "items": (_COUNTER, "Items that left the queue.", ["queue", "outcome"]),
    "retries": (_COUNTER, "Failed items that came again.", ["queue"]),
    "batches": (_COUNTER, "Calls, by what started them.", ["queue", "trigger"]),
    "errors": (_COUNTER, "Calls, hooks and checks that raised.", ["queue"]),
    "waiting": (_GAUGE, "Items that wait.", ["queue"]),
    "running": (_GAUGE, "Calls in flight.", ["queue"]),
}
_SPREADS: Final = {
    "batch_size": "Items per call.",
    "wait_seconds": "From an item's admission to its first call.",
    "call_seconds": "How long calls take.",
}


class QueueMetrics(Collector):
    """The numbers of any number of queues, each named `batchq_...`; register it once."""

    def __init__(self) -> None:
        self._tally = Tally()

    def watch(self, queue: str, kind: type[Hooks[Any, Any]] = Hooks) -> Hooks[Any, Any]:
        """Make the hooks of a queue: `Hooks`, or `JobHooks` for a durable handler."""
        return self._tally.watch(queue, kind)

    def collect(self) -> Iterator[core.Metric]:
        """Put the numbers together, as Prometheus' registry asks, in any thread."""
        numbers, buckets = dict(self._tally.numbers), dict(self._tally.buckets)
        for name, (kind, text, labels) in _NUMBERS.items():
            metric = kind(f"batchq_{name}", text, labels=labels)
            for key, value in numbers.items():
                if key[0] == name:
                    metric.add_metric(key[1:], value)
            yield metric
        for name, text in _SPREADS.items():
            spread = core.HistogramMetricFamily(f"batchq_{name}", text, labels=["queue"])
            for queue in {key[1] for key in buckets if key[0] == name}:
                bounds = [*map(str, BOUNDS[name]), "+Inf"]
                counts = [buckets.get((name, queue, at), 0) for at in range(len(bounds))]
                pairs: Any = list(zip(bounds, accumulate(counts), strict=True))
                spread.add_metric([queue], pairs, self._tally.sums[name, queue])
            yield spread
