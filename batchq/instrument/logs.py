"""What a queue does, as log records of the standard library, with fields.

    INFO  batch done  {"queue": "mail", "batch": 7, "items": 50, "failed": 1, "seconds": 0.21}

Rule 1: facts stand in a record's `extra`: a JSON formatter, or structlog's `ExtraAdder`,
has them as fields.
Rule 2: no item is written, for it may be anybody's; `describe` says what may be told.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import trio

from batchq.core.batch import Batch
from batchq.core.result import Result
from batchq.hooks import Hooks

__all__ = ["LogWriter"]


@attrs.define(eq=False)
class LogWriter:
    """Logs what one queue does: `BatchedQueue(..., hooks=LogWriter("mail").hooks)`.

    Attributes:
        queue: its name, in each record.
        logger: where the records go.
        describe: what to tell of an item, as the field `item`; None: nothing.
    """

    queue: str
    logger: logging.Logger = attrs.field(factory=lambda: logging.getLogger("batchq.queue"))
    describe: Callable[[Any], object] | None = None

    @property
    def hooks(self) -> Hooks[Any, Any]:
        """DEBUG: a call begins. WARNING: an item failed, or left without a verdict."""
        return Hooks(
            on_batch_start=self._start,
            on_batch_complete=self._complete,
            on_retry=self._retry,
            on_drop=self._drop,
            on_dead_letter=self._dead,
            on_error=self._error,
            on_throttled=lambda delay, cause: self._say("throttled", delay=delay, cause=cause),
            on_pause=lambda: self._say("paused"),
            on_resume=lambda: self._say("resumed"),
            on_drained=lambda report: self._say("drained", **attrs.asdict(report)),
            on_state_saved=lambda count: self._say("state saved", items=count),
            on_state_restored=lambda count: self._say("state restored", items=count),
        )

    def _say(self, event: str, level: int = logging.INFO, /, **facts: object) -> None:
        self.logger.log(level, event, extra={"queue": self.queue, **facts})

    def _of(self, item: object) -> dict[str, object]:
        return {} if self.describe is None else {"item": self.describe(item)}

    def _start(self, batch: Batch[Any]) -> None:
        facts = {"batch": batch.id, "items": len(batch), "attempt": batch.attempt}
        self._say("batch begins", logging.DEBUG, trigger=batch.trigger.value, **facts)

    def _complete(self, batch: Batch[Any], results: Sequence[Result[Any]]) -> None:
        seconds = round(trio.current_time() - batch.started_at, 6)
        failed = sum(result.success is False for result in results)
        self._say("batch done", batch=batch.id, items=len(batch), failed=failed, seconds=seconds)

    def _retry(self, item: object, error: Exception, *how: float) -> None:
        attempt, delay = how
        facts = self._of(item) | {"error": repr(error), "attempt": attempt}
        self._say("item comes again", delay=round(delay, 6), **facts)

    def _drop(self, item: object, reason: str) -> None:
        self._say("item dropped", logging.WARNING, reason=reason, **self._of(item))

    def _dead(self, item: object, error: Exception) -> None:
        self._say("item failed", logging.WARNING, error=repr(error), **self._of(item))

    def _error(self, error: Exception) -> None:
        facts = {"queue": self.queue, "error": repr(error)}
        self.logger.error("call failed", exc_info=error, extra=facts)
