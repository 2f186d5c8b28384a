"""Where the memory store keeps things: dicts, and heaps of what may be claimed.

Rule 1: a heap's entry counts only while its job still has that very `due_at`; what does
not count is dropped when it comes to the top, or when it outnumbers what does.
Rule 2: every change notes how it was before, until `keep` or `undo` ends the transaction.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, TypeAlias

import attrs
import msgspec

from batchq.core.changes import kept
from batchq.core.record import Failure, JobRecord, QueueRecord, Tally, WorkerRecord
from batchq.core.tallying import Counting

__all__ = ["Place", "Shelf", "Waiting"]

_FEW: Final = 64  # entries that are not worth tidying up
_ADDED: Final = Tally.__struct_fields__[2:]  # without queue and minute


class Place(NamedTuple):
    """What is claimed together: jobs of one place are in order of (due_at, id)."""

    queue: str
    handler: str
    priority: int


Waiting: TypeAlias = tuple[float, int]  # due_at [s, store clock], id


@attrs.define(eq=False)
class Shelf:
    """Jobs, their failures, who has worked here, and what is ordered.

    Attributes:
        jobs: by id, in order of storing.
        holders: which job holds a key, by handler and key.
        failures: by job, oldest first.
        workers: by name.
        queues: by name; those about which something was ordered.
        tallies: by queue and minute.
        last_id: the highest id there ever was.
    """

    jobs: dict[int, JobRecord] = attrs.field(factory=dict)
    holders: dict[tuple[str, str], int] = attrs.field(factory=dict)
    failures: dict[int, list[Failure]] = attrs.field(factory=dict)
    workers: dict[str, WorkerRecord] = attrs.field(factory=dict)
    queues: dict[str, QueueRecord] = attrs.field(factory=dict)
    tallies: dict[tuple[str, float], Tally] = attrs.field(factory=dict)
    last_id: int = 0
    _heaps: dict[Place, list[Waiting]] = attrs.field(factory=dict)
    _live: Counter[Place] = attrs.field(factory=Counter)
    # (which of the dicts above, key, value before; None: there was none)
    _before: list[tuple[dict[Any, Any], Hashable, object]] = attrs.field(factory=list)

    @property
    def changed(self) -> bool:
        """Whether anything was changed since the transaction began."""
        return bool(self._before)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block as one: all of it, or nothing."""
        last_id = self.last_id
        done = False
        try:
            yield
            done = True
        finally:
            if done:
                self._before.clear()
            else:
                self._undo(last_id)

    def put(self, job: JobRecord) -> None:
        """Keep a job as it is now, new or not."""
        place = _place(job)
        before = self.jobs.get(job.id)
        self._set(self.jobs, job.id, job)
        self.last_id = max(self.last_id, job.id)
        if job.key is not None:
            self._hold(job, before)
        was_live = before is not None and before.due_at is not None
        self._live[place] += (job.due_at is not None) - was_live
        if job.due_at is not None:
            self._push(place, (job.due_at, job.id))

    def put_back(self, job: JobRecord) -> None:
        """Let a job that was popped, and is as it was, wait on."""
        if job.due_at is not None:
            self._push(_place(job), (job.due_at, job.id))

    def drop(self, job: JobRecord) -> None:
        """Forget an ended job and its failures."""
        self._hold(msgspec.structs.replace(job, holds_key=False), job)
        self._set(self.jobs, job.id, None)
        self._set(self.failures, job.id, None)

    def first(self, place: Place) -> Waiting | None:
        """Return what comes first of a place; None: nothing waits there."""
        heap = self._heaps.get(place)
        while heap and not self._counts(heap[0]):
            heapq.heappop(heap)
        return heap[0] if heap else None

    def pop(self, place: Place) -> JobRecord:
        """Take what comes first out of its heap; it has to be put again, changed or not."""
        heap = self._heaps[place]
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

    def order(self, queue: QueueRecord) -> None:
        """Keep what is ordered of a queue."""
        self._set(self.queues, queue.queue, queue)

    def add(self, counting: Counting) -> None:
        """Add to the tallies what a transaction has counted."""
        minute = counting.minute
        for queue, count in counting.queues.items():
            key = queue, minute
            before = self.tallies.get(key) or Tally(queue=queue, minute=minute)
            sums = {name: getattr(before, name) + getattr(count, name) for name in _ADDED}
            self._set(self.tallies, key, msgspec.structs.replace(before, **sums))

    def forget_old(self, before: float) -> None:
        """Let go of old tallies, and of workers not seen since then [s, store clock]."""
        for key in [key for key in self.tallies if key[1] < before]:
            self._set(self.tallies, key, None)
        for name in [name for name, seen in self.workers.items() if seen.seen_at < before]:
            self._set(self.workers, name, None)

    def all_failures(self) -> Iterator[Failure]:
        """Walk every kept failure, in no order."""
        for failures in self.failures.values():
            yield from failures

    def _undo(self, last_id: int) -> None:
        while self._before:
            kind, key, value = self._before.pop()
            _put(kind, key, value)
        self.last_id = last_id
        # What comes again after it went has to find its place among the ids.
        for id_ in sorted(self.jobs):
            self.jobs[id_] = self.jobs.pop(id_)
        self._heaps.clear()
        self._live.clear()
        for job in self.jobs.values():
            if job.due_at is not None:
                self._live[_place(job)] += 1
                self._push(_place(job), (job.due_at, job.id))

    def _hold(self, job: JobRecord, before: JobRecord | None) -> None:
        """Note who holds the job's key, where that has changed."""
        if job.key is not None and job.holds_key != (before is not None and before.holds_key):
            self._set(self.holders, (job.handler, job.key), job.id if job.holds_key else None)

    def _set(self, kind: dict[Any, Any], key: Hashable, value: object) -> None:
        self._before.append((kind, key, kind.get(key)))
        _put(kind, key, value)

    def _push(self, place: Place, entry: Waiting) -> None:
        heap = self._heaps.setdefault(place, [])
        heapq.heappush(heap, entry)
        if len(heap) > _FEW + 2 * self._live[place]:
            self._heaps[place] = heap = [*{entry for entry in heap if self._counts(entry)}]
            heapq.heapify(heap)

    def _counts(self, entry: Waiting) -> bool:
        job = self.jobs.get(entry[1])
        return job is not None and job.due_at == entry[0]


def _put(kind: dict[Any, Any], key: Hashable, value: object) -> None:
    if value is None:
        kind.pop(key, None)
    else:
        kind[key] = value


def _place(job: JobRecord) -> Place:
    return Place(job.queue, job.handler, job.priority)
