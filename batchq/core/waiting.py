"""All that waits: what may start, what its time has not come for, who waits for a flush.

Rule 1: `size` counts each waiting entry once, at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import attrs

from batchq.core.bucket import Bucket
from batchq.core.entry import DELAYED, IN_FLIGHT, Entry
from batchq.core.expiry import Delays
from batchq.core.result import Result
from batchq.core.settling import Settling

__all__ = ["Flush", "Waiting"]


@attrs.define(eq=False)
class Flush:
    """A call of `flush()`.

    Attributes:
        left: entries that were pending or in flight at the call, and have neither been
            settled nor delayed since.
        wake: called once, when none is left.
    """

    left: set[Entry[Any, Any]]
    wake: Callable[[], object] | None = None

    def leave(self, entries: Iterable[Entry[Any, Any]]) -> bool:
        """Note that `entries` were settled or delayed; tell whether none is left."""
        self.left.difference_update(entries)
        if self.left:
            return False
        if self.wake is not None:
            self.wake()
            self.wake = None
        return True


@attrs.define(eq=False)
class Waiting:
    """The entries that wait.

    Attributes:
        bucket: those that may start.
        delays: those whose time has not come.
        settling: counts how entries end.
        size: pending and delayed [entries].
        flushes: those that somebody waits for.
    """

    bucket: Bucket
    settling: Settling
    delays: Delays = attrs.field(factory=Delays)
    size: int = 0
    flushes: list[Flush] = attrs.field(factory=list)

    def __iter__(self) -> Iterator[Entry[Any, Any]]:
        """Walk the entries, in no order."""
        yield from self.bucket
        yield from self.delays

    @property
    def pending(self) -> int:
        """What may start [entries]."""
        return self.size - self.delays.count

    def advance(self, now: float) -> None:
        """Let those whose delay is over at `now` [s] start."""
        while (over := self.delays.pop(now)) is not None:
            self.bucket.put_back(over)

    def take(self, limit: int) -> list[Entry[Any, Any]]:
        """Take the first entries out, at most `limit`; they are IN_FLIGHT."""
        entries = self.bucket.take(limit)
        self.size -= len(entries)
        for entry in entries:
            entry.code = IN_FLIGHT
        return entries

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
        self.leave([entry])

    def flush(self, flying: Iterable[Entry[Any, Any]], last_id: int) -> Flush:
        """Make what is pending due, up to `last_id`; `flying` is in flight."""
        self.bucket.flushed = last_id
        flush = Flush({*self.bucket, *flying})
        if flush.left:
            self.flushes.append(flush)
        return flush

    def forget_flush(self, flush: Flush) -> None:
        """Let go of a flush that nobody waits for any more."""
        if flush in self.flushes:
            self.flushes.remove(flush)

    def leave(self, entries: Sequence[Entry[Any, Any]]) -> None:
        """Tell the flushes that `entries` were settled or delayed."""
        if self.flushes:
            self.flushes = [flush for flush in self.flushes if not flush.leave(entries)]

    def oldest(self, now: float) -> float:
        """Return how long the oldest entry that waits has been here [s]; 0: none waits."""
        entries = [self.bucket.oldest(), min(self.delays, key=_by_age, default=None)]
        ages = [now - entry.enqueued_at for entry in entries if entry is not None]
        return max(ages, default=0.0)


def _by_age(entry: Entry[Any, Any]) -> float:
    return entry.enqueued_at
