"""Items whose key waits already: they share the entry that is there.

Rule 1: never with one in flight: what arrives during its own call has to be sent again.
Rule 2: a shared entry keeps its id and its age, has the best of all levels and the
earliest of all deadlines, and counts once.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Protocol

import attrs

from batchq.core.entry import Entry, More
from batchq.core.news import News
from batchq.core.offer import Appraiser, Offer, Times
from batchq.core.option_groups import CoalescePolicy, Merge
from batchq.errors import DuplicateKey

__all__ = ["Coalescing", "Shared"]


@attrs.define(eq=False)
class Shared:
    """The entries that wait and have a key, by partition and key.

    More than one of a key: those that were in flight when the next one came, and are to be
    tried again.
    """

    _entries: dict[tuple[Hashable, Hashable], list[Entry[Any, Any]]] = attrs.field(factory=dict)

    def offer(self, entry: Entry[Any, Any]) -> None:
        """Let others share an entry that waits; one that began to wait before is preferred."""
        more = entry.more
        if more.key is not None:
            self._entries.setdefault((more.partition, more.key), []).append(entry)

    def withdraw(self, entry: Entry[Any, Any]) -> None:
        """Let nobody share an entry any more."""
        more = entry.more
        if more.key is not None:
            same = self._entries[more.partition, more.key]
            same.remove(entry)
            if not same:
                del self._entries[more.partition, more.key]

    def find(self, offer: Offer) -> Entry[Any, Any] | None:
        """Return the entry that an offer may share."""
        more = offer.more
        if more.key is None or (same := self._entries.get((more.partition, more.key))) is None:
            return None
        return same[0]


class _Waiting(Protocol):
    """What coalescing needs of what waits: a `RichWaiting`."""

    shared: Shared

    def change(
        self,
        entry: Entry[Any, Any],
        now: float,
        *,
        priority: int,
        weight: float,
        sooner: bool,
    ) -> None: ...


@attrs.define(eq=False)
class Coalescing:
    """Lets an offer share the entry of its key.

    Attributes:
        policy: which item the shared entry has.
    """

    policy: CoalescePolicy | Merge
    appraiser: Appraiser
    waiting: _Waiting
    news: News

    def share(self, offer: Offer, now: float) -> Entry[Any, Any] | None:
        """Let an offer share the entry of its key; None: there is none.

        Raises:
            DuplicateKey: there is one, and the policy is to refuse.
            ItemTooLarge: together they are heavier than anything could carry.
            Exception: whatever the user's function raises.
        """
        entry = self.waiting.shared.find(offer)
        if entry is None:
            return None
        item, weight = self._together(entry, offer)
        self.news.add("on_coalesce", offer.more.key, item, offer.item)
        more = entry.more
        entry.item = item
        more.callers += 1
        more.solo = more.solo or offer.more.solo
        priority = min(entry.priority, offer.priority)
        sooner = _bring_forward(more, offer.times(now))
        self.waiting.change(entry, now, priority=priority, weight=weight, sooner=sooner)
        return entry

    def _together(self, entry: Entry[Any, Any], offer: Offer) -> tuple[Any, float]:
        """Return the item of a shared entry, and what it weighs."""
        if self.policy is CoalescePolicy.JOIN:
            return entry.item, entry.more.weight
        if self.policy is CoalescePolicy.REPLACE:
            return offer.item, offer.more.weight
        if isinstance(self.policy, CoalescePolicy):
            raise DuplicateKey(
                f"an item of key {offer.more.key!r} waits already (entry {entry.id},"
                " coalesce_policy='reject')",
                key=offer.more.key,
            )
        item = self.policy(entry.item, offer.item)
        return item, self.appraiser.weight_of(item)


def _bring_forward(more: More, times: Times) -> bool:
    """Take the earlier deadlines; tell whether one of them was."""
    before = (more.starts_by, more.ends_by, more.early)
    more.starts_by = min(more.starts_by, times.starts_by)
    more.ends_by = min(more.ends_by, times.ends_by)
    more.early = min(more.early, times.early)
    return (more.starts_by, more.ends_by, more.early) != before
