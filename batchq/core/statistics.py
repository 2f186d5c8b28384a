"""Frozen snapshots of what a queue has done."""

from __future__ import annotations

import attrs

__all__ = ["DrainReport", "QueueStats"]


@attrs.frozen(kw_only=True)
class QueueStats:
    """A `BatchedQueue` at one instant; the counts add up to `enqueued` and `restored`.

    Attributes:
        enqueued: items accepted so far, incoming ones dropped by policy included [items].
        pending: wait for a batch [entries].
        delayed: wait for a retry, a snooze or their delay to end [entries].
        in_flight: being processed [entries].
        succeeded: done [entries].
        failed: failed for good [entries].
        dropped: given up by the drop policy [entries].
        cancelled: taken back by their callers [entries].
        closed: left without a verdict when the queue ended [entries].
        expired: not settled by their deadline [entries].
        retries: failed attempts that were given another [count].
        batches: calls chosen; when a queue ends, one may be taken back unmade [batches].
        running: calls in flight [batches].
        hook_errors: hooks that raised [count].
        oldest: how long the oldest entry that waits has been in the queue [s]; 0 if none.
        weight: what the entries that wait weigh; 1 each without `weigh`.
        restored: entries that came in from a snapshot [entries].
        coalesced: items that came to share an entry that waited [items].
        batch_size: entries that make a full batch now [items].
        concurrency: most batches in flight now [batches].
    """

    enqueued: int
    pending: int
    delayed: int
    in_flight: int
    succeeded: int
    failed: int
    expired: int
    dropped: int
    cancelled: int
    closed: int
    retries: int
    batches: int
    running: int
    hook_errors: int = 0
    oldest: float = 0.0
    weight: float = 0.0
    restored: int = 0
    coalesced: int = 0
    batch_size: int = 0
    concurrency: int = 0

    @property
    def size(self) -> int:
        """What waits: pending and delayed [entries]."""
        return self.pending + self.delayed

    @property
    def outstanding(self) -> int:
        """What is not settled yet [entries]."""
        return self.pending + self.delayed + self.in_flight

    @property
    def dropped_by_policy(self) -> int:
        """The same as `dropped` [entries]."""
        return self.dropped


@attrs.frozen(kw_only=True)
class DrainReport:
    """What settled since a drain began [entries]."""

    succeeded: int
    failed: int
    expired: int
    dropped: int
    cancelled: int
