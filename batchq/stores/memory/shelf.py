"""Where the memory store keeps things: dicts, and heaps of what may be claimed.

Rule 1: a heap's entry counts only while its job still has that very `due_at`; what does
not count is dropped when it comes to the top, or when it outnumbers what does.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Iterator
from typing import Final, NamedTuple, TypeAlias

import attrs

from batchq.core.job import Failure, JobRecord, WorkerRecord
from batchq.core.lifecycle import kept

__all__ = ["Key", "Shelf", "Waiting"]

_FEW: Final = 64  # entries that are not worth tidying up


class Key(NamedTuple):
    """What is claimed together: jobs of one key are in order of (due_at, id)."""

    queue: str
    handler: str
    priority: int


Waiting: TypeAlias = tuple[float, int]  # due_at [s, store clock], id


@attrs.define(eq=False)
class Shelf:
    """Jobs, their failures and who has worked here.

    Attributes:
        jobs: by id, in order of storing.
        failures: by job, oldest first.
        workers: by name.
        newest: failures of all jobs, newest last; some may not be kept any more.
        last_id: the id of the newest job.
    """

    jobs: dict[int, JobRecord] = attrs.field(factory=dict)
    failures: dict[int, list[Failure]] = attrs.field(factory=dict)
    workers: dict[str, WorkerRecord] = attrs.field(factory=dict)
    last_id: int = 0
    _heaps: dict[Key, list[Waiting]] = attrs.field(factory=dict)
    _live: Counter[Key] = attrs.field(factory=Counter)

    def add(self, job: JobRecord) -> None:
        """Take in a new job."""
        self._live[_key(job)] += 1
        self.put(job)

    def put(self, job: JobRecord) -> None:
        """Keep a job as it is now."""
        before = self.jobs.get(job.id)
        self.jobs[job.id] = job
        key = _key(job)
        if job.due_at is None:
            self._live[key] -= 1
        elif before is None or before.due_at != job.due_at:
            heap = self._heaps.setdefault(key, [])
            heapq.heappush(heap, (job.due_at, job.id))
            if len(heap) > _FEW + 2 * self._live[key]:
                self._heaps[key] = heap = [entry for entry in heap if self._counts(entry)]
                heapq.heapify(heap)

    def first(self, key: Key) -> Waiting | None:
        """Return what comes first of a key; None: nothing waits there."""
        heap = self._heaps.get(key)
        while heap and not self._counts(heap[0]):
            heapq.heappop(heap)
        return heap[0] if heap else None

    def pop(self, key: Key) -> JobRecord:
        """Take what comes first out of its heap; it has to be put again, changed or not."""
        heap = self._heaps[key]
        entry = heapq.heappop(heap)
        while heap and heap[0] == entry:  # it left this place and came back to it
            heapq.heappop(heap)
        return self.jobs[entry[1]]

    def fail(self, failure: Failure) -> None:
        """Keep a failure, and let go of the job's failures that are too many."""
        self.failures[failure.job_id] = list(
            kept([*self.failures.get(failure.job_id, ()), failure])
        )

    def all_failures(self) -> Iterator[Failure]:
        """Walk every kept failure, in no order."""
        for failures in self.failures.values():
            yield from failures

    def _counts(self, entry: Waiting) -> bool:
        return self.jobs[entry[1]].due_at == entry[0]


def _key(job: JobRecord) -> Key:
    return Key(job.queue, job.handler, job.priority)
