"""Runs the batches of one queue of jobs: calls handlers, and stops what must not go on.

    process(batch) ─▶ handler.run ─▶ returned, or raised ─▶ core ─▶ verdicts(batch, results)
         ▲ lost, unsure, cancelled: a scope is cancelled, `context()` says why

Rule 1: what is not held any more is in no call to come; what is cancelled neither.
Rule 2: a batch goes on while one of its jobs may; a thread goes on until it asks.
Rule 3: a verdict is always submitted, for the store decides whether it counts. What has
none and may be somebody else's by now is not: its attempt is to count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import attrs
import trio

from batchq.call_context import CancelReason
from batchq.calls import Call, Calls
from batchq.core.batch import Batch
from batchq.core.entry import Entry as CoreEntry
from batchq.core.job import Job, Receipt
from batchq.core.result import Result
from batchq.errors import JobStopped, Throttled
from batchq.feeder import Feeder
from batchq.handle import Entry
from batchq.handler import AnyHandler
from batchq.leases import Fate, Leases
from batchq.settler import Settler
from batchq.stop import Stop

__all__ = ["Runner"]

# A verdict that a handler fixes early is written so soon [s]: a crash repeats little, and a
# call for a hundred jobs does not make a hundred commits.
_EARLY: Final = 0.05
# Says of a job that was stopped that the engine is to keep it no longer.
_LEAVES: Final[Result[Any]] = Result.snooze(0.0)
_MOST_ALONE: Final = 1_000


@attrs.define(eq=False, kw_only=True)
class Runner:
    """Calls the handlers of one queue.

    Attributes:
        handlers: by the names of their jobs.
        leases: what is held.
        settler: writes down what becomes of it.
        feeder: claims what comes next.
        stop: when the queue has to end.
        nursery: where what is written early is written.
        waiting: jobs that were claimed and not started yet.
    """

    handlers: Mapping[str, AnyHandler[Any]]
    leases: Leases
    settler: Settler
    feeder: Feeder
    stop: Stop
    nursery: trio.Nursery = attrs.field(init=False)
    waiting: dict[Receipt, Entry[Job[Any], Any]] = attrs.field(factory=dict, init=False)
    _calls: Calls = attrs.field(init=False)
    # Jobs that failed alone in a bisect and may come again, by number.
    _alone: dict[int, bool] = attrs.field(factory=dict, init=False)
    # Lost between two calls, which begin with looking.
    _untold: set[Receipt] = attrs.field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self._calls = Calls(self._write_soon)

    def settle_early(self, job: Job[Any], result: Result[Any]) -> None:
        """Do what `job.settle` says; from any thread."""
        self._calls.settle(job.receipt, result)

    def runs_alone(self, job_id: int) -> bool:
        """Tell whether a job that comes again failed alone in a bisect here."""
        return self._alone.pop(job_id, False)

    async def process(self, batch: Batch[Job[Any]]) -> object:
        """Call the handler of a batch: the engine's processor."""
        leases, flagged = self.leases, self.leases.flagged
        leases.see_to_late()  # a claim may have taken longer than it holds
        call = self._calls.begin(batch)
        asked = partial(self._asked, call, trio.lowlevel.current_clock())
        over = trio.current_time() >= self.stop.at
        for index, job in enumerate(batch.items):
            receipt = job.receipt
            self.waiting.pop(receipt, None)
            if receipt not in leases:
                self._leave_out(call, index)
            elif receipt in flagged:
                call.stop(index, CancelReason.USER)
                batch.settle(index, _LEAVES)
            elif over:
                batch.settle(index, _LEAVES)
        try:
            with call.scope:
                return await self.handlers[batch[0].handler].run(batch, asked)
        except Throttled as throttled:
            self.feeder.hold_back(throttled.retry_after)
            raise
        except JobStopped:
            pass
        finally:
            self._calls.take()  # before what the call came to is judged
        return [_LEAVES] * len(batch)  # all of its jobs were stopped

    def _leave_out(self, call: Call, index: int) -> None:
        """Leave a job out of a call that begins: it is held no more."""
        job = call.batch[index]
        call.done.add(index)
        call.batch.settle(index, _LEAVES)
        if job.receipt in self._untold:
            self._untold.remove(job.receipt)
            self.settler.lost(job)

    def _asked(self, call: Call, clock: trio.abc.Clock) -> CancelReason | None:
        """Tell why a call is to stop, if it is; from any thread."""
        over = clock.current_time() >= self.stop.at
        return call.reason or (CancelReason.SHUTDOWN if over else None)

    def may_retry(self, entry: CoreEntry[Any, Any], error: Exception) -> bool:
        """Tell whether a job may be tried again after an error, and has attempts left."""
        job: Job[Any] = entry.item
        left = job.max_attempts is None or job.used < job.max_attempts
        return left and self.handlers[job.handler].retry.permits(Result.fail(error), error)

    async def verdicts(self, batch: Batch[Job[Any]], results: Sequence[Result[Any]]) -> None:
        """Write down what became of a call, and claim what comes next; shielded."""
        call = self._calls.end(batch)
        self.settler.ledger.count_batch()
        if batch.parent_id is not None and len(batch) == 1 and results[0].success is False:
            self._remember_alone(batch[0].id)
        await self._write(call, call.take_rest(results), feeder=self.feeder)

    def _remember_alone(self, job_id: int) -> None:
        self._alone[job_id] = True
        if len(self._alone) > _MOST_ALONE:  # those that others have claimed since
            del self._alone[next(iter(self._alone))]

    async def _write(
        self, call: Call, verdicts: Mapping[int, Result[Any]], *, feeder: Feeder | None = None
    ) -> None:
        items = call.batch.items
        if call.stopped:
            verdicts = self._without_given_up(call, verdicts)
        left: list[Receipt] = []
        if self.stop.asked.is_set():  # what has not run to its end is the first in line again
            left = [items[index].receipt for index in verdicts if verdicts[index] is _LEAVES]
            verdicts = {index: it for index, it in verdicts.items() if it is not _LEAVES}
        jobs = [items[index] for index in verdicts]
        await self.settler.settle(jobs, list(verdicts.values()), feeder=feeder, release=left)

    def _without_given_up(
        self, call: Call, verdicts: Mapping[int, Result[Any]]
    ) -> dict[int, Result[Any]]:
        """Leave out what is unsure and has no verdict: its lease runs out, and that counts.

        A verdict is written: if nobody else has claimed the job yet, it is taken.
        """
        kept = {}
        for index, result in verdicts.items():
            unsure = call.stopped.get(index) is CancelReason.LEASE_LOST
            if unsure and result.success is None:
                self.settler.lost(call.batch[index])
            else:
                kept[index] = result
        return kept

    def _write_soon(self, call: Call) -> None:
        """Write the verdicts that a handler fixes early, while the call goes on."""
        self.nursery.start_soon(self._write_early, call)

    async def _write_early(self, call: Call) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(_EARLY)
            await self._write(call, call.take_unwritten())
            self.feeder.look()

    def stop_jobs(self, receipts: Sequence[Receipt], fate: Fate) -> None:
        """Stop what runs for jobs that are lost, unsure, or cancelled."""
        for receipt in receipts:
            # What is in no call, and can't be cancelled, is looked at before its next one.
            entry = self.waiting.pop(receipt, None)
            if entry is not None:
                self._stop_waiting(entry, receipt, fate)
            elif (found := self._calls.find(receipt)) is not None:
                self._stop_running(*found, fate)
            elif fate is not Fate.CANCEL:
                self._untold.add(receipt)
        self.feeder.look()

    def _stop_waiting(self, entry: Entry[Job[Any], Any], receipt: Receipt, fate: Fate) -> None:
        job = entry.item
        withdrawn = entry.cancel()  # or it is about to be called, which begins with looking
        if fate is Fate.LOST:
            self.settler.lost(job)
        elif withdrawn or fate is Fate.UNSURE:
            # It has not run: what is unsure is given back, too, and costs no attempt.
            self.nursery.start_soon(self.give_back, [receipt])

    def _stop_running(self, call: Call, index: int, fate: Fate) -> None:
        job = call.batch[index]
        if fate is Fate.LOST:
            call.done.add(index)
            call.unwritten.pop(index, None)
            self.settler.lost(job)
        reason = CancelReason.USER if fate is Fate.CANCEL else CancelReason.LEASE_LOST
        # The others of its batch go on; a thread can't be stopped.
        if call.stop(index, reason) and self.handlers[job.handler].is_async:
            call.scope.cancel()

    def stop_calls(self) -> bool:
        """Stop what runs, if there are threads, for the grace is over; tell whether there are.

        They can only be asked to stop; those who wait for them stop meanwhile.
        """
        calls = [(call, self.handlers[call.batch[0].handler]) for call in self._calls.all]
        threads = any(not handler.is_async for _, handler in calls)
        for call, handler in calls:
            if threads and handler.is_async:
                call.scope.cancel()
        return threads

    async def give_back(self, receipts: Sequence[Receipt]) -> None:
        """Give jobs back that were not run; no cancellation comes between."""
        with trio.CancelScope(shield=True):
            await self.settler.settle((), (), release=receipts)

    async def give_all_back(self) -> None:
        """Write down what interrupted calls had decided, and give back what is held."""
        calls = [(call, call.take_rest()) for call in self._calls.end_all()]
        jobs = [call.batch[index] for call, verdicts in calls for index in verdicts]
        results = [result for _, verdicts in calls for result in verdicts.values()]
        settled = {job.receipt for job in jobs}
        left = [receipt for receipt in self.leases.held if receipt not in settled]
        await self.settler.settle(jobs, results, release=left)
