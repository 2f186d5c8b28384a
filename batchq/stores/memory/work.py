"""The hot path of the memory store: a group's four parts, in the words of the core.

Rule 1: every change of a job is one of core/changes.py's.
Rule 2: a claim first takes all its jobs out of the heaps, then changes them: no job can
be met twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import attrs
import msgspec

from batchq.core.changes import bury, claim, is_current, is_doomed, is_suspect, new, settle
from batchq.core.job import (
    PRIORITY_LEVELS,
    Answers,
    Claimed,
    ClaimedJob,
    ClaimRequest,
    Enqueued,
    ErrorLine,
    Extended,
    Extension,
    Group,
    JobKey,
    KeyScope,
    NewJob,
    Receipt,
    Settled,
    Settlement,
    Verdict,
)
from batchq.core.lifecycle import LEASE_RAN_OUT, MAX_BURIALS, SUSPECT_AFTER, JobState
from batchq.core.record import Failure, JobRecord, WorkerRecord
from batchq.core.tallying import Counting
from batchq.stores.memory.shelf import Place, Shelf

__all__ = ["Work"]

_FAILING: Final = frozenset({Verdict.RETRY, Verdict.FAIL})


@attrs.define(eq=False)
class _Haul:
    """What one claim has met.

    Attributes:
        jobs: to be claimed, in claim order.
        doomed: to be buried.
        passed: suspects that are not wanted now.
        full: whether it stopped before it had met all that is due.
    """

    request: ClaimRequest
    jobs: list[JobRecord] = attrs.field(factory=list, init=False)
    doomed: list[JobRecord] = attrs.field(factory=list, init=False)
    passed: list[JobRecord] = attrs.field(factory=list, init=False)
    full: bool = attrs.field(default=False, init=False)

    def take(self, job: JobRecord, now: float) -> None:
        """Take in the next due job."""
        if job.state is JobState.PENDING and job.expires_at is None:
            self.jobs.append(job)
        elif is_doomed(job, now=now):
            self.doomed.append(job)
        elif not is_suspect(job):
            self.jobs.append(job)
        elif not self.request.suspect or self.jobs:
            self.passed.append(job)
            self.full = self.request.suspect
        else:
            self.jobs.append(job)
            self.full = True
        if len(self.jobs) == self.request.limit or len(self.doomed) == MAX_BURIALS:
            self.full = True


@attrs.frozen
class Work:
    """Commits groups to one shelf."""

    shelf: Shelf

    def commit(self, group: Group, now: float) -> Answers:
        """Carry out the whole group at `now` [s], or none of it."""
        with self.shelf.transaction():
            counting = Counting(now)
            answers = Answers(
                settle=[self._settle(settlement, counting) for settlement in group.settle],
                extend=[self._extend(extension, now) for extension in group.extend],
                enqueue=[self._enqueue(job, counting) for job in group.enqueue],
                claim=[self._claim(request, counting) for request in group.claim],
            )
            self.shelf.add(counting)
            if group.worker and (self.shelf.changed or group.batches):
                self._count(group, now)
        return answers

    def _settle(self, settlement: Settlement, counting: Counting) -> Settled:
        receipt = settlement.receipt
        job = self.shelf.jobs.get(receipt.job_id)
        if job is None or job.attempt != receipt.attempt:
            return Settled.STALE
        if not is_current(job, receipt):
            return Settled.RECORDED
        if settlement.error is not None and settlement.verdict in _FAILING:
            self._fail(job, counting.now, settlement.error)
        settled = settle(job, settlement, now=counting.now)
        self.shelf.put(settled)
        count = counting.of(job.queue)
        count.settled += 1
        count.ran += counting.now - (job.started_at or 0.0)
        if settled.state.final:
            counting.end(job.queue, settled.state)
        elif settlement.verdict is Verdict.RETRY:
            count.retried += 1
        return Settled.APPLIED

    def _extend(self, extension: Extension, now: float) -> Sequence[Extended]:
        return [self._hold(receipt, now + extension.lease) for receipt in extension.receipts]

    def _hold(self, receipt: Receipt, until: float) -> Extended:
        job = self.shelf.jobs.get(receipt.job_id)
        if job is None or not is_current(job, receipt):
            return Extended.STALE
        self.shelf.put(msgspec.structs.replace(job, due_at=until))
        return Extended.OK if job.cancel is None else Extended.CANCEL

    def _enqueue(self, job: NewJob, counting: Counting) -> Enqueued:
        holder = self._holder(job, job.key, counting.now) if job.key is not None else None
        if holder is not None:
            return Enqueued(holder, fresh=False)
        id_ = self.shelf.last_id + 1
        self.shelf.put(new(job, id_=id_, now=counting.now))
        counting.of(job.queue).enqueued += 1
        return Enqueued(id_)

    def _holder(self, job: NewJob, key: JobKey, now: float) -> int | None:
        """Return which job holds the key of a new one; it may take its place there."""
        id_ = self.shelf.holders.get((job.handler, key.text))
        if id_ is None:
            return None
        holder = self.shelf.jobs[id_]
        if holder.key_until is not None and holder.key_until <= now:
            self.shelf.put(msgspec.structs.replace(holder, holds_key=False))
            return None
        if key.replace and holder.key_scope is KeyScope.WAITING:
            self.shelf.put(
                msgspec.structs.replace(holder, payload=job.payload, due_at=now + job.delay)
            )
        return id_

    def _claim(self, request: ClaimRequest, counting: Counting) -> Claimed:
        queue, now = self.shelf.queues.get(request.queue), counting.now
        if queue is not None and queue.paused:
            return Claimed(jobs=[], buried=0, wait=None)
        haul = _Haul(request)
        for job in self._due(request, now):
            haul.take(job, now)
            if haul.full:
                break
        for job in haul.doomed:
            if job.state is JobState.PROCESSING:
                self._run_out(job, counting)
            buried = bury(job, now=now)
            self.shelf.put(buried)
            counting.end(job.queue, buried.state)
        claimed = [self._take(job, request, counting) for job in haul.jobs]
        if claimed:
            count = counting.of(request.queue)
            count.claimed += len(claimed)
            count.waited += sum([now - (job.due_at or 0.0) for job in haul.jobs])
        wait = 0.0 if haul.full else self._wait(request, now)
        for job in haul.passed:
            self.shelf.put_back(job)
        return Claimed(jobs=claimed, buried=len(haul.doomed), wait=wait)

    def _due(self, request: ClaimRequest, now: float) -> Iterator[JobRecord]:
        """Take due jobs out of their heaps, one at a time, in claim order."""
        for level in range(PRIORITY_LEVELS):
            places = [Place(request.queue, handler, level) for handler in request.handlers]
            while (first := self._first(places)) is not None and first[0] <= now:
                yield self.shelf.pop(first[2])

    def _first(self, places: Iterable[Place]) -> tuple[float, int, Place] | None:
        waiting = ((self.shelf.first(place), place) for place in places)
        return min(((*first, place) for first, place in waiting if first is not None), default=None)

    def _take(self, job: JobRecord, request: ClaimRequest, counting: Counting) -> ClaimedJob:
        if job.state is JobState.PROCESSING:
            self._run_out(job, counting)
        taken = claim(job, now=counting.now, lease=request.lease, worker=request.worker)
        self.shelf.put(taken)
        return ClaimedJob(
            receipt=Receipt(taken.id, taken.attempt),
            handler=taken.handler,
            payload=taken.payload,
            used=taken.used,
            max_attempts=taken.max_attempts,
            priority=taken.priority,
            enqueued_at=taken.enqueued_at,
            suspect=taken.crashes >= SUSPECT_AFTER,
        )

    def _run_out(self, job: JobRecord, counting: Counting) -> None:
        """Note that the lease of a due job ran out."""
        counting.of(job.queue).crashed += 1
        self._fail(job, counting.now, ErrorLine("text", LEASE_RAN_OUT))

    def _fail(self, job: JobRecord, now: float, line: ErrorLine) -> None:
        self.shelf.fail(Failure(job.id, job.attempt, now, line, job.worker))

    def _wait(self, request: ClaimRequest, now: float) -> float | None:
        first = self._first(
            Place(request.queue, handler, level)
            for handler in request.handlers
            for level in range(PRIORITY_LEVELS)
        )
        return None if first is None else max(0.0, first[0] - now)

    def _count(self, group: Group, now: float) -> None:
        before = self.shelf.workers.get(group.worker, WorkerRecord(group.worker, 0, 0, now))
        self.shelf.see(
            msgspec.structs.replace(
                before,
                commits=before.commits + 1,
                batches=before.batches + group.batches,
                seen_at=now,
            )
        )
