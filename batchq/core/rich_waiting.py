"""All that waits, where more is asked than first come, first served, by level.

    add ─▶ selection: PENDING ◀── over ── delays: DELAYED
              │  ▲ due: its interval, a deadline that comes near
              ▼
           choose, take ─▶ IN_FLIGHT          expire: at its deadline, wherever it is

It answers the questions of `Waiting`, and stands in its place.

Rule 1: what is still waiting at its deadline expires; to start at that very instant is in
time.
Rule 2: a deadline makes an entry due early enough for a call to end in time, by how long
calls have taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from batchq.core.ages import Ages
from batchq.core.batch import Batch, Trigger
from batchq.core.coalescing import Shared
from batchq.core.entry import DELAYED, EXPIRED, IN_FLIGHT, PENDING, Entry, More
from batchq.core.expiry import Deadlines, Delays, Slack
from batchq.core.flushes import Flushes
from batchq.core.news import News
from batchq.core.options import Settings
from batchq.core.planning import Planning
from batchq.core.result import Result
from batchq.core.selection import Selection
from batchq.core.settling import Settling
from batchq.core.victims import Victims
from batchq.core.waiting import Choice, Waiting
from batchq.errors import Expired

__all__ = ["RichWaiting"]


class RichWaiting:
    """The entries that wait; see `Waiting` for what is not explained here.

    Attributes:
        shared: the entries that others may share, by key.
        slack: how long calls take.
        weight: what the entries that wait weigh.
        victims: the pending ones that the drop policy may give up; None: it gives up none.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        settling: Settling,
        news: News,
        outstanding: Callable[[], int],
    ) -> None:
        """Make an empty one; `outstanding` counts the entries that are not settled."""
        self._outstanding = outstanding
        self.settling = settling
        policy = settings.room.drop_policy
        self.victims = Victims.of(PENDING, policy)
        self.delays = Delays.of(policy)
        self.size = 0
        self.weight = 0.0
        self.flushes = Flushes()
        self.shared = Shared()
        self.slack = Slack()
        self._news = news
        self._selection = Selection(settings)
        strategy = settings.order.batching_strategy
        self._planning = strategy and Planning(
            strategy, settings, selection=self._selection, news=news
        )
        self._ages = Ages()
        self._deadlines = Deadlines(settings.batch.flush_interval, self.slack)

    def __iter__(self) -> Iterator[Entry[Any, Any]]:
        """Walk the entries, in no order."""
        yield from self._selection
        yield from self.delays

    @property
    def batch_size(self) -> int:
        """Entries that make a full batch, as things are."""
        return self._selection.size

    @batch_size.setter
    def batch_size(self, size: int) -> None:
        self._selection.size = size

    @property
    def all_fresh(self) -> bool:
        """Whether nothing here comes again: it was not counted."""
        return False

    @property
    def pending(self) -> int:
        """What may start [entries]."""
        return self.size - self.delays.count

    # Coming in.

    def admit(self, entry: Entry[Any, Any], now: float, *, delay: float) -> None:
        """Take in an entry that is new, perhaps for later; its deadlines run from now on."""
        self._ages.add(entry)
        self._deadlines.run(entry)
        if delay:
            self.delay(entry, now + delay)
            return
        self._count_in(entry)
        self._seat(entry)
        self._watch(entry, now)

    def make_due(self, entry: Entry[Any, Any]) -> None:
        """Let an entry that is PENDING wait for company no longer: it comes again."""
        reason = Trigger.RETRY if entry.attempts else Trigger.DELAY
        self._selection.mark_due(entry, reason)

    def delay(self, entry: Entry[Any, Any], due: float) -> None:
        """Take in an entry that may not start before `due` [s]."""
        self._count_in(entry)
        self.delays.add(entry, due)
        self._selection.hold(entry)

    def put_back(self, entry: Entry[Any, Any]) -> None:
        """Take in an entry that comes again now, at its old place."""
        self._count_in(entry)
        self._come_again(entry)

    def change(
        self,
        entry: Entry[Any, Any],
        now: float,
        *,
        priority: int,
        weight: float,
        sooner: bool,
    ) -> None:
        """Give an entry that waits a better level or another weight.

        Args:
            entry: one that is PENDING or DELAYED.
            now: [s].
            priority: its level from now on.
            weight: what it weighs from now on.
            sooner: whether its deadlines have been brought forward.
        """
        seat, level = entry.more.seat, entry.priority
        self.weight += weight - entry.more.weight
        self._selection.change(entry, priority=priority, weight=weight)
        victims = self.victims if entry.code == PENDING else self.delays.victims
        if victims is not None and level != priority:
            victims.add(entry)
        if sooner:
            self._deadlines.run(entry)
        moved = entry.more.seat != seat
        if entry.code == PENDING and entry.more.due is None and (sooner or moved):
            self._watch(entry, now)

    def take_over(self, plain: Waiting, *, flying: Iterable[Entry[Any, Any]], running: int) -> None:
        """Take in all that waits in a plain room.

        Args:
            plain: the room until now.
            flying: what is in flight.
            running: batches in flight.
        """
        self.flushes = plain.flushes
        for entry in sorted((*flying, *plain), key=lambda entry: entry.id):
            entry.more = More()
            self._ages.add(entry)
        self._selection.runs(None, running)
        for entry in sorted(plain.bucket, key=lambda entry: entry.id):
            if not plain.bucket.is_fresh(entry):
                self.put_back(entry)
                continue
            self._count_in(entry)
            self._seat(entry)
            self._watch(entry, -math.inf)
            if entry.id <= plain.bucket.flushed:
                self._selection.mark_due(entry, Trigger.FLUSH)
        for entry in list(plain.delays):
            self.delay(entry, entry.due)
        self._selection.changed(None)

    def advance(self, now: float) -> None:
        """Let those whose delay is over at `now` [s] start, and see who is due."""
        while (over := self.delays.pop(now)) is not None:
            self._come_again(over)
            self._selection.changed(over.more.partition)
        while (due := self._deadlines.pop_due(now)) is not None:
            self._selection.mark_due(*due)

    # Going out.

    def choose(self, now: float, *, why: Trigger | None) -> Choice | None:
        """Choose the next batch; nothing is taken out."""
        if self._planning is not None:
            return self._planning.choose(why, ask=now > -math.inf)
        bucket = self._selection.best(why)  # `advance` has seen who is due
        return None if bucket is None else self._selection.choice(bucket, why)

    def end_step(self) -> None:
        """Note that nothing more starts in this step."""
        if self._planning is not None:
            self._planning.forget()

    def take(self, choice: Choice) -> Sequence[Entry[Any, Any]]:
        """Take the entries of a choice out; they are IN_FLIGHT."""
        entries = (choice.entries or ())[: choice.count]
        self.size -= len(entries)
        for entry in entries:
            more = entry.more
            self.weight -= more.weight
            if more.key is not None:
                self.shared.withdraw(entry)
            if more.starts_by < math.inf:
                self._deadlines.started(entry)
        # Sums of floats drift: where nothing waits, nothing weighs.
        self.weight = self.weight if self.size else 0.0
        self._selection.serve(choice.place, entries)
        if self._planning is not None:
            self._planning.took(whole=len(entries) == len(choice.entries or ()))
        self._tidy()
        return entries

    def next_ready(self, *, later: bool = False) -> float:
        """Return from when on a batch is ready without a further event [s]; -inf: now."""
        if not later and self._selection.best(None) is not None:
            return -math.inf
        return min(self._deadlines.next_due(), self.delays.next_end)

    def next_event(self) -> float:
        """Return when something happens here whether or not a batch may start [s]."""
        return self._deadlines.next_end()

    def ended(self, batch: Batch[Any]) -> None:
        """Note that a batch has left its slot."""
        self._selection.changed(batch.partition, ended=1)
        self._let_go_of_settled()

    def remove(self, entry: Entry[Any, Any], code: int, error: Exception) -> None:
        """Settle an entry that waits."""
        was = entry.code
        self._count_out(entry)
        self.settling.count(code)
        entry.settle(code, Result.fail(error))
        if was == DELAYED:
            self.delays.forget(entry)
        else:
            self._selection.leave(entry)
        self._selection.changed(entry.more.partition)
        self.flushes.leave([entry.id])
        self._tidy()
        self._let_go_of_settled()

    def expire(self, now: float, *, late: bool = False) -> bool:
        """Settle what is past its deadline at `now` [s]; tell whether anything was.

        Args:
            now: [s].
            late: only what its deadline has passed for: it may not start any more.
        """
        found = False
        if not self._deadlines.any_ends:
            return found
        while (entry := self._deadlines.pop_end(now, late=late)) is not None:
            found = True
            self._expire(entry)
        return found

    def flush(self, last_id: int) -> None:
        """Make what is pending due."""
        del last_id  # each entry is marked of its own
        self._selection.flush()

    def oldest(self, now: float) -> float:
        """Return how long the oldest entry that waits has been here [s]; 0: none waits."""
        first = self._ages.oldest()
        return 0.0 if first is None else now - first.enqueued_at

    def _watch(self, entry: Entry[Any, Any], now: float) -> None:
        reason = self._deadlines.watch(entry, now)
        if reason is not None:
            self._selection.mark_due(entry, reason)

    def _seat(self, entry: Entry[Any, Any]) -> None:
        """Let an entry wait for a batch."""
        self._selection.add(entry)
        if self.victims is not None:
            self.victims.add(entry)

    def _come_again(self, entry: Entry[Any, Any]) -> None:
        self._seat(entry)
        self.make_due(entry)

    def _expire(self, entry: Entry[Any, Any]) -> None:
        item = entry.item
        error = Expired(
            f"entry {entry.id} had no verdict at its deadline, after {entry.attempts} attempts",
            attempt=entry.attempts,
        )
        if entry.code == IN_FLIGHT:
            self.settling.count(EXPIRED)
            entry.settle(EXPIRED, Result.fail(error))
            self.flushes.leave([entry.id])
        else:
            self.remove(entry, EXPIRED, error)
        self._news.add("on_drop", item, "expired")
        self._news.add("on_dead_letter", item, error)

    def _tidy(self) -> None:
        """Let go of what was noted of entries that are not PENDING any more."""
        self._deadlines.tidy(self.pending)
        if self.victims is not None:
            self.victims.tidy(self.pending)

    def _let_go_of_settled(self) -> None:
        self._ages.tidy(self._outstanding)
        self._deadlines.tidy_ends(self._outstanding)

    def _count_in(self, entry: Entry[Any, Any]) -> None:
        self.size += 1
        self.weight += entry.more.weight
        self.shared.offer(entry)

    def _count_out(self, entry: Entry[Any, Any]) -> None:
        self.size -= 1
        self.weight = self.weight - entry.more.weight if self.size else 0.0
        self.shared.withdraw(entry)
