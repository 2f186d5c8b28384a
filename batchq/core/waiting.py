"""All that waits: what may start, what its time has not come for, who waits for a flush.

Rule 1: `size` counts each waiting entry once, at every step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import msgspec

from batchq.core.batch import Batch, Trigger
from batchq.core.bucket import Bucket
from batchq.core.entry import DELAYED, IN_FLIGHT, Entry
from batchq.core.expiry import Delays
from batchq.core.flushes import Flushes
from batchq.core.lot import there
from batchq.core.result import Result
from batchq.core.settling import Settling

__all__ = ["Choice", "Waiting"]


# A msgspec.Struct, as Entry: one is made for every batch.
class Choice(msgspec.Struct):
    """A batch that may start; nothing was taken out for it yet.

    Attributes:
        count: how many entries it has; fewer may go.
        trigger: why it is ready.
        entries: which they are; None: the first ones.
        place: where they wait; None: there is one place only.
    """

    count: int
    trigger: Trigger
    entries: Sequence[Entry[Any, Any]] | None = None
    place: Any = None


@attrs.define(eq=False)
class Waiting:
    """The entries that wait.

    Attributes:
        bucket: those that may start.
        delays: those whose time has not come.
        settling: counts how entries end.
        batch_size: entries that make a full batch, as things are.
        size: pending and delayed [entries].
        flushes: those that somebody waits for.
    """

    bucket: Bucket
    settling: Settling
    batch_size: int
    delays: Delays = attrs.field(factory=Delays)
    size: int = 0
    flushes: Flushes = attrs.field(factory=Flushes)

    def __iter__(self) -> Iterator[Entry[Any, Any]]:
        """Walk the entries, in no order."""
        yield from self.bucket
        yield from self.delays

    @property
    def all_fresh(self) -> bool:
        """Whether nothing here comes again."""
        return not self.bucket.again

    @property
    def pending(self) -> int:
        """What may start [entries]."""
        return self.size - self.delays.count

    @property
    def weight(self) -> float:
        """What waits weighs: 1 each."""
        return float(self.size)

    def advance(self, now: float) -> None:
        """Let those whose delay is over at `now` [s] start."""
        while (over := self.delays.pop(now)) is not None:
            self.bucket.put_back(over)

    def choose(self, now: float, *, why: Trigger | None) -> Choice | None:
        """Choose the next batch that is ready at `now` [s]; nothing is taken out.

        Args:
            now: [s]; -inf: what is ready whatever the time.
            why: why whatever waits is ready; None: it is not.
        """
        pending = self.size - self.delays.count
        if pending >= self.batch_size:
            return Choice(self.batch_size, Trigger.SIZE)
        if not pending:
            return None
        if why is not None:
            return Choice(pending, why)
        reason = self.bucket.reason(now)
        return None if reason is None else Choice(pending, reason)

    def end_step(self) -> None:
        """Note that nothing more starts in this step: that is nothing to remember here."""

    def take(self, choice: Choice) -> Sequence[Entry[Any, Any]]:
        """Take the entries of a choice out; they are IN_FLIGHT."""
        entries = self.bucket.take(choice.count)
        self.size -= len(entries)
        for entry in there(entries):
            entry.code = IN_FLIGHT
        return entries

    def next_ready(self, *, later: bool = False) -> float:
        """Return from when on a batch is ready without a further event [s]; -inf: now.

        Args:
            later: when one becomes ready that is not, and may go first: never here.
        """
        if later:
            return math.inf
        if self.size - self.delays.count >= self.batch_size:
            return -math.inf
        return min(self.bucket.due(), self.delays.next_end)

    def next_event(self) -> float:
        """Return when something happens here whether or not a batch may start [s]: never."""
        return math.inf

    def expire(self, now: float, *, late: bool = False) -> bool:
        """Settle what is past its deadline: nothing has one here."""
        del now, late
        return False

    def ended(self, batch: Batch[Any]) -> None:
        """Note that a batch has left its slot."""

    def delay(self, entry: Entry[Any, Any], due: float) -> None:
        """Take in an entry that may not start before `due` [s]."""
        self.delays.add(entry, due)
        self.size += 1

    def put_back(self, entry: Entry[Any, Any]) -> None:
        """Take in an entry that comes again now, at its old place."""
        self.bucket.put_back(entry)
        self.size += 1

    def remove(self, entry: Entry[Any, Any], code: int, error: Exception) -> None:
        """Settle an entry that waits."""
        room = self.delays if entry.code == DELAYED else self.bucket
        self.settling.count(code)
        entry.settle(code, Result.fail(error))
        room.forget(entry)
        self.size -= 1
        self.flushes.leave([entry.id])

    def flush(self, last_id: int) -> None:
        """Make what is pending due; `last_id` is that of the newest entry."""
        self.bucket.flushed = last_id

    def oldest(self, now: float) -> float:
        """Return how long the oldest entry that waits has been here [s]; 0: none waits."""
        oldest = [self.bucket.first(), min(self.delays, key=_by_age, default=None)]
        ages = [now - each.enqueued_at for each in oldest if each is not None]
        return max(ages, default=0.0)


def _by_age(entry: Entry[Any, Any]) -> float:
    return entry.enqueued_at
