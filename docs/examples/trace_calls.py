"""Trace calls with OpenTelemetry: a span per batch, linked to where its items came from.

Run:    python docs/examples/trace_calls.py
Shows:  what a processor does stands inside the span of its call; the call links to
        the requests that its items were enqueued in.
"""

from __future__ import annotations

import trio
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from batchq import Batch, BatchedQueue
from batchq.instrument.tracing import Tracing

spans = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
tracer = provider.get_tracer("shop")


async def charge(orders: Batch[str]) -> None:
    """Stand in for a call to a payment service, itself traced."""
    with tracer.start_as_current_span(f"POST /charges for {len(orders)}"):
        await trio.sleep(0.01)


async def request(queue: BatchedQueue[str, None], order: str) -> None:
    """Stand in for a request to our shop."""
    with tracer.start_as_current_span(f"order {order}"):
        await queue.process(order)


async def main() -> None:
    """Take two orders at once."""
    hooks = Tracing("charges", tracer).hooks
    async with (
        BatchedQueue[str, None](charge, batch_size=2, hooks=hooks) as queue,
        trio.open_nursery() as requests,
    ):
        for order in ("tea", "coffee"):
            requests.start_soon(request, queue, order)
    names = {span.context.span_id: span.name for span in spans.get_finished_spans() if span.context}
    for span in spans.get_finished_spans():
        inside = f" inside {names[span.parent.span_id]!r}" if span.parent else ""
        linked = sorted(names[link.context.span_id] for link in span.links)
        print(f"{span.name!r}{inside}" + (f" links to {linked}" if linked else ""))


if __name__ == "__main__":
    trio.run(main)
    provider.shutdown()
