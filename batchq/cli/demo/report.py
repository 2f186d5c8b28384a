"""Does it add up? What the store says of every job, beside what the server saw.

    recipients = stored = sent + refused + lost        lost is to be 0, else the exit code is 1

A recipient is *sent* if its job is completed and the server has the mail; *refused* if its
job has failed and the server refused it for good. Anything else is *lost*, with a reason.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import attrs

from batchq.core.lifecycle import JobState
from batchq.core.record import JobRecord, WorkerRecord

__all__ = ["Killing", "Lost", "Report", "Seen", "Times", "add_up"]


@attrs.frozen(kw_only=True)
class Seen:
    """What the SMTP server saw; recipients are keys, as `add_up` makes them from jobs.

    Attributes:
        delivered: mails taken over, by recipient [count].
        deferred: answers of 451, by recipient [count].
        refused: recipients answered with 550.
        message_ids: the Message-IDs that came, by recipient.
        connections: SMTP connections that brought mail [count].
    """

    delivered: Mapping[str, int]
    deferred: Mapping[str, int]
    refused: Collection[str]
    message_ids: Mapping[str, Collection[bytes]]
    connections: int


@attrs.frozen
class Lost:
    """A recipient that is not accounted for.

    Attributes:
        email: who.
        reason: what is wrong.
        job: its job; None if there is none.
    """

    email: str
    reason: str
    job: int | None = None


@attrs.frozen(kw_only=True)
class Killing:
    """The worker that was killed.

    Attributes:
        pid: its process id.
        accepted: recipients whose mail the server had taken over in that very batch.
    """

    pid: int
    accepted: Sequence[str]


@attrs.frozen(kw_only=True)
class Times:
    """How long it took.

    Attributes:
        storing: all jobs [s].
        sending: from the first mail to the last verdict [s].
    """

    storing: float
    sending: float


@attrs.frozen(kw_only=True)
class Report:
    """The sum of a campaign; counts are of recipients where not said otherwise.

    Attributes:
        recipients: who was to get the newsletter.
        stored: jobs in the store.
        sent: completed, and the server has the mail.
        refused: failed, and the server refused them for good.
        lost: neither.
        deferred: put off by the server at least once.
        deferrals: how often the server put any of them off [count].
        retries: attempts after a first one [count].
        twice: got the mail more than once.
        twice_by_kill: those of them that the killed worker had served in its last batch.
        copies: mails beyond the first, over all recipients [count].
        same_id: whether all copies carried their first mail's Message-ID.
        killed: the worker that was killed; None if none was.
        batches: calls of the handler that ended, over all workers [count].
        commits: transactions of all workers, the killed one included [count].
        connections: SMTP connections that brought mail [count].
        times: how long it took.
        database: where the jobs are.
        bad_rows: rows of the file that are no recipients.
        repeated_rows: rows whose recipient stands on an earlier line.
    """

    recipients: int
    stored: int
    sent: int
    refused: int
    lost: Sequence[Lost]
    deferred: int
    deferrals: int
    retries: int
    twice: int
    twice_by_kill: int
    copies: int
    same_id: bool
    killed: Killing | None
    batches: int
    commits: int
    connections: int
    times: Times
    database: str
    bad_rows: int = 0
    repeated_rows: int = 0

    @property
    def adds_up(self) -> bool:
        """Whether every recipient is accounted for, once."""
        return not self.lost and self.recipients == self.stored == self.sent + self.refused

    @property
    def rate(self) -> float:
        """Recipients served while sending [1/s]."""
        return (self.sent + self.refused) / max(self.times.sending, 1e-9)

    @property
    def commits_per_job(self) -> float:
        """Transactions per job, storing it included [ratio]."""
        return self.commits / max(self.stored, 1)

    def as_json(self) -> str:
        """Write it for programs."""
        content: dict[str, Any] = attrs.asdict(self)
        killed = self.killed and {"pid": self.killed.pid, "accepted": len(self.killed.accepted)}
        content |= {
            "killed": killed,
            "adds_up": self.adds_up,
            "rate": round(self.rate, 1),
            "commits_per_job": round(self.commits_per_job, 4),
        }
        return json.dumps(content, indent=2)


def add_up(
    emails: Iterable[str],
    jobs: Iterable[JobRecord],
    seen: Seen,
    *,
    workers: Iterable[WorkerRecord],
    killed: Killing | None,
    times: Times,
    database: str,
) -> Report:
    """Compare what was wanted, what is stored and what arrived."""
    wanted = {email.casefold() for email in emails}
    books = _Books(seen)
    for job in jobs:
        books.enter(job)
    books.lost += [Lost(email, "has no job") for email in sorted(wanted - books.entered)]
    twice = {email for email, count in seen.delivered.items() if count > 1}
    counted = list(workers)
    return Report(
        recipients=len(wanted),
        stored=books.stored,
        sent=books.verdicts[JobState.COMPLETED],
        refused=books.verdicts[JobState.FAILED],
        lost=books.lost,
        deferred=sum(1 for count in seen.deferred.values() if count),
        deferrals=sum(seen.deferred.values()),
        retries=books.retries,
        twice=len(twice),
        twice_by_kill=len(twice.intersection(killed.accepted if killed else ())),
        copies=sum(count - 1 for count in seen.delivered.values() if count > 1),
        same_id=all(len(seen.message_ids.get(email, ())) == 1 for email in twice),
        killed=killed,
        batches=sum(worker.batches for worker in counted),
        commits=sum(worker.commits for worker in counted),
        connections=seen.connections,
        times=times,
        database=database,
    )


@attrs.define(eq=False)
class _Books:
    """Takes every job once, and compares it with what the server saw."""

    seen: Seen
    stored: int = 0
    retries: int = 0
    verdicts: Counter[JobState] = attrs.field(factory=Counter)
    lost: list[Lost] = attrs.field(factory=list)
    entered: set[str] = attrs.field(factory=set)

    def enter(self, job: JobRecord) -> None:
        email = _recipient_of(job)
        self.stored += 1
        self.retries += max(0, job.used - 1)
        self.entered.add(email)
        fault = _fault(job, email, self.seen)
        if fault is None:
            self.verdicts[job.state] += 1
        else:
            self.lost.append(Lost(email, fault, job.id))


def _recipient_of(job: JobRecord) -> str:
    """Return whom a job is for, as a key."""
    payload = json.loads(job.payload)
    return str(payload["to"]).casefold()


def _fault(job: JobRecord, email: str, seen: Seen) -> str | None:
    """Say what is wrong with a job at the end; None if nothing is."""
    if job.state is JobState.COMPLETED:
        if seen.delivered.get(email, 0):
            return None
        return "completed, but the server never got the mail"
    if job.state is JobState.FAILED:
        if email in seen.refused and not seen.delivered.get(email, 0):
            return None
        return f"failed ({job.reason}), though the server did not refuse it for good"
    return f"still {job.state.value}"
