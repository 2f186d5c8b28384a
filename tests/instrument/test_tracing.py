"""Each call is a span, with what it did inside it and where its items came from."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import trio
import trio.testing
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from batchq import Backoff, Batch, BatchedQueue, Result, RetryPolicy
from batchq.instrument.tracing import Tracing

Clock = trio.testing.MockClock


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(spans: InMemorySpanExporter) -> Iterator[trace.Tracer]:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    yield provider.get_tracer("test")
    provider.shutdown()


def named(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.name == name]


async def test_a_call_is_a_span_around_what_the_processor_does(
    autojump_clock: Clock, tracer: trace.Tracer, spans: InMemorySpanExporter
) -> None:
    async def send(batch: Batch[str]) -> list[Result[None]]:
        with tracer.start_as_current_span("request"):
            await trio.sleep(0.5)
        return [Result.ok() if item != "b" else Result.fail(ValueError("no")) for item in batch]

    tracing = Tracing("mail", tracer)
    async with BatchedQueue[str, None](
        send, batch_size=1, concurrency=2, hooks=tracing.hooks
    ) as queue:
        await queue.enqueue_many("ab")
    batches, requests = named(spans, "mail batch"), named(spans, "request")
    parents = {span.parent.span_id for span in requests if span.parent is not None}
    assert parents == {span.context.span_id for span in batches if span.context is not None}
    by_id = {dict(span.attributes or {})["batchq.batch.id"]: span for span in batches}
    assert dict(by_id[1].attributes or {}) == {
        "batchq.queue": "mail",
        "batchq.batch.id": 1,
        "batchq.batch.size": 1,
        "batchq.batch.trigger": "size",
        "batchq.batch.attempt": 1,
        "batchq.batch.failed": 0,
    }
    assert by_id[1].status.is_unset
    assert by_id[2].status.status_code is trace.StatusCode.ERROR
    assert [event.name for event in by_id[2].events] == ["exception"]
    assert not trace.get_current_span().get_span_context().is_valid


async def test_a_call_that_raises_tells_its_error_once(
    autojump_clock: Clock, tracer: trace.Tracer, spans: InMemorySpanExporter
) -> None:
    async def send(_: Batch[int]) -> None:
        raise OSError("down")

    async with BatchedQueue[int, None](send, hooks=Tracing("mail", tracer).hooks) as queue:
        await queue.enqueue_many([1, 2, 3])
    (span,) = named(spans, "mail batch")
    assert len(span.events) == 1
    assert span.status.description == "3 items failed"


async def test_a_batch_links_to_the_spans_its_items_came_from(
    autojump_clock: Clock, tracer: trace.Tracer, spans: InMemorySpanExporter
) -> None:
    async def send(_: Batch[str]) -> None: ...

    same = "the same object twice"
    async with BatchedQueue[str, None](
        send, batch_size=4, hooks=Tracing("mail", tracer).hooks
    ) as queue:
        await queue.enqueue("outside of any span")
        for name, item in (("first", same), ("second", same), ("third", "c")):
            with tracer.start_as_current_span(name):
                await queue.enqueue(item)
    (batch,) = named(spans, "mail batch")
    linked = [link.context.span_id for link in batch.links]
    origins = [span for name in ("first", "second", "third") for span in named(spans, name)]
    assert linked == [span.context.span_id for span in origins if span.context is not None]


async def test_the_same_object_links_each_batch_to_its_own_origin_at_each_attempt(
    autojump_clock: Clock, tracer: trace.Tracer, spans: InMemorySpanExporter
) -> None:
    async def send(batch: Batch[str]) -> None:
        if batch.attempt == 1 and batch.id == 1:
            raise OSError("down")

    same = "the same object twice"
    retry = RetryPolicy(1, backoff=Backoff(schedule=[1]))
    tracing = Tracing("mail", tracer)
    async with BatchedQueue[str, None](
        send, batch_size=1, retry=retry, hooks=tracing.hooks
    ) as queue:
        for name in ("first", "second"):
            with tracer.start_as_current_span(name):
                await queue.enqueue(same)
    batches = named(spans, "mail batch")
    origins = [named(spans, name)[0].context for name in ("first", "second", "first")]
    assert [[link.context.span_id for link in batch.links] for batch in batches] == [
        [origin.span_id] for origin in origins if origin is not None
    ]
    assert not tracing._origins._started


async def test_nothing_is_kept_of_items_that_left(
    autojump_clock: Clock, tracer: trace.Tracer, spans: InMemorySpanExporter
) -> None:
    async def send(_: Batch[str]) -> None: ...

    tracing = Tracing("mail", tracer)
    async with BatchedQueue[str, None](send, batch_size=2, hooks=tracing.hooks) as queue:
        with tracer.start_as_current_span("origin"):
            entry = await queue.enqueue("cancelled")
            entry.cancel()
            await queue.enqueue_many(["a", "b", "c"])
    gc.collect()
    assert not tracing._origins._waiting
    assert not tracing._origins._started
    assert not tracing._open
