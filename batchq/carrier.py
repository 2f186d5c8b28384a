"""A task that runs the calls of a pump, one after another.

To start a task and to open a cancel scope in it takes longer than to settle a hundred items,
so a carrier keeps both from one call to the next.

Rule 1: every call finds the context that the pump began with, and a scope that nobody has
cancelled. A carrier that has them no more is not fit: it ends.
"""

from __future__ import annotations

from collections.abc import Awaitable
from contextvars import Context, ContextVar, Token, copy_context
from typing import Any, Generic, TypeVar

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
    _cancelled: bool = False
    _mark: Mark | None = None
    _token: Token[Mark | None] | None = None
    _found: tuple[tuple[ContextVar[Any], object], ...] = attrs.field(init=False)
    _asleep: trio.lowlevel.Task | None = None
    _woken: bool = False

    def __attrs_post_init__(self) -> None:
        self._found = tuple(self.context.items())

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

    def cancel(self) -> None:
        """Cancel its call."""
        self._cancelled = True
        self.scope.cancel()

    def is_fit(self, *, limited: bool) -> bool:
        """Whether the next call would find all as the first one did; `limited`: by time."""
        if len(copy_context()) != len(self._found):
            return False
        for variable, value in self._found:
            if variable.get(self) is not value:  # it has no value where it returns the carrier
                return False
        # Asking the scope takes a reading of the clock.
        return not self._cancelled and not (limited and self.scope.cancel_called)

    def take(self, batch: Batch[T]) -> None:
        """Carry this batch next; for a carrier that is free."""
        self.batch = batch
        self.wake()

    def wake(self) -> None:
        """End its rest, if it rests."""
        if self._asleep is not None:
            # To trio, what a woken task is given is an outcome.
            trio.lowlevel.reschedule(self._asleep, self)  # type: ignore[arg-type]  # see unwrap
            self._asleep = None

    def rest(self) -> Awaitable[bool]:
        """Wait until it is woken; False: it was cancelled, as the next checkpoint will tell."""
        self._asleep, self._woken = trio.lowlevel.current_task(), True
        # Awaited by whoever rests: one frame less to go through.
        return trio.lowlevel.wait_task_rescheduled(self._abort)  # noqa: ASYNC105

    def unwrap(self) -> bool:
        """Tell the task that was resting whether it was woken."""
        return self._woken

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        # Mostly it is its alarm: to raise Cancelled, and catch it at once, takes long.
        self._woken = False
        self.wake()
        return trio.lowlevel.Abort.FAILED
