"""The life of a durable job, as one table.

    enqueue ──> PENDING ──claim──> PROCESSING ──complete──> COMPLETED
                 │   ^              │ │    └──────fail────> FAILED
                 │   └──retry───────┘ └──claim──> PROCESSING (its lease ran out)
                 │      snooze, release
                 └──fail──> FAILED          cancel from either ──> CANCELLED

Rule 1: a job changes state only by a row of `TABLE`. Stores write the same moves in their
own language; the conformance suite replays this table against them, and the docs draw
their diagram from it.
Rule 2: what can be read from (state, due_at, attempt) is not a state.
What a row does to a job's record stands in changes.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final, NamedTuple

from batchq.errors import LifecycleError

__all__ = [
    "CRASHED",
    "EXHAUSTED",
    "EXPIRED",
    "LEASE_RAN_OUT",
    "MAX_BURIALS",
    "MAX_FAILURES",
    "MOVES",
    "SUSPECT_AFTER",
    "TABLE",
    "USER",
    "JobState",
    "Move",
    "Transition",
    "after",
]

MAX_FAILURES: Final = 20  # kept per job
MAX_BURIALS: Final = 1_000  # per claim, so that no commit grows without bound
SUSPECT_AFTER: Final = 2  # leases that ran out in a row
LEASE_RAN_OUT: Final = "lease ran out"  # the message of a failure that nobody reported
# Reasons of ends that the store decides on.
CRASHED: Final = "crashed"
EXHAUSTED: Final = "exhausted"
EXPIRED: Final = "expired"
USER: Final = "user"


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

    ENQUEUE = "enqueue"
    CLAIM = "claim"
    COMPLETE = "complete"
    RETRY = "retry"
    FAIL = "fail"
    SNOOZE = "snooze"
    RELEASE = "release"
    CANCEL = "cancel"
    ASK = "ask to stop"
    AGAIN = "run again"
    HASTEN = "hasten"
    DELETE = "delete"


class Transition(NamedTuple):
    """A row of the table.

    Attributes:
        number: its name, as in T5.
        move: what happens.
        source: in which state; None: there was no job.
        target: to which state; None: there is none any more.
        by: who makes it.
        when: under which condition.
        effect: what else changes.
    """

    number: str
    move: Move
    source: JobState | None
    target: JobState | None
    by: str
    when: str
    effect: str


_PENDING: Final = JobState.PENDING
_PROCESSING: Final = JobState.PROCESSING
_COMPLETED: Final = JobState.COMPLETED
_FAILED: Final = JobState.FAILED
_CANCELLED: Final = JobState.CANCELLED
_CURRENT: Final = "receipt current"
_UNASKED: Final = "receipt current; not asked to stop"

# T16 belongs to jobs that wait for others; there are none yet.
TABLE: Final = (
    Transition("T1", Move.ENQUEUE, None, _PENDING, "enqueue", "key free",
               "attempt = refunds = 0; due_at = now + delay"),
    Transition("T2", Move.CLAIM, _PENDING, _PROCESSING, "claim",
               "due; queue not paused; handler known; attempts left; not expired",
               "attempt + 1; due_at = now + lease; progress and note emptied;"
               " a key held while waiting is freed"),
    Transition("T3", Move.CLAIM, _PROCESSING, _PROCESSING, "claim",
               "its lease ran out; attempts left; not asked to stop",
               "as T2; crashes + 1; error line for the old attempt"),
    Transition("T4", Move.FAIL, _PENDING, _FAILED, "claim (buries)", "due; expired; never ran",
               "attempt + 1; refunds + 1; reason expired"),
    Transition("T4", Move.FAIL, _PROCESSING, _FAILED, "claim (buries)",
               "its lease ran out; no attempts left; not asked to stop",
               "attempt + 1; refunds + 1; error line; reason crashed"),
    Transition("T4", Move.CANCEL, _PROCESSING, _CANCELLED, "claim (buries)",
               "its lease ran out; asked to stop",
               "attempt + 1; refunds + 1; error line; reason as asked"),
    Transition("T5", Move.COMPLETE, _PROCESSING, _COMPLETED, "settle ok", _CURRENT,
               "value stored"),
    Transition("T6", Move.RETRY, _PROCESSING, _PENDING, "settle retry",
               _UNASKED + "; attempts left", "due_at = now + delay; error line"),
    Transition("T7", Move.FAIL, _PROCESSING, _FAILED, "settle retry",
               _UNASKED + "; no attempts left", "error line; reason exhausted"),
    Transition("T8", Move.FAIL, _PROCESSING, _FAILED, "settle fail", _CURRENT,
               "error line; reason"),
    Transition("T9", Move.SNOOZE, _PROCESSING, _PENDING, "settle snooze", _UNASKED,
               "refunds + 1; due_at = now + delay"),
    Transition("T10", Move.RELEASE, _PROCESSING, _PENDING, "settle release", _UNASKED,
               "refunds + 1; due_at = enqueued_at: first in line"),
    Transition("T11", Move.CANCEL, _PROCESSING, _CANCELLED,
               "settle cancel; asked to stop: retry, snooze, release, too", _CURRENT, "reason"),
    Transition("T12", Move.CANCEL, _PENDING, _CANCELLED, "cancel", "", "reason"),
    Transition("T13", Move.ASK, _PROCESSING, _PROCESSING, "cancel", "",
               "it is asked to stop"),
    *(
        Transition("T14", Move.AGAIN, final, _PENDING, "retry", "key free, or never had one",
                   "refunds = attempt; crashes = 0; due_at = now; value, reason, expiry"
                   " and what it was asked emptied; error lines kept")
        for final in (_COMPLETED, _FAILED, _CANCELLED)
    ),
    Transition("T15", Move.HASTEN, _PENDING, _PENDING, "retry", "due later", "due_at = now"),
    *(
        Transition("T17", Move.DELETE, final, None, "clean, delete",
                   "no time left that its key is held for",
                   "error lines go, too")
        for final in (_COMPLETED, _FAILED, _CANCELLED)
    ),
)  # fmt: skip


def _moves() -> Mapping[JobState, Mapping[Move, JobState]]:
    moves: dict[JobState, dict[Move, JobState]] = {state: {} for state in JobState}
    for row in TABLE:
        if row.source is not None and row.target is not None:
            moves[row.source][row.move] = row.target
    return MappingProxyType({state: MappingProxyType(found) for state, found in moves.items()})


MOVES: Final[Mapping[JobState, Mapping[Move, JobState]]] = _moves()


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
