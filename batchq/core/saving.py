"""The entries of a queue as plain values, to be saved, and back.

Rule 1: what comes back keeps its id, its age, its attempts and its deadlines.
Rule 2: the user's functions are asked anew: what they say of an item may have changed.
"""

from __future__ import annotations

import math
from typing import Any

from msgspec.structs import force_setattr

from batchq.core.entry import DELAYED, Entry, More
from batchq.core.offer import Appraiser, Offer
from batchq.core.retry import said
from batchq.core.rich_waiting import RichWaiting
from batchq.core.snapshot import Saved

__all__ = ["come_back", "more_of", "saved"]


def saved(entry: Entry[Any, Any]) -> Saved[Any]:
    """Return what is to be kept of an entry that is not settled."""
    more = entry.more or More()
    # Of any type: what cannot be written is left out where they are.
    partition: Any = more.partition if more.named_partition else None
    key: Any = more.key if more.named_key else None
    return Saved(
        id=entry.id,
        item=entry.item,
        priority=entry.priority,
        partition=partition,
        key=key,
        weight=more.weight,
        attempts=entry.attempts,
        solo=more.solo,
        error=None if more.error is None else said(more.error),
        enqueued_at=entry.enqueued_at,
        due=entry.due if entry.code == DELAYED else None,
        starts_by=more.starts_by,
        ends_by=more.ends_by,
    )


def more_of(record: Saved[Any], appraiser: Appraiser) -> More:
    """Return what a queue notes of an entry that comes back.

    Raises:
        Exception: whatever the user's functions raise.
    """
    named_partition, named_key = record.partition is not None, record.key is not None
    offer: Offer = appraiser.offer(
        record.item,
        record.priority,
        weight=record.weight,
        partition=record.partition,
        key=record.key,
    )
    more = More(
        partition=offer.more.partition,
        weight=record.weight,
        key=offer.more.key,
        starts_by=math.inf if record.starts_by is None else record.starts_by,
        ends_by=math.inf if record.ends_by is None else record.ends_by,
        solo=record.solo,
        named_partition=named_partition,
        named_key=named_key,
        error=record.error,
    )
    more.early = min(more.starts_by, more.ends_by)
    return more


def come_back(
    entry: Entry[Any, Any], record: Saved[Any], more: More, *, waiting: RichWaiting, now: float
) -> None:
    """Let an entry wait again at `now` [s], where it was when it was saved."""
    force_setattr(entry, "item", record.item)
    force_setattr(entry, "more", more)
    entry.attempts = record.attempts
    delay = 0.0 if record.due is None else max(0.0, record.due - now)
    waiting.admit(entry, now, delay=delay)
    if not delay and (record.attempts or record.due is not None):
        waiting.make_due(entry)
