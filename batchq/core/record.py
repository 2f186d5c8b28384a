"""The records of the durable tier that people read, and what they may order.

Times are seconds on the store's own clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final

import attrs
import msgspec

from batchq.core.job import ErrorLine, KeyScope, Receipt
from batchq.core.lifecycle import JobState

__all__ = [
    "EVERY_JOB",
    "Beat",
    "Changed",
    "Cleaned",
    "Failure",
    "JobFilter",
    "JobRecord",
    "Note",
    "Ordered",
    "Outcome",
    "QueueRecord",
    "StoreStats",
    "Tally",
    "WorkerRecord",
]


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A stored job, as it stands.

    Attributes:
        id: rises in the order of storing.
        queue: the queue it belongs to.
        handler: the handler it is for.
        state: its stored state.
        priority: level [0 highest .. 9].
        due_at: when it may be claimed; None once final [s, store clock].
        attempt: claims so far; never falls [count].
        refunds: claims that did not count [count, 0 .. attempt].
        max_attempts: attempts that count, at most; None is no limit.
        crashes: leases that ran out in a row [count].
        payload: what the handler gets, msgspec JSON [bytes].
        worker: who claimed it last; None if nobody did.
        value: its result, msgspec JSON [bytes]; None before it completed.
        reason: why it failed or was cancelled, in one word; else None.
        enqueued_at: when it was stored [s, store clock].
        started_at: when it was last claimed; None before [s, store clock].
        finished_at: when it became final; None before [s, store clock].
        cancel: why it was asked to stop while it was processing; None if it was not.
        expires_at: it fails if it has not run by then; None: it waits for ever
            [s, store clock].
        tags: short texts to find it by.
        key: what no other job of its handler may have while this one holds it.
        key_scope: how long it holds it.
        key_until: with scope TIME: when that ends [s, store clock].
        holds_key: whether it holds it now.
        progress: how far its last attempt got, as its handler says [0 .. 1].
        note: what its handler said of that.
        spoiled: what can't be read of a row that somebody else has written or changed, and
            why; each such field is as if nothing had been said. One in no known state is
            read as failed, for it never runs again, with the reason `spoiled`.
    """

    id: int
    queue: str
    handler: str
    state: JobState
    priority: int
    due_at: float | None
    attempt: int = 0
    refunds: int = 0
    max_attempts: int | None = 4
    crashes: int = 0
    payload: bytes
    worker: str | None = None
    value: bytes | None = None
    reason: str | None = None
    enqueued_at: float
    started_at: float | None = None
    finished_at: float | None = None
    cancel: str | None = None
    expires_at: float | None = None
    tags: tuple[str, ...] = ()
    key: str | None = None
    key_scope: KeyScope | None = None
    key_until: float | None = None
    holds_key: bool = False
    progress: float | None = None
    note: str | None = None
    spoiled: str | None = None

    @property
    def used(self) -> int:
        """Attempts that counted."""
        return self.attempt - self.refunds

    def status(self, now: float) -> str:
        """Read the state as people say it, at `now` [s, store clock].

        Returns:
            `scheduled` (pending, due later, never ran), `retrying` (pending, due later,
            has run), `stalled` (processing, lease run out), or the stored state.
        """
        if self.due_at is not None:
            if self.state is JobState.PENDING and self.due_at > now:
                return "retrying" if self.attempt else "scheduled"
            if self.state is JobState.PROCESSING and self.due_at <= now:
                return "stalled"
        return self.state.value


class Failure(msgspec.Struct, frozen=True):
    """A kept failure of one attempt.

    Attributes:
        job_id: which job.
        attempt: which claim of it.
        at: when it failed [s, store clock].
        line: what went wrong.
        worker: who ran it.
    """

    job_id: int
    attempt: int
    at: float
    line: ErrorLine
    worker: str | None


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker process says of itself, each ten seconds and at its end.

    Nothing depends on it.

    Attributes:
        worker: its name, random per start.
        host: the machine it runs on.
        pid: its process id there.
        version: its batchq.
        queues: the queues it works on, and how many calls of each it may run at once.
        handlers: the names it knows.
        held: jobs it has claimed and not settled [jobs].
        lag: how late its event loop was of late [s].
        lost: jobs whose lease it has lost since it began, so that what it made of them was
            dropped [jobs].
    """

    worker: str
    host: str
    pid: int
    version: str
    queues: dict[str, int]
    handlers: tuple[str, ...]
    held: int = 0
    lag: float = 0.0
    lost: int = 0


class WorkerRecord(msgspec.Struct, frozen=True):
    """What one worker process has done, moved in the very transactions it counts.

    Attributes:
        worker: its name, random per start.
        commits: transactions [count].
        batches: calls of handlers that ended [count].
        seen_at: when it last committed or beat [s, store clock].
        beat: what it last said of itself; None if it never did.
    """

    worker: str
    commits: int
    batches: int
    seen_at: float
    beat: Beat | None = None


class QueueRecord(msgspec.Struct, frozen=True):
    """What is ordered of one queue, for every process.

    Attributes:
        queue: its name.
        paused: whether nothing of it may be claimed.
    """

    queue: str
    paused: bool = False


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What happened in one queue in one minute.

    Attributes:
        queue: its name.
        minute: when the minute began [s, store clock].
        enqueued: jobs stored.
        claimed: jobs claimed.
        settled: attempts that were settled, whatever the verdict.
        completed: jobs completed.
        failed: jobs failed, whatever the reason.
        cancelled: jobs cancelled.
        retried: attempts that failed and come again.
        crashed: leases that ran out.
        waited: how long the claimed jobs had been due, together [s].
        ran: how long the settled attempts took from claim to settlement, together [s].
    """

    queue: str
    minute: float
    enqueued: int = 0
    claimed: int = 0
    settled: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    retried: int = 0
    crashed: int = 0
    waited: float = 0.0
    ran: float = 0.0


class Note(msgspec.Struct, frozen=True):
    """What a running handler says of one job.

    Attributes:
        receipt: which attempt.
        progress: how far it got [0 .. 1]; None: as it was.
        message: what it is doing; None: as it was.
    """

    receipt: Receipt
    progress: float | None = None
    message: str | None = None


class Ordered(Enum):
    """The answer to an order about one job.

    DONE: it is so. ASKED: it is processing, and its worker will hear of it. CONFLICT:
    another job holds its key now. REFUSED: a job in its state can't. UNKNOWN: there is no
    such job. Only the first two changed anything.
    """

    DONE = "done"
    ASKED = "asked"
    CONFLICT = "conflict"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Changed(msgspec.Struct, frozen=True):
    """What became of an order about many jobs.

    Attributes:
        ids: which jobs: those that were named, in order, or those that were found.
        answers: one per id.
        next: where to go on in a filter's jobs; None: that were all.
    """

    ids: Sequence[int]
    answers: Sequence[Ordered]
    next: int | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an order, for whoever gave it.

    Attributes:
        answers: one per job that was named, in order; of a filter's jobs none.
        counts: how often each answer was given.
        asked: the ids of jobs that were asked to stop.
    """

    answers: Sequence[Ordered]
    counts: Mapping[Ordered, int]
    asked: Sequence[int] = ()

    @property
    def done(self) -> int:
        """How many jobs have changed, those asked to stop included."""
        return self.counts.get(Ordered.DONE, 0) + self.counts.get(Ordered.ASKED, 0)


class StoreStats(msgspec.Struct, frozen=True, kw_only=True):
    """What a store holds, and what happened there within the last hour.

    Attributes:
        now: when it was counted [s, store clock].
        queues: jobs by queue and stored state; a state without jobs is left out.
        paused: the queues of which nothing may be claimed.
        tallies: what happened, by minute and queue.
        workers: who works or has worked here, the latest first.
    """

    now: float
    queues: Mapping[str, Mapping[JobState, int]]
    paused: frozenset[str]
    tallies: Sequence[Tally]
    workers: Sequence[WorkerRecord]


class Cleaned(msgspec.Struct, frozen=True):
    """What one step of a clean has done.

    Attributes:
        deleted: jobs that are gone now [count].
        next: where to go on; None: nothing that comes is old enough.
    """

    deleted: int
    next: int | None


def _word(status: str | JobState | None) -> str | None:
    return status.value if isinstance(status, JobState) else status


@attrs.frozen(kw_only=True)
class JobFilter:
    """Which jobs are meant; what is None does not restrict.

    A manager refuses one that says what no job could be. To a store it means no job.

    Attributes:
        status: a stored state, as a `JobState` or its word, or a reading of it: scheduled,
            retrying, stalled.
        queue: the queue's name.
        handler: the handler's name.
        tag: one of its tags.
        key: its key, held or not.
        first_id: the lowest id.
        last_id: the highest id.
        stored_since: the earliest time of storing [s, store clock].
        stored_before: it was stored before then [s, store clock].
        ended_since: the earliest time of its end [s, store clock].
        ended_before: it ended before then [s, store clock].
    """

    status: str | None = attrs.field(default=None, converter=_word)
    queue: str | None = None
    handler: str | None = None
    tag: str | None = None
    key: str | None = None
    first_id: int | None = None
    last_id: int | None = None
    stored_since: float | None = None
    stored_before: float | None = None
    ended_since: float | None = None
    ended_before: float | None = None


EVERY_JOB: Final = JobFilter()
