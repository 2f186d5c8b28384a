"""Who waits for a flush, and for which entries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs

from batchq.core.entry import Entry

__all__ = ["Flush", "Flushes"]


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
class Flushes:
    """The flushes that somebody waits for.

    Attributes:
        open: those that wait for an entry.
    """

    open: list[Flush] = attrs.field(factory=list)

    def begin(self, entries: Iterable[Entry[Any, Any]]) -> Flush:
        """Wait for `entries` from now on."""
        flush = Flush(set(entries))
        if flush.left:
            self.open.append(flush)
        return flush

    def forget(self, flush: Flush) -> None:
        """Let go of a flush that nobody waits for any more."""
        if flush in self.open:
            self.open.remove(flush)

    def leave(self, entries: Sequence[Entry[Any, Any]]) -> None:
        """Note that `entries` were settled or delayed."""
        if self.open:
            self.open = [flush for flush in self.open if not flush.leave(entries)]
