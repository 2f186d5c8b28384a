"""The batching state machine.

Rule 1: this folder decides when a batch starts and what becomes of its entries; this file
owns the *order of the questions*, the rooms beside it the answers.
Rule 2: nothing here waits. No trio, no clock, no dice: `now` [s, any steady clock] and
`draw` [uniform in 0..1] are arguments, so that tests can replay any history.
Rule 3: a batch is chosen in the same synchronous step that starts it.
Rule 4: every entry is counted in exactly one place, at every step.
Rule 5: the plain rooms serve until somebody asks for more (`enrich`): an option that is off
costs no item anything.

    door.enqueue ─▶ admission: room? ─▶ waiting: PENDING ◀── over ── delays: DELAYED
                                                    │                            ▲
    next_batch: not paused? a slot? throttle? ready? rate limits?                │
                                                    ▼                            │
    raised:  splitting: in parts? ───────────────▶ IN_FLIGHT                     │
    settle:  settling: done | failed | again? ◀─────┘            again ──────────┘
    release: the slot is free, or the next part waits for its call
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from batchq.core.admission import Admission
from batchq.core.batch import Batch
from batchq.core.bucket import Bucket
from batchq.core.entry import CANCELLED, CLOSED, IN_FLIGHT, Canceller, Entry, Owner
from batchq.core.expiry import Delays
from batchq.core.flushes import Flush
from batchq.core.news import News
from batchq.core.options import Settings
from batchq.core.producer import Intake
from batchq.core.result import Result
from batchq.core.rich_admission import RichAdmission
from batchq.core.rich_waiting import RichWaiting
from batchq.core.saving import saved
from batchq.core.settling import Settling
from batchq.core.snapshot import Saved
from batchq.core.splitting import Splitting
from batchq.core.starting import Starter
from batchq.core.statistics import QueueStats
from batchq.core.waiting import Waiting
from batchq.errors import EntryCancelled, QueueError

__all__ = ["Batcher"]

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """Decides which entries form the next batch, and when, and what becomes of them.

    Attributes:
        door: where items come in.
        waiting: what waits.
        limits: what keeps starts apart.
        splitting: what calls that raised come to.
        news: what hooks are to be told of since the shell last looked.
        complaints: what the user's `retryable` check raised since then.
        unwanted: items whose call came to nothing when nobody wanted them any more, since
            then; they are CANCELLED.
        renewed: called when `door` and `waiting` are other ones from now on.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        name: str = "default",
        owner: Canceller | None = None,
        make: Callable[..., Entry[T, R]] = Entry,
        leave: bool = False,
        may_retry: Callable[[Entry[Any, Any], Exception], bool] | None = None,
        outages: tuple[type[BaseException], ...] = (),
    ) -> None:
        """Make an empty queue.

        Args:
            settings: what to go by.
            name: the queue's name, for messages.
            owner: whom entries ask to be cancelled; None: this object.
            make: what makes an entry: `Entry` or a subclass of it.
            leave: True: what would come again settles instead (a durable queue's jobs
                come again from their store).
            may_retry: whether an error may be retried and attempts are left, where not
                the retry policy knows but somebody else; None: the policy does.
            outages: errors that all items would get in an outage, beside `OSError`.
        """
        self._settings = settings
        self.news = News()
        retry, drops = settings.failure.retry, settings.room.drop_policy
        self._settling = Settling(retry, self.news, leave=leave, may_retry=may_retry)
        self.splitting = Splitting(
            settings.failure.splits, settings.order.ordered, self._settling, self.news, outages
        )
        bucket = Bucket.of(settings.order.priority_levels, settings.batch.flush_interval)
        self.waiting: Any = Waiting(bucket, self._settling, settings.batch.first, Delays.of(drops))
        me = Owner(weakref.ref(owner or self))
        self.door: Admission[T, R] = Admission(
            name, settings.room, settings.order, self.waiting, make, me
        )
        self._starter = Starter(
            settings,
            door=self.door,
            waiting=self.waiting,
            splitting=self.splitting,
            settling=self._settling,
            news=self.news,
        )
        self.limits = self._starter.limits
        self.complaints = self._settling.complaints
        self.unwanted: list[T] = self._settling.unwanted
        self.renewed: Callable[[], object] | None = None
        self._now = -math.inf
        if not settings.plain:
            self.enrich()

    def enrich(self) -> None:
        """Ask more of what waits and of what comes in, from now on."""
        if isinstance(self.waiting, RichWaiting):
            return
        plain: Waiting = self.waiting
        starter = self._starter
        rich = RichWaiting(
            self._settings,
            settling=self._settling,
            news=self.news,
            outstanding=self._outstanding,
        )
        rich.take_over(plain, flying=starter.flying(), running=starter.slots)
        self.waiting = starter.waiting = rich
        starter.rich = True
        self.door = starter.door = RichAdmission(
            self.door,
            self._settings,
            waiting=rich,
            news=self.news,
            outstanding=self._outstanding,
        )
        if self.limits.max_unit < math.inf:
            self.door.appraiser.limit_weight("rate_limit", self.limits.max_unit)
        if self.renewed is not None:
            self.renewed()

    def next_batch(self, now: float) -> Batch[T] | None:
        """Start the next batch if one is ready and there is capacity; see `Starter`.

        The entries are chosen here, never earlier, and the caller processes the batch
        without a checkpoint in between: whatever arrived or was cancelled up to this
        instant counts. What waits at its deadline and does not start then expires.
        """
        self._now = now
        return self._starter.next_batch(now)

    def next_deadline(self) -> float:
        """Return the earliest time at which `next_batch` has something to do [s].

        inf: not before something else happens; -inf: now.
        """
        return self._starter.next_deadline()

    def settle(
        self,
        batch: Batch[T],
        answers: Sequence[object] | None,
        *,
        now: float,
        draw: float,
        concerns: Batch[T] | None = None,
        error: Exception | None = None,
        spread: float = 0.5,
        learns: bool = True,
    ) -> bool:
        """End a call: give each of its entries what its answer decides.

        Args:
            batch: what ran.
            answers: one per item, in order, read as `read_answer` does; None: all
                succeeded.
            now: [s].
            draw: uniform in [0, 1): the jitter that its retries share.
            concerns: whose items the answers are, where it is more than `batch`.
            error: what the call raised; None: it returned.
            spread: uniform in [0, 1): how an adaptive batch size is varied.
            learns: whether it says how long calls take: not if it was interrupted.

        Returns:
            False: it was interrupted meanwhile, and nothing happened.
        """
        self._now = now
        if batch not in self._starter.running:
            return False
        if self._settling.suspects:
            self._mark_suspects()  # while the batch is still known to be in flight
        del self._starter.running[batch]
        subject = batch if concerns is None else concerns
        again = self._settling.end(subject, answers, now=now, draw=draw)
        for entry, due in again:
            if due is None:
                self.waiting.put_back(entry)
            else:
                self.waiting.delay(entry, due)
        if batch.bisect is not None:
            self._put_back(self.splitting.settled(batch, comes_again=bool(again)), now)
        if self.waiting.flushes.open:
            self.waiting.flushes.ended(subject.entries)
        if learns and self._starter.rich:
            self.waiting.slack.took(now - batch.started_at)
        if learns and self._starter.learning is not None:
            self._starter.learn(batch, now, error=error, draw=spread)
        if self.door.producers:
            self.door.let_in(now)
        return True

    def release(self, batch: Batch[T]) -> None:
        """Free the slot of a batch: after its last hook, once per batch started."""
        if batch.bisect is None or not self.splitting.goes_on(batch):
            self._starter.free(batch)

    def cancel_entry(self, entry: Entry[Any, Any], now: float | None = None) -> bool:
        """Take an item back if it still waits; see `Entry.cancel`.

        The producer whose item gets the seat comes in at `now` [s]; None: when somebody
        last told the time.
        """
        if entry.more is not None and entry.more.callers > 1 and not entry.settled:
            entry.more.callers -= 1  # somebody else still wants it
            return False
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
        if self._starter.draining:
            return
        self._starter.set_paused(True)
        if not accept:
            self.door.set_intake(Intake.PAUSED)

    def resume(self, now: float) -> None:
        """Take back a `pause`."""
        self._starter.set_paused(False)
        self.door.set_intake(Intake.OPEN)
        self.door.let_in(now)

    def drain(self) -> None:
        """Close, lift a pause, and make everything due as soon as it is pending."""
        self.door.set_intake(Intake.CLOSED)
        self._starter.set_paused(False)
        self._starter.draining = True

    def stop_draining(self, now: float) -> None:
        """Leave a drain that ran out of time: closed, paused, nothing in flight.

        What was in flight waits again, no attempt spent; late answers for it are ignored.
        """
        self._starter.draining = False
        self._starter.set_paused(True)
        for batch in list(self._starter.running):
            self.interrupt(batch, now)
        while self.splitting.waiting:
            whole = self.splitting.waiting.popleft()
            self._put_back(self.splitting.give_up(whole), now)
            self._starter.free(whole)

    def interrupt(self, batch: Batch[T], now: float) -> None:
        """End a call at `now` [s] without a verdict; late answers are ignored.

        What was in flight waits again, no attempt spent.
        """
        left = self.splitting.give_up(batch)
        self.settle(batch, batch.no_verdicts(), now=now, draw=0.0, learns=False)
        self._put_back(left, now)

    def flush(self) -> Flush:
        """Make what is pending due; see `Flush` for what its caller waits for."""
        waiting, last_id = self.waiting, self.door.last_id
        waiting.flush(last_id)
        others = [*self._starter.gone(), *(entry.id for entry in waiting.delays)]
        left = self._outstanding() - waiting.delays.count
        flush: Flush = waiting.flushes.begin(last_id, left, others)
        return flush

    def end(self, error: QueueError) -> list[T]:
        """Settle what is left as CLOSED with `error`; return the items, by id."""
        self.door.set_intake(Intake.CLOSED)
        flying = self._starter.flying()
        left = sorted([*self.waiting, *flying], key=lambda entry: entry.id)
        items: list[T] = [entry.item for entry in left]
        self._starter.running.clear()
        while self.splitting.waiting:
            self._starter.free(self.splitting.waiting.popleft())
        for entry in left:
            if entry.code == IN_FLIGHT:
                self._settling.count(CLOSED)
                entry.settle(CLOSED, Result.fail(error))
                self.waiting.flushes.leave([entry.id])
            else:
                self.waiting.remove(entry, CLOSED, error)
        return items

    def unsettled(self) -> list[Saved[T]]:
        """Return what is to be saved of the entries that are not settled, by id."""
        left = sorted([*self.waiting, *self._starter.flying()], key=lambda entry: entry.id)
        return [saved(entry) for entry in left]

    def restore(self, records: Sequence[Saved[T]], now: float) -> None:
        """Let entries come back from a snapshot: same ids, past any limit.

        Before anything else came in. What the user's functions raise is a complaint; the
        entry is not lost for it.
        """
        if records:
            self.enrich()
            door: Any = self.door
            self.complaints.extend(door.restore(records, now))

    @property
    def size(self) -> int:
        """What waits, pending and delayed [entries]."""
        return self.waiting.size  # type: ignore[no-any-return]  # of Waiting and RichWaiting

    @property
    def levels(self) -> int:
        """How many levels of priority there are."""
        return self._settings.order.priority_levels

    @property
    def partition_limit(self) -> float:
        """The most batches of one partition that may be in flight [batches]."""
        return self._settings.order.partition_limit

    @property
    def concurrency(self) -> int:
        """The most batches that may be in flight, as things are [batches]."""
        return self._starter.concurrency

    @property
    def learns(self) -> bool:
        """Whether sizes are varied, to learn from calls."""
        return self._starter.learning is not None

    @property
    def idle(self) -> bool:
        """Whether nothing waits and no call runs."""
        return not self.waiting.size and not self._starter.slots

    def stats(self, now: float, *, recount: bool = False) -> QueueStats:
        """Tell the counts; with `recount`, count the entries that wait one by one."""
        waiting = self.waiting
        pending, delayed, weight = waiting.pending, waiting.delays.count, waiting.weight
        in_flight = self._outstanding() - waiting.size
        if recount:
            in_flight = len(self._starter.flying())
            delayed = sum(1 for _ in waiting.delays)
            pending = sum(1 for _ in waiting) - delayed
            weight = sum(1.0 if each.more is None else each.more.weight for each in waiting)
        return QueueStats(
            enqueued=self.door.accepted,
            restored=self.door.restored,
            coalesced=self.door.coalesced,
            pending=pending,
            delayed=delayed,
            in_flight=in_flight,
            **self._settling.counts(),
            batches=self._starter.batches,
            running=self._starter.slots,
            oldest=waiting.oldest(now),
            weight=weight,
            batch_size=waiting.batch_size,
            concurrency=self._starter.concurrency,
        )

    def _outstanding(self) -> int:
        return self.door.accepted + self.door.restored - self._settling.ended

    def _mark_suspects(self) -> None:
        """Let what failed alone run alone from now on."""
        suspects, self._settling.suspects = self._settling.suspects, []
        self.enrich()
        for entry in suspects:
            if entry.more is not None:  # else its verdict came meanwhile, before the call's end
                entry.more.solo = True

    def _put_back(self, entries: Sequence[Entry[Any, Any]], now: float) -> None:
        """Let those of entries wait again that are still in flight, and wanted."""
        for entry in self._settling.give_back(entries):
            self.waiting.put_back(entry)
        self.waiting.flushes.leave([entry.id for entry in entries if entry.settled])
        self.door.let_in(now)
