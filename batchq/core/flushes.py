"""Who waits for a flush, and how many entries are left of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, Final

import attrs

from batchq.core.entry import IN_FLIGHT, PENDING, Entry
from batchq.core.lot import Cut, there

__all__ = ["Flush", "Flushes", "gone"]

_HERE: Final = frozenset({PENDING, IN_FLIGHT})  # where a flush still waits for an entry


def gone(batches: Iterable[Sequence[Entry[Any, Any]]]) -> list[int]:
    """Return the ids, of entries of batches that are there, that a flush does not wait for."""
    entries = chain.from_iterable(map(there, batches))
    return [entry.id for entry in entries if entry.code not in _HERE]


@attrs.define(eq=False)
class Flush:
    """A call of `flush()`.

    It counts what it waits for: a set of entries would be as large as the queue, and each
    entry would have to be made for it.

    Attributes:
        last_id: the newest entry at the call.
        left: how many were pending or in flight at the call, and have neither been settled
            nor delayed since [entries].
        others: the ids up to the newest that are not waited for, or not any more, and may
            be heard of again.
        wake: called once, when none is left.
    """

    last_id: int
    left: int
    others: set[int]
    wake: Callable[[], object] | None = None

    def leave(self, ids: Iterable[int]) -> None:
        """Note that entries were settled or delayed."""
        last, others = self.last_id, self.others
        left = {id_ for id_ in ids if id_ <= last and id_ not in others}
        others |= left
        self.left -= len(left)


@attrs.define(eq=False)
class Flushes:
    """The flushes that somebody waits for.

    Attributes:
        open: those that wait for an entry.
    """

    open: list[Flush] = attrs.field(factory=list)

    def begin(self, last_id: int, left: int, others: Iterable[int]) -> Flush:
        """Wait for what is pending or in flight; see `Flush`."""
        flush = Flush(last_id, left, set(others))
        if left:
            self.open.append(flush)
        return flush

    def forget(self, flush: Flush) -> None:
        """Let go of a flush that nobody waits for any more."""
        if flush in self.open:
            self.open.remove(flush)

    def leave(self, ids: Sequence[int]) -> None:
        """Note that entries were settled or delayed; of some it may be known already."""
        if self.open:
            for flush in self.open:
                flush.leave(ids)
            self._tell()

    def ended(self, entries: Sequence[Entry[Any, Any]]) -> None:
        """Note that a call ended."""
        if type(entries) is Cut:  # those that were never made have succeeded
            entries, missing = entries.look()
            for flush in self.open:
                flush.left -= sum(len(ids) for ids in missing if ids[0] <= flush.last_id)
        self.leave(gone([entries]))

    def _tell(self) -> None:
        """Let those go on of whose flush none is left."""
        over = [flush for flush in self.open if not flush.left]
        for flush in over:
            self.open.remove(flush)
            if flush.wake is not None:
                flush.wake()
                flush.wake = None
