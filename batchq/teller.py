"""Tells the hooks of a queue what has happened.

Rule 1: the queue is consistent whenever a hook runs, and what a hook does changes nothing
of what the others are told.
Rule 2: an error of which no hook is told goes to the log, and so do drops; of what happens
again and again once a minute.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import attrs

from batchq.core.answers import read_answer
from batchq.core.batch import Batch
from batchq.core.batcher import Batcher
from batchq.core.entry import DELAYED, FAILED, SUCCEEDED, Entry
from batchq.core.result import Result
from batchq.core.retry import error_of, said
from batchq.core.splitting import Judged
from batchq.errors import HookError
from batchq.hooks import Watchers
from batchq.repeats import Repeats

__all__ = ["Teller", "results_of"]

T = TypeVar("T")
R = TypeVar("R")

logger = logging.getLogger("batchq")


@attrs.define(eq=False)
class Teller(Generic[T, R]):
    """Knows what the hooks were told.

    Attributes:
        batcher: what to tell of.
        watchers: whom to tell.
        name: the queue's, for messages.
        of_entries: whether a new item may mean that somebody is told: mostly not.
    """

    batcher: Batcher[T, R]
    watchers: Watchers[T, R]
    name: str
    of_entries: bool = False
    _size: int = 0
    _idle: bool = True
    _repeats: Repeats = attrs.field(factory=Repeats)

    def __attrs_post_init__(self) -> None:
        if not self.watchers.on_error:
            self.watchers.on_error = (self._warn_of_error,)

    def tell_state(self) -> None:
        """Tell of the size, and that nothing is left, where it has changed."""
        size = self.batcher.waiting.size
        if size != self._size:
            self._size = size
            if self.watchers.on_queue_size_change:
                self.watchers.tell(self.watchers.on_queue_size_change, size)
        if self.watchers.on_idle:
            was, self._idle = self._idle, self.batcher.idle
            if self._idle and not was:
                self.watchers.tell(self.watchers.on_idle)

    def tell_changes(self) -> None:
        """Tell the hooks of what happened in the core since they were last told."""
        batcher, watchers = self.batcher, self.watchers
        if batcher.door.admitted:
            admitted, batcher.door.admitted = batcher.door.admitted, []
            for entry in admitted:
                watchers.tell(watchers.on_enqueue, entry.item)
        while batcher.news.events:
            for event, arguments in batcher.news.take():
                watchers.tell_of(event, *arguments)
        while batcher.unwanted:
            watchers.tell(watchers.on_drop, batcher.unwanted.pop(0), "cancelled")
        while batcher.complaints:
            watchers.tell(watchers.on_error, batcher.complaints.pop(0))
        while batcher.limits.waits:
            delay, cause = batcher.limits.waits.pop(0)
            watchers.tell(watchers.on_throttled, delay, cause.value)

    def tell_enqueued(self, entries: Sequence[Entry[Any, Any]]) -> None:
        """Tell the hooks of entries just admitted, and of items dropped for them.

        An entry that was shared meanwhile, or that was there before, is told of once.
        """
        door, watchers = self.batcher.door, self.watchers
        dropped, door.dropped = door.dropped, []
        for entry in entries:
            if entry.more is not None:
                told, entry.more.told = entry.more.told, True
                if told:
                    continue
            if not entry.settled:
                watchers.tell(watchers.on_enqueue, entry.item)
        for item in dropped:
            watchers.tell(watchers.on_drop, item, "overflow")
        if dropped:
            self._warn_of_drops(len(dropped))

    def tell_call(
        self,
        batch: Batch[T],
        concerns: Batch[T],
        results: Sequence[Result[Any]],
        *,
        now: float,
        current: bool,
    ) -> None:
        """Tell what became of each entry that a call concerns, then of the call."""
        watchers = self.watchers
        # Looked at before anybody is told: a hook may cancel an entry that comes again.
        ends = [
            (entry.code, item, result, entry.attempts, entry.due - now)
            for index, (entry, item, result) in enumerate(
                zip(concerns.entries, concerns.items, results, strict=True)
            )
            if current or index in batch.early
        ]
        for code, item, result, attempts, delay in ends:
            if code in {SUCCEEDED, FAILED}:
                watchers.tell(watchers.on_processed, item, result)
                if code == FAILED and watchers.on_dead_letter:
                    watchers.tell(watchers.on_dead_letter, item, error_of(result, item, attempts))
            elif code == DELAYED and result.success is False:
                error = error_of(result, item, attempts)
                watchers.tell(watchers.on_retry, item, error, attempts, delay)
        watchers.tell(watchers.on_batch_complete, batch, results[: len(batch)])

    def _warn_of_drops(self, count: int) -> None:
        if told := self._repeats.due("drops", count):
            logger.warning("queue %r is full: %d items dropped", self.name, told)

    def _warn_of_error(self, error: Exception) -> None:
        if isinstance(error, HookError):
            return  # the log was told of it where it was raised
        told = self._repeats.due(type(error))
        if told:
            kind, again = type(error).__name__, "" if told == 1 else f" ({told} of them)"
            logger.warning(
                "queue %r: %s%s: %s (give it an on_error hook to be told of each)",
                self.name, kind, again, said(error), exc_info=error,
            )  # fmt: skip


def results_of(judged: Judged) -> list[Result[Any]]:
    """Read the answers as one result per item, in order, early verdicts in their place."""
    batch = judged.batch
    found = [None] * len(batch) if judged.results is None else judged.results
    results = [read_answer(answer) for answer in found]
    for index, result in batch.early.items():
        results[index] = result
    return results
