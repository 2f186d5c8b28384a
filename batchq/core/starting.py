"""Which batch starts next, and when.

    paused? ─▶ a slot free, or a part of one taken apart? ─▶ throttle, hold ─▶ what waits:
    ready? whose turn? ─▶ rate limits ─▶ taken, paid, IN_FLIGHT

Rule 1: everything from the first question to the start is one synchronous step.
Rule 2: `next_deadline` says when a question may be answered otherwise, by the same sums.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

from batchq.core.adaptive import AdaptiveConcurrency
from batchq.core.admission import Admission
from batchq.core.batch import Batch, Trigger
from batchq.core.entry import IN_FLIGHT, Entry
from batchq.core.flushes import gone
from batchq.core.learning import learning
from batchq.core.limits import Limits
from batchq.core.lot import Cut
from batchq.core.news import News
from batchq.core.options import Settings
from batchq.core.result import Result
from batchq.core.settling import Settling
from batchq.core.splitting import Splitting
from batchq.core.waiting import Choice

__all__ = ["Starter"]


class Starter:
    """Starts batches.

    Attributes:
        door: where items come in.
        waiting: what waits.
        limits: what keeps starts apart.
        splitting: the batches that are taken apart.
        concurrency: most batches in flight, as things are [batches].
        learning: what calls teach; None: nothing.
        running: the batches whose call runs.
        slots: how many are in flight, those taken apart included [batches].
        batches: calls started [batches].
        paused: whether nothing starts.
        draining: whether whatever waits is ready.
        rich: whether more is asked than first come, first served: what waits is a
            `RichWaiting`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        door: Admission[Any, Any],
        waiting: Any,  # noqa: ANN401 - a Waiting or a RichWaiting
        splitting: Splitting,
        settling: Settling,
        news: News,
    ) -> None:
        """Make one with nothing in flight."""
        self.door = door
        self.waiting = waiting
        self.splitting = splitting
        self.limits = Limits(settings.pace.throttle, settings.pace.rate_limit or ())
        self._pays = bool(self.limits.throttle or self.limits.rates)
        self.learning = learning(settings)
        slots = settings.pace.concurrency
        self.concurrency = slots.initial if isinstance(slots, AdaptiveConcurrency) else slots
        self.running: dict[Batch[Any], None] = {}
        self.slots = 0
        self.batches = 0
        self.paused = False
        self.draining = False
        self.rich = False
        self._settling = settling
        self._news = news

    def next_batch(self, now: float) -> Batch[Any] | None:
        """Start the next batch if one is ready and there is capacity.

        The entries are chosen here, never earlier, and the caller processes the batch
        without a checkpoint in between: whatever arrived or was cancelled up to this
        instant counts. What waits at its deadline and does not start then expires.
        """
        waiting = self.waiting
        if not self.rich:  # nothing has a deadline, and nothing is remembered
            if not waiting.size and not self.splitting.waiting:
                return None
            if waiting.delays.next_end <= now:
                waiting.advance(now)
            return self._start(now)
        waiting.advance(now)
        if waiting.expire(now, late=True) or self.door.producers:
            self.door.let_in(now)
        batch = self._start(now)
        while batch is None and waiting.expire(now):
            self.door.let_in(now)
            batch = self._start(now)
        if batch is None:
            waiting.end_step()
        return batch

    def next_deadline(self) -> float:
        """Return the earliest time at which `next_batch` has something to do [s].

        inf: not before something else happens; -inf: now.
        """
        if not self.rich and not self.waiting.size and not self.splitting.waiting:
            return math.inf
        event: float = self.waiting.next_event()
        if self.paused or (self.slots >= self.concurrency and not self.splitting.waiting):
            return event
        return min(event, max(self._next_ready(), self.limits.next_start))

    def set_paused(self, paused: bool) -> None:  # noqa: FBT001 - named by the method
        """Start nothing, or something again."""
        if paused is not self.paused:
            self.paused = paused
            self._news.add("on_pause" if paused else "on_resume")

    def free(self, batch: Batch[Any]) -> None:
        """Free the slot of a batch."""
        self.slots -= 1
        if self.rich:
            self.waiting.ended(batch)

    def learn(self, batch: Batch[Any], now: float, *, error: Exception | None, draw: float) -> None:
        """Learn from a call that ended, for what starts from now on."""
        if self.learning is None:
            return
        duration = now - batch.started_at
        limit = self.learning.limit(now, duration, error)
        self.concurrency = self.concurrency if limit is None else limit
        size = None
        if error is None:
            size = self.learning.size(len(batch), duration, draw=draw)
        if size is not None:
            self.waiting.batch_size = size

    def flying(self) -> list[Entry[Any, Any]]:
        """Return what is in flight."""
        entries = chain.from_iterable(self._carried())
        # Once each: a part and what it is a part of have entries in common.
        return list({entry.id: entry for entry in entries if entry.code == IN_FLIGHT}.values())

    def gone(self) -> list[int]:
        """Return the ids in batches that run whose entries are not in flight any more."""
        return gone(self._carried())

    def _carried(self) -> list[Sequence[Entry[Any, Any]]]:
        """Return the entries of each batch that runs, or is taken apart."""
        batches = [*self.running, *self.splitting.waiting]
        return [(batch.root or batch).entries for batch in batches]

    def _start(self, now: float) -> Batch[Any] | None:
        # Even paused: the slot of one that has no part left is free.
        whole = self.splitting.first(self.free) if self.splitting.waiting else None
        if self.paused:
            return None
        if whole is None and self.slots >= self.concurrency:
            return None
        if self.limits.next_start > now:
            if whole is not None or self._is_ready(now):
                self.limits.put_off(now)
            return None
        if whole is not None:
            return self._start_part(whole, now)
        why = self._why() if self.draining or self.door.producers else None
        choice = self.waiting.choose(now, why=why)
        if choice is None or (self.limits.rates and not self._can_pay(choice, now)):
            return None
        all_fresh = self.waiting.all_fresh
        entries = self.waiting.take(choice)
        self.slots += 1
        batch = self._begin(entries, choice.trigger, now, all_fresh=all_fresh)
        if self.door.producers:
            self.door.let_in(now)
        return batch

    def _start_part(self, whole: Batch[Any], now: float) -> Batch[Any] | None:
        """Start the next call of a batch that is taken apart, in its slot."""
        entries = whole.bisect.part()
        if not self._can_pay(Choice(len(entries), Trigger.BISECT, entries), now):
            return None
        self.splitting.begin()
        return self._begin(entries, Trigger.BISECT, now, root=whole)

    def _begin(
        self,
        entries: Sequence[Entry[Any, Any]],
        trigger: Trigger,
        now: float,
        *,
        all_fresh: bool = False,
        root: Batch[Any] | None = None,
    ) -> Batch[Any]:
        self.batches += 1
        if type(entries) is Cut:  # isinstance would take longer than all else here
            items, more = entries.items(), None
        else:
            items, more = [entry.item for entry in entries], entries[0].more
        batch = Batch(
            self.batches,
            items,
            entries,
            trigger,
            1 if all_fresh else 1 + max([entry.attempts for entry in entries]),
            None if more is None else more.partition,
            None if root is None else root.id,
            now,
            self._settle_early,
        )
        if root is not None:
            batch.bisect, batch.root = root.bisect, root
        self.running[batch] = None
        if self.learning is not None:
            self.learning.started(self.slots)
        if self._pays:
            weights = self._weights(entries)
            self.limits.pay(now, len(entries), None if weights is None else sum(weights))
        return batch

    def _can_pay(self, choice: Choice, now: float) -> bool:
        """Whether the rate limits let a choice start, perhaps cut short."""
        count, opens = self.limits.affordable(now, choice.count, self._weights(choice.entries))
        if not count:
            self.limits.put_off(now, opens)
        choice.count = count
        return bool(count)

    def _next_ready(self) -> float:
        """Return from when a slot that is free would be used [s], throttle left aside."""
        whole = self.splitting.first(self.free) if self.splitting.waiting else None
        if whole is not None:
            entries = whole.bisect.part()
            return self._opens(Choice(len(entries), Trigger.BISECT, entries))
        choice = self.waiting.choose(-math.inf, why=self._why())
        ready = -math.inf
        if choice is None:
            # The rich room was asked just now what is ready.
            ready = self.waiting.next_ready(later=self.rich)
        if not self.limits.rates:
            return ready
        if not self.rich:
            choice = choice or self.waiting.choose(ready, why=self._why())
        if choice is None:
            return ready
        later: float = self.waiting.next_ready(later=True)
        return max(ready, min(self._opens(choice), later))

    def _is_ready(self, now: float) -> bool:
        if self._why() is not None:
            return bool(self.waiting.pending)
        ready: float = self.waiting.next_ready()
        return ready <= now

    def _opens(self, choice: Choice) -> float:
        weights = self._weights(choice.entries)
        count, opens = self.limits.affordable(-math.inf, choice.count, weights)
        return -math.inf if count else opens

    def _weights(self, entries: Sequence[Entry[Any, Any]] | None) -> list[float] | None:
        """Return what entries weigh, if a rate limit asks; None: 1 each."""
        if not self.limits.weighs or entries is None or entries[0].more is None:
            return None
        return [entry.more.weight for entry in entries]

    def _why(self) -> Trigger | None:
        """Say why whatever waits is ready; None: it is not."""
        if self.draining:
            return Trigger.DRAIN
        # Half-full and without an interval, it would block its producers for ever.
        return Trigger.SIZE if self.door.producers else None

    def _settle_early(self, batch: Batch[Any], index: int, result: Result[Any]) -> None:
        if batch in self.running and self._settling.early(batch, index, result):
            self.waiting.flushes.leave([batch.entries[index].id])
            if self.rich and self._news.ring is not None:
                self._news.ring()  # there may be room by `max_outstanding`
