"""What people ask of the memory store."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

import attrs

from batchq.core.lifecycle import JobState
from batchq.core.record import (
    EVERY_JOB,
    Failure,
    JobFilter,
    JobRecord,
    QueueRecord,
    Tally,
    WorkerRecord,
)
from batchq.stores.memory.shelf import Shelf

__all__ = ["Admin"]


@attrs.frozen
class Admin:
    """Reads one shelf."""

    shelf: Shelf

    def get(self, ids: Sequence[int]) -> list[JobRecord | None]:
        """Read jobs; one answer per id, in order."""
        return [self.shelf.jobs.get(id_) for id_ in ids]

    def find(
        self, where: JobFilter, now: float, *, after: int | None, limit: int, newest_first: bool
    ) -> list[JobRecord]:
        """List jobs by rising or falling id, from the first beyond `after`."""
        found: list[JobRecord] = []
        for job in self._beyond(after, newest_first=newest_first):
            if len(found) >= limit:
                break
            if _fits(job, where, now):
                found.append(job)
        return found

    def counts(self) -> dict[str, dict[JobState, int]]:
        """Count jobs per queue and stored state."""
        counted: dict[str, dict[JobState, int]] = {}
        for job in self.shelf.jobs.values():
            states = counted.setdefault(job.queue, {})
            states[job.state] = states.get(job.state, 0) + 1
        return counted

    def kinds(self) -> list[tuple[str, str]]:
        """List whose jobs have not ended."""
        waiting = (job for job in self.shelf.jobs.values() if not job.state.final)
        return sorted({(job.queue, job.handler) for job in waiting})

    def tally(self, since: float) -> list[Tally]:
        """List what happened, by minute and queue."""
        found = [tally for tally in self.shelf.tallies.values() if tally.minute >= since]
        return sorted(found, key=lambda tally: (tally.minute, tally.queue))

    def errors(
        self, job_id: int | None, where: JobFilter, now: float, *, limit: int
    ) -> list[Failure]:
        """List kept failures, newest first."""
        if job_id is not None:
            return self.shelf.failures.get(job_id, [])[::-1][: max(limit, 0)]
        every = where == EVERY_JOB
        return heapq.nlargest(
            limit,
            (
                failure
                for failure in self.shelf.all_failures()
                if every or _fits(self.shelf.jobs[failure.job_id], where, now)
            ),
            key=lambda failure: (failure.at, failure.job_id, failure.attempt),
        )

    def queues(self) -> list[QueueRecord]:
        """List what is ordered, by queue."""
        return [self.shelf.queues[name] for name in sorted(self.shelf.queues)]

    def workers(self) -> list[WorkerRecord]:
        """List who has committed, the latest first."""
        return sorted(self.shelf.workers.values(), key=lambda worker: -worker.seen_at)

    def _beyond(self, after: int | None, *, newest_first: bool) -> Iterator[JobRecord]:
        jobs, last = self.shelf.jobs, self.shelf.last_id
        ids = range(1 if after is None else max(after, 0) + 1, last + 1)
        if newest_first:
            ids = range(last if after is None else min(after - 1, last), 0, -1)
        return (jobs[id_] for id_ in ids if id_ in jobs)


def _fits(job: JobRecord, where: JobFilter, now: float) -> bool:
    return (
        (where.queue is None or job.queue == where.queue)
        and (where.handler is None or job.handler == where.handler)
        and (where.status is None or where.status in {job.state.value, job.status(now)})
        and (where.tag is None or where.tag in job.tags)
        and (where.key is None or job.key == where.key)
        and _within(job.id, where.first_id, None)
        and (where.last_id is None or job.id <= where.last_id)
        and _within(job.enqueued_at, where.stored_since, where.stored_before)
        and _within(job.finished_at, where.ended_since, where.ended_before)
    )


def _within(value: float | None, first: float | None, before: float | None) -> bool:
    """Tell whether `first <= value < before`; one without a value is in no range."""
    if first is None and before is None:
        return True
    if value is None or (first is not None and value < first):
        return False
    return before is None or value < before
