"""The pending entries of one partition, where weight, ageing or solo entries count.

    front  the entries that go first, in order       heap  all others

Rule 1: what leaves is marked and skipped: a cell counts while its entry is PENDING and has
the seat that the cell names.
Rule 2: every cell of `front` goes before every cell of `heap`.
"""

from __future__ import annotations

import bisect
import heapq
import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import attrs

from batchq.core.batch import Trigger
from batchq.core.entry import PENDING, Entry

__all__ = ["LOUD", "SortedBucket"]

LOUD: Final = object()  # nothing says that the bucket is to be passed over

_MANY: Final = 64  # dead cells that are not worth a rebuild

# (level or time part of the order key, id, seat, entry): two cells of one entry differ in
# their seat, so entries are never compared.
Cell = tuple[float, int, int, Entry[Any, Any]]


@attrs.define(eq=False)
class SortedBucket:
    """What waits for a batch in one partition (of one level, where levels do not mix).

    Attributes:
        home: the partition.
        level: the level, where levels do not mix; else 0.
        aging: waiting that is worth one level [s]; inf: strict priority.
        turn: whose turn it is among its equals: the smallest goes first.
        listed: whether it is among those that may be ready.
        count: what waits here [entries].
        weight: what that weighs.
        due: how many of them are due [entries].
        reason: why the last of those became due.
        hushed: why it was ready when the strategy had nothing to start; LOUD: it had.
    """

    home: Any
    level: int
    aging: float
    turn: int = 0
    listed: bool = False
    count: int = 0
    weight: float = 0.0
    due: int = 0
    reason: Trigger = Trigger.INTERVAL
    hushed: object = LOUD
    _front: list[Cell] = attrs.field(factory=list)
    _heap: list[Cell] = attrs.field(factory=list)

    def __iter__(self) -> Iterator[Entry[Any, Any]]:
        """Walk the entries, in no order."""
        return (cell[3] for cell in (*self._front, *self._heap) if _alive(cell))

    def add(self, entry: Entry[Any, Any]) -> None:
        """Take in an entry at the place that its order key gives it."""
        more = entry.more
        entry.code = PENDING
        more.seat += 1
        more.place = self
        cell = (self._rank_of(entry), entry.id, more.seat, entry)
        if self._front and cell < self._front[-1]:
            bisect.insort(self._front, cell)
        else:
            heapq.heappush(self._heap, cell)
        self.count += 1
        self.weight += more.weight
        self._tidy()

    def leave(self, entry: Entry[Any, Any]) -> None:
        """Count an entry out that is not PENDING any more, or moves."""
        more = entry.more
        more.seat += 1
        more.place = None
        self.count -= 1
        # Sums of floats drift: an empty bucket weighs nothing.
        self.weight = self.weight - more.weight if self.count else 0.0
        if more.due is not None:
            more.due = None
            self.due -= 1
        self._tidy()

    def mark_due(self, entry: Entry[Any, Any], reason: Trigger) -> None:
        """Note that an entry that waits here may not wait for company any longer."""
        if entry.more.due is None:
            self.due += 1
        entry.more.due = self.reason = reason

    def rank(self) -> float:
        """Tell the level of the first entry, or the time part of its order key."""
        cell = self._at(0)
        return math.inf if cell is None else cell[0]

    def head(self, limit: int, budget: float, barrier: float) -> list[Entry[Any, Any]]:
        """Choose the entries of the next batch; nothing is taken out.

        Args:
            limit: most entries.
            budget: most weight of two or more.
            barrier: entries from this id on have to wait.
        """
        chosen: list[Entry[Any, Any]] = []
        weight = 0.0
        while len(chosen) < limit and (cell := self._at(len(chosen))) is not None:
            entry = cell[3]
            weight += entry.more.weight
            if entry.id >= barrier or (chosen and (entry.more.solo or weight > budget)):
                break
            chosen.append(entry)
            if entry.more.solo:
                break
        return chosen

    def in_order(self) -> list[Entry[Any, Any]]:
        """Return all entries, first things first."""
        return [cell[3] for cell in sorted((*self._front, *self._heap)) if _alive(cell)]

    def _rank_of(self, entry: Entry[Any, Any]) -> float:
        if self.aging == math.inf:
            return entry.priority
        return entry.enqueued_at + entry.priority * self.aging

    def _at(self, index: int) -> Cell | None:
        """Return cell number `index` of those alive; its place is in the front then."""
        front = self._front
        while True:
            if index < len(front):
                if _alive(front[index]):
                    return front[index]
                # What has left went from the start: one cut for all of them.
                self._front = front = front[:index] + _drop_dead(front[index:])
            elif self._heap:
                front.append(heapq.heappop(self._heap))
            else:
                return None

    def _tidy(self) -> None:
        if len(self._heap) + len(self._front) > 2 * self.count + _MANY:
            self._front = _drop_dead(self._front)
            self._heap = _drop_dead(self._heap)
            heapq.heapify(self._heap)


def _alive(cell: Cell) -> bool:
    return cell[3].code == PENDING and cell[3].more.seat == cell[2]


def _drop_dead(cells: Sequence[Cell]) -> list[Cell]:
    return [cell for cell in cells if _alive(cell)]
