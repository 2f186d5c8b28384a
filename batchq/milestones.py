"""Who waits for a queue as a whole: for room, until it is flushed, idle or drained.

Rule 1: nothing is decided here; the pump calls `look` at the end of each of its steps.
Rule 2: a drain belongs to the queue, not to its callers: they join it, and cancelling
them ends their waiting only.
"""

from __future__ import annotations

import math
from typing import Any

import attrs
import trio

from batchq.core.batcher import Batcher
from batchq.core.checks import check_quantity, inf_for_none
from batchq.core.statistics import DrainReport, QueueStats
from batchq.errors import DrainTimeout, QueueClosed, QueueError
from batchq.pump import Pump

__all__ = ["Milestones", "seconds"]


@attrs.define(eq=False)
class _Drain:
    """A drain that callers wait for together."""

    began: QueueStats
    deadline: float = math.inf
    ended: trio.Event = attrs.field(factory=trio.Event)
    report: DrainReport | None = None
    error: QueueError | None = None


@attrs.define(eq=False)
class Milestones:
    """The waiting of one queue's callers.

    Attributes:
        name: the queue's, for messages.
        batcher: decides.
        pump: is told when to look again; set once it is made.
        failed: whether a drain has run out of time.
    """

    name: str
    batcher: Batcher[Any, Any]
    pump: Pump[Any, Any] = attrs.field(init=False)
    failed: bool = False
    _drain: _Drain | None = None
    _idle: trio.Event | None = None
    _room: trio.Event | None = None

    def look(self, now: float) -> None:
        """Wake those whose time has come at `now` [s]."""
        if self._drain is not None:
            self._look_at_drain(self._drain, now)
        if self._idle is not None and self.batcher.idle:
            self._idle.set()
            self._idle = None
        if self._room is not None and self.batcher.door.room():
            self.wake_room()

    def wake_room(self) -> None:
        """Let those who wait for room look again."""
        if self._room is not None:
            self._room.set()
            self._room = None

    async def wait_room(self) -> None:
        """Wait until something may have made room."""
        if self._room is None:
            self._room = trio.Event()
        await self._room.wait()

    async def flush(self, timeout: float) -> None:  # noqa: ASYNC109
        """Make what is pending due, and wait until it is settled or delayed."""
        flush = self.batcher.flush()
        if not flush.left:
            await trio.lowlevel.checkpoint()
            return
        done = trio.Event()
        flush.wake = done.set
        self.pump.wake()
        try:
            with trio.fail_after(timeout):
                await done.wait()
        finally:
            self.batcher.waiting.flushes.forget(flush)

    async def wait_idle(self) -> None:
        """Wait until nothing waits and no call runs, be it for a moment."""
        await trio.lowlevel.checkpoint()
        if not self.batcher.idle:
            if self._idle is None:
                self._idle = trio.Event()
            await self._idle.wait()

    async def drain(self, timeout: float) -> DrainReport:  # noqa: ASYNC109
        """Begin a drain or join the one under way, at the earlier of the deadlines."""
        now = trio.current_time()
        if self._drain is None:
            self._drain = _Drain(began=self.batcher.stats(now))
            self.batcher.drain()
            self.wake_room()
        drain = self._drain
        drain.deadline = min(drain.deadline, now + timeout)
        self._look_at_drain(drain, now)
        if not drain.ended.is_set():
            self.pump.limit = drain.deadline
            self.pump.wake()
        await drain.ended.wait()
        if drain.report is None:
            raise self._error_of(drain)
        return drain.report

    async def leave(self, timeout: float) -> None:  # noqa: ASYNC109
        """Drain because the queue's block ends.

        Raises:
            DrainTimeout: `timeout` [s] was up, and nothing goes on any more.
        """
        try:
            await self.drain(timeout)
        except DrainTimeout as error:
            raise DrainTimeout(
                f"queue {self.name!r} was left before it was drained (shutdown_timeout="
                f"{timeout:g}): {error.remaining} entries have no verdict and are closed;"
                " with persistence they come back",
                remaining=error.remaining,
            ) from None

    def abandon(self, error: QueueError) -> None:
        """Tell those who wait for a drain that the queue has ended without it."""
        if self._drain is not None:
            self._drain.error = error
            self._drain.ended.set()
            self._drain = None

    def _error_of(self, drain: _Drain) -> QueueError:
        """Make this caller's own error: one for all would grow a tangled traceback."""
        if isinstance(drain.error, DrainTimeout):
            return DrainTimeout(str(drain.error), remaining=drain.error.remaining)
        return QueueClosed(str(drain.error))

    def _look_at_drain(self, drain: _Drain, now: float) -> None:
        if self.batcher.idle:
            ended = self.batcher.stats(now)
            drain.report = DrainReport(
                succeeded=ended.succeeded - drain.began.succeeded,
                failed=ended.failed - drain.began.failed,
                expired=ended.expired - drain.began.expired,
                dropped=ended.dropped - drain.began.dropped,
                cancelled=ended.cancelled - drain.began.cancelled,
            )
        elif drain.deadline <= now:
            self.batcher.stop_draining(now)
            left = self.batcher.size
            drain.error = DrainTimeout(
                f"queue {self.name!r} was not drained in time: {left} entries are left;"
                " the queue is paused and closed, and another drain() would go on",
                remaining=left,
            )
            self.failed = True
        else:
            return
        self.pump.limit = math.inf
        if drain.report is None:
            self.pump.cancel_calls()
        else:
            self.pump.watchers.tell(self.pump.watchers.on_drained, drain.report)
        self._drain = None
        drain.ended.set()


def seconds(timeout: float | None) -> float:
    """Read a timeout [s]; None is no limit.

    Raises:
        OptionError: it is negative, or no number.
    """
    check_quantity("timeout", timeout, or_none=True)
    return inf_for_none(timeout)
