"""What people ask of the memory store."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import attrs

from batchq.core.job import Failure, JobFilter, JobRecord, WorkerRecord
from batchq.core.lifecycle import JobState
from batchq.stores.memory.shelf import Shelf

__all__ = ["Admin"]


@attrs.frozen
class Admin:
    """Reads one shelf."""

    shelf: Shelf

    def get(self, ids: Sequence[int]) -> list[JobRecord | None]:
        """Read jobs; one answer per id, in order."""
        return [self.shelf.jobs.get(id_) for id_ in ids]

    def find(self, where: JobFilter, now: float, *, after: int, limit: int) -> list[JobRecord]:
        """List jobs by rising id, from the first above `after`."""
        found: list[JobRecord] = []
        for id_ in range(max(after, 0) + 1, self.shelf.last_id + 1):
            if len(found) >= limit:
                break
            job = self.shelf.jobs[id_]
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

    def errors(self, job_id: int | None, *, limit: int) -> list[Failure]:
        """List kept failures, newest first."""
        if job_id is not None:
            return self.shelf.failures.get(job_id, [])[::-1][: max(limit, 0)]
        return heapq.nlargest(
            limit,
            self.shelf.all_failures(),
            key=lambda failure: (failure.at, failure.job_id, failure.attempt),
        )

    def workers(self) -> list[WorkerRecord]:
        """List who has committed, the latest first."""
        return sorted(self.shelf.workers.values(), key=lambda worker: -worker.seen_at)


def _fits(job: JobRecord, where: JobFilter, now: float) -> bool:
    return (
        (where.queue is None or job.queue == where.queue)
        and (where.handler is None or job.handler == where.handler)
        and (where.status is None or where.status in {job.state.value, job.status(now)})
    )
