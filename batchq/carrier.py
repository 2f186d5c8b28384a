"""A task that runs the calls of a pump, one after another.

To start a task and to open a cancel scope in it takes longer than to settle a hundred items,
so a carrier keeps both from one call to the next.

Rule 1: every call finds the context that the pump began with, and a scope that nobody has
cancelled. A carrier that has them no more is not fit: it ends.
"""

from __future__ import annotations

from contextvars import Context, Token, copy_context
from itertools import repeat
from operator import is_
from typing import Generic, TypeVar

import attrs
import trio

from batchq.core.batch import Batch
from batchq.marks import MARK, Mark

__all__ = ["Carrier"]

T = TypeVar("T")


@attrs.define(eq=False)
class Carrier(Generic[T]):
    """One such task.

    Attributes:
        batch: what it is to run next; None: nothing.
        context: what every call has to find.
        scope: cancels its call.
        calling: the batch of the call under way.
    """

    context: Context
    batch: Batch[T] | None = None
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    calling: Batch[T] | None = None
    _mark: Mark | None = None
    _token: Token[Mark | None] | None = None
    _asleep: trio.lowlevel.Task | None = None

    def begin(self, owner: object, batch: Batch[T]) -> None:
        """Begin the call of its batch, with a mark of its pump."""
        self.calling, self.batch = batch, None
        task = trio.lowlevel.current_task()
        self._mark = Mark(owner, MARK.get(), task, batch.partition)
        self._token = MARK.set(self._mark)

    def leave(self) -> None:
        """Note that the processor is done; tasks that it has left behind are outside now."""
        if self._mark is not None:
            self._mark.active = False

    def end(self) -> None:
        """End the call: after its last hook."""
        if self._token is not None:
            MARK.reset(self._token)
        self.calling = self._mark = self._token = None

    def is_fit(self) -> bool:
        """Whether the next call would find all as the first one did."""
        found, base = copy_context(), self.context
        before = map(base.get, found, repeat(found))  # no value is the context itself
        same = len(found) == len(base) and all(map(is_, found.values(), before))
        return same and not self.scope.cancel_called

    def take(self, batch: Batch[T]) -> None:
        """Carry this batch next; for a carrier that is free."""
        self.batch = batch
        self.wake()

    def wake(self) -> None:
        """End its rest, if it rests."""
        if self._asleep is not None:
            trio.lowlevel.reschedule(self._asleep)
            self._asleep = None

    async def rest(self) -> None:
        """Wait until it is woken."""
        self._asleep = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._asleep = None
        return trio.lowlevel.Abort.SUCCEEDED
