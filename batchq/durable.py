"""One named queue of jobs: claimed from the store, batched, run, settled.

    feeder ─▶ ledger: claim ─▶ leases.hold ─▶ BatchedQueue ─▶ handler.run(batch)
                ▲                                                  │ results, or raises
                └──── ledger: settle + the next claim ◀── verdicts ┘

Rule 1: no batching rule, timer or retry arithmetic stands here: the engine decides when a
batch starts, `core/attempt.py` what becomes of a job, the store whether it may still be so.
Rule 2: a job's room is free when its settlement is submitted, and the next claim goes with
it: in steady state a cycle is one transaction.
Rule 3: stopping loses no verdict. What has not started is given back at once, what runs has
its grace, what is left is cancelled and given back; a thread has a moment to notice it.
Rule 4: whatever stops a handler (a cancel, a lost lease, its timeout, a shutdown) is the
cancellation of a scope around it; `context()` tells the reason.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, suppress
from itertools import groupby
from typing import Any

import trio

from batchq.core.job import ClaimedJob, Job, Receipt, Undecoded
from batchq.core.job_options import JobQueueOptions
from batchq.core.options import Special
from batchq.ends import Ends
from batchq.errors import DrainTimeout, StoreError
from batchq.feeder import Feeder, SuspectPlace
from batchq.guard import Guard
from batchq.handler import AnyHandler
from batchq.hooks import JobWatchers
from batchq.leases import Fate, Leases
from batchq.ledger import Ledger
from batchq.queue import BatchedQueue
from batchq.runner import Runner
from batchq.settler import Settler
from batchq.stop import NOTICE, Stop
from batchq.trouble import Trouble
from batchq.work_queue import work_queue

__all__ = ["DurableQueue"]


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
        guard: Guard | None = None,
        suspects: SuspectPlace | None = None,
    ) -> None:
        """Make a queue that does not work yet.

        Args:
            options: how this process works on it.
            handlers: whose jobs it claims: any number of plain ones, or one batch handler.
            ledger: the road to the store.
            watchers: whom to tell.
            ends: who waits for jobs to end.
            guard: keeps the leases while the event loop stands; None: nothing does.
            suspects: the place for one of them, shared by the queues of a process; None:
                its own.
        """
        self._options = options
        self._handlers = {name: each for each in handlers for name in each.names}
        self._guard = guard
        self._stop = Stop()
        failed = Trouble(watchers, f"queue {options.name!r}").tell
        self._leases = Leases(ledger, options.lease, on_fate=self._stop_jobs, on_error=failed)
        self._suspects = suspects or SuspectPlace()
        self._feeder = self._new_feeder(ledger, failed)
        settler = Settler(
            queue=options.name,
            handlers=self._handlers,
            ledger=ledger,
            leases=self._leases,
            watchers=watchers,
            ends=ends,
            on_error=failed,
            stop=self._stop,
        )
        self._runner = Runner(
            handlers=self._handlers,
            leases=self._leases,
            settler=settler,
            feeder=self._feeder,
            stop=self._stop,
        )
        self._work = self._engine(watchers)

    def _new_feeder(self, ledger: Ledger, failed: Callable[[Exception], object]) -> Feeder:
        return Feeder(
            queue=self._options.name,
            handlers=tuple(self._handlers),
            most=self._options.most_held,
            poll_interval=self._options.poll_interval,
            ledger=ledger,
            leases=self._leases,
            suspects=self._suspects,
            accept=self._accept,
            on_error=failed,
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Claim and run jobs until `stop`; then finish or give back what is held.

        Raises:
            StoreBroken: the store must not be used any more.
        """
        async with trio.open_nursery() as nursery:
            self._nursery = self._runner.nursery = nursery
            nursery.start_soon(self._keep_leases)
            try:
                async with self._work:
                    await self._work_until_stop(task_status)
            finally:
                with trio.CancelScope(shield=True):
                    await self._clear_away(crashed=sys.exception() is not None)
            nursery.cancel_scope.cancel()

    async def _keep_leases(self) -> None:
        if self._guard is None:
            await self._leases.run()
        else:
            with self._guard.watch(self._leases, self._handlers.values()):
                await self._leases.run()

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

    @property
    def concurrency(self) -> int:
        """Most calls in flight here [calls]."""
        return self._options.concurrency

    @property
    def held(self) -> int:
        """Jobs that are claimed and not settled [jobs]."""
        return len(self._leases)

    @property
    def lost(self) -> int:
        """Jobs whose lease was lost here [jobs]."""
        return self._runner.settler.lost_count

    def cancel(self, job_ids: Iterable[int]) -> None:
        """Stop those of these jobs that are held here: somebody here has cancelled them."""
        self._leases.cancel(job_ids)

    def _engine(self, watchers: JobWatchers) -> BatchedQueue[Job[Any], Any]:
        options = self._options
        first = next(iter(self._handlers.values()))
        return work_queue(
            self._runner.process,
            self._runner.verdicts,
            may_retry=self._runner.may_retry,
            name=options.name,
            batch_size=options.batch_size,
            flush_interval=options.flush_interval,
            concurrency=options.concurrency,
            bisect=options.bisect,
            retry=first.retry,  # a batch is taken apart where its queue has one handler only
            max_queue_size=None,  # the feeder claims no more than has a place
            shutdown_timeout=None,
            hooks=watchers.of_engine,
        )

    async def _wind_down(self) -> None:
        self._work.pause()
        # One that can't be cancelled is in flight: its call is about to begin.
        waiting = [receipt for receipt, entry in self._runner.waiting.items() if entry.cancel()]
        self._nursery.start_soon(self._runner.give_back, waiting)
        await self._feeder.stop()
        with self._stop.within:
            await self._work.drain()
            return
        threads = self._runner.stop_calls()
        with suppress(DrainTimeout):
            await self._work.drain(NOTICE if threads else 0.0)

    async def _clear_away(self, *, crashed: bool) -> None:
        """Write down what interrupted calls had decided, and give back what is held."""
        if crashed:
            await self._feeder.stop()
        # What has ended the queue goes before what its store says of it now.
        with suppress(StoreError) if crashed else nullcontext():
            await self._runner.give_all_back()

    def _accept(self, claimed: Sequence[ClaimedJob]) -> None:
        """Give claimed jobs their places in the engine."""
        if self._stop.asked.is_set():
            self._nursery.start_soon(self._runner.give_back, [each.receipt for each in claimed])
            return
        for solo, some in groupby(claimed, self._runs_alone):
            taken = list(some)
            jobs = [self._job(each) for each in taken]
            call: Special = {"solo": True} if solo else {}
            entries = self._work.enqueue_many_nowait(jobs, **call)
            self._runner.waiting.update(zip([each.receipt for each in taken], entries, strict=True))

    def _runs_alone(self, claimed: ClaimedJob) -> bool:
        """Tell whether a job goes in a call of its own."""
        return self._runner.runs_alone(claimed.receipt.job_id) or claimed.suspect

    def _job(self, claimed: ClaimedJob) -> Job[Any]:
        signature, receipt = self._handlers[claimed.handler].signature, claimed.receipt
        return Job(
            id=receipt.job_id,
            attempt=receipt.attempt,
            queue=self._options.name,
            handler=claimed.handler,
            priority=claimed.priority,
            used=claimed.used,
            max_attempts=claimed.max_attempts,
            enqueued_at=claimed.enqueued_at,
            payload=Undecoded(claimed.payload, signature.decode),
            settle=self._runner.settle_early,
            receipt=receipt,
        )

    def _stop_jobs(self, receipts: Sequence[Receipt], fate: Fate) -> None:
        self._runner.stop_jobs(receipts, fate)
