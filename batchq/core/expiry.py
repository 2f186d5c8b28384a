"""What waits for a time of its own: the delayed entries, in one heap."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from typing import Any, Final

import attrs

from batchq.core.entry import DELAYED, Entry

__all__ = ["Delays"]

_MANY: Final = 64  # dead heap entries that are not worth a rebuild


@attrs.define(eq=False)
class Delays:
    """The entries whose time has not come.

    Attributes:
        count: entries that wait here [entries].
        next_end: when the first of them is over [s]; inf: none waits.
    """

    count: int = 0
    next_end: float = math.inf
    _heap: list[tuple[float, int, Entry[Any, Any]]] = attrs.field(factory=list)

    def __iter__(self) -> Iterator[Entry[Any, Any]]:
        """Walk the entries, in no order."""
        return (entry for _, _, entry in self._heap if entry.code == DELAYED)

    def add(self, entry: Entry[Any, Any], due: float) -> None:
        """Keep `entry` until `due` [s]."""
        entry.code = DELAYED
        entry.due = due
        heapq.heappush(self._heap, (due, entry.id, entry))
        self.count += 1
        self.next_end = self._heap[0][0]

    def pop(self, now: float) -> Entry[Any, Any] | None:
        """Give out the next entry whose delay is over at `now`, earliest first."""
        if self.next_end > now:
            return None
        entry = heapq.heappop(self._heap)[2]
        self.count -= 1
        self._tidy()
        return entry

    def forget(self, entry: Entry[Any, Any]) -> None:
        """Count out an entry that has just been settled; it leaves the heap later."""
        del entry  # its status says so already
        self.count -= 1
        if len(self._heap) > 2 * self.count + _MANY:
            self._heap = [cell for cell in self._heap if cell[2].code == DELAYED]
            heapq.heapify(self._heap)
        self._tidy()

    def _tidy(self) -> None:
        while self._heap and self._heap[0][2].code != DELAYED:
            heapq.heappop(self._heap)
        self.next_end = self._heap[0][0] if self._heap else math.inf
