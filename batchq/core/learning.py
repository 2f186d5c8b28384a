"""What a queue learns from its calls: how large batches are, how many run at once.

Rule 1: it learns from calls that were not interrupted, each of its own.
"""

from __future__ import annotations

import attrs

from batchq.core.adaptive import AdaptiveBatchSize, AdaptiveConcurrency, BatchSizer, SlotLimit
from batchq.core.options import Settings

__all__ = ["Learning", "learning"]


@attrs.define(eq=False)
class Learning:
    """Learns from the calls of one queue.

    Attributes:
        sizer: finds the batch size; None: it is what the settings say.
        slots: finds the number of slots; None: likewise.
    """

    sizer: BatchSizer | None
    slots: SlotLimit | None

    def started(self, in_flight: int) -> None:
        """Note that a call started, as one of so many."""
        if self.slots is not None:
            self.slots.started(in_flight)

    def size(self, count: int, duration: float, *, draw: float) -> int | None:
        """Learn from a call for so many items that returned; None: nothing was learned."""
        return None if self.sizer is None else self.sizer.learn(count, duration, draw=draw)

    def limit(self, now: float, duration: float, error: Exception | None) -> int | None:
        """Learn from a call that ended; None: nothing was learned."""
        return None if self.slots is None else self.slots.ended(now, duration, error)


def learning(settings: Settings) -> Learning | None:
    """Make what the settings ask for; None: they say it all themselves."""
    size, slots = settings.batch.batch_size, settings.pace.concurrency
    sizer = BatchSizer(size) if isinstance(size, AdaptiveBatchSize) else None
    limit = SlotLimit(slots) if isinstance(slots, AdaptiveConcurrency) else None
    return None if sizer is None and limit is None else Learning(sizer, limit)
