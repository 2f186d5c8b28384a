"""What callers hold: the core's entry, with waiting."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import trio

from batchq.core import entry as core
from batchq.core.result import Result
from batchq.core.retry import error_of

__all__ = ["Entry", "Handle"]

T = TypeVar("T")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_SCHEDULE_EVERY: Final = 64  # looks at settled entries between two that let other tasks run


class Handle(Protocol[R_co]):
    """What a handler's `enqueue` returns, in the memory tier and in the durable one."""

    @property
    def id(self) -> int:
        """Its number, unique in its queue or store."""

    @property
    def status(self) -> str:
        """Where it is, in one word, when last looked at."""

    async def result(self, timeout: float | None = None) -> R_co:  # noqa: ASYNC109
        """Wait for the value.

        Args:
            timeout: how long to wait [s]; None is no limit.

        Raises:
            TimeoutError: it was not settled in time; it goes on.
            Exception: what it failed with.
        """


class Entry(core.Entry[T, R]):
    """An item that a queue has accepted, and what became of it.

    Attributes:
        id: follows the order of admission; unique within a run.
        item: what was enqueued; None once settled.
        priority: its level; 0 goes first.
        enqueued_at: when it was admitted [s, trio's clock].
        status: where it is.
        attempts: runs on it that ended in a verdict [count].
    """

    async def wait(self) -> Result[R]:
        """Wait until it is settled, and return what became of it.

        Never raises for an item that failed. Cancelling this ends the waiting, not the
        entry. A cancel point in any case; see `result`.
        """
        await self.wait_or(_do_nothing)
        return self.verdict

    async def result(self) -> R:
        """Wait until it is settled, and return its value.

        Of a settled one it is a cancel point, and lets other tasks run at every 64th call
        in its queue: many results are awaited in a row.

        Raises:
            Exception: the very error that it failed with, with the traceback it had when
                it settled, so that many waiters do not grow it; what is no exception
                comes as an `ItemError`.
        """
        await self.wait_or(_do_nothing)
        return self.value()

    def value(self) -> R:
        """Return the value of a settled entry, or raise its error; see `result`."""
        answer: Any = self.answer
        if self.code == core.SUCCEEDED:
            return answer.value if type(answer) is Result else answer  # type: ignore[return-value]  # the processor's, of type R
        verdict = self.verdict
        # An Exception only: somebody else's Cancelled would tear down the caller.
        if isinstance(verdict.error, Exception):
            raise verdict.error.with_traceback(self.trace)
        raise error_of(verdict, self.item, self.attempts)

    # To trio, what a woken task is given is an outcome; `process` is given the entry.
    unwrap = value

    def wake(self) -> None:
        """Wake who waits: the one task that wants the value, or each in its own way."""
        waiter, self.waiter = self.waiter, None
        if type(waiter) is list:
            for wake in waiter:
                wake()
        else:
            trio.lowlevel.reschedule(waiter, self)  # type: ignore[arg-type]  # see unwrap

    def withdraw(self, _: object = None) -> trio.lowlevel.Abort:
        """Cancel the entry because the first who waited for it was cancelled."""
        if type(self.waiter) is list:
            del self.waiter[0]
        else:
            self.waiter = None
        self.cancel()
        return trio.lowlevel.Abort.SUCCEEDED

    def withdraw_in_time(self, _: object = None) -> trio.lowlevel.Abort:
        """Cancel the entry for the only one who waits for it, unless its call has begun."""
        waiter, self.waiter = self.waiter, None
        if self.cancel():
            return trio.lowlevel.Abort.SUCCEEDED
        self.waiter = waiter
        return trio.lowlevel.Abort.FAILED

    async def wait_or(self, give_up: Callable[[], object]) -> None:
        """Wait until it is settled; when cancelled, call `give_up` and wait no more."""
        if self.code > core.IN_FLIGHT:
            owner = self.owner
            owner.looks += 1
            if owner.looks % _SCHEDULE_EVERY:
                await trio.lowlevel.checkpoint_if_cancelled()
            else:
                await trio.lowlevel.checkpoint()
            return
        wake = partial(trio.lowlevel.reschedule, trio.lowlevel.current_task())
        self._add(wake)

        def abort(_: object) -> trio.lowlevel.Abort:
            self._remove(wake)
            give_up()
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def _add(self, wake: Callable[[], object]) -> None:
        if self.waiter is None:
            self.waiter = []
        elif type(self.waiter) is not list:
            self.waiter = [partial(trio.lowlevel.reschedule, self.waiter, self)]  # type: ignore[arg-type]  # see unwrap
        self.waiter.append(wake)

    def _remove(self, wake: Callable[[], object]) -> None:
        self.waiter.remove(wake)
        self.waiter = self.waiter or None


def _do_nothing() -> None:
    """Let a waiter go."""
