"""Which ready bucket is next: the best level, then fair turns; and what a partition may do.

    partitions: name ─▶ Partition ─▶ SortedBucket, one or one per level

Rule 1: a bucket just served, or just become non-empty, goes behind its equals, so that a
hot partition cannot shut out a cold one.
Rule 2: a partition in which nothing waits, is held up or runs leaves no trace.
Rule 3: nothing walks all partitions where only one has changed.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, Final

import attrs

from batchq.core.batch import Trigger
from batchq.core.entry import DELAYED, IN_FLIGHT, Entry
from batchq.core.options import Settings
from batchq.core.sorted_bucket import LOUD, SortedBucket
from batchq.core.waiting import Choice

__all__ = ["Partition", "Selection"]

_MANY: Final = 64  # stale places in a line that are not worth a rebuild


@attrs.define(eq=False)
class Partition:
    """The buckets of one partition, and what keeps them from starting.

    Attributes:
        name: what `partition_by` gave.
        buckets: what waits, by level; one for all levels where they mix.
        running: batches in flight [batches].
        parked: whether buckets were taken out of line until something changes here.
    """

    name: Hashable
    buckets: dict[int, SortedBucket] = attrs.field(factory=dict)
    running: int = 0
    parked: bool = False
    _held: list[tuple[int, int, Entry[Any, Any]]] = attrs.field(factory=list)

    def hold(self, entry: Entry[Any, Any]) -> None:
        """Note an entry that is DELAYED, and holds up what is behind it."""
        heapq.heappush(self._held, (entry.id, entry.more.seat, entry))

    def barrier(self) -> float:
        """Return the smallest id that is held up; inf: none is."""
        held = self._held
        while held and held[0][2].code != DELAYED:
            heapq.heappop(held)
        return held[0][0] if held else math.inf

    @property
    def empty(self) -> bool:
        """Whether it can be forgotten."""
        return not self.buckets and not self.running and self.barrier() == math.inf


@attrs.define(eq=False)
class _Line:
    """Buckets by rank and turn; a bucket may stand in it more than once."""

    _heap: list[tuple[float, int, int, SortedBucket]] = attrs.field(factory=list)
    _serial: Iterator[int] = attrs.field(factory=itertools.count)

    def push(self, bucket: SortedBucket) -> None:
        heapq.heappush(self._heap, (bucket.rank(), bucket.turn, next(self._serial), bucket))

    def pop(self) -> None:
        heapq.heappop(self._heap)

    def first(self) -> SortedBucket | None:
        """Return the first bucket that is where it should be; it stays in line."""
        heap = self._heap
        while heap:
            rank, turn, serial, bucket = heap[0]
            if not bucket.count or turn != bucket.turn:
                heapq.heappop(heap)
            elif rank != (actual := bucket.rank()):
                heapq.heapreplace(heap, (actual, turn, serial, bucket))
            else:
                return bucket
        return None

    def tidy(self, alive: int) -> None:
        """Let go of stale places, where `alive` buckets may stand in line."""
        if not alive:
            self._heap.clear()
        elif len(self._heap) > 4 * alive + _MANY:
            last = {id(cell[3]): cell for cell in self._heap if cell[1] == cell[3].turn}
            self._heap = [cell for cell in last.values() if cell[3].count]
            heapq.heapify(self._heap)


class Selection:
    """The buckets of a queue, and whose turn it is.

    Attributes:
        buckets: how many are not empty.
    """

    def __init__(self, settings: Settings) -> None:
        """Make one in which nothing waits."""
        order, limit = settings.order, settings.batch.max_batch_weight
        self._size = settings.batch.first
        self.buckets = 0
        self._ordered = order.ordered
        self._budget = math.inf if limit is None else limit
        self._mixes = order.mix_priorities
        self._aging = order.priority_aging
        self._limit = 1 if order.ordered else order.partition_concurrency or math.inf
        self._partitions: dict[Hashable, Partition] = {}
        self._turn = 0
        self._ready = _Line()
        self._all = _Line()

    @property
    def size(self) -> int:
        """Entries that make a bucket full, as things are."""
        return self._size

    @size.setter
    def size(self, size: int) -> None:
        smaller, self._size = size < self._size, size
        if smaller:  # more buckets may be full
            for partition in self._partitions.values():
                for bucket in partition.buckets.values():
                    self._look_at(bucket)

    def __iter__(self) -> Iterator[Entry[Any, Any]]:
        """Walk the entries that are PENDING, in no order."""
        for partition in self._partitions.values():
            for bucket in partition.buckets.values():
                yield from bucket

    def add(self, entry: Entry[Any, Any]) -> None:
        """Let an entry wait for a batch."""
        partition = self.partition(entry.more.partition)
        level = 0 if self._mixes else entry.priority
        bucket = partition.buckets.get(level)
        if bucket is None:
            bucket = partition.buckets[level] = SortedBucket(partition, level, self._aging)
            self.buckets += 1
            bucket.turn = self._next_turn()
            bucket.add(entry)
            self._list(bucket)
            return
        rank, wakes = bucket.rank(), self._wakes(bucket)
        bucket.add(entry)
        if wakes or bucket.rank() < rank:
            self._list(bucket)
        elif not bucket.listed:
            self._look_at(bucket)

    def leave(self, entry: Entry[Any, Any]) -> None:
        """Count an entry out that is not PENDING any more."""
        bucket = entry.more.place
        bucket.leave(entry)
        if not bucket.count:
            del bucket.home.buckets[bucket.level]
            self.buckets -= 1
            self._forget(bucket.home)

    def mark_due(self, entry: Entry[Any, Any], reason: Trigger) -> None:
        """Note that an entry may not wait for company any longer."""
        bucket = entry.more.place
        bucket.mark_due(entry, reason)
        if self._wakes(bucket):
            self._list(bucket)
        elif not bucket.listed:
            self._look_at(bucket)

    def change(self, entry: Entry[Any, Any], *, priority: int, weight: float) -> None:
        """Give an entry that waits a better level or another weight."""
        more, bucket = entry.more, entry.more.place
        if bucket is not None:
            bucket.weight += weight - more.weight
        more.weight = weight
        if priority < entry.priority and bucket is not None:
            self._promote(entry, priority)
        else:
            entry.priority = priority
        if bucket is not None:
            self._look_at(more.place)

    def hold(self, entry: Entry[Any, Any]) -> None:
        """Note an entry that is DELAYED: in a partition that is ordered it holds up others."""
        if self._ordered:
            self.partition(entry.more.partition).hold(entry)

    def best(self, why: Trigger | None) -> SortedBucket | None:
        """Return the bucket whose turn it is, among the ready ones whose partition may start.

        Args:
            why: why every bucket is ready; None: only those that are of their own.
        """
        line = self._ready if why is None else self._all
        while (bucket := line.first()) is not None:
            if bucket.hushed is why or (why is None and not self._is_ready(bucket)):
                bucket.listed = False
                line.pop()
            elif self.is_blocked(bucket):
                bucket.home.parked = True
                line.pop()
            else:
                return bucket
        return None

    def hush(self, bucket: SortedBucket, why: Trigger | None) -> None:
        """Pass a bucket over, as long as nothing changes in it, or in `why` it is ready."""
        bucket.hushed = why

    def serve(self, bucket: SortedBucket, entries: Sequence[Entry[Any, Any]]) -> None:
        """Let entries of the bucket go as one batch: it goes behind its equals."""
        bucket.home.running += 1
        for entry in entries:
            entry.code = IN_FLIGHT
            self.leave(entry)
        if bucket.count:
            bucket.turn = self._next_turn()
            self._list(bucket)

    def changed(self, name: Hashable, *, ended: int = 0) -> None:
        """Put the buckets of a partition back in line, for it may start again.

        Args:
            name: the partition.
            ended: how many of its batches run no more.
        """
        partition = self._partitions.get(name)
        if partition is None:
            return
        partition.running -= ended
        if partition.parked:
            partition.parked = False
            for bucket in partition.buckets.values():
                self._list(bucket)
        self._forget(partition)

    def partition(self, name: Hashable) -> Partition:
        """Return a partition; there is one from now on."""
        found = self._partitions.get(name)
        if found is None:
            found = self._partitions[name] = Partition(name)
        return found

    def _forget(self, partition: Partition) -> None:
        """Let go of a partition that has nothing left."""
        if partition.empty and self._partitions.get(partition.name) is partition:
            del self._partitions[partition.name]
        self._ready.tidy(self.buckets)
        self._all.tidy(self.buckets)

    def choice(
        self,
        bucket: SortedBucket,
        why: Trigger | None,
        entries: Sequence[Entry[Any, Any]] | None = None,
    ) -> Choice:
        """Make a choice of entries of a bucket; None: those that go first. It stays there."""
        if entries is None:
            barrier = bucket.home.barrier() if self._ordered else math.inf
            entries = bucket.head(self.size, self._budget, barrier)
        if bucket.count >= self.size:
            trigger = Trigger.SIZE
        elif bucket.weight >= self._budget:
            trigger = Trigger.WEIGHT
        else:
            trigger = why or bucket.reason
        return Choice(len(entries), trigger, entries, bucket)

    def _is_ready(self, bucket: SortedBucket) -> bool:
        full = bucket.count >= self.size or bucket.weight >= self._budget
        return bool(bucket.due) or full

    def _promote(self, entry: Entry[Any, Any], priority: int) -> None:
        """Give an entry a better level; its bucket keeps its turn."""
        bucket, due = entry.more.place, entry.more.due
        if self._mixes:
            bucket.leave(entry)
            entry.priority = priority
            bucket.add(entry)
            self._list(bucket)
        else:
            self.leave(entry)
            entry.priority = priority
            self.add(entry)
        if due is not None:
            self.mark_due(entry, due)

    def _look_at(self, bucket: SortedBucket) -> None:
        """Put a bucket in line if it has become ready."""
        if self._is_ready(bucket):
            bucket.listed = True
            self._ready.push(bucket)

    def _list(self, bucket: SortedBucket) -> None:
        self._all.push(bucket)
        bucket.listed = False  # its place of before may be stale
        self._look_at(bucket)

    def is_blocked(self, bucket: SortedBucket) -> bool:
        """Whether the partition of a bucket may start nothing now."""
        if bucket.home.running >= self._limit:
            return True
        return self._ordered and not bucket.head(1, math.inf, bucket.home.barrier())

    def _wakes(self, bucket: SortedBucket) -> bool:
        """Note that something has changed; tell whether the bucket was passed over."""
        was, bucket.hushed = bucket.hushed, LOUD
        return was is not LOUD

    def _next_turn(self) -> int:
        self._turn += 1
        return self._turn
