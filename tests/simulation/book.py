"""The book of a history: what was committed, run and promised, checked as it happens.

Every commit of every process is entered in the order in which the store made it, and the
store's answers are compared with those of the plainest model: a dict of rows. So what is
checked here is the contract of `jobs.md` 2.3, 3.1 and 2.4, and what workers make of it:

    J1  stored is stored             J2  no receipt twice         J3, J4  answers of settlements
    J5  attempts add up              J6  claim order              J14     never before its time
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import attrs
import msgspec

from batchq.core.job import (
    Answers,
    Claimed,
    ClaimRequest,
    Enqueued,
    Extended,
    Group,
    NewJob,
    Receipt,
    Settled,
    Settlement,
    Verdict,
)
from batchq.core.lifecycle import SUSPECT_AFTER, USER, JobState
from batchq.core.record import Changed, Cleaned, JobRecord, Ordered
from batchq.stores.base import Store

__all__ = ["Book", "Row", "has_written"]


@attrs.define(eq=False)
class Row:
    """A job, as the model has it."""

    id: int
    key: int
    queue: str
    handler: str
    priority: int
    due_at: float
    enqueued_at: float
    max_attempts: int | None
    state: JobState = JobState.PENDING
    attempt: int = 0
    refunds: int = 0
    reason: str | None = None
    holder: str | None = None
    crashes: int = 0
    asked: str | None = None
    ended_at: float = 0.0
    gone: bool = False

    @property
    def is_suspect(self) -> bool:
        """Whether it may be what killed its workers: it is handed out alone."""
        return self.state is JobState.PROCESSING and self.crashes + 1 >= SUSPECT_AFTER

    @property
    def used_up(self) -> bool:
        """Whether no attempt is left."""
        return self.max_attempts is not None and self.attempt - self.refunds >= self.max_attempts

    @property
    def doomed(self) -> bool:
        """Whether a claim that meets it ends it."""
        return self.used_up or self.asked is not None

    @property
    def place(self) -> tuple[int, float, int]:
        """Its place in the order of claims."""
        return self.priority, self.due_at, self.id


@attrs.define(eq=False)
class Book:
    """What is known of a history.

    Attributes:
        rows: every stored job, by id.
        wrong: what did not hold, in words.
        commits: transactions [count].
        claims: jobs handed out [count].
        ran_out: leases that ran out [count].
        most: jobs that a process may hold of each queue; empty: not looked at.
        said: what handlers made of each receipt: the verdicts that may follow.
        runs: how often each job's handler was called, by key.
        tell_words: is told of every event, in words; None: nobody is.
        clock: the host's time, for that [s].
        paused: queues of which nothing may be claimed.
        is_well: tells whether a process has got its turns for some time now.
        running: receipts that handlers are running for now.
        quiet_since: no lease may run out any more from then on [s, the host's time]; None:
            faults are still at work.
    """

    clock: Callable[[], float]
    tell_words: Callable[[str], object] | None = None
    rows: dict[int, Row] = attrs.field(factory=dict)
    wrong: list[str] = attrs.field(factory=list)
    commits: int = 0
    claims: int = 0
    ran_out: int = 0
    most: Mapping[str, int] = attrs.field(factory=dict)
    said: dict[Receipt, set[Verdict]] = attrs.field(factory=dict)
    runs: Counter[int] = attrs.field(factory=Counter)
    is_well: Callable[[str], bool] = lambda _: False
    running: set[Receipt] = attrs.field(factory=set)
    quiet_since: float | None = None
    paused: set[str] = attrs.field(factory=set)
    closed: bool = False
    _handed_out: dict[Receipt, str] = attrs.field(factory=dict)
    _started: Counter[Receipt] = attrs.field(factory=Counter)
    _may_start_again: set[Receipt] = attrs.field(factory=set)
    _applied: dict[Receipt, Verdict] = attrs.field(factory=dict)
    _told: Counter[tuple[str, Receipt]] = attrs.field(factory=Counter)
    _by_key: dict[int, list[int]] = attrs.field(factory=lambda: defaultdict(list))
    _live: dict[int, Row] = attrs.field(factory=dict)
    _latest: float = 0.0
    _last_id: int = 0
    _now: float = 0.0
    _digest: hashlib.blake2b = attrs.field(factory=lambda: hashlib.blake2b(digest_size=8))

    @property
    def digest(self) -> str:
        """What tells this history from every other."""
        return self._digest.hexdigest()

    @property
    def unfinished(self) -> int:
        """Jobs that are not final [count]."""
        return len(self._live)

    def ids(self, key: int) -> list[int]:
        """Return the ids of the jobs that were stored for a key."""
        return self._by_key[key]

    def note(self, *event: object) -> None:
        """Make an event part of the digest."""
        self._digest.update(repr(event).encode())
        self._say(*event)

    def complain(self, words: str) -> None:
        """Write down what does not hold."""
        if not self.closed:
            self.wrong.append(words)
            self._say("WRONG:", words)

    def _say(self, *words: object) -> None:
        if self.tell_words is not None and not self.closed:
            self.tell_words(f"{self.clock():9.4f}  {' '.join(map(str, words))}")

    # ---- What the store did.

    def commit(self, who: str, when: float, now: float, group: Group, answers: Answers) -> None:
        """Enter a transaction.

        Args:
            who: the process.
            when: the host's time [s].
            now: the store's time [s].
            group: what it was asked for.
            answers: what it said.
        """
        if self.closed:
            return
        self.commits += 1
        if now < self._latest:
            self.complain(f"the store's clock went back by {self._latest - now:g} s")
        # What writes nothing leaves no trace, and a boot may forget it; so it may an order's time.
        if has_written(answers):
            self._latest = max(self._latest, now)
        self.note(who, round(when, 6))
        self._now = now
        for settlement, settled in zip(group.settle, answers.settle, strict=True):
            self._settle(who, now, settlement, settled)
        for extension, extended in zip(group.extend, answers.extend, strict=True):
            for receipt, answer in zip(extension.receipts, extended, strict=True):
                self._extend(receipt, now + extension.lease, answer)
        for job, stored in zip(group.enqueue, answers.enqueue, strict=True):
            self._enqueue(job, stored, now)
        for request, claimed in zip(group.claim, answers.claim, strict=True):
            self._claim(who, when, now, request=request, claimed=claimed)

    def cancel(self, when: float, now: float, reason: str, changed: Changed) -> None:
        """Enter that jobs were cancelled, or asked to stop."""
        self.note(round(when, 6), "cancel", *changed.ids)
        self._now = now
        for id_, answer in zip(changed.ids, changed.answers, strict=True):
            row = self._found(id_)
            expected = Ordered.UNKNOWN
            if row is not None and row.state is JobState.PENDING:
                expected = Ordered.DONE
                self._end(row, JobState.CANCELLED, reason)
            elif row is not None and row.state is JobState.PROCESSING:
                expected, row.asked = Ordered.ASKED, reason
            elif row is not None:
                expected = Ordered.REFUSED
            if answer is not expected:
                self.complain(f"J13: the cancel of {id_} was {answer.value}, not {expected.value}")

    def retry(self, when: float, now: float, changed: Changed) -> None:
        """Enter that jobs were told to run again."""
        self.note(round(when, 6), "retry", *changed.ids)
        for id_, answer in zip(changed.ids, changed.answers, strict=True):
            row = self._found(id_)
            expected = Ordered.UNKNOWN if row is None else Ordered.DONE
            if row is not None and row.state is JobState.PROCESSING:
                expected = Ordered.REFUSED
            elif row is not None and row.state is JobState.PENDING:
                row.due_at = min(row.due_at, now)
            elif row is not None:
                row.state, row.due_at, row.refunds = JobState.PENDING, now, row.attempt
                row.crashes, row.asked, row.reason = 0, None, None
                self._live[id_] = row
            if answer is not expected:
                self.complain(f"T14: the retry of {id_} was {answer.value}, not {expected.value}")

    def pause(self, queue: str, *, paused: bool) -> None:
        """Enter that a queue was paused, or goes on."""
        self.note("pause" if paused else "resume", queue)
        (self.paused.add if paused else self.paused.discard)(queue)

    def reboot(self, now: float) -> None:
        """Enter a reboot: every lease is void at `now` [s, store clock]."""
        for row in self._live.values():
            if row.state is JobState.PROCESSING:
                row.due_at = now

    def _found(self, id_: int) -> Row | None:
        row = self.rows.get(id_)
        return None if row is None or row.gone else row

    def _settle(self, who: str, now: float, settlement: Settlement, answer: Settled) -> None:
        receipt = settlement.receipt
        row = self._found(receipt.job_id)
        if row is None or row.attempt != receipt.attempt:
            expected = Settled.STALE
        elif row.state is JobState.PROCESSING:
            expected = Settled.APPLIED
        else:
            expected = Settled.RECORDED
        self.note("settle", *_pair(receipt), settlement.verdict.value, answer.value)
        if answer is not expected:
            self.complain(f"J3: {receipt} by {who} was {answer.value}, not {expected.value}")
        if row is None or answer is not Settled.APPLIED:
            return
        if receipt in self._applied:
            self.complain(f"J3: {receipt} was settled twice")
        self._applied[receipt] = settlement.verdict
        allowed = self.said.get(receipt, {Verdict.RELEASE})
        if row.asked is not None:
            allowed = allowed | {Verdict.CANCEL, Verdict.SNOOZE, Verdict.RELEASE}
        if settlement.verdict not in allowed:
            names = sorted(each.value for each in allowed)
            self.complain(f"{receipt} was settled {settlement.verdict.value}, its run said {names}")
        self._apply(row, settlement, now)

    def clean(
        self, when: float, now: float, *, keep: float, after: int, limit: int, cleaned: Cleaned
    ) -> None:
        """Enter that ended jobs were deleted, of those that come next after an id."""
        next_ones = [row for row in self.rows.values() if row.id > after and not row.gone][:limit]
        old = [row for row in next_ones if row.state.final and row.ended_at <= now - keep]
        self.note(round(when, 6), "clean", len(old))
        if cleaned.deleted != len(old):
            self.complain(f"J15: {cleaned.deleted} were deleted, {len(old)} were old enough")
        for row in old:
            row.gone = True

    def _apply(self, row: Row, settlement: Settlement, now: float) -> None:
        row.holder, row.crashes = None, 0
        match settlement.verdict:
            case Verdict.RETRY | Verdict.SNOOZE | Verdict.RELEASE if row.asked is not None:
                self._end(row, JobState.CANCELLED, row.asked)
            case Verdict.CANCEL:
                self._end(row, JobState.CANCELLED, settlement.reason or row.asked or USER)
            case Verdict.OK:
                self._end(row, JobState.COMPLETED, None)
                if settlement.value != str(row.key).encode():
                    self.complain(f"job {row.id} got the value {settlement.value!r} of another")
            case Verdict.FAIL:
                self._end(row, JobState.FAILED, settlement.reason)
            case Verdict.RETRY if row.used_up:
                self._end(row, JobState.FAILED, "exhausted")
            case Verdict.RETRY:
                row.state, row.due_at = JobState.PENDING, now + settlement.delay
            case Verdict.SNOOZE:
                row.state, row.due_at = JobState.PENDING, now + settlement.delay
                row.refunds += 1
            case Verdict.RELEASE:
                row.state, row.due_at = JobState.PENDING, row.enqueued_at
                row.refunds += 1

    def _end(self, row: Row, state: JobState, reason: str | None) -> None:
        row.state, row.reason, row.holder = state, reason, None
        row.ended_at = self._now
        del self._live[row.id]

    def _extend(self, receipt: Receipt, until: float, answer: Extended) -> None:
        row = self.rows.get(receipt.job_id)
        current = (
            row is not None and row.state is JobState.PROCESSING and row.attempt == receipt.attempt
        )
        self.note("extend", *_pair(receipt), answer.value)
        expected = Extended.STALE
        if row is not None and current:
            expected = Extended.OK if row.asked is None else Extended.CANCEL
        if answer is not expected:
            self.complain(f"J3: the extension of {receipt} was {answer.value}")
        if row is not None and current:
            row.due_at = until

    def _enqueue(self, job: NewJob, stored: Enqueued, now: float) -> None:
        id_ = stored.id
        if id_ <= self._last_id:
            self.complain(f"J1: id {id_} does not rise")
        self._last_id = id_
        key = key_of(job.payload)
        self.note("enqueue", id_, job.handler, key)
        self._by_key[key].append(id_)
        self.rows[id_] = self._live[id_] = Row(
            id=id_,
            key=key,
            queue=job.queue,
            handler=job.handler,
            priority=job.priority,
            due_at=now + job.delay,
            enqueued_at=now,
            max_attempts=job.max_attempts,
        )

    def _claim(
        self, who: str, when: float, now: float, *, request: ClaimRequest, claimed: Claimed
    ) -> None:
        due = sorted(self._due(request, now), key=lambda row: row.place)
        jobs, doomed = _taken(due, request) if request.queue not in self.paused else ([], [])
        got = [job.receipt.job_id for job in claimed.jobs]
        wanted = [row.id for row in jobs]
        if got != wanted:
            self.complain(f"J6: {who} claimed {got[:9]}, due in this order were {wanted[:9]}")
        if claimed.buried != len(doomed):
            self.complain(f"J5: {claimed.buried} were buried, {len(doomed)} were doomed")
        for row in (*jobs, *doomed):
            if row.state is JobState.PROCESSING:
                self._run_out(row, when - (now - row.due_at))
                row.crashes += 1
        for row in doomed:
            if row.asked is not None:
                self._end(row, JobState.CANCELLED, row.asked)
            else:
                self._end(row, JobState.FAILED, "crashed")
            row.attempt += 1
            row.refunds += 1
        for job in claimed.jobs:
            self._hand_out(who, job.receipt, now=now, lease=request.lease, used=job.used)
        held = sum(row.holder == who and row.queue == request.queue for row in self._live.values())
        if self.most and held > self.most[request.queue]:
            self.complain(f"{who} holds {held} jobs, and has room for {self.most[request.queue]}")

    def _due(self, request: ClaimRequest, now: float) -> Iterator[Row]:
        for row in self._live.values():
            if row.queue == request.queue and row.handler in request.handlers and row.due_at <= now:
                yield row

    def _run_out(self, row: Row, when: float) -> None:
        """Enter that a lease ran out, at `when` [s, the host's time]."""
        self.ran_out += 1
        receipt, holder = Receipt(row.id, row.attempt), row.holder or ""
        if receipt in self.running and self.is_well(holder):
            self.complain(f"{holder} still runs {receipt}, whose lease ran out")
        if self.quiet_since is not None and when > self.quiet_since:
            self.complain(f"the lease of job {row.id} ran out at {when:.3f} s: nothing is wrong")

    def _hand_out(self, who: str, receipt: Receipt, *, now: float, lease: float, used: int) -> None:
        self.claims += 1
        self.note("claim", *_pair(receipt))
        row = self.rows.get(receipt.job_id)
        if receipt in self._handed_out:
            self.complain(f"J2: {receipt} went to {self._handed_out[receipt]} and to {who}")
        self._handed_out[receipt] = who
        if row is None:
            self.complain(f"J1: {receipt} is of no job")
            return
        if row.due_at > now:
            self.complain(f"J14: {receipt} was claimed before it was due")
        row.attempt += 1
        if (row.attempt, row.attempt - row.refunds) != (receipt.attempt, used):
            self.complain(f"J5: {receipt} used {used}; claims {row.attempt} less {row.refunds}")
        row.state, row.due_at, row.holder = JobState.PROCESSING, now + lease, who

    # ---- What workers did.

    def start(self, who: str, receipt: Receipt) -> None:
        """Enter that a handler is called for a receipt."""
        if self.closed:
            return
        if self._handed_out.get(receipt) != who:
            self.complain(f"{who} runs {receipt}, which it has never claimed")
        if receipt in self._started and receipt not in self._may_start_again:
            self.complain(f"{receipt} was run twice")
        self._may_start_again.discard(receipt)
        self._started[receipt] += 1
        self._say(who, "runs", receipt)
        row = self.rows.get(receipt.job_id)
        if row is not None:
            self.runs[row.key] += 1
        self.said[receipt] = {Verdict.RELEASE}

    @contextmanager
    def run(self, receipts: Sequence[Receipt]) -> Iterator[None]:
        """Enter that a handler runs for these as long as the block lasts."""
        self.running.update(receipts)
        try:
            yield
        finally:
            self.running.difference_update(receipts)

    def raised(self, receipts: Iterable[Receipt]) -> None:
        """Enter that a call for many raised: it may be made again, in parts."""
        self._may_start_again.update(receipts)

    def say(self, receipt: Receipt, *verdicts: Verdict) -> None:
        """Enter what a handler has decided for a receipt."""
        self.said[receipt] = set(verdicts)
        self._say(receipt, "is to be", *(each.value for each in verdicts))

    def tell(self, who: str, receipt: Receipt) -> None:
        """Enter that a hook was told of a job that came to its end."""
        if self.closed:
            return
        self._told[who, receipt] += 1
        if self._told[who, receipt] > 1:
            self.complain(f"{who} was told of the end of {receipt} twice")
        if receipt not in self._applied:
            self.complain(f"{who} was told of the end of {receipt}, which was not written")

    def held_by(self, who: str) -> list[int]:
        """Return the jobs that are leased to a process."""
        return [row.id for row in self._live.values() if row.holder == who]

    # ---- The end.

    def close(self, store: Store) -> None:
        """Compare with the rows that are there, and enter nothing more."""
        ids = list(self.rows)
        for id_, record in zip(ids, store.get(ids), strict=True):
            self._compare(self.rows[id_], record)
        [beyond] = store.get([max(ids, default=0) + 1])
        if beyond is not None:
            self.complain(f"J1: job {beyond.id} was stored by nobody")
        self.closed = True

    def _compare(self, row: Row, record: JobRecord | None) -> None:
        if record is None or row.gone:
            if (record is None) is not row.gone:
                self.complain(f"J1: job {row.id} is {'there' if row.gone else 'gone'}")
            return
        self.note(record.id, record.state.value, record.attempt, record.refunds, record.reason)
        if not row.state.final:
            self.complain(f"job {row.id} is stuck: {record.status(self._latest)}")
        model = row.state, row.attempt, row.refunds, row.reason
        stored = record.state, record.attempt, record.refunds, record.reason
        if model != stored:
            self.complain(f"J5: job {row.id} is {stored}, by its history {model}")
        if not 0 <= record.refunds <= record.attempt or (
            record.max_attempts is not None and record.used > record.max_attempts
        ):
            self.complain(f"J5: job {row.id} used {record.used} of {record.max_attempts}")
        last = Receipt(record.id, record.attempt)
        if record.state is JobState.COMPLETED and last not in self._started:
            self.complain(f"job {row.id} is completed, and nobody ran {last}")


def _pair(receipt: Receipt) -> tuple[int, int]:
    return receipt.job_id, receipt.attempt


def has_written(answers: Answers) -> bool:
    """Tell whether a commit has changed anything."""
    return (
        Settled.APPLIED in answers.settle
        or any(Extended.OK in extended for extended in answers.extend)
        or bool(answers.enqueue)
        or any(claimed.jobs or claimed.buried for claimed in answers.claim)
    )


def key_of(payload: bytes) -> int:
    """Return the key in a stored payload: an item, or an object of arguments."""
    decoded = msgspec.json.decode(payload)
    return int(decoded["key"] if isinstance(decoded, dict) else decoded)


def _taken(due: Sequence[Row], request: ClaimRequest) -> tuple[list[Row], list[Row]]:
    """Return what a claim hands out of due jobs in order, and what it buries on the way."""
    jobs: list[Row] = []
    doomed: list[Row] = []
    for row in due:
        if row.doomed:
            doomed.append(row)
        elif not row.is_suspect:
            jobs.append(row)
        elif request.suspect:
            if not jobs:
                jobs.append(row)
            break
        if len(jobs) == request.limit:
            break
    return jobs, doomed
