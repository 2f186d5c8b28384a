"""Whom a full queue gives up: what waits in one place, in the order in which it goes.

Rule 1: what has left is marked and skipped: a cell counts while its entry has the status
and the level that it was noted with. So a drop costs no more where much waits.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import attrs

from batchq.core.entry import Entry
from batchq.core.option_groups import DropPolicy

__all__ = ["Victims"]

_MANY: Final = 64  # dead cells that are not worth a rebuild

Key = Callable[[Entry[Any, Any]], tuple[int, int]]

# The one that goes first has the smallest key.
_KEYS: Final[Mapping[DropPolicy, Key]] = {
    DropPolicy.DROP_OLDEST: lambda entry: (0, entry.id),
    DropPolicy.DROP_LOWEST_PRIORITY: lambda entry: (-entry.priority, -entry.id),
}


@attrs.define(eq=False)
class Victims:
    """The entries of one status that the drop policy may give up.

    Attributes:
        code: their status.
        key: which goes first: that of the smallest key.
    """

    code: int
    key: Key
    _heap: list[tuple[tuple[int, int], int, Entry[Any, Any]]] = attrs.field(factory=list)
    _serial: Iterator[int] = attrs.field(factory=itertools.count)  # entries are not compared

    @classmethod
    def of(cls, code: int, policy: DropPolicy) -> Victims | None:
        """Make an empty one; None: the policy gives up nothing that waits."""
        key = _KEYS.get(policy)
        return None if key is None else cls(code, key)

    def add(self, entry: Entry[Any, Any]) -> None:
        """Note an entry that has got this status, or another level."""
        heapq.heappush(self._heap, (self.key(entry), next(self._serial), entry))

    def first(self) -> Entry[Any, Any] | None:
        """Return the entry that goes first; it stays where it is."""
        heap = self._heap
        while heap:
            key, _, entry = heap[0]
            if entry.code == self.code and key == self.key(entry):
                return entry
            heapq.heappop(heap)
        return None

    def tidy(self, left: int) -> None:
        """Let go of what has left, where no more than `left` entries have this status."""
        if not left:
            self._heap.clear()
        elif len(self._heap) > 2 * left + _MANY:
            # Once each: one that left and came again has several cells.
            alive = {cell[2].id: cell[2] for cell in self._heap if cell[2].code == self.code}
            self._heap.clear()
            for entry in alive.values():
                self.add(entry)
