"""What the strategy's answers come to, step by step.

Rule 1: it is asked in the step that starts a batch, of a bucket that is ready; what does not
start in that step is forgotten, and asked for anew.
Rule 2: after an answer of which nothing may start, the next bucket has its turn; it is asked
again when something has changed.
Rule 3: entries that run alone are not offered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from batchq.core.batch import Trigger
from batchq.core.entry import PENDING, Entry
from batchq.core.news import News
from batchq.core.options import Settings
from batchq.core.selection import Selection
from batchq.core.sorted_bucket import SortedBucket
from batchq.core.strategy import plan
from batchq.core.waiting import Choice

__all__ = ["Planning"]


class Planning:
    """Chooses batches by the user's strategy."""

    def __init__(
        self,
        strategy: Callable[[list[Any]], object],
        settings: Settings,
        *,
        selection: Selection,
        news: News,
    ) -> None:
        """Make one that has asked nothing yet."""
        limit = settings.batch.max_batch_weight
        self._strategy = strategy
        self._budget = math.inf if limit is None else limit
        self._selection = selection
        self._news = news
        self._place: SortedBucket | None = None
        self._groups: list[list[Entry[Any, Any]]] = []
        self._last: Choice | None = None  # what was chosen in the last step, if it did not start
        self._why: Trigger | None = None
        self._current = False

    def choose(self, why: Trigger | None, *, ask: bool) -> Choice | None:
        """Choose the next batch; without `ask`, say only what it might be."""
        if ask:
            self._last = self._choose(why)
            return self._last
        last = self._last
        if last is not None and (left := self._left(last.entries or (), last.place)):
            return self._selection.choice(last.place, why, left)
        bucket = self._selection.best(why)
        return None if bucket is None else self._selection.choice(bucket, why)

    def _choose(self, why: Trigger | None) -> Choice | None:
        if self._current:
            held = self._first_group()
            if held and self._place is not None:
                return self._selection.choice(self._place, self._why, held)
        while (bucket := self._selection.best(why)) is not None:
            entries = self._next_of(bucket, why)
            if entries:
                return self._selection.choice(bucket, why, entries)
            bucket.hushed = why  # passed over until something changes in it, or `why`
        return None

    def took(self, *, whole: bool) -> None:
        """Note that the batch chosen last has started; not `whole`: it was cut short."""
        self._last = None
        if not whole:  # what is left belongs together otherwise
            self._groups = []
        elif self._groups:
            self._groups.pop(0)

    def forget(self) -> None:
        """End a step: what has not started is asked for anew."""
        self._current = False

    def _next_of(self, bucket: SortedBucket, why: Trigger | None) -> list[Entry[Any, Any]]:
        """Ask for the bucket's groups; return the first one that may start, if any."""
        waiting = bucket.in_order()
        if waiting[0].more.solo:
            return waiting[:1]

        def is_due(entry: Entry[Any, Any]) -> bool:
            return why is Trigger.DRAIN or entry.more.due is not None

        offered = [entry for entry in waiting if not entry.more.solo]
        found = plan(
            self._strategy,
            offered,
            batch_size=self._selection.size,
            budget=self._budget,
            is_due=is_due,
            anything=why is not None,
        )
        if found.error is not None:
            self._news.add("on_error", found.error)
        self._place, self._why, self._current = bucket, why, True
        self._groups = [list(group) for group in found.groups]
        # It may have cancelled what it was asked about, or let in what it was not.
        first = self._first_group()
        if first is not None:
            return first
        return [entry for entry in waiting if entry.more.solo and is_due(entry)][:1]

    def _first_group(self) -> list[Entry[Any, Any]] | None:
        while self._groups:
            here = self._left(self._groups[0], self._place)
            if here:
                self._groups[0] = here
                return here
            self._groups.pop(0)
        return None

    def _left(
        self, entries: Sequence[Entry[Any, Any]], place: SortedBucket | None
    ) -> list[Entry[Any, Any]]:
        """Return those of entries that still wait in a bucket; none, if it may not start."""
        here = [each for each in entries if each.code == PENDING and each.more.place is place]
        return here if here and place and not self._selection.is_blocked(place) else []
