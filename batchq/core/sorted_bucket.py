"""The pending entries of one partition, where weight, ageing or solo entries count.

    in line    next: those that go first, the very first at its end    last: all others
    in cells   where one has come whose place is not the last: front, heap

Rule 1: what leaves from the middle is marked and skipped: an entry counts while it is PENDING
and its place is this bucket; a cell, while its entry has the seat that the cell names.
Rule 2: in line, order keys rise strictly. So nothing is in it twice, and what comes again
takes its old place by a cell.
Rule 3: every cell of `front` goes before every cell of `heap`.
"""

from __future__ import annotations

import bisect
import heapq
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, Final

import attrs
import msgspec
from msgspec.structs import force_setattr

from batchq.core.batch import Trigger
from batchq.core.entry import IN_FLIGHT, PENDING, Entry

__all__ = ["LOUD", "SortedBucket"]

LOUD: Final = object()  # nothing says that the bucket is to be passed over

_MANY: Final = 64  # dead cells that are not worth a rebuild

Line = list[Entry[Any, Any]]

_NOTHING: Final[Any] = ()  # instead of a list each, where there are many small buckets

# (level or time part of the order key, id, seat, entry): two cells of one entry differ in
# their seat, so entries are never compared.
Cell = tuple[float, int, int, Entry[Any, Any]]


@attrs.define(eq=False)
class _Cells:
    """Entries in any order of arrival."""

    _front: list[Cell] = attrs.field(factory=list)
    _heap: list[Cell] = attrs.field(factory=list)

    def __len__(self) -> int:
        return len(self._front) + len(self._heap)

    def __iter__(self) -> Iterator[Entry[Any, Any]]:
        return (cell[3] for cell in chain(self._front, self._heap) if _alive(cell))

    def add(self, rank: float, entry: Entry[Any, Any]) -> None:
        cell = (rank, entry.id, entry.more.seat, entry)
        if self._front and cell < self._front[-1]:
            bisect.insort(self._front, cell)
        else:
            heapq.heappush(self._heap, cell)

    def at(self, index: int) -> Entry[Any, Any] | None:
        """Return entry number `index` of those alive; its place is in the front then."""
        front = self._front
        while True:
            if index < len(front):
                if _alive(front[index]):
                    return front[index][3]
                # What has left went from the start: one cut for all of them.
                self._front = front = front[:index] + _drop_dead(front[index:])
            elif self._heap:
                front.append(heapq.heappop(self._heap))
            else:
                return None

    def in_order(self) -> Line:
        return [cell[3] for cell in sorted(chain(self._front, self._heap)) if _alive(cell)]

    def tidy(self) -> None:
        self._front = _drop_dead(self._front)
        self._heap = _drop_dead(self._heap)
        heapq.heapify(self._heap)


# As its entries, it is nothing that the garbage collector need look at while they wait: with
# very many partitions that is what costs most.
class SortedBucket(msgspec.Struct, eq=False, gc=False):
    """What waits for a batch in one partition (of one level, where levels do not mix).

    Attributes:
        name: the partition's.
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

    name: Hashable
    level: int
    aging: float
    turn: int = 0
    listed: bool = False
    count: int = 0
    weight: float = 0.0
    due: int = 0
    reason: Trigger = Trigger.INTERVAL
    hushed: object = LOUD
    _next: Line = _NOTHING
    _last: Line = _NOTHING
    _cells: _Cells | None = None
    # The order key of what came last in line.
    _tail_rank: float = -math.inf
    _tail_id: int = 0

    def __iter__(self) -> Iterator[Entry[Any, Any]]:
        """Walk the entries, in no order."""
        if self._cells is not None:
            return iter(self._cells)
        return filter(self._holds, chain(self._next, self._last))

    def add(self, entry: Entry[Any, Any]) -> bool:
        """Take in an entry at the place that its order key gives it.

        Returns:
            Whether it goes first now.
        """
        more, rank = entry.more, self._rank_of(entry)
        last = self._is_last(rank, entry.id)
        more.seat += 1
        if last:
            self._last.append(entry)
            self._tail_rank, self._tail_id = rank, entry.id
        first = not self.count or (not last and rank < self.rank())
        if self._cells is not None:
            self._cells.add(rank, entry)
        entry.code = PENDING
        more.place = self
        self.count += 1
        self.weight += more.weight
        return first

    def leave(self, entry: Entry[Any, Any]) -> None:
        """Count an entry out that is not PENDING any more, or moves."""
        self._count_out(entry)
        self._tidy()

    def take(self, entries: Sequence[Entry[Any, Any]]) -> None:
        """Count entries out that go as one batch: they are IN_FLIGHT."""
        for entry in entries:
            entry.code = IN_FLIGHT
            self._count_out(entry)
        length = len(entries)
        if self._next[-length:] == entries[::-1]:  # mostly they are those that go first
            del self._next[-length:]
        self._tidy()

    def mark_due(self, entry: Entry[Any, Any], reason: Trigger) -> None:
        """Note that an entry that waits here may not wait for company any longer."""
        if entry.more.due is None:
            self.due += 1
        self.reason = reason
        # An assignment would show it to the garbage collector, as an entry's item would.
        force_setattr(entry.more, "due", reason)

    def flush(self) -> None:
        """Note that nothing here may wait for company any longer."""
        for entry in self.in_order():
            force_setattr(entry.more, "due", Trigger.FLUSH)  # as above
        self.due, self.reason = self.count, Trigger.FLUSH

    def rank(self) -> float:
        """Tell the level of the first entry, or the time part of its order key."""
        if not self._next and self._last and self._holds(self._last[0]):
            return self._rank_of(self._last[0])  # nearly all, where partitions are many
        first = next(self._in_line(), None) if self._cells is None else self._cells.at(0)
        return math.inf if first is None else self._rank_of(first)

    def head(self, limit: int, budget: float, barrier: float) -> list[Entry[Any, Any]]:
        """Choose the entries of the next batch; nothing is taken out.

        Args:
            limit: most entries.
            budget: most weight of two or more.
            barrier: entries from this id on have to wait.
        """
        chosen: list[Entry[Any, Any]] = []
        weight = 0.0
        for entry in self._first(limit):
            more = entry.more
            weight += more.weight
            if entry.id >= barrier or (chosen and (more.solo or weight > budget)):
                break
            chosen.append(entry)
            if more.solo:
                break
        return chosen

    def in_order(self) -> list[Entry[Any, Any]]:
        """Return all entries, first things first."""
        if self._cells is not None:
            return self._cells.in_order()
        line = chain(reversed(self._next), self._last)
        # No call of `_holds`: there may be very many.
        return [each for each in line if each.code == PENDING and each.more.place is self]

    def _rank_of(self, entry: Entry[Any, Any]) -> float:
        if self.aging == math.inf:
            return entry.priority
        return entry.enqueued_at + entry.priority * self.aging

    def _is_last(self, rank: float, number: int) -> bool:
        """Whether an entry that comes in goes to the end of the line; if not, use cells."""
        if not self.count:
            self._next, self._last, self._cells = _NOTHING, [], None
            return True
        if self._cells is not None:
            return False
        if rank > self._tail_rank or (rank == self._tail_rank and number > self._tail_id):
            return True
        line, strict = self.in_order(), self.aging == math.inf
        ranks = [each.priority if strict else self._rank_of(each) for each in line]
        cells = [(rank, e.id, e.more.seat, e) for rank, e in zip(ranks, line, strict=True)]
        self._cells = _Cells([], cells)  # what is sorted is a heap
        self._next = self._last = _NOTHING
        return False

    def _count_out(self, entry: Entry[Any, Any]) -> None:
        more = entry.more
        more.seat += 1
        more.place = None
        self.count -= 1
        # Sums of floats drift: an empty bucket weighs nothing.
        self.weight = self.weight - more.weight if self.count else 0.0
        if more.due is not None:
            more.due = None
            self.due -= 1

    def _holds(self, entry: Entry[Any, Any]) -> bool:
        return entry.code == PENDING and entry.more.place is self

    def _in_line(self) -> Iterator[Entry[Any, Any]]:
        """Walk the line in order; what has left from its start is dropped."""
        while not self._next or not self._holds(self._next[-1]):
            if self._next:
                self._next.pop()
            elif self._last and not self._holds(self._last[0]):
                self._turn_over()
            else:
                break
        return filter(self._holds, chain(reversed(self._next), self._last))

    def _first(self, limit: int) -> Iterator[Entry[Any, Any]]:
        """Walk the first entries in order, no more than `limit`."""
        if self._cells is not None:
            cells = self._cells
            places: Callable[[int], Entry[Any, Any] | None] = cells.at
            return iter([entry for entry in map(places, range(min(limit, self.count))) if entry])
        if self._last and len(self._next) < limit:
            self._turn_over()
        if len(self._next) + len(self._last) == self.count:  # all of them are alive
            return iter(self._next[: -limit - 1 : -1])
        return islice(self._in_line(), limit)

    def _turn_over(self) -> None:
        """Let what is at the end of the line be part of its start."""
        self._last.reverse()
        self._last += self._next
        self._next, self._last = self._last, []

    def _tidy(self) -> None:
        held = len(self._next) + len(self._last) if self._cells is None else len(self._cells)
        if held <= 2 * self.count + _MANY:
            return
        if self._cells is not None:
            self._cells.tidy()
        else:
            self._next = list(filter(self._holds, self._next))
            self._last = list(filter(self._holds, self._last))


def _alive(cell: Cell) -> bool:
    return cell[3].code == PENDING and cell[3].more.seat == cell[2]


def _drop_dead(cells: Sequence[Cell]) -> list[Cell]:
    return [cell for cell in cells if _alive(cell)]
