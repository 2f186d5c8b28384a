"""What each row of the life's table does to a job's record.

Rule 1: the functions below make every change of a job's record; whatever ends, ends in
`_end`.
Rule 2: they ask nobody what time it is, and check no receipt: `is_current` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Final, TypeVar

import msgspec

from batchq.core.job import KeyScope, NewJob, Receipt, Settlement
from batchq.core.lifecycle import (
    CRASHED,
    EXHAUSTED,
    EXPIRED,
    MAX_FAILURES,
    SUSPECT_AFTER,
    USER,
    JobState,
    Move,
    after,
)
from batchq.core.record import JobRecord

__all__ = [
    "again",
    "ask_to_stop",
    "bury",
    "cancel",
    "claim",
    "is_current",
    "is_doomed",
    "is_suspect",
    "is_used_up",
    "kept",
    "may_go",
    "new",
    "settle",
    "takes_key_again",
]

T = TypeVar("T")

# Scopes of keys that the job's end ends.
_UNTIL_THE_END: Final = frozenset({KeyScope.WAITING, KeyScope.LIVE})

_VERDICTS: Final = MappingProxyType(
    {
        "ok": Move.COMPLETE,
        "retry": Move.RETRY,
        "fail": Move.FAIL,
        "snooze": Move.SNOOZE,
        "release": Move.RELEASE,
        "cancel": Move.CANCEL,
    }
)
# What a job that is asked to stop does not come to: it is cancelled instead.
_NOT_WHEN_ASKED: Final = frozenset({Move.RETRY, Move.SNOOZE, Move.RELEASE})


def is_current(job: JobRecord | None, receipt: Receipt) -> bool:
    """Tell whether `receipt` is the right to settle and extend `job`."""
    return job is not None and job.state is JobState.PROCESSING and job.attempt == receipt.attempt


def is_used_up(job: JobRecord) -> bool:
    """Tell whether all attempts that may count were made."""
    return job.max_attempts is not None and job.attempt - job.refunds >= job.max_attempts


def is_doomed(job: JobRecord, *, now: float) -> bool:
    """Tell whether a claim that meets the due job ends it instead of handing it out (T4)."""
    return is_used_up(job) or job.cancel is not None or _is_expired(job, now)


def is_suspect(job: JobRecord) -> bool:
    """Tell whether a claim that meets the due job hands it out alone.

    Its lease ran out, and not for the first time: it may be what killed its workers.
    """
    return job.state is JobState.PROCESSING and job.crashes + 1 >= SUSPECT_AFTER


def new(job: NewJob, *, id_: int, now: float) -> JobRecord:
    """Return the record of a job that is being stored (T1)."""
    record = JobRecord(
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
    key = job.key
    if key is None and job.expires is None and not job.tags:
        return record  # as most are
    return msgspec.structs.replace(
        record,
        expires_at=None if job.expires is None else now + job.expires,
        tags=job.tags,
        key=None if key is None else key.text,
        key_scope=None if key is None else key.scope,
        key_until=None if key is None or key.lasts is None else now + key.lasts,
        holds_key=key is not None,
    )


def claim(job: JobRecord, *, now: float, lease: float, worker: str) -> JobRecord:
    """Return a due job as its new holder has it, until `now + lease` [s] (T2, T3).

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
        progress=None,
        note=None,
        holds_key=job.holds_key and job.key_scope is not KeyScope.WAITING,
    )


def bury(job: JobRecord, *, now: float) -> JobRecord:
    """Return a due job that is doomed, ended (T4).

    The attempt number rises, so that its last holder's receipt is stale; nothing ran, so
    that one is refunded.
    """
    fenced = msgspec.structs.replace(
        job, attempt=job.attempt + 1, refunds=job.refunds + 1, progress=None, note=None
    )
    if job.cancel is not None:
        return _end(fenced, Move.CANCEL, now=now, reason=job.cancel)
    return _end(fenced, Move.FAIL, now=now, reason=CRASHED if is_used_up(job) else EXPIRED)


def settle(job: JobRecord, settlement: Settlement, *, now: float) -> JobRecord:
    """Return the job after a settlement whose receipt is current (T5 to T11)."""
    move = _VERDICTS[settlement.verdict.value]
    if job.cancel is not None and move in _NOT_WHEN_ASKED:
        move = Move.CANCEL
    if job.crashes:
        job = msgspec.structs.replace(job, crashes=0)
    if move is Move.COMPLETE:
        return _end(job, move, now=now, value=settlement.value)
    if move is Move.FAIL:
        return _end(job, move, now=now, reason=settlement.reason)
    if move is Move.CANCEL:
        return _end(job, move, now=now, reason=settlement.reason or job.cancel or USER)
    if move is Move.RETRY and is_used_up(job):
        return _end(job, Move.FAIL, now=now, reason=EXHAUSTED)
    return msgspec.structs.replace(
        job,
        state=after(job.state, move),
        refunds=job.refunds + (move is not Move.RETRY),
        due_at=job.enqueued_at if move is Move.RELEASE else now + settlement.delay,
    )


def cancel(job: JobRecord, reason: str, *, now: float) -> JobRecord:
    """Return a job that waits, cancelled (T12)."""
    return _end(job, Move.CANCEL, now=now, reason=reason)


def ask_to_stop(job: JobRecord, reason: str) -> JobRecord:
    """Return a job that is processing, asked to stop (T13)."""
    return msgspec.structs.replace(job, state=after(job.state, Move.ASK), cancel=reason)


def again(job: JobRecord, *, now: float) -> JobRecord:
    """Return a job that is to run now: one that ended, or waits (T14, T15).

    What ended begins anew, with all its attempts; whoever calls has seen to its key.
    """
    if not job.state.final:
        due_at = now if job.due_at is None else min(job.due_at, now)
        return msgspec.structs.replace(job, state=after(job.state, Move.HASTEN), due_at=due_at)
    return msgspec.structs.replace(
        job,
        state=after(job.state, Move.AGAIN),
        refunds=job.attempt,
        crashes=0,
        due_at=now,
        expires_at=None,
        cancel=None,
        value=None,
        reason=None,
        finished_at=None,
        holds_key=job.holds_key or takes_key_again(job, now=now),
    )


def takes_key_again(job: JobRecord, *, now: float) -> bool:
    """Tell whether an ended job that is to run again needs its key anew."""
    if job.key is None or job.holds_key or not job.state.final:
        return False
    return job.key_until is None or job.key_until > now


def may_go(job: JobRecord, *, now: float) -> bool:
    """Tell whether a job may be deleted (T17): it ended, and its key's time is over."""
    held = job.holds_key and job.key_until is not None and job.key_until > now
    return job.state.final and not held


def kept(failures: Sequence[T]) -> Sequence[T]:
    """Return which of a job's failures, oldest first, are kept: the first and the last."""
    if len(failures) <= MAX_FAILURES:
        return failures
    return [failures[0], *failures[1 - MAX_FAILURES :]]


def _is_expired(job: JobRecord, now: float) -> bool:
    if job.expires_at is None or job.state is not JobState.PENDING:
        return False
    return job.expires_at <= now and job.attempt == job.refunds


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
        holds_key=job.holds_key and job.key_scope not in _UNTIL_THE_END,
    )
