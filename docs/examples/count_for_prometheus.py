"""Count what a queue does, for Prometheus to read.

Run:    python docs/examples/count_for_prometheus.py
Shows:  hooks count, and the numbers are put together when somebody looks: how many
        items wait, how full batches are, how long items wait and calls take.
"""

from __future__ import annotations

import prometheus_client
import trio

from batchq import Batch, BatchedQueue
from batchq.instrument.prometheus import QueueMetrics


async def store(rows: Batch[int]) -> None:
    """Stand in for an INSERT."""
    await trio.sleep(0.001 * len(rows))


async def main() -> None:
    """Store 120 rows, and show what Prometheus would read from /metrics."""
    metrics = QueueMetrics()
    registry = prometheus_client.CollectorRegistry()
    registry.register(metrics)
    hooks = metrics.watch("rows")
    async with BatchedQueue[int, None](store, batch_size=50, hooks=hooks) as queue:
        await queue.enqueue_many(range(120))
    for line in prometheus_client.generate_latest(registry).decode().splitlines():
        if line.startswith(("batchq_items_total", "batchq_batches_total", "batchq_batch_size_b")):
            print(line)


if __name__ == "__main__":
    trio.run(main)
