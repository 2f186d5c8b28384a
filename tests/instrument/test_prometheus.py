"""What Prometheus reads adds up."""

from __future__ import annotations

import prometheus_client
import pytest
import trio
import trio.testing

from batchq import Backoff, BatchedQueue, Result, RetryPolicy
from batchq.instrument.prometheus import QueueMetrics
from batchq.testing import ScriptedProcessor

Clock = trio.testing.MockClock
RETRY = RetryPolicy(max_retries=1, backoff=Backoff(initial_delay=2, jitter="none"))


@pytest.fixture
def registry() -> prometheus_client.CollectorRegistry:
    return prometheus_client.CollectorRegistry()


async def test_the_numbers_of_a_queue_add_up(
    autojump_clock: Clock, registry: prometheus_client.CollectorRegistry
) -> None:
    def read(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"batchq_{name}", {"queue": "mail", **labels})

    metrics = QueueMetrics()
    registry.register(metrics)
    send = ScriptedProcessor(
        [Result.ok(), Result.fail("busy"), Result.discard("no")], takes=lambda _: 0.5
    )
    async with BatchedQueue[str, None](
        send, batch_size=3, retry=RETRY, flush_interval=1, hooks=metrics.watch("mail")
    ) as queue:
        assert read("waiting") == 0
        await queue.enqueue_many("abc")
        await trio.sleep(0.25)
        assert read("running") == 1
        await queue.enqueue_many("de")
        await trio.sleep(0.125)
        assert read("waiting") == 2
        await queue.wait_idle()
    assert read("enqueued_total") == 5
    assert read("items_total", outcome="succeeded") == 4
    assert read("items_total", outcome="failed") == 1
    assert read("retries_total") == 1
    assert read("batches_total", trigger="size") == 1
    assert read("batches_total", trigger="interval") == 1
    assert read("running") == 0
    assert read("waiting") == 0
    # Two calls of three and two items, and the one that came again.
    assert [read("batch_size_bucket", le=le) for le in ("1.0", "2.0", "5.0", "+Inf")] == [
        1,
        2,
        3,
        3,
    ]
    assert (read("batch_size_count"), read("batch_size_sum")) == (3, 6)
    assert (read("call_seconds_count"), read("call_seconds_sum")) == (3, 1.5)
    assert (read("wait_seconds_count"), read("wait_seconds_sum")) == (5, 2.0)
    assert queue.stats().hook_errors == 0


async def test_what_left_otherwise_is_counted_by_its_reason(
    autojump_clock: Clock, registry: prometheus_client.CollectorRegistry
) -> None:
    metrics = QueueMetrics()
    registry.register(metrics)
    async with BatchedQueue[int, None](
        ScriptedProcessor(OSError("down")), flush_interval=1, hooks=metrics.watch("mail")
    ) as queue:
        (await queue.enqueue(1)).cancel()
        await queue.enqueue(2)
    labels = {"queue": "mail", "outcome": "cancelled"}
    assert registry.get_sample_value("batchq_items_total", labels) == 1
    assert registry.get_sample_value("batchq_errors_total", {"queue": "mail"}) == 1


async def test_queues_are_told_apart_by_their_label(
    autojump_clock: Clock, registry: prometheus_client.CollectorRegistry
) -> None:
    metrics = QueueMetrics()
    registry.register(metrics)
    for name in ("a", "b"):
        hooks = metrics.watch(name)
        async with BatchedQueue[int, None](ScriptedProcessor(), hooks=hooks) as queue:
            await queue.enqueue_many(range(10 if name == "a" else 20))
    text = prometheus_client.generate_latest(registry).decode()
    assert 'batchq_enqueued_total{queue="a"} 10.0' in text
    assert 'batchq_enqueued_total{queue="b"} 20.0' in text
    assert text.count("# TYPE batchq_batch_size histogram") == 1
