"""The records of the durable tier: what is stored, claimed, settled and answered.

A store takes a `Group` and gives `Answers`: the same four parts, one answer per member,
in order. Payloads are bytes here, encoded before and decoded after; times are seconds on
the store's own clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Final, Generic, TypeVar

import attrs
import msgspec

from batchq.core.result import Result

__all__ = [
    "DEFAULT_PRIORITY",
    "PRIORITIES",
    "PRIORITY_LEVELS",
    "Answers",
    "ClaimRequest",
    "Claimed",
    "ClaimedJob",
    "Enqueued",
    "ErrorLine",
    "Extended",
    "Extension",
    "Group",
    "Job",
    "JobKey",
    "KeyScope",
    "NewJob",
    "Receipt",
    "Settled",
    "Settlement",
    "Undecoded",
    "Verdict",
]

P = TypeVar("P")

PRIORITY_LEVELS: Final = 10
DEFAULT_PRIORITY: Final = 2
PRIORITIES: Final = {"urgent": 0, "high": 1, "medium": 2, "low": 3}


# The garbage collector need not look at what holds only numbers, text and the like: of these
# there is one per job, and they can be in no cycle.
class Receipt(msgspec.Struct, frozen=True, array_like=True, order=True, gc=False, cache_hash=True):
    """The only right to settle or extend a job.

    It is current while the job is `processing` and its attempt is equal.

    Attributes:
        job_id: which job.
        attempt: which claim of it, counted from 1: the fencing token.
    """

    job_id: int
    attempt: int


class KeyScope(Enum):
    """How long no other job of its handler may have a job's key.

    WAITING: until it is first claimed. LIVE: until it is final. KEPT: until it is cleaned
    away. TIME: for so many seconds from when it was stored.
    """

    WAITING = "waiting"
    LIVE = "live"
    KEPT = "kept"
    TIME = "time"


class JobKey(msgspec.Struct, frozen=True, gc=False):
    """A text that at most one job of a handler has at a time.

    Attributes:
        text: the key itself.
        scope: how long the job holds it.
        lasts: with scope TIME: for so long from now [s].
        replace: what becomes of a job that comes while another holds the key. False: it
            is not stored. True, with scope WAITING only: the one that waits takes its
            payload and its due time.
    """

    text: str
    scope: KeyScope = KeyScope.LIVE
    lasts: float | None = None
    replace: bool = False


class NewJob(msgspec.Struct, frozen=True, gc=False):
    """A job to be stored.

    Attributes:
        queue: the queue it waits in.
        handler: the name of the handler it is for.
        payload: what the handler gets, msgspec JSON [bytes].
        priority: level [0 highest .. 9].
        delay: it may not be claimed before so long from now [s].
        max_attempts: attempts that count, at most; None is no limit.
        key: what no other job of its handler may have meanwhile; None: it has none.
        expires: it fails if it has not run so long from now [s]; None: it waits for ever.
        tags: short texts to find it by.
    """

    queue: str
    handler: str
    payload: bytes
    priority: int = DEFAULT_PRIORITY
    delay: float = 0.0
    max_attempts: int | None = 4
    key: JobKey | None = None
    expires: float | None = None
    tags: tuple[str, ...] = ()


class Verdict(Enum):
    """What a settlement says of a job."""

    OK = "ok"
    RETRY = "retry"
    FAIL = "fail"
    SNOOZE = "snooze"
    RELEASE = "release"
    CANCEL = "cancel"


class ErrorLine(msgspec.Struct, frozen=True, gc=False):
    """Why an attempt failed, as it is kept.

    Attributes:
        kind: the name of the exception's class, or `text`.
        message: what it said.
        traceback: where it came from, without locals, at most 8 KiB; empty if none.
    """

    kind: str
    message: str
    traceback: str = ""

    def __str__(self) -> str:
        return self.message if self.kind == "text" else f"{self.kind}: {self.message}"


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """What became of one attempt.

    Attributes:
        receipt: which attempt.
        verdict: what to do with the job.
        value: the result for whoever waits, msgspec JSON [bytes]; for OK.
        error: why it failed; for RETRY and FAIL.
        delay: when it may be claimed again, from now [s]; for RETRY and SNOOZE.
        reason: why it is final, in one word; for FAIL and CANCEL, where None is what the
            cancel that was asked for said. A RETRY that has no attempts left fails as
            `exhausted`.
    """

    receipt: Receipt
    verdict: Verdict
    value: bytes | None = None
    error: ErrorLine | None = None
    delay: float = 0.0
    reason: str | None = None


class Settled(Enum):
    """The answer to a settlement.

    APPLIED: done. RECORDED: this very receipt was used before, nothing changed. STALE:
    the job is somebody else's now, or gone; nothing changed.
    """

    APPLIED = "applied"
    RECORDED = "recorded"
    STALE = "stale"


class Extension(msgspec.Struct, frozen=True):
    """A wish to hold claimed jobs for another `lease` seconds from now."""

    receipts: Sequence[Receipt]
    lease: float


class Extended(Enum):
    """The answer to each receipt of an extension.

    OK: it holds for longer. CANCEL: it does, and the job is asked to stop. STALE: it is
    lost, nothing changed.
    """

    OK = "ok"
    CANCEL = "cancel"
    STALE = "stale"


class Enqueued(msgspec.Struct, frozen=True, gc=False):
    """The answer to a new job.

    Attributes:
        id: its number in the store; rises in order of storing.
        fresh: False: nothing was stored, this is the job that holds its key.
    """

    id: int
    fresh: bool = True


class ClaimRequest(msgspec.Struct, frozen=True):
    """A wish for due jobs of one queue.

    Attributes:
        queue: which queue.
        handlers: the handlers known here, by name; others' jobs stay where they are.
        limit: at most so many [jobs, from 1].
        lease: how long the claim holds [s].
        worker: who claims.
        suspect: whether a job may be given that has killed workers; it comes alone. False:
            such jobs are passed over.
    """

    queue: str
    handlers: tuple[str, ...]
    limit: int
    lease: float
    worker: str
    suspect: bool = True


class ClaimedJob(msgspec.Struct, frozen=True, gc=False):
    """A job as its new holder gets it.

    Attributes:
        receipt: the right to settle it.
        handler: the handler it is for.
        payload: msgspec JSON, not checked [bytes].
        used: attempts that counted, this one included [count, from 1].
        max_attempts: attempts that count, at most; None is no limit.
        priority: level [0 highest .. 9].
        enqueued_at: when it was stored [s, store clock].
        suspect: whether it is to run in a call of its own: several leases on it ran out in
            a row, so it may be what killed their workers.
    """

    receipt: Receipt
    handler: str
    payload: bytes
    used: int
    max_attempts: int | None
    priority: int
    enqueued_at: float
    suspect: bool = False


class Claimed(msgspec.Struct, frozen=True):
    """The answer to a claim.

    Attributes:
        jobs: what was claimed, in claim order (priority, due_at, id); a suspect is alone.
        buried: jobs that ended on the way: used up, expired, or asked to stop [jobs].
        wait: seconds until the next job of these handlers is due; 0: there may be more
            now; None: nothing waits, but for suspects that were passed over, and in a
            queue that is paused.
    """

    jobs: Sequence[ClaimedJob]
    buried: int
    wait: float | None


class Group(msgspec.Struct, frozen=True):
    """Commands to carry out as one atomic unit, in this order.

    Attributes:
        settle: ends of attempts.
        extend: leases to hold on to.
        enqueue: jobs to store.
        claim: wishes for due jobs.
        worker: who commits; empty: nobody whose commits are counted.
        batches: calls of handlers that this worker has ended since its last commit.
    """

    settle: Sequence[Settlement] = ()
    extend: Sequence[Extension] = ()
    enqueue: Sequence[NewJob] = ()
    claim: Sequence[ClaimRequest] = ()
    worker: str = ""
    batches: int = 0


class Answers(msgspec.Struct, frozen=True):
    """The answers to a group: the same four parts, one answer per member, in order.

    Attributes:
        settle: one per settlement.
        extend: one list per extension, one answer per receipt.
        enqueue: one per new job; the ids of the fresh ones rise.
        claim: one per request.
    """

    settle: Sequence[Settled]
    extend: Sequence[Sequence[Extended]]
    enqueue: Sequence[Enqueued]
    claim: Sequence[Claimed]


class Undecoded(msgspec.Struct, Generic[P], eq=False, gc=False):
    """A payload as it is stored, and how to read it."""

    content: bytes
    decode: Callable[[bytes], P]


@attrs.define(eq=False, kw_only=True)
class Job(Generic[P]):
    """A job as its handler sees it; annotate `list[Job[Email]]` to get it.

    Attributes:
        id: the same on every attempt: the idempotency key to pass on.
        attempt: which claim this is [count, from 1]; 0 before the first.
        queue: the queue's name.
        handler: the handler's name.
        priority: level [0 highest .. 9].
        used: attempts that counted, this one included [count].
        max_attempts: attempts that count, at most; None is no limit.
        enqueued_at: when it was stored [s, store clock].
        undecodable: whether its payload was looked at and could not be read.
    """

    id: int
    attempt: int
    queue: str
    handler: str
    priority: int
    used: int
    max_attempts: int | None
    enqueued_at: float
    _payload: P | Undecoded[P] = attrs.field(repr=False)
    _settle: Callable[[Job[Any], Result[object]], None] = attrs.field(repr=False)
    _receipt: Receipt | None = attrs.field(default=None, repr=False)
    undecodable: bool = attrs.field(default=False, init=False, repr=False)

    @property
    def payload(self) -> P:
        """What was enqueued, decoded and checked when it is first asked for.

        Raises:
            PayloadError: it does not decode, or does not fit the handler's type.
        """
        payload = self._payload
        if isinstance(payload, Undecoded):
            payload = self._payload = payload.decode(payload.content)
        return payload

    @property
    def receipt(self) -> Receipt:
        """The fencing token of this attempt, for writes elsewhere."""
        return self._receipt or Receipt(self.id, self.attempt)

    def settle(self, result: Result[object]) -> None:
        """Fix this job's verdict now; whatever the call does later does not touch it.

        From any thread. It is written down soon, and at the latest when the call ends.
        """
        self._settle(self, result)
