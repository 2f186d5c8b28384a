"""The pending entries of a queue, in the order in which they go.

    fresh     one deque per level: first attempts, ids rising
    returned  one list per level: entries that come again, by id; all of them are due

A cell of a deque is an entry, or a `Lot`: items that came in together.

Rule 1: an entry that comes again takes its old place, by its id, not the tail.
Rule 2: removal from the middle marks and skips: the first cell of a deque is always
alive, so that the head tells when its level is due. So a lot that may hold dead entries
is opened when it comes to the head: its entries take its place.
"""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any, Final

import attrs

from batchq.core.batch import Trigger
from batchq.core.entry import PENDING, Entry
from batchq.core.lot import Cut, Lot, Piece

__all__ = ["Bucket"]

_MANY: Final = 64  # dead cells that are not worth a rebuild
_by_id: Final = attrgetter("id")

Line = deque[Entry[Any, Any] | Lot]
Returned = list[Entry[Any, Any]]


@attrs.define(eq=False)
class Bucket:
    """What waits for a batch.

    Attributes:
        interval: longest wait of a fresh entry [s].
        fresh: first attempts by level, level 0 first.
        returned: entries that come again, by level.
        flushed: fresh entries up to this id are due, whatever their age.
        again: entries that come again [entries].
        lots: cells that are lots [count].
    """

    interval: float
    fresh: list[Line]
    returned: list[Returned]
    flushed: int = 0
    again: int = 0
    lots: int = 0
    _dead: int = 0

    @classmethod
    def of(cls, levels: int, interval: float) -> Bucket:
        """Make an empty bucket."""
        return cls(
            interval=interval,
            fresh=[deque() for _ in range(levels)],
            returned=[[] for _ in range(levels)],
        )

    def __iter__(self) -> Iterator[Entry[Any, Any]]:
        """Walk the entries, level by level."""
        for line in (*map(_entries, self.fresh), *self.returned):
            yield from (entry for entry in line if entry.code == PENDING)

    def put_back(self, entry: Entry[Any, Any]) -> None:
        """Take in an entry that comes again; it is due."""
        entry.code = PENDING
        bisect.insort(self.returned[entry.priority], entry, key=_by_id)
        self.again += 1

    def due(self) -> float:
        """Return from when an entry may not wait for company any longer [s].

        -inf: now; inf: never by time, or nothing waits.
        """
        if self.again:
            return -math.inf
        earliest = math.inf
        for line in self.fresh:
            if line:
                if line[0].id <= self.flushed:
                    return -math.inf
                earliest = min(earliest, line[0].enqueued_at + self.interval)
        return earliest

    def is_fresh(self, entry: Entry[Any, Any]) -> bool:
        """Whether an entry that waits here makes its first attempt, and had no delay."""
        returned = self.returned[entry.priority]
        place = bisect.bisect_left(returned, entry.id, key=_by_id)
        return not (place < len(returned) and returned[place] is entry)

    def reason(self, now: float) -> Trigger | None:
        """Say what has made the bucket due at `now` [s]; None: it is not."""
        if self.again:
            first = next(line[0] for line in self.returned if line)
            return Trigger.RETRY if first.attempts else Trigger.DELAY
        reason = None
        for line in self.fresh:
            if line:
                if line[0].id <= self.flushed:
                    return Trigger.FLUSH
                # The sum, as in `due`: a difference can round to just below the interval.
                if line[0].enqueued_at + self.interval <= now:
                    reason = Trigger.INTERVAL
        return reason

    def take(self, limit: int) -> Sequence[Entry[Any, Any]]:
        """Take the first entries out, at most `limit`: best level first, then by id.

        Returns:
            A list of them, or a `Cut`: not all of them have been made.
        """
        taken: list[Any] = []
        # There may be many levels, most of them empty: a filter passes over those in C.
        if self.again or self._dead:
            for line, again in filter(any, zip(self.fresh, self.returned, strict=True)):
                taken += self._merge(line, again, limit - len(taken))
                if len(taken) == limit:
                    break
            return taken
        if self.lots:
            return self._take_cells(limit)
        for line in filter(None, self.fresh):
            want = limit - len(taken)
            if len(line) > want:
                taken += [line.popleft() for _ in range(want)]
                break
            taken += line
            line.clear()
        return taken

    def forget(self, entry: Entry[Any, Any]) -> None:
        """Remove an entry that has just been settled."""
        if not self.is_fresh(entry):
            returned = self.returned[entry.priority]
            del returned[bisect.bisect_left(returned, entry.id, key=_by_id)]
            self.again -= 1
            return
        self._dead += 1
        self._tidy(self.fresh[entry.priority])
        if 2 * self._dead > sum(map(len, self.fresh)) + _MANY:
            for line in self.fresh:
                alive = [each for each in _entries(line) if each.code == PENDING]
                line.clear()
                line.extend(alive)
            self._dead = self.lots = 0

    def first(self) -> Entry[Any, Any] | Lot | None:
        """Return the cell of the smallest id, at any level."""
        lines: list[Any] = [*self.fresh, *self.returned]
        heads = [line[0] for line in lines if line]
        return min(heads, key=_by_id, default=None)

    def oldest(self) -> Entry[Any, Any] | None:
        """Return the entry of the smallest id, at any level."""
        oldest = self.first()
        if type(oldest) is Lot:
            self._open(self.fresh[oldest.priority])
            oldest = self.first()
        return oldest  # type: ignore[return-value]  # no lot any more

    def youngest(self, level: int) -> Entry[Any, Any] | None:
        """Return the entry of the largest id at `level`."""
        line = self.fresh[level]
        while line and (type(line[-1]) is Lot or line[-1].code != PENDING):
            last = line.pop()
            if type(last) is Lot:
                self.lots -= 1
                line.extend(last.waiting())
            else:
                self._dead -= 1
        tails: Any = [each[-1] for each in (line, self.returned[level]) if each]
        return max(tails, key=_by_id, default=None)

    def _take_cells(self, limit: int) -> Sequence[Entry[Any, Any]]:
        """Take from lines with lots in them, of whose entries none is dead or comes again."""
        parts: list[Any] = []
        left = limit
        for line in filter(None, self.fresh):
            while left and line:
                parts.append(self._take_piece(line, left) or self._take_entries(line, left))
                left -= len(parts[-1])
            if not left:
                break
        return Cut(parts, limit - left)

    def _take_piece(self, line: Line, limit: int) -> Piece | None:
        """Take a piece of the lot that comes first; None: there are entries."""
        lot = line[0]
        piece = lot.cut(limit) if type(lot) is Lot else None
        if piece is not None and not lot.size:  # type: ignore[union-attr]  # a lot
            line.popleft()
            self.lots -= 1
        return piece

    def _take_entries(self, line: Line, limit: int) -> list[Any]:
        """Take the entries that come first, up to a lot."""
        lot = line[0]
        if type(lot) is Lot:
            if lot.size > limit:
                self._open(line)
            else:
                line.popleft()
                self.lots -= 1
                return lot.waiting()
        taken: list[Any] = []
        while line and len(taken) < limit and type(line[0]) is not Lot:
            taken.append(line.popleft())
        return taken

    def _open(self, line: Line) -> None:
        """Let the entries of the lot at the head of a line take its place."""
        lot: Any = line.popleft()
        line.extendleft(reversed(lot.waiting()))
        self.lots -= 1

    def _merge(self, line: Line, returned: Returned, limit: int) -> list[Entry[Any, Any]]:
        """Take from one level by id, entries that come again included."""
        taken: list[Any] = []
        again = 0
        while len(taken) < limit:
            self._tidy(line)
            if again < len(returned) and (not line or returned[again].id < line[0].id):
                taken.append(returned[again])
                again += 1
            elif line:
                taken.append(line.popleft())
            else:
                break
        del returned[:again]
        self.again -= again
        self._tidy(line)
        return taken

    def _tidy(self, line: Line) -> None:
        while line and (type(line[0]) is Lot or line[0].code != PENDING):
            if type(line[0]) is Lot:
                self._open(line)
            else:
                line.popleft()
                self._dead -= 1


def _entries(line: Line) -> Iterator[Entry[Any, Any]]:
    """Walk the entries of a line, of its lots, too."""
    for cell in line:
        if type(cell) is Lot:
            yield from cell.waiting()
        else:
            yield cell  # type: ignore[misc]  # no lot
