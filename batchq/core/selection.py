"""Which ready bucket is next: the best level, then fair turns; and what a partition may do.

    buckets: name, or name and level ─▶ SortedBucket        what waits
    partitions: name ─▶ Partition                           what keeps it from starting

Rule 1: a bucket just served, or just become non-empty, goes behind its equals, so that a
hot partition cannot shut out a cold one.
Rule 2: a partition in which nothing waits, is held up or runs leaves no trace; where
partitions have no limit, only what waits does.
Rule 3: nothing walks all partitions where only one has changed.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import attrs

from batchq.core.batch import Trigger
from batchq.core.entry import DELAYED, Entry
from batchq.core.options import Settings
from batchq.core.sorted_bucket import LOUD, SortedBucket
from batchq.core.turns import Turns
from batchq.core.waiting import Choice

__all__ = ["Partition", "Selection"]


@attrs.define(eq=False)
class Partition:
    """What keeps the buckets of one partition from starting.

    Attributes:
        running: batches in flight [batches].
        parked: buckets that were taken out of line until something changes here.
    """

    running: int = 0
    parked: dict[SortedBucket, None] = attrs.field(factory=dict)
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
        return not self.running and not self.parked and self.barrier() == math.inf


class Selection:
    """The buckets of a queue, and whose turn it is."""

    def __init__(self, settings: Settings) -> None:
        """Make one in which nothing waits."""
        order, limit = settings.order, settings.batch.max_batch_weight
        self._size = settings.batch.first
        self._ordered = order.ordered
        self._budget = math.inf if limit is None else limit
        self._mixes = order.mix_priorities
        self._aging = order.priority_aging
        self._limit = order.partition_limit
        self._buckets: dict[Hashable, SortedBucket] = {}
        self._partitions: dict[Hashable, Partition] = {}
        self._turn = 0
        self._ready = Turns()
        # Every bucket, from when somebody has asked for one that is not ready of its own.
        self._all = Turns()
        self._why_all: Trigger | None = None

    @property
    def size(self) -> int:
        """Entries that make a bucket full, as things are."""
        return self._size

    @size.setter
    def size(self, size: int) -> None:
        smaller, self._size = size < self._size, size
        if smaller:  # more buckets may be full
            for bucket in self._buckets.values():
                self._look_at(bucket)

    def __iter__(self) -> Iterator[Entry[Any, Any]]:
        """Walk the entries that are PENDING, in no order."""
        for bucket in self._buckets.values():
            yield from bucket

    def add(self, entry: Entry[Any, Any]) -> None:
        """Let an entry wait for a batch."""
        name = entry.more.partition
        level = 0 if self._mixes else entry.priority
        key = self._key(name, level)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = SortedBucket(name, level, self._aging)
            bucket.turn = self._next_turn()
        wakes = self._wakes(bucket)
        if bucket.add(entry) or wakes:
            self._list(bucket)
        elif not bucket.listed:
            self._look_at(bucket)

    def leave(self, entry: Entry[Any, Any]) -> None:
        """Count an entry out that is not PENDING any more."""
        bucket = entry.more.place
        bucket.leave(entry)
        if bucket.count:
            self._tidy()
        else:
            self._drop(bucket)

    def mark_due(self, entry: Entry[Any, Any], reason: Trigger) -> None:
        """Note that an entry may not wait for company any longer."""
        bucket = entry.more.place
        bucket.mark_due(entry, reason)
        self._see(bucket)

    def flush(self) -> None:
        """Note that nothing that is PENDING may wait for company any longer."""
        for bucket in self._buckets.values():
            bucket.flush()
            self._see(bucket)

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
        if bucket is not None and not more.place.listed:
            self._look_at(more.place)

    def hold(self, entry: Entry[Any, Any]) -> None:
        """Note an entry that is DELAYED: in a partition that is ordered it holds up others."""
        if self._ordered:
            self._partition(entry.more.partition).hold(entry)

    def best(self, why: Trigger | None) -> SortedBucket | None:
        """Return the bucket whose turn it is, among the ready ones whose partition may start.

        Args:
            why: why every bucket is ready; None: only those that are of their own.
        """
        line = self._ready if why is None else self._line_of_all(why)
        while (bucket := line.first()) is not None:
            if bucket.hushed is why or (why is None and not self._is_ready(bucket)):
                bucket.listed = False
                line.pop()
            elif self.is_blocked(bucket):
                self._partition(bucket.name).parked[bucket] = None
                line.pop()
            else:
                return bucket
        return None

    def serve(self, bucket: SortedBucket, entries: Sequence[Entry[Any, Any]]) -> None:
        """Let entries of the bucket go as one batch: it goes behind its equals."""
        self.runs(bucket.name, 1)
        bucket.take(entries)
        if bucket.count:
            bucket.turn = self._next_turn()
            self._list(bucket)
            self._tidy()
        else:
            self._drop(bucket)

    def runs(self, name: Hashable, batches: int) -> None:
        """Note that more batches of a partition are in flight."""
        if self._limit < math.inf:
            self._partition(name).running += batches

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
        parked, partition.parked = partition.parked, {}
        for bucket in parked:
            if bucket.count:
                self._list(bucket)
        if partition.empty:
            del self._partitions[name]

    def choice(
        self,
        bucket: SortedBucket,
        why: Trigger | None,
        entries: Sequence[Entry[Any, Any]] | None = None,
    ) -> Choice:
        """Make a choice of entries of a bucket; None: those that go first. It stays there."""
        if entries is None:
            entries = bucket.head(self._size, self._budget, self._barrier(bucket))
        if bucket.count >= self._size:
            trigger = Trigger.SIZE
        elif bucket.weight >= self._budget:
            trigger = Trigger.WEIGHT
        else:
            trigger = why or bucket.reason
        return Choice(len(entries), trigger, entries, bucket)

    def _is_ready(self, bucket: SortedBucket) -> bool:
        full = bucket.count >= self._size or bucket.weight >= self._budget
        return full or bucket.due > 0

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

    def _see(self, bucket: SortedBucket) -> None:
        """Put a bucket in line in which something has changed, and that may be ready now."""
        if self._wakes(bucket):
            self._list(bucket)
        elif not bucket.listed:
            self._look_at(bucket)

    def _list(self, bucket: SortedBucket) -> None:
        if self._why_all is not None:
            self._all.push(bucket)
        bucket.listed = False  # its place of before may be stale
        self._look_at(bucket)

    def is_blocked(self, bucket: SortedBucket) -> bool:
        """Whether the partition of a bucket may start nothing now."""
        if self._limit == math.inf:
            return False
        partition = self._partitions.get(bucket.name)
        if partition is None:
            return False
        if partition.running >= self._limit:
            return True
        return self._ordered and not bucket.head(1, math.inf, partition.barrier())

    def _barrier(self, bucket: SortedBucket) -> float:
        """Return the smallest id that is held up in the partition of a bucket; inf: none."""
        partition = self._partitions.get(bucket.name) if self._ordered else None
        return math.inf if partition is None else partition.barrier()

    def _line_of_all(self, why: Trigger) -> Turns:
        if self._why_all is not why:  # what was passed over for another reason is asked again
            self._why_all = why
            for bucket in self._buckets.values():
                self._all.push(bucket)
        return self._all

    def _key(self, name: Hashable, level: int) -> Hashable:
        return name if self._mixes else (name, level)

    def _partition(self, name: Hashable) -> Partition:
        """Return a partition; there is one from now on."""
        found = self._partitions.get(name)
        if found is None:
            found = self._partitions[name] = Partition()
        return found

    def _drop(self, bucket: SortedBucket) -> None:
        """Let go of a bucket in which nothing waits."""
        del self._buckets[self._key(bucket.name, bucket.level)]
        if not self._buckets:
            self._why_all = None
        self._tidy()

    def _tidy(self) -> None:
        left = len(self._buckets)
        self._ready.tidy(left)
        self._all.tidy(left)

    def _wakes(self, bucket: SortedBucket) -> bool:
        """Note that something has changed; tell whether the bucket was passed over."""
        was, bucket.hushed = bucket.hushed, LOUD
        return was is not LOUD

    def _next_turn(self) -> int:
        self._turn += 1
        return self._turn
