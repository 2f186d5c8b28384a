"""The life of a durable job, as one table.

    enqueue ──> PENDING ──claim──> PROCESSING ──complete──> COMPLETED
                 │   ^              │ │    └──────fail────> FAILED
                 │   └──retry───────┘ └──claim──> PROCESSING (its lease ran out)
                 │      snooze, release
                 └──fail──> FAILED

Rule 1: a job changes state only by a move in `MOVES`. Stores write the same moves in
their own language; the conformance suite replays this table against them.
Rule 2: what can be read from (state, due_at, attempt) is not a state.
Rule 3: the functions below make every change of a job's record; whatever ends, ends in
`_end`. They ask nobody what time it is, and check no receipt: `is_current` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from batchq.errors import LifecycleError

if TYPE_CHECKING:
    from batchq.core.job import JobRecord, NewJob, Receipt, Settlement

__all__ = [
    "LEASE_RAN_OUT",
    "MAX_BURIALS",
    "MAX_FAILURES",
    "MOVES",
    "JobState",
    "Move",
    "after",
    "bury",
    "claim",
    "is_current",
    "is_used_up",
    "kept",
    "new",
    "settle",
]

T = TypeVar("T")

MAX_FAILURES: Final = 20  # kept per job
MAX_BURIALS: Final = 1_000  # per claim, so that no commit grows without bound
LEASE_RAN_OUT: Final = "lease ran out"  # the message of a failure that nobody reported


class JobState(Enum):
    """A stored state of a job."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing more comes of it by itself."""
        return self in _FINAL


_FINAL: Final = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})


class Move(Enum):
    """What may happen to a job."""

    CLAIM = "claim"
    COMPLETE = "complete"
    RETRY = "retry"
    FAIL = "fail"
    SNOOZE = "snooze"
    RELEASE = "release"


MOVES: Final[Mapping[JobState, Mapping[Move, JobState]]] = MappingProxyType(
    {
        JobState.PENDING: {Move.CLAIM: JobState.PROCESSING, Move.FAIL: JobState.FAILED},
        JobState.PROCESSING: {
            Move.CLAIM: JobState.PROCESSING,
            Move.COMPLETE: JobState.COMPLETED,
            Move.RETRY: JobState.PENDING,
            Move.FAIL: JobState.FAILED,
            Move.SNOOZE: JobState.PENDING,
            Move.RELEASE: JobState.PENDING,
        },
        JobState.COMPLETED: {},
        JobState.FAILED: {},
        JobState.CANCELLED: {},
    }
)


def after(state: JobState, move: Move) -> JobState:
    """Return the state that `move` leads to from `state`.

    Raises:
        LifecycleError: the table has no such move; the message lists those it has.
    """
    try:
        return MOVES[state][move]
    except KeyError:
        legal = ", ".join(m.value for m in MOVES[state]) or "nothing more"
        raise LifecycleError(
            f"cannot {move.value} a {state.value} job; it can only: {legal}"
        ) from None


_VERDICTS: Final = MappingProxyType(
    {
        "ok": Move.COMPLETE,
        "retry": Move.RETRY,
        "fail": Move.FAIL,
        "snooze": Move.SNOOZE,
        "release": Move.RELEASE,
    }
)


def is_current(job: JobRecord | None, receipt: Receipt) -> bool:
    """Tell whether `receipt` is the right to settle and extend `job`."""
    return job is not None and job.state is JobState.PROCESSING and job.attempt == receipt.attempt


def is_used_up(job: JobRecord) -> bool:
    """Tell whether all attempts that may count were made: a claim buries the job."""
    return job.max_attempts is not None and job.attempt - job.refunds >= job.max_attempts


def new(record: type[JobRecord], job: NewJob, *, id_: int, now: float) -> JobRecord:
    """Return the record of a job that is being stored."""
    return record(
        id=id_,
        queue=job.queue,
        handler=job.handler,
        state=JobState.PENDING,
        priority=job.priority,
        due_at=now + job.delay,
        max_attempts=job.max_attempts,
        payload=job.payload,
        enqueued_at=now,
    )


def claim(job: JobRecord, *, now: float, lease: float, worker: str) -> JobRecord:
    """Return a due job as its new holder has it, until `now + lease` [s].

    Its lease ran out if it was processing: one more crash in a row.
    """
    return msgspec.structs.replace(
        job,
        state=after(job.state, Move.CLAIM),
        attempt=job.attempt + 1,
        crashes=job.crashes + (job.state is JobState.PROCESSING),
        due_at=now + lease,
        worker=worker,
        started_at=now,
    )


def bury(job: JobRecord, *, now: float) -> JobRecord:
    """Return a due job that is used up, failed.

    The attempt number rises, so that its last holder's receipt is stale; nothing ran, so
    that one is refunded.
    """
    fenced = msgspec.structs.replace(job, attempt=job.attempt + 1, refunds=job.refunds + 1)
    return _end(fenced, Move.FAIL, now=now, reason="crashed")


def settle(job: JobRecord, settlement: Settlement, *, now: float) -> JobRecord:
    """Return the job after a settlement whose receipt is current."""
    move = _VERDICTS[settlement.verdict.value]
    job = msgspec.structs.replace(job, crashes=0)
    if move is Move.COMPLETE:
        return _end(job, move, now=now, value=settlement.value)
    if move is Move.FAIL:
        return _end(job, move, now=now, reason=settlement.reason)
    if move is Move.RETRY and is_used_up(job):
        return _end(job, Move.FAIL, now=now, reason="exhausted")
    return msgspec.structs.replace(
        job,
        state=after(job.state, move),
        refunds=job.refunds + (move is not Move.RETRY),
        due_at=job.enqueued_at if move is Move.RELEASE else now + settlement.delay,
    )


def kept(failures: Sequence[T]) -> Sequence[T]:
    """Return which of a job's failures, oldest first, are kept: the first and the last."""
    if len(failures) <= MAX_FAILURES:
        return failures
    return [failures[0], *failures[1 - MAX_FAILURES :]]


def _end(
    job: JobRecord,
    move: Move,
    *,
    now: float,
    value: bytes | None = None,
    reason: str | None = None,
) -> JobRecord:
    """Return the job in its final state: the one way into any of them."""
    return msgspec.structs.replace(
        job,
        state=after(job.state, move),
        due_at=None,
        value=value,
        reason=reason,
        finished_at=now,
    )
