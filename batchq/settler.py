"""Writes down what became of jobs, and tells whom it concerns.

    results ─▶ core/attempt: settlements ─▶ ledger ─▶ answers ─▶ hooks, waiting callers

Rule 1: a job's lease is let go of when its settlement is submitted, never before.
Rule 2: what the store refuses as stale is somebody else's job now: nothing is written.
Rule 3: while the store can't and the leases may last, it is tried again.
"""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs
import trio

from batchq.core.attempt import Judge
from batchq.core.job import (
    Answers,
    Group,
    Job,
    Receipt,
    Settled,
    Settlement,
    Verdict,
)
from batchq.core.result import Result
from batchq.core.retry import error_of
from batchq.ends import Ends
from batchq.errors import ContractError, StoreBroken
from batchq.feeder import Feeder
from batchq.handler import AnyHandler
from batchq.hooks import JobWatchers
from batchq.leases import Leases
from batchq.ledger import Ledger
from batchq.stop import Stop
from batchq.trouble import pause_after

__all__ = ["Settler"]

logger = logging.getLogger("batchq")

_NO_VERDICT: Final = frozenset({Verdict.SNOOZE, Verdict.RELEASE})


@attrs.define(eq=False, kw_only=True)
class Settler:
    """Settles the jobs of one queue.

    Attributes:
        queue: the queue's name.
        handlers: its handlers, by the names of their jobs.
        ledger: the road to the store.
        leases: what the queue holds.
        watchers: whom to tell.
        ends: who waits for jobs to end.
        on_error: told when the store could not do it.
        stop: how long it may be tried again.
        lost_count: jobs whose lease was lost [jobs].
    """

    queue: str
    handlers: Mapping[str, AnyHandler[Any]]
    ledger: Ledger
    leases: Leases
    watchers: JobWatchers
    ends: Ends
    on_error: Callable[[Exception], object]
    stop: Stop
    lost_count: int = attrs.field(default=0, init=False)

    async def settle(
        self,
        jobs: Sequence[Job[Any]],
        results: Sequence[Result[Any]],
        *,
        feeder: Feeder | None = None,
        release: Sequence[Receipt] = (),
    ) -> None:
        """Write down the results of jobs, as one transaction.

        Args:
            jobs: what ran.
            results: one per job, in order.
            feeder: claims in the same transaction, for the room that this makes.
            release: jobs to give back unrun: due at once, no attempt spent.
        """
        settlements = self._judge(jobs, results)
        given_back = [Settlement(receipt, Verdict.RELEASE) for receipt in release]
        self.leases.let_go([each.receipt for each in (*settlements, *given_back)])
        requests = feeder.requests() if feeder is not None else []
        answers, sent = None, 0.0
        try:
            if settlements or given_back or requests:
                group = Group(settle=[*settlements, *given_back], claim=requests)
                answers, sent = await self._submit(group)
        finally:
            if feeder is not None:
                feeder.look()
                for number, request in enumerate(requests):
                    claimed = answers.claim[number] if answers else None
                    feeder.answered(request, claimed, sent)
        if answers is not None:
            settled = answers.settle[: len(settlements)]
            self._tell(jobs, results, settlements=settlements, settled=settled)

    def lost(self, job: Job[Any]) -> None:
        """Tell that a job is somebody else's now, or may be."""
        self.lost_count += 1
        logger.warning(
            "queue %r: lost the lease of job %d, attempt %d; what became of it here is dropped",
            self.queue,
            job.id,
            job.attempt,
        )
        self.watchers.tell(self.watchers.on_lease_lost, job)

    def _judge(self, jobs: Sequence[Job[Any]], results: Sequence[Result[Any]]) -> list[Settlement]:
        """Return what is to be written down, in order."""
        judges: dict[str, Judge] = {}
        # Most have simply succeeded, and need no judge.
        settlements = [
            Settlement(job.receipt, Verdict.OK)
            if result.success and result.value is None
            else self._judge_one(job, result, judges)
            for job, result in zip(jobs, results, strict=True)
        ]
        for raised in itertools.chain.from_iterable(each.complaints for each in judges.values()):
            self.watchers.tell(self.watchers.on_error, raised)
        return settlements

    def _judge_one(
        self, job: Job[Any], result: Result[Any], judges: dict[str, Judge]
    ) -> Settlement:
        judge = judges.get(job.handler) or self._judge_of(job.handler, judges)
        reason = "undecodable" if job.undecodable else None
        return judge.settlement(job.receipt, result, item=job, used=job.used, reason=reason)

    def _judge_of(self, name: str, judges: dict[str, Judge]) -> Judge:
        handler = self.handlers[name]
        judge = judges[name] = Judge(
            policy=handler.retry,
            encode=handler.signature.encode_value,
            draw=random.random(),  # noqa: S311 - jitter is no secret
        )
        return judge

    async def _submit(self, group: Group) -> tuple[Answers | None, float]:
        """Commit; again while the store can't, as long as a lease. Says when it was sent."""
        lease_ends = trio.current_time() + self.leases.lease
        for failures in itertools.count(1):
            sent = trio.current_time()
            try:
                return await self.ledger.submit(group), sent
            except StoreBroken as error:
                self.on_error(error)
                raise
            except Exception as error:  # whatever it is, the worker goes on
                self.on_error(error)
            last = min(lease_ends, self.stop.last)
            await self.stop.sleep_until(min(trio.current_time() + pause_after(failures), last))
            if trio.current_time() >= min(lease_ends, self.stop.last):
                break
        logger.warning(
            "queue %r: %d verdicts could not be written; the jobs will run again",
            self.queue,
            len(group.settle),
        )
        return None, 0.0

    def _tell(
        self,
        jobs: Sequence[Job[Any]],
        results: Sequence[Result[Any]],
        *,
        settlements: Sequence[Settlement],
        settled: Sequence[Settled],
    ) -> None:
        self.ends.tell(job.id for job in jobs)
        failed = []
        quiet = not self.watchers.on_processed
        for job, result, settlement, answer in zip(
            jobs, results, settlements, settled, strict=True
        ):
            if answer is Settled.STALE:
                self.lost(job)
            elif answer is Settled.APPLIED and not (quiet and settlement.verdict is Verdict.OK):
                self._tell_one(job, result, settlement)
                if settlement.verdict is Verdict.FAIL or _is_last(job, settlement):
                    failed.append((job, settlement))
        if failed:
            self._log(failed, of=len(jobs))

    def _tell_one(self, job: Job[Any], result: Result[Any], settlement: Settlement) -> None:
        watchers = self.watchers
        if settlement.verdict is Verdict.RETRY and not _is_last(job, settlement):
            if watchers.on_retry:
                error = error_of(result, job, job.used)
                watchers.tell(watchers.on_retry, job, error, job.used, settlement.delay)
        elif settlement.verdict not in _NO_VERDICT:
            written = _as_written(result, settlement)
            watchers.tell(watchers.on_processed, job, written)
            if not written.success and watchers.on_dead_letter:
                watchers.tell(watchers.on_dead_letter, job, error_of(written, job, job.used))

    def _log(self, failed: Sequence[tuple[Job[Any], Settlement]], *, of: int) -> None:
        """Say that jobs have failed for good: one line per call, however many they are."""
        job, settlement = failed[0]
        line = settlement.error
        logger.warning(
            "queue %r: %d of %d jobs failed for good, the first of them job %d (%s): %s",
            self.queue,
            len(failed),
            of,
            job.id,
            settlement.reason or "exhausted",
            line if line is not None else "no error was given",
        )


def _as_written(result: Result[Any], settlement: Settlement) -> Result[Any]:
    """Return the result that counted: one that can't be kept has failed."""
    if settlement.verdict is not Verdict.FAIL or result.success is False:
        return result
    message = settlement.error.message if settlement.error is not None else ""
    return Result.discard(ContractError(message))


def _is_last(job: Job[Any], settlement: Settlement) -> bool:
    """Tell whether a failure that might come again has no attempt left."""
    used_up = job.max_attempts is not None and job.used >= job.max_attempts
    return settlement.verdict is Verdict.RETRY and used_up
