"""What people order of the memory store, in the words of the core."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs
import msgspec

from batchq.core.changes import again, ask_to_stop, cancel, is_current, may_go, takes_key_again
from batchq.core.lifecycle import JobState
from batchq.core.record import (
    EVERY_JOB,
    Beat,
    Changed,
    Cleaned,
    JobFilter,
    JobRecord,
    Note,
    Ordered,
    QueueRecord,
    WorkerRecord,
)
from batchq.core.tallying import KEEP_TALLIES, Counting
from batchq.stores.memory.admin import Admin
from batchq.stores.memory.shelf import Shelf

__all__ = ["Orders"]

Order = Callable[[JobRecord, Counting], Ordered]


@attrs.frozen
class Orders:
    """Carries out orders on one shelf; each is one transaction."""

    shelf: Shelf
    admin: Admin

    def record(self, notes: Sequence[Note]) -> list[bool]:
        """Keep what handlers say of running jobs; tell per note whether it counts."""
        with self.shelf.transaction():
            return [self._note(note) for note in notes]

    def cancel(
        self, selection: Sequence[int] | JobFilter, reason: str, now: float, *, after: int,
        limit: int,
    ) -> Changed:  # fmt: skip
        """Cancel jobs that wait, ask those that are processing to stop."""

        def order(job: JobRecord, counting: Counting) -> Ordered:
            if job.state.final:
                return Ordered.REFUSED
            if job.state is JobState.PROCESSING:
                self.shelf.put(ask_to_stop(job, reason))
                return Ordered.ASKED
            self.shelf.put(cancel(job, reason, now=now))
            counting.end(job.queue, JobState.CANCELLED)
            return Ordered.DONE

        return self._carry_out(order, selection, now, after=after, limit=limit)

    def retry(
        self, selection: Sequence[int] | JobFilter, now: float, *, after: int, limit: int
    ) -> Changed:
        """Let ended jobs run again, and those that wait run now."""

        def order(job: JobRecord, counting: Counting) -> Ordered:
            if job.state is JobState.PROCESSING:
                return Ordered.REFUSED
            if takes_key_again(job, now=now) and self._is_held(job, now):
                return Ordered.CONFLICT
            if job.state.final:
                counting.leave(job.queue, job.state)
            self.shelf.put(again(job, now=now))
            return Ordered.DONE

        return self._carry_out(order, selection, now, after=after, limit=limit)

    def delete(self, ids: Sequence[int], now: float) -> list[Ordered]:
        """Delete ended jobs."""

        def order(job: JobRecord, counting: Counting) -> Ordered:
            if not may_go(job, now=now):
                return Ordered.REFUSED
            counting.leave(job.queue, job.state)
            self.shelf.drop(job)
            return Ordered.DONE

        return list(self._carry_out(order, ids, now, after=0, limit=0).answers)

    def clean(
        self,
        retention: Mapping[JobState, float],
        now: float,
        *,
        queue: str | None,
        after: int,
        limit: int,
    ) -> Cleaned:
        """Delete ended jobs that were kept long enough, among the next `limit`."""
        youngest = now - min(retention.values(), default=0.0)
        with self.shelf.transaction():
            if not after:
                self.shelf.forget_old(now - KEEP_TALLIES)
            looked_at = self.admin.find(
                EVERY_JOB, now, after=after, limit=limit, newest_first=False
            )
            deleted = 0
            for job in looked_at:
                if job.enqueued_at > youngest:
                    return Cleaned(deleted, None)
                keep = retention.get(job.state)
                if (
                    keep is not None
                    and job.finished_at is not None
                    and job.finished_at <= now - keep
                    and (queue is None or queue == job.queue)
                    and may_go(job, now=now)
                ):
                    self.shelf.drop(job)
                    deleted += 1
        return Cleaned(deleted, looked_at[-1].id if 0 < limit == len(looked_at) else None)

    def set_queue(self, queue: str, *, paused: bool) -> None:
        """Order whether a queue is paused."""
        with self.shelf.transaction():
            self.shelf.order(QueueRecord(queue, paused))

    def beat(self, beat: Beat, now: float) -> None:
        """Keep what a worker says of itself."""
        with self.shelf.transaction():
            before = self.shelf.workers.get(beat.worker, WorkerRecord(beat.worker, 0, 0, now))
            self.shelf.see(msgspec.structs.replace(before, seen_at=now, beat=beat))

    def _note(self, note: Note) -> bool:
        job = self.shelf.jobs.get(note.receipt.job_id)
        if job is None or not is_current(job, note.receipt):
            return False
        progress = job.progress if note.progress is None else note.progress
        message = job.note if note.message is None else note.message
        self.shelf.put(msgspec.structs.replace(job, progress=progress, note=message))
        return True

    def _carry_out(
        self,
        order: Order,
        selection: Sequence[int] | JobFilter,
        now: float,
        *,
        after: int,
        limit: int,
    ) -> Changed:
        following = None
        if isinstance(selection, JobFilter):
            found = self.admin.find(selection, now, after=after, limit=limit, newest_first=False)
            ids: Sequence[int] = [job.id for job in found]
            following = ids[-1] if 0 < limit == len(ids) else None
        else:
            ids = list(selection)
        with self.shelf.transaction():
            counting = Counting(now)
            answers = []
            for id_ in ids:
                job = self.shelf.jobs.get(id_)
                answers.append(Ordered.UNKNOWN if job is None else order(job, counting))
            self.shelf.add(counting)
        return Changed(ids, answers, following)

    def _is_held(self, job: JobRecord, now: float) -> bool:
        """Tell whether another job holds this one's key; one whose time is over does not."""
        id_ = self.shelf.holders.get((job.handler, job.key or ""))
        if id_ is None:
            return False
        holder = self.shelf.jobs[id_]
        if holder.key_until is None or holder.key_until > now:
            return True
        self.shelf.put(msgspec.structs.replace(holder, holds_key=False))
        return False
