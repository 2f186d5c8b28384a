"""Whose turn it is: buckets by rank, and by turn among equals.

Rule 1: a place that is out of date is skipped, or mended, when it comes to the front.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import Final

import attrs

from batchq.core.sorted_bucket import SortedBucket

__all__ = ["Turns"]

_MANY: Final = 64  # stale places that are not worth a rebuild

# Rank, turn, bucket. No two buckets have the same turn, so they are never compared.
Place = tuple[float, int, SortedBucket]


@attrs.define(eq=False)
class Turns:
    """Buckets by rank and turn; a bucket may stand in it more than once."""

    _run: deque[Place] = attrs.field(factory=deque)  # what came in this very order: mostly all
    _heap: list[Place] = attrs.field(factory=list)

    def push(self, bucket: SortedBucket) -> None:
        """Let a bucket stand in line by the rank and the turn that it has now."""
        place = (bucket.rank(), bucket.turn, bucket)
        if not self._run or self._run[-1] <= place:
            self._run.append(place)
        else:
            heapq.heappush(self._heap, place)

    def pop(self) -> SortedBucket:
        """Give out what `first` has returned."""
        if self._heap and (not self._run or self._heap[0] < self._run[0]):
            return heapq.heappop(self._heap)[2]
        return self._run.popleft()[2]

    def first(self) -> SortedBucket | None:
        """Return the first bucket that is where it should be; it stays in line."""
        run, heap = self._run, self._heap
        while run or heap:
            ahead = heap and (not run or heap[0] < run[0])
            rank, turn, bucket = heap[0] if ahead else run[0]
            if bucket.count and turn == bucket.turn and rank == bucket.rank():
                return bucket
            self.pop()
            if bucket.count and turn == bucket.turn:
                self.push(bucket)
        return None

    def tidy(self, alive: int) -> None:
        """Let go of stale places, where `alive` buckets may stand in line."""
        if not alive:
            self._run.clear()
            self._heap.clear()
        elif len(self._run) + len(self._heap) > 4 * alive + _MANY:
            places = sorted((*self._run, *self._heap), reverse=True)  # the best place counts
            best = {place[2]: place for place in places if place[1] == place[2].turn}
            self._run = deque(sorted(place for place in best.values() if place[2].count))
            self._heap.clear()
