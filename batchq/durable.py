"""One named queue of jobs: claimed from the store, batched, run, settled.

    feeder ─▶ ledger: claim ─▶ leases.hold ─▶ BatchedQueue ─▶ handler.run(batch)
                ▲                                                  │ results, or raises
                └──── ledger: settle + the next claim ◀── verdicts ┘

Rule 1: no batching rule, timer or retry arithmetic stands here: the engine decides when a
batch starts, `core/attempt.py` what becomes of a job, the store whether it may still be so.
Rule 2: a job's room is free when its settlement is submitted, and the next claim goes with
it: in steady state a cycle is one transaction.
Rule 3: stopping loses no verdict. What has not started is given back at once, what runs has
its grace, what is left is cancelled and given back.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any, Final

import trio

from batchq.calls import Call, Calls
from batchq.core.batch import Batch
from batchq.core.job import ClaimedJob, Job, Receipt, Undecoded
from batchq.core.job_options import JobQueueOptions
from batchq.core.result import Result
from batchq.ends import Ends
from batchq.errors import DrainTimeout, StoreError, Throttled
from batchq.feeder import Feeder
from batchq.handle import Entry
from batchq.handler import AnyHandler
from batchq.hooks import JobWatchers
from batchq.leases import Leases
from batchq.ledger import Ledger
from batchq.queue import BatchedQueue
from batchq.settler import Settler, Stop, tell_of_trouble
from batchq.work_queue import work_queue

__all__ = ["DurableQueue"]

# A verdict that a handler fixes early is written so soon [s]: a crash repeats little, and a
# call for a hundred jobs does not make a hundred commits.
_EARLY: Final = 0.05


class DurableQueue:
    """Works on one queue of jobs in this process."""

    def __init__(
        self,
        options: JobQueueOptions,
        handlers: Iterable[AnyHandler[Any]],
        *,
        ledger: Ledger,
        watchers: JobWatchers,
        ends: Ends,
    ) -> None:
        """Make a queue that does not work yet.

        Args:
            options: how this process works on it.
            handlers: whose jobs it claims: any number of plain ones, or one batch handler.
            ledger: the road to the store.
            watchers: whom to tell.
            ends: who waits for jobs to end.
        """
        self._options = options
        self._handlers = {name: each for each in handlers for name in each.names}
        self._calls = Calls(self._write_soon)
        self._work = self._engine(watchers)
        self._stop = Stop()
        self._nursery: trio.Nursery
        # Claimed and not started yet.
        self._waiting: dict[Receipt, Entry[Job[Any], Any]] = {}
        failed = partial(tell_of_trouble, watchers, options.name)
        self._leases = Leases(ledger, options.lease, on_lost=self._lost, on_error=failed)
        self._settler = Settler(
            queue=options.name,
            handlers=self._handlers,
            ledger=ledger,
            leases=self._leases,
            watchers=watchers,
            ends=ends,
            on_error=failed,
            stop=self._stop,
        )
        self._feeder = Feeder(
            queue=options.name,
            handlers=tuple(self._handlers),
            most=options.most_held,
            poll_interval=options.poll_interval,
            ledger=ledger,
            leases=self._leases,
            accept=self._accept,
            on_error=failed,
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Claim and run jobs until `stop`; then finish or give back what is held.

        Raises:
            StoreBroken: the store must not be used any more.
        """
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._leases.run)
            try:
                async with self._work:
                    await self._work_until_stop(task_status)
            finally:
                with trio.CancelScope(shield=True):
                    await self._clear_away(crashed=sys.exception() is not None)
            nursery.cancel_scope.cancel()

    async def _work_until_stop(self, task_status: trio.TaskStatus[None]) -> None:
        try:
            self._nursery.start_soon(self._feeder.run)
            task_status.started()
            await self._stop.asked.wait()
            await self._wind_down()
        except BaseException:
            self._stop.ask(0.0)  # the engine is ending: what is claimed now has no place
            raise

    def stop(self, grace: float) -> None:
        """Claim no more, and end within `grace` [s], or soon after."""
        self._stop.ask(grace)

    def wake(self) -> None:
        """Look for jobs now: some were stored here."""
        self._feeder.wake()

    def _engine(self, watchers: JobWatchers) -> BatchedQueue[Job[Any], Any]:
        options = self._options
        return work_queue(
            self._process,
            self._verdicts,
            name=options.name,
            batch_size=options.batch_size,
            flush_interval=options.flush_interval,
            concurrency=options.concurrency,
            max_queue_size=None,  # the feeder claims no more than has a place
            shutdown_timeout=None,
            hooks=watchers.of_engine,
        )

    async def _wind_down(self) -> None:
        self._work.pause()
        # One that can't be cancelled is in flight: its call is about to begin.
        waiting = [receipt for receipt, entry in self._waiting.items() if entry.cancel()]
        self._nursery.start_soon(self._give_back, waiting)
        await self._feeder.stop()
        with suppress(DrainTimeout):
            await self._work.drain(max(0.0, self._stop.at - trio.current_time()))

    async def _clear_away(self, *, crashed: bool) -> None:
        """Write down what interrupted calls had decided, and give back what is held."""
        if crashed:
            await self._feeder.stop()
        # What has ended the queue goes before what its store says of it now.
        with suppress(StoreError) if crashed else nullcontext():
            for call in self._calls.end_all():
                await self._write(call, call.take_rest())
            await self._settler.release(self._leases.held)

    async def _give_back(self, receipts: Sequence[Receipt]) -> None:
        with trio.CancelScope(shield=True):
            await self._settler.release(receipts)

    def _accept(self, claimed: Sequence[ClaimedJob]) -> None:
        """Give claimed jobs their places in the engine."""
        if self._stop.asked.is_set():
            self._nursery.start_soon(self._give_back, [each.receipt for each in claimed])
            return
        entries = self._work.enqueue_many_nowait([self._job(each) for each in claimed])
        self._waiting.update(zip([each.receipt for each in claimed], entries, strict=True))

    def _job(self, claimed: ClaimedJob) -> Job[Any]:
        signature = self._handlers[claimed.handler].signature
        return Job(
            id=claimed.receipt.job_id,
            attempt=claimed.receipt.attempt,
            queue=self._options.name,
            handler=claimed.handler,
            priority=claimed.priority,
            used=claimed.used,
            max_attempts=claimed.max_attempts,
            enqueued_at=claimed.enqueued_at,
            payload=Undecoded(claimed.payload, signature.decode),
            settle=self._settle,
            receipt=claimed.receipt,
        )

    def _settle(self, job: Job[Any], result: Result[Any]) -> None:
        self._calls.settle(job.receipt, result)

    async def _process(self, batch: Batch[Job[Any]]) -> object:
        """Call the handler of a batch: the engine's processor."""
        call = self._calls.begin(batch)
        for job in batch:
            self._waiting.pop(job.receipt, None)
        try:
            with call.scope:
                return await self._handlers[batch[0].handler].run(batch)
        except Throttled as throttled:
            self._feeder.hold_back(throttled.retry_after)
            raise
        return batch.no_verdicts()  # its leases were lost, all of them

    async def _verdicts(self, batch: Batch[Job[Any]], results: Sequence[Result[Any]]) -> None:
        """Write down what became of a call, and claim what comes next; shielded."""
        call = self._calls.end(batch)
        self._settler.ledger.count_batch()
        await self._write(call, call.take_rest(results), feeder=self._feeder)

    async def _write(
        self, call: Call, verdicts: Mapping[int, Result[Any]], *, feeder: Feeder | None = None
    ) -> None:
        items = call.batch.items
        jobs = [items[index] for index in verdicts]
        await self._settler.settle(jobs, list(verdicts.values()), feeder=feeder)

    def _write_soon(self, call: Call) -> None:
        """Write the verdicts that a handler fixes early, while the call goes on."""
        self._nursery.start_soon(self._write_early, call)

    async def _write_early(self, call: Call) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(_EARLY)
            await self._write(call, call.take_unwritten())
            self._feeder.look()

    def _lost(self, receipt: Receipt) -> None:
        """Stop what runs for a job that is somebody else's now."""
        entry = self._waiting.pop(receipt, None)
        if entry is not None:
            job = entry.item
            # One that can't be cancelled is about to be called: the store refuses what it gives.
            if entry.cancel():
                self._settler.lost(job)
        elif (found := self._calls.lose(receipt)) is not None:
            call, job = found
            self._settler.lost(job)
            self._feeder.look()
            # The others of its batch go on; a thread can't be stopped.
            if call.over and self._handlers[job.handler].is_async:
                call.scope.cancel()
