"""The hot path of the memory store: a group's four parts, in the words of the core.

Rule 1: every change of a job is one of core/lifecycle.py's.
Rule 2: a claim first takes all its jobs out of the heaps, then changes them: no job can
be met twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import attrs
import msgspec

from batchq.core.job import (
    PRIORITY_LEVELS,
    Answers,
    Claimed,
    ClaimedJob,
    ClaimRequest,
    ErrorLine,
    Extended,
    Extension,
    Failure,
    Group,
    JobRecord,
    NewJob,
    Receipt,
    Settled,
    Settlement,
    Verdict,
    WorkerRecord,
)
from batchq.core.lifecycle import (
    LEASE_RAN_OUT,
    MAX_BURIALS,
    JobState,
    bury,
    claim,
    is_current,
    is_used_up,
    new,
    settle,
)
from batchq.stores.memory.shelf import Key, Shelf

__all__ = ["Work"]

_FAILING: Final = frozenset({Verdict.RETRY, Verdict.FAIL})


@attrs.frozen
class Work:
    """Commits groups to one shelf."""

    shelf: Shelf

    def commit(self, group: Group, now: float) -> Answers:
        """Carry out the whole group at `now` [s], or none of it."""
        done = False
        try:
            answers = Answers(
                settle=[self._settle(settlement, now) for settlement in group.settle],
                extend=[self._extend(extension, now) for extension in group.extend],
                enqueue=[self._enqueue(job, now) for job in group.enqueue],
                claim=[self._claim(request, now) for request in group.claim],
            )
            if group.worker and (self.shelf.changed or group.batches):
                self._count(group, now)
            done = True
        finally:
            if done:
                self.shelf.keep()
            else:
                self.shelf.undo()
        return answers

    def _settle(self, settlement: Settlement, now: float) -> Settled:
        receipt = settlement.receipt
        job = self.shelf.jobs.get(receipt.job_id)
        if job is None or job.attempt != receipt.attempt:
            return Settled.STALE
        if not is_current(job, receipt):
            return Settled.RECORDED
        if settlement.error is not None and settlement.verdict in _FAILING:
            self._fail(job, now, settlement.error)
        self.shelf.put(settle(job, settlement, now=now))
        return Settled.APPLIED

    def _extend(self, extension: Extension, now: float) -> Sequence[Extended]:
        return [self._hold(receipt, now + extension.lease) for receipt in extension.receipts]

    def _hold(self, receipt: Receipt, until: float) -> Extended:
        job = self.shelf.jobs.get(receipt.job_id)
        if job is None or not is_current(job, receipt):
            return Extended.STALE
        self.shelf.put(msgspec.structs.replace(job, due_at=until))
        return Extended.OK

    def _enqueue(self, job: NewJob, now: float) -> int:
        id_ = self.shelf.last_id + 1
        self.shelf.put(new(JobRecord, job, id_=id_, now=now))
        return id_

    def _claim(self, request: ClaimRequest, now: float) -> Claimed:
        jobs: list[JobRecord] = []
        used_up: list[JobRecord] = []
        full = False
        for job in self._due(request, now):
            (used_up if is_used_up(job) else jobs).append(job)
            full = len(jobs) == request.limit or len(used_up) == MAX_BURIALS
            if full:
                break
        for job in used_up:
            self._run_out(job, now)
            self.shelf.put(bury(job, now=now))
        claimed = [self._take(job, request, now) for job in jobs]
        wait = 0.0 if full else self._wait(request, now)
        return Claimed(jobs=claimed, buried=len(used_up), wait=wait)

    def _due(self, request: ClaimRequest, now: float) -> Iterator[JobRecord]:
        """Take due jobs out of their heaps, one at a time, in claim order."""
        for level in range(PRIORITY_LEVELS):
            keys = [Key(request.queue, handler, level) for handler in request.handlers]
            while (first := self._first(keys)) is not None and first[0] <= now:
                yield self.shelf.pop(first[2])

    def _first(self, keys: Iterable[Key]) -> tuple[float, int, Key] | None:
        waiting = ((self.shelf.first(key), key) for key in keys)
        return min(((*first, key) for first, key in waiting if first is not None), default=None)

    def _take(self, job: JobRecord, request: ClaimRequest, now: float) -> ClaimedJob:
        self._run_out(job, now)
        taken = claim(job, now=now, lease=request.lease, worker=request.worker)
        self.shelf.put(taken)
        return ClaimedJob(
            receipt=Receipt(taken.id, taken.attempt),
            handler=taken.handler,
            payload=taken.payload,
            used=taken.used,
            max_attempts=taken.max_attempts,
            priority=taken.priority,
            enqueued_at=taken.enqueued_at,
        )

    def _run_out(self, job: JobRecord, now: float) -> None:
        """Note that the lease of a due job ran out, if it had one."""
        if job.state is JobState.PROCESSING:
            self._fail(job, now, ErrorLine("text", LEASE_RAN_OUT))

    def _fail(self, job: JobRecord, now: float, line: ErrorLine) -> None:
        self.shelf.fail(Failure(job.id, job.attempt, now, line, job.worker))

    def _wait(self, request: ClaimRequest, now: float) -> float | None:
        first = self._first(
            Key(request.queue, handler, level)
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
