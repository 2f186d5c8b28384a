"""The calls of one queue's handlers that are under way, job by job.

Rule 1: `settle` may be called from any thread; everything else happens in the event loop.
Rule 2: a verdict that a handler has fixed counts at once, whatever the call does later. It
is written at the end of the call, or a little after it was fixed if that is sooner.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import attrs
import trio

from batchq.call_context import CancelReason
from batchq.core.batch import Batch
from batchq.core.job import Job, Receipt
from batchq.core.result import Result
from batchq.core.settling import GOES_ON
from batchq.errors import LeaseLost

__all__ = ["Call", "Calls"]


@attrs.define(eq=False)
class Call:
    """One call of a handler.

    Attributes:
        batch: the jobs it was made for.
        scope: cancels it.
        unwritten: verdicts fixed early and not submitted yet, by position.
        done: positions whose verdict was submitted, or whose lease was lost.
        stopped: why the handler is to stop, by position.
        reason: the same of the whole call; None: it may go on.
    """

    batch: Batch[Job[Any]]
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    unwritten: dict[int, Result[Any]] = attrs.field(factory=dict)
    done: set[int] = attrs.field(factory=set)
    stopped: dict[int, CancelReason] = attrs.field(factory=dict)
    reason: CancelReason | None = None

    @functools.cached_property
    def places(self) -> dict[Receipt, int]:
        """The position of each job; most calls are never asked."""
        return {job.receipt: index for index, job in enumerate(self.batch)}

    def stop(self, index: int, reason: CancelReason) -> bool:
        """Note that a job's handler is to stop; tell whether the whole call is.

        It goes on for the others, if there are any.
        """
        self.stopped[index] = reason
        if len(self.done | self.stopped.keys()) < len(self.batch):
            return False
        asked = CancelReason.USER in self.stopped.values()
        self.reason = CancelReason.USER if asked else CancelReason.LEASE_LOST
        return True

    def take_unwritten(self) -> dict[int, Result[Any]]:
        """Give out what is to be submitted now, by position."""
        taken, self.unwritten = self.unwritten, {}
        self.done.update(taken)
        return taken

    def take_rest(self, results: Sequence[Result[Any]] = ()) -> dict[int, Result[Any]]:
        """Give out what is left to be submitted when the call has ended, by position.

        Args:
            results: what the call came to, one per job, in order; empty: it was
                interrupted. What was fixed early goes before them. With some a bisect
                goes on.
        """
        taken = dict(enumerate(results))
        if self.done or self.batch.early or self.batch.bisect is not None:
            taken |= self.batch.early
            taken = {
                index: result
                for index, result in taken.items()
                if result is not GOES_ON and index not in self.done
            }
        self.unwritten = {}
        self.done.update(taken)
        return taken


@attrs.define(eq=False)
class Calls:
    """Finds the call that a job is in.

    Attributes:
        on_early: told of a call in which verdicts were fixed early, the first time and
            whenever all such had been taken.
    """

    on_early: Callable[[Call], object]
    # By the batch's number. Replaced, never changed: threads look into it.
    _by_batch: dict[int, Call] = attrs.field(factory=dict, init=False)
    _inbox: deque[tuple[Receipt, Result[Any]]] = attrs.field(factory=deque, init=False)
    _token: trio.lowlevel.TrioToken | None = attrs.field(default=None, init=False)

    def begin(self, batch: Batch[Job[Any]]) -> Call:
        """Note that a call begins."""
        self._token = self._token or trio.lowlevel.current_trio_token()
        call = Call(batch)
        self._by_batch = {**self._by_batch, batch.id: call}
        return call

    def end(self, batch: Batch[Job[Any]]) -> Call:
        """Note that a call has ended; what was fixed early until now counts.

        Args:
            batch: its own, or the same with more jobs that its end concerns.
        """
        self.take()
        call = self._by_batch[batch.id]
        self._by_batch = {other: each for other, each in self._by_batch.items() if each is not call}
        call.batch = batch
        return call

    @property
    def all(self) -> list[Call]:
        """Those that are under way."""
        return list(self._by_batch.values())

    def end_all(self) -> list[Call]:
        """Note that all calls have ended; returns those that were interrupted."""
        return [self.end(call.batch) for call in self.all]

    def settle(self, receipt: Receipt, result: Result[Any]) -> None:
        """Fix the verdict of a job whose call is under way; from any thread.

        Raises:
            LeaseLost: the call is under way no more.
            TypeError: it is no Result.
        """
        if not isinstance(result, Result):
            raise TypeError(f"a job is settled with a Result, as Result.ok(); got {result!r}")
        if self.find(receipt) is None:
            raise LeaseLost(
                f"job {receipt.job_id} can't be settled: the call for it is over; it has its"
                " verdict, or was given back"
            )
        self._inbox.append((receipt, result))
        if self._token is not None:
            with suppress(trio.RunFinishedError):  # it has stopped this very moment
                self._token.run_sync_soon(self.take, idempotent=True)

    def find(self, receipt: Receipt) -> tuple[Call, int] | None:
        """Return the call that a job is in, and its position there; from any thread."""
        for call in self._by_batch.values():
            index = call.places.get(receipt)
            if index is not None:
                return call, index
        return None

    def take(self) -> None:
        """Let what was fixed early until now count."""
        while self._inbox:
            receipt, result = self._inbox.popleft()
            place = self.find(receipt)
            if place is None or place[1] in place[0].done:
                continue  # too late: its call has ended, or it was settled or lost before
            call, index = place
            call.batch.settle(index, result)
            # What comes again waits for the end of the call: its next run is not to meet it.
            final = result.success or result.retryable is False
            if final and call.batch.entries[index].settled and index not in call.unwritten:
                call.unwritten[index] = call.batch.early[index]
                if len(call.unwritten) == 1:
                    self.on_early(call)
