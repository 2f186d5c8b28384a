"""The report: nobody is forgotten, and nothing is guessed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from batchq.cli.demo.report import Killing, Lost, Report, Seen, Times, add_up
from batchq.cli.demo.telling import account_of_report
from batchq.core.lifecycle import JobState
from batchq.core.record import JobRecord, WorkerRecord

TIMES = Times(storing=0.5, sending=2.0)


def job(
    number: int, to: str, state: JobState, *, reason: str | None = None, used: int = 1
) -> JobRecord:
    return JobRecord(
        id=number,
        queue="newsletter",
        handler="newsletter",
        state=state,
        priority=2,
        due_at=None,
        attempt=used,
        payload=json.dumps({"to": to, "subject": "s", "body": "b"}).encode(),
        enqueued_at=0.0,
        reason=reason,
    )


def seen(
    delivered: Mapping[str, int],
    refused: Sequence[str] = (),
    deferred: Mapping[str, int] | None = None,
) -> Seen:
    return Seen(
        delivered=delivered,
        deferred=deferred or {},
        refused=refused,
        message_ids={email: {b"<1@x>"} for email in delivered},
        connections=2,
    )


def report(
    emails: Iterable[str],
    jobs: Iterable[JobRecord],
    what: Seen,
    killed: Killing | None = None,
) -> Report:
    workers = [WorkerRecord("a", 10, 4, 0.0), WorkerRecord("b", 5, 2, 0.0)]
    return add_up(emails, jobs, what, workers=workers, killed=killed, times=TIMES, database="x.db")


def test_sent_and_refused_are_all_there_is() -> None:
    done = report(
        ["Ana@example.com", "rui@example.com", "eva@example.com"],
        [
            job(1, "Ana@example.com", JobState.COMPLETED),
            job(2, "rui@example.com", JobState.FAILED, reason="discarded"),
            job(3, "eva@example.com", JobState.COMPLETED, used=3),
        ],
        seen(
            {"ana@example.com": 1, "eva@example.com": 1},
            refused=["rui@example.com"],
            deferred={"eva@example.com": 2},
        ),
    )
    assert (done.recipients, done.stored, done.sent, done.refused) == (3, 3, 2, 1)
    assert (done.deferred, done.deferrals, done.retries) == (1, 2, 2)
    assert (done.twice, done.copies) == (0, 0)
    assert (done.batches, done.commits, done.commits_per_job) == (6, 15, 5.0)
    assert done.rate == 1.5
    assert done.lost == []
    assert done.adds_up


def test_whoever_is_not_accounted_for_is_named_with_a_reason() -> None:
    done = report(
        ["ana@example.com", "rui@example.com", "eva@example.com", "ivo@example.com"],
        [
            job(1, "ana@example.com", JobState.COMPLETED),
            job(2, "rui@example.com", JobState.FAILED, reason="exhausted"),
            job(3, "eva@example.com", JobState.PROCESSING),
        ],
        seen({}),
    )
    assert done.lost == [
        Lost("ana@example.com", "completed, but the server never got the mail", 1),
        Lost(
            "rui@example.com",
            "failed (exhausted), though the server did not refuse it for good",
            2,
        ),
        Lost("eva@example.com", "still processing", 3),
        Lost("ivo@example.com", "has no job", None),
    ]
    assert not done.adds_up
    assert json.loads(done.as_json())["adds_up"] is False
    text = "\n".join(account_of_report(done, "sqlite:///x.db"))
    assert "does NOT add up" in text
    assert "ivo@example.com: has no job" in text


def test_a_job_too_many_does_not_add_up() -> None:
    twice = [job(number, "ana@example.com", JobState.COMPLETED) for number in (1, 2)]
    done = report(["ana@example.com"], twice, seen({"ana@example.com": 2}))
    assert done.lost == []
    assert not done.adds_up


def test_copies_are_counted_by_the_server_and_laid_at_the_right_door() -> None:
    names = [f"{name}@example.com" for name in ("ana", "rui", "eva")]
    done = report(
        names,
        [job(number, name, JobState.COMPLETED) for number, name in enumerate(names, start=1)],
        seen({names[0]: 2, names[1]: 3, names[2]: 1}),
        Killing(pid=7, accepted=(names[0], names[2])),
    )
    assert (done.twice, done.twice_by_kill, done.copies) == (2, 1, 3)
    assert done.same_id
    assert done.adds_up
    text = "\n".join(account_of_report(done, "sqlite:///x.db"))
    assert "worker 7 was killed" in text
    assert "1 of them for another reason" in text
    told = json.loads(done.as_json())
    assert told["killed"] == {"pid": 7, "accepted": 2}
    assert told["twice"] == 2
