"""An accepted item with its bookkeeping.

    enqueue ──► PENDING ──start──► IN_FLIGHT ──► SUCCEEDED | FAILED
                 ▲   ▲                │
          delay  │   └─ no verdict ───┤        (Throttled, interrupted by a drain timeout)
           over  └──── DELAYED ◄──────┘        (retry, snooze; also enqueue with delay > 0)
    PENDING, DELAYED, IN_FLIGHT ──► CANCELLED | CLOSED        PENDING, DELAYED ──► DROPPED

Rule 1: an entry settles exactly once, and then lets go of its item.
Rule 2: it is one slotted object; what a waiter needs is made when somebody waits.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from types import TracebackType
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec

from batchq.core.result import Result

__all__ = ["Entry", "EntryStatus", "Owner"]

T = TypeVar("T")
R = TypeVar("R")


class EntryStatus(Enum):
    """Where an entry is; the last five are final."""

    PENDING = "pending"
    DELAYED = "delayed"
    IN_FLIGHT = "in_flight"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DROPPED = "dropped"
    CANCELLED = "cancelled"
    CLOSED = "closed"


# Globals are read faster than members of an Enum class, and compared faster than hashed.
_PENDING: Final = EntryStatus.PENDING
_DELAYED: Final = EntryStatus.DELAYED
_IN_FLIGHT: Final = EntryStatus.IN_FLIGHT


class Owner(Protocol):
    """Who may cancel an entry: the queue that it is in."""

    def cancel_entry(self, entry: Entry[Any, Any]) -> bool:
        """Take the entry back if the processor has not seen it; tell whether it worked."""


# A msgspec.Struct although it never leaves the process: one is made for every item, and
# it is made in less than half the time of an attrs class.
class Entry(msgspec.Struct, Generic[T, R], eq=False, gc=False):
    """An item that a queue has accepted, and what became of it.

    Attributes:
        id: follows the order of admission; unique within a run.
        item: what was enqueued; None once settled.
        priority: its level; 0 goes first.
        enqueued_at: when it was admitted [s, the queue's clock].
        status: where it is.
        attempts: runs on it that ended in a verdict [count].
    """

    id: int
    item: T
    priority: int
    enqueued_at: float
    owner: Owner
    status: EntryStatus = _PENDING
    attempts: int = 0
    # The value of a success, or a Result.
    answer: object = None
    due: float = 0.0
    wake: Callable[[], object] | None = None
    abandoned: bool = False
    trace: TracebackType | None = None

    def __repr__(self) -> str:
        return f"<Entry {self.id} {self.status.value}, {self.attempts} attempts>"

    @property
    def settled(self) -> bool:
        """Whether its status is final."""
        status = self.status
        return status is not _PENDING and status is not _IN_FLIGHT and status is not _DELAYED

    @property
    def verdict(self) -> Result[R]:
        """What became of it; for settled entries only."""
        answer = self.answer
        return answer if type(answer) is Result else Result(success=True, value=answer)

    def cancel(self) -> bool:
        """Take the item back.

        Returns:
            True: the processor will not see it. False: it is being processed, its result
            is recorded, and a failure of it is final; or it is settled already.
        """
        return self.owner.cancel_entry(self)

    def settle(self, status: EntryStatus, answer: object) -> None:
        """Give the entry its final status, let go of the item and wake who waits."""
        self.status = status
        self.answer = answer
        self.item = None  # type: ignore[assignment]  # a settled entry has let go of it
        if isinstance(answer, Result) and isinstance(answer.error, BaseException):
            # Raised later in many tasks, the error must not grow one tangled traceback.
            self.trace = answer.error.__traceback__
        if self.wake is not None:
            self.wake()
            self.wake = None
