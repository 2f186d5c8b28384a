"""The batching state machine.

Rule 1: this folder decides when a batch starts and what becomes of its entries; this file
owns the *order of the questions*, the rooms beside it the answers.
Rule 2: nothing here waits. No trio, no clock, no dice: `now` [s, any steady clock] and
`draw` [uniform in 0..1] are arguments, so that tests can replay any history.
Rule 3: a batch is chosen in the same synchronous step that starts it.
Rule 4: every entry is counted in exactly one place, at every step.

    door.enqueue ─▶ admission: room? ─▶ waiting  bucket: PENDING ◀── over ── delays: DELAYED
                                                    │                            ▲
    next_batch: not paused? a slot? the pace? full or due?                       │
                                                    ▼                            │
    settle:  settling: done | failed | again? ◀── IN_FLIGHT        again ────────┘
    release: the slot is free
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from batchq.core.admission import Admission, Intake
from batchq.core.batch import Batch, Trigger
from batchq.core.bucket import Bucket
from batchq.core.entry import CANCELLED, CLOSED, IN_FLIGHT, Canceller, Entry, Owner
from batchq.core.limits import Pace
from batchq.core.options import Settings
from batchq.core.result import Result
from batchq.core.settling import Settling
from batchq.core.statistics import QueueStats
from batchq.core.waiting import Flush, Waiting
from batchq.errors import EntryCancelled, QueueError

__all__ = ["Batcher"]

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """Decides which entries form the next batch, and when, and what becomes of them.

    Attributes:
        door: where items come in.
        waiting: what waits.
        pace: when the next batch may start, whatever waits.
        complaints: what the user's `retryable` check raised since the shell last looked.
        unwanted: items whose call came to nothing when nobody wanted them any more, since
            the shell last looked; they are CANCELLED.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        name: str = "default",
        owner: Canceller | None = None,
        make: Callable[..., Entry[T, R]] = Entry,
        leave: bool = False,
    ) -> None:
        """Make an empty queue.

        Args:
            settings: what to go by.
            name: the queue's name, for messages.
            owner: whom entries ask to be cancelled; None: this object.
            make: what makes an entry: `Entry` or a subclass of it.
            leave: True: what would come again settles instead (a durable queue's jobs
                come again from their store).
        """
        self._batch_size = settings.batch.batch_size
        self._concurrency = settings.pace.concurrency
        self._settling = Settling(settings.failure.retry, leave=leave)
        self._bucket = Bucket.of(settings.order.priority_levels, settings.batch.flush_interval)
        self.waiting = Waiting(self._bucket, self._settling)
        self._delays = self.waiting.delays
        self.pace = Pace(settings.pace.throttle)
        self._running: dict[Batch[T], None] = {}
        self._slots = 0
        self._batches = 0
        self._paused = False
        self._draining = False
        self._now = -math.inf
        self.complaints = self._settling.complaints
        self.unwanted: list[T] = self._settling.unwanted
        me = Owner(weakref.ref(owner or self))
        self.door: Admission[T, R] = Admission(
            name, settings.room, settings.order, self.waiting, make, me
        )

    def next_batch(self, now: float) -> Batch[T] | None:
        """Start the next batch if one is ready and there is capacity.

        The entries are chosen here, never earlier, and the caller processes the batch
        without a checkpoint in between: whatever arrived or was cancelled up to this
        instant counts.
        """
        self._now = now
        if self._delays.next_end <= now:
            self.waiting.advance(now)
        if self._paused or self._slots >= self._concurrency or self.pace.next_start > now:
            return None
        trigger = self._trigger(now)
        if trigger is None:
            return None
        all_fresh = self._bucket.all_fresh
        entries = self.waiting.take(self._batch_size)
        self._batches += 1
        batch = Batch(
            self._batches,
            [entry.item for entry in entries],
            entries,
            trigger,
            1 if all_fresh else 1 + max([entry.attempts for entry in entries]),
            self._settle_early,
        )
        self._running[batch] = None
        self._slots += 1
        self.pace.started(now)
        if self.door.producers:
            self.door.let_in(now)
        return batch

    def next_deadline(self) -> float:
        """Return the earliest time at which `next_batch` would start one [s].

        inf: not before something else happens; -inf: now.
        """
        if self._paused or self._slots >= self._concurrency:
            return math.inf
        if self._trigger(-math.inf) is not None:
            return self.pace.next_start
        return max(min(self._bucket.due(), self._delays.next_end), self.pace.next_start)

    def settle(
        self, batch: Batch[T], answers: Sequence[object] | None, *, now: float, draw: float
    ) -> bool:
        """End a call: give each of its entries what its answer decides.

        Args:
            batch: what ran.
            answers: one per item, in order, read as `read_answer` does; None: all
                succeeded.
            now: [s].
            draw: uniform in [0, 1): the jitter that its retries share.

        Returns:
            False: it was interrupted meanwhile, and nothing happened.
        """
        self._now = now
        if batch not in self._running:
            return False
        del self._running[batch]
        again = self._settling.end(batch, answers, now=now, draw=draw)
        for entry, due in again:
            if due is None:
                self.waiting.put_back(entry)
            else:
                self.waiting.delay(entry, due)
        if self.waiting.flushes:
            waiting = {entry for entry, due in again if due is None}
            self.waiting.leave([entry for entry in batch.entries if entry not in waiting])
        return True

    def release(self) -> None:
        """Free the slot of a batch: after its last hook, once per batch started."""
        self._slots -= 1

    def cancel_entry(self, entry: Entry[Any, Any], now: float | None = None) -> bool:
        """Take an item back if it still waits; see `Entry.cancel`.

        The producer whose item gets the seat comes in at `now` [s]; None: when somebody
        last told the time.
        """
        if entry.code == IN_FLIGHT:
            entry.abandoned = True
        if entry.code >= IN_FLIGHT:
            return False
        error = EntryCancelled(f"entry {entry.id} was cancelled before it was processed")
        self.waiting.remove(entry, CANCELLED, error)
        self.door.let_in(self._now if now is None else now)
        return True

    def pause(self, *, accept: bool) -> None:
        """Start nothing until `resume`; without `accept`, let nothing in either."""
        if self._draining:
            return
        self._paused = True
        if not accept:
            self.door.set_intake(Intake.PAUSED)

    def resume(self, now: float) -> None:
        """Take back a `pause`."""
        self._paused = False
        self.door.set_intake(Intake.OPEN)
        self.door.let_in(now)

    def drain(self) -> None:
        """Close, lift a pause, and make everything due as soon as it is pending."""
        self.door.set_intake(Intake.CLOSED)
        self._paused = False
        self._draining = True

    def stop_draining(self, now: float) -> None:
        """Leave a drain that ran out of time: closed, paused, nothing in flight.

        What was in flight waits again, no attempt spent; late answers for it are ignored.
        """
        self._draining = False
        self._paused = True
        for batch in list(self._running):
            self.settle(batch, batch.no_verdicts(), now=now, draw=0.0)

    def flush(self) -> Flush:
        """Make what is pending due; see `Flush` for what its caller waits for."""
        return self.waiting.flush(self._flying(), self.door.last_id)

    def end(self, error: QueueError) -> list[T]:
        """Settle what is left as CLOSED with `error`; return the items, by id."""
        self.door.set_intake(Intake.CLOSED)
        flying = self._flying()
        left = sorted([*self.waiting, *flying], key=lambda entry: entry.id)
        items: list[T] = [entry.item for entry in left]
        self._running.clear()
        for entry in left:
            if entry.code == IN_FLIGHT:
                self._settling.count(CLOSED)
                entry.settle(CLOSED, Result.fail(error))
                self.waiting.leave([entry])
            else:
                self.waiting.remove(entry, CLOSED, error)
        return items

    @property
    def size(self) -> int:
        """What waits, pending and delayed [entries]."""
        return self.waiting.size

    @property
    def idle(self) -> bool:
        """Whether nothing waits and no call runs."""
        return not self.waiting.size and not self._slots

    def stats(self, now: float, *, recount: bool = False) -> QueueStats:
        """Tell the counts; with `recount`, count the entries that wait one by one."""
        pending, delayed = self.waiting.pending, self._delays.count
        if recount:
            pending, delayed = sum(1 for _ in self._bucket), sum(1 for _ in self._delays)
        return QueueStats(
            enqueued=self.door.last_id,
            pending=pending,
            delayed=delayed,
            in_flight=len(self._flying()),
            **self._settling.counts(),
            batches=self._batches,
            running=self._slots,
            oldest=self.waiting.oldest(now),
        )

    def _trigger(self, now: float) -> Trigger | None:
        """Say why a batch is ready at `now`; None when none is."""
        bucket = self._bucket
        pending = self.waiting.pending
        if pending >= self._batch_size:
            return Trigger.SIZE
        if not pending:
            return None
        if self._draining:
            return Trigger.DRAIN
        # Half-full and without an interval, it would block its producers for ever.
        if self.door.producers:
            return Trigger.SIZE
        # The sum, as in next_deadline: a difference can round to just below the interval.
        if bucket.due() <= now:
            return bucket.reason()
        return None

    def _flying(self) -> list[Entry[Any, Any]]:
        entries = [entry for batch in self._running for entry in batch.entries]
        return [entry for entry in entries if entry.code == IN_FLIGHT]

    def _settle_early(self, batch: Batch[Any], index: int, result: Result[Any]) -> None:
        if batch in self._running and self._settling.early(batch, index, result):
            self.waiting.leave([batch.entries[index]])
