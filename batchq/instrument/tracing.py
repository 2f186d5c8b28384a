"""A span per call, for OpenTelemetry; what the processor does stands inside it.

    queue = BatchedQueue(send, hooks=Tracing("mail").hooks)

A batch has no one parent: its span *links* to the spans in which its items were enqueued, at
each attempt.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import Token
from typing import Any

import attrs

from batchq.core.batch import Batch
from batchq.core.result import Result
from batchq.errors import MissingExtra
from batchq.hooks import Hooks
from batchq.instrument.origins import Origins

try:
    from opentelemetry import context, trace
except ImportError as missing:
    raise MissingExtra("Tracing", "opentelemetry-api", "otel") from missing

__all__ = ["Tracing"]


@attrs.define(eq=False)
class Tracing:
    """Makes the spans of one queue.

    An item that had to wait for room links to what was current when the queue was entered.

    Attributes:
        queue: its name, in each span.
        tracer: makes them; None: the global provider's.
    """

    queue: str
    tracer: trace.Tracer = attrs.field(factory=lambda: trace.get_tracer("batchq"))
    _origins: Origins[trace.Link] = attrs.field(factory=Origins, init=False)
    _open: dict[int, tuple[trace.Span, Token[Any]]] = attrs.field(factory=dict, init=False)

    @property
    def hooks(self) -> Hooks[Any, Any]:
        """The hooks to give to the queue."""
        return Hooks(
            on_enqueue=self._enqueue,
            on_batch_start=self._start,
            on_batch_complete=self._complete,
            on_drop=lambda item, _: self._origins.forget(item),
        )

    def _enqueue(self, item: object) -> None:
        current = trace.get_current_span().get_span_context()
        if current.is_valid:
            self._origins.note(item, trace.Link(current))

    def _start(self, batch: Batch[Any]) -> None:
        facts: dict[str, str | int] = {
            "batchq.queue": self.queue,
            "batchq.batch.id": batch.id,
            "batchq.batch.size": len(batch),
            "batchq.batch.trigger": batch.trigger.value,
            "batchq.batch.attempt": batch.attempt,
        }
        links = self._origins.of(batch)
        span = self.tracer.start_span(f"{self.queue} batch", links=links, attributes=facts)
        # The call's own context: its hook runs in its task, and ends with it.
        self._open[batch.id] = span, context.attach(trace.set_span_in_context(span))

    def _complete(self, batch: Batch[Any], results: Sequence[Result[Any]]) -> None:
        span, token = self._open.pop(batch.id)
        failed = [result.error for result in results if result.success is False]
        span.set_attribute("batchq.batch.failed", len(failed))
        if failed:
            span.set_status(trace.Status(trace.StatusCode.ERROR, f"{len(failed)} items failed"))
        # An error of the whole call stands in each result, and is told once.
        for error in {id(error): error for error in failed}.values():
            if isinstance(error, Exception):
                span.record_exception(error)
        self._origins.ended(batch)
        context.detach(token)
        span.end()
