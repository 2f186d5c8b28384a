"""Where the memory store keeps things: dicts, and heaps of what may be claimed.

Rule 1: a heap's entry counts only while its job still has that very `due_at`; what does
not count is dropped when it comes to the top, or when it outnumbers what does.
Rule 2: every change notes how it was before, until `keep` or `undo` ends the transaction.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Hashable, Iterator
from typing import Any, Final, NamedTuple, TypeAlias

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
        last_id: the id of the newest job.
    """

    jobs: dict[int, JobRecord] = attrs.field(factory=dict)
    failures: dict[int, list[Failure]] = attrs.field(factory=dict)
    workers: dict[str, WorkerRecord] = attrs.field(factory=dict)
    last_id: int = 0
    _heaps: dict[Key, list[Waiting]] = attrs.field(factory=dict)
    _live: Counter[Key] = attrs.field(factory=Counter)
    # (which of the dicts above, key, value before; None: there was none)
    _before: list[tuple[dict[Any, Any], Hashable, object]] = attrs.field(factory=list)

    @property
    def changed(self) -> bool:
        """Whether anything was changed since the transaction began."""
        return bool(self._before)

    def put(self, job: JobRecord) -> None:
        """Keep a job as it is now, new or not."""
        key = _key(job)
        before = self.jobs.get(job.id)
        self._set(self.jobs, job.id, job)
        self.last_id = max(self.last_id, job.id)
        if before is None:
            self._live[key] += 1
        if job.due_at is None:
            self._live[key] -= 1
        else:
            self._push(key, (job.due_at, job.id))

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
        failures = [*self.failures.get(failure.job_id, ()), failure]
        self._set(self.failures, failure.job_id, list(kept(failures)))

    def see(self, worker: WorkerRecord) -> None:
        """Keep what a worker has done."""
        self._set(self.workers, worker.worker, worker)

    def all_failures(self) -> Iterator[Failure]:
        """Walk every kept failure, in no order."""
        for failures in self.failures.values():
            yield from failures

    def keep(self) -> None:
        """End the transaction: what was changed stays."""
        self._before.clear()

    def undo(self) -> None:
        """End the transaction: everything is as it was when it began."""
        while self._before:
            kind, key, value = self._before.pop()
            if value is None:
                del kind[key]
            else:
                kind[key] = value
        self.last_id = max(self.jobs, default=0)
        self._heaps.clear()
        self._live.clear()
        for job in self.jobs.values():
            if job.due_at is not None:
                self._live[_key(job)] += 1
                self._push(_key(job), (job.due_at, job.id))

    def _set(self, kind: dict[Any, Any], key: Hashable, value: object) -> None:
        self._before.append((kind, key, kind.get(key)))
        kind[key] = value

    def _push(self, key: Key, entry: Waiting) -> None:
        heap = self._heaps.setdefault(key, [])
        heapq.heappush(heap, entry)
        if len(heap) > _FEW + 2 * self._live[key]:
            self._heaps[key] = heap = [*{entry for entry in heap if self._counts(entry)}]
            heapq.heapify(heap)

    def _counts(self, entry: Waiting) -> bool:
        return self.jobs[entry[1]].due_at == entry[0]


def _key(job: JobRecord) -> Key:
    return Key(job.queue, job.handler, job.priority)
