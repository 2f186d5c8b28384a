"""An accepted item with its bookkeeping.

    enqueue ──► PENDING ──start──► IN_FLIGHT ──► SUCCEEDED | FAILED
                 ▲   ▲                │
          delay  │   └─ no verdict ───┤        (Throttled, interrupted by a drain timeout)
           over  └──── DELAYED ◄──────┘        (retry, snooze; also enqueue with delay > 0)
    PENDING, DELAYED, IN_FLIGHT ──► EXPIRED | CANCELLED | CLOSED        PENDING, DELAYED ──► DROPPED

Rule 1: an entry settles exactly once, and then lets go of its item.
Rule 2: it is one slotted object; what a waiter needs is made when somebody waits.
Rule 3: the garbage collector need not look at it while it waits. One that failed keeps an
error, whose traceback keeps frames, which keep the entry: that one it has to see.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from enum import Enum
from types import TracebackType
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec

from batchq.core.result import Result

__all__ = [
    "CANCELLED",
    "CLOSED",
    "DELAYED",
    "DROPPED",
    "EXPIRED",
    "FAILED",
    "IN_FLIGHT",
    "PENDING",
    "SUCCEEDED",
    "Canceller",
    "Entry",
    "EntryStatus",
    "More",
    "Owner",
]

T = TypeVar("T")
R = TypeVar("R")


class EntryStatus(Enum):
    """Where an entry is; the last six are final."""

    PENDING = "pending"
    DELAYED = "delayed"
    IN_FLIGHT = "in_flight"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DROPPED = "dropped"
    CANCELLED = "cancelled"
    CLOSED = "closed"
    EXPIRED = "expired"


# The numbers of the statuses, in the order of EntryStatus. Members of an Enum are slower to
# compare, and the garbage collector follows them (rule 3).
PENDING: Final = 0
DELAYED: Final = 1
IN_FLIGHT: Final = 2
SUCCEEDED: Final = 3
FAILED: Final = 4
DROPPED: Final = 5
CANCELLED: Final = 6
CLOSED: Final = 7
EXPIRED: Final = 8
_STATUSES: Final = tuple(EntryStatus)


class Canceller(Protocol):
    """What can take entries back: a queue."""

    def cancel_entry(self, entry: Entry[Any, Any]) -> bool:
        """Take the entry back if the processor has not seen it; tell whether it worked."""


class Owner(msgspec.Struct, eq=False, gc=False):
    """The queue that an entry is in; it does not keep the queue alive.

    The garbage collector passes it over, and so the entries that have nothing else to
    follow (rule 3); a reference to the queue itself would hide a cycle from it.

    Attributes:
        find: returns the queue; None: it is gone.
        looks: how often somebody waited for an entry that was settled already [count].
    """

    find: Callable[[], Canceller | None]
    looks: int = 0

    def cancel_entry(self, entry: Entry[Any, Any]) -> bool:
        """Ask the queue; False: it is gone, and so the entry was settled."""
        queue = self.find()
        return queue is not None and queue.cancel_entry(entry)


class More(msgspec.Struct, eq=False):
    """What a queue notes of an entry, where more is asked than first come, first served.

    Attributes:
        partition: its partition.
        weight: what it weighs.
        key: its coalesce key; None: it shares with nobody.
        starts_by: when it expires if it has not started for the first time [s].
        ends_by: when it expires if it has no verdict [s].
        early: when it has to start to be in time, however fast calls are [s].
        deadline: the one of the two that counts, as things are [s]; inf: none.
        solo: whether it runs in batches of one, because it failed alone in a bisect.
        callers: who share it and have not withdrawn.
        seat: rises each time it takes its place, so that a cell of the last time is stale.
        due: why it may not wait for company any longer; None: it may.
        place: the bucket that it waits in.
        named_partition: whether its caller named its partition.
        named_key: whether its caller named its key.
        error: what its last attempt failed with; None: none has.
        told: whether the hooks have been told of it, or will be without being asked to.
    """

    partition: Hashable = None
    weight: float = 1.0
    key: Hashable = None
    starts_by: float = math.inf
    ends_by: float = math.inf
    early: float = math.inf
    deadline: float = math.inf
    solo: bool = False
    callers: int = 1
    seat: int = 0
    due: Any = None
    place: Any = None
    named_partition: bool = False
    named_key: bool = False
    error: object = None
    told: bool = True


# A msgspec.Struct although it never leaves the process: one is made for every item, and
# it is made in less than half the time of an attrs class. The collector sees it from when
# something that may lead back to it is set: an answer, a waiter.
class Entry(msgspec.Struct, Generic[T, R], eq=False):
    """An item that a queue has accepted, and what became of it.

    Attributes:
        id: follows the order of admission; unique within a run.
        item: what was enqueued; None once settled.
        priority: its level; 0 goes first.
        enqueued_at: when it was admitted [s, the queue's clock].
        code: where it is, as a number; `status` says it as a word.
        attempts: runs on it that ended in a verdict [count].
    """

    id: int
    priority: int
    enqueued_at: float
    owner: Owner
    item: T = None  # type: ignore[assignment]  # the door sets it
    code: int = PENDING
    attempts: int = 0
    # The value of a success, or a Result.
    answer: object = None
    due: float = 0.0
    waiter: Any = None  # who waits for it, if anybody does
    abandoned: bool = False
    more: Any = None  # a More, in queues that note more
    trace: TracebackType | None = None

    def __repr__(self) -> str:
        return f"<Entry {self.id} {self.status.value}, {self.attempts} attempts>"

    @property
    def status(self) -> EntryStatus:
        """Where it is."""
        return _STATUSES[self.code]

    @property
    def settled(self) -> bool:
        """Whether its status is final."""
        return self.code > IN_FLIGHT

    @property
    def verdict(self) -> Result[R]:
        """What became of it; for settled entries only."""
        answer: Any = self.answer
        return answer if type(answer) is Result else Result(success=True, value=answer)

    def cancel(self) -> bool:
        """Take the item back.

        Returns:
            True: the processor will not see it. False: it is being processed, its result
            is recorded, and a failure of it is final; or it is settled already.
        """
        return self.owner.cancel_entry(self)

    def settle(self, code: int, answer: object) -> None:
        """Give the entry its final status, let go of the item and wake who waits."""
        self.code = code
        self.answer = answer
        self.item = None  # type: ignore[assignment]  # a settled entry has let go of it
        if isinstance(answer, Result) and isinstance(answer.error, BaseException):
            # Raised later in many tasks, the error must not grow one tangled traceback.
            self.trace = answer.error.__traceback__
        if self.waiter is not None:
            self.wake()

    def wake(self) -> None:
        """Wake `waiter`: whoever sets it knows how."""
        raise NotImplementedError
