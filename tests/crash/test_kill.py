"""The kill test in its short form, and its judge: it must see what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest

from batchq.core.lifecycle import JobState
from batchq.core.record import JobRecord
from tests.crash.evidence import Evidence, Run, Settle, violations
from tests.crash.kill import plan

ROOT = Path(__file__).parents[2]


def test_ten_kills_lose_nothing_and_settle_nothing_twice() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.kill", "--cycles", "10", "--seed", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["acknowledged"] > 100
    assert sum(report["kills"].values()) == 10
    assert report["freezes"] == 2


def test_the_plan_is_the_same_for_the_same_seed() -> None:
    assert plan(7, 50, 2) == plan(7, 50, 2) != plan(8, 50, 2)
    cycles = plan(7, 50, 2)
    assert {cycle.place for cycle in cycles} == {0, 1, 2}
    assert all(cycle.frozen != cycle.place for cycle in cycles)


def row(
    id_: int,
    state: JobState = JobState.COMPLETED,
    *,
    attempt: int = 1,
    refunds: int = 0,
    reason: str | None = None,
) -> JobRecord:
    return JobRecord(
        id=id_,
        queue="many",
        handler="many",
        state=state,
        priority=2,
        due_at=None,
        attempt=attempt,
        refunds=refunds,
        max_attempts=3,
        payload=b"1",
        enqueued_at=0.0,
        reason=reason,
    )


def counted(*rows: JobRecord) -> dict[str, dict[JobState, int]]:
    states = Counter(row.state for row in rows)
    return {"many": dict(states)}


def seen(*rows: JobRecord) -> Evidence:
    """Make what is seen when all went well at the first attempt."""
    return Evidence(
        acks=[row.id for row in rows],
        runs=[Run(row.id, row.attempt) for row in rows],
        settles=[Settle(row.id, row.attempt, "ok") for row in rows],
        rows={row.id: row for row in rows},
        fates={row.id: "ok" for row in rows},
        counts=counted(*rows),
    )


def broken(evidence: Evidence) -> list[str]:
    return [promise for promise, found in violations(evidence).items() if found]


def test_where_all_went_well_nothing_is_found() -> None:
    retried = attrs.evolve(
        seen(row(1), row(2, attempt=3)),
        runs=[Run(1, 1), Run(2, 1), Run(2, 2), Run(2, 3)],
        settles=[Settle(2, 1, "retry"), Settle(2, 2, "stale"), Settle(2, 3, "ok")],
    )
    assert broken(retried) == []  # that nobody was told of job 1 proves nothing
    buried = row(3, JobState.FAILED, attempt=4, refunds=1, reason="crashed")
    assert broken(attrs.evolve(seen(buried), settles=[])) == []


@pytest.mark.parametrize(
    ("evidence", "promise"),
    [
        (attrs.evolve(seen(row(1)), acks=[1, 2]), "lost"),
        (attrs.evolve(seen(row(1)), acks=[1, 1]), "lost"),
        (attrs.evolve(seen(row(1, JobState.PROCESSING)), settles=[]), "unfinished"),
        (attrs.evolve(seen(row(1)), runs=[Run(1, 2)]), "never_run"),
        (attrs.evolve(seen(row(1)), runs=[Run(1, 1), Run(1, 1)]), "receipt_twice"),
        (attrs.evolve(seen(row(1, attempt=4))), "over_budget"),
        (attrs.evolve(seen(row(1)), counts=counted(row(1), row(2))), "miscounted"),
        (attrs.evolve(seen(row(1)), counts={}), "miscounted"),
        (attrs.evolve(seen(row(1)), fates={1: "raise"}), "wrong_end"),
        (
            attrs.evolve(seen(row(1, JobState.FAILED, reason="discarded")), settles=[]),
            "wrong_end",
        ),
        (
            attrs.evolve(seen(row(1, JobState.FAILED, reason="crashed")), settles=[]),
            "wrong_end",
        ),
    ],
)
def test_each_broken_promise_is_found(evidence: Evidence, promise: str) -> None:
    assert broken(evidence) == [promise]


@pytest.mark.parametrize(
    "settles",
    [
        [Settle(1, 2, "ok"), Settle(1, 2, "ok")],
        [Settle(1, 1, "ok"), Settle(1, 2, "ok")],
        [Settle(1, 1, "ok")],
        [Settle(1, 2, "fail")],
        [Settle(1, 2, "retry"), Settle(1, 2, "ok")],
    ],
    ids=["by one receipt", "by two receipts", "by an old receipt", "otherwise", "and retried"],
)
def test_two_ends_of_one_job_are_found(settles: Sequence[Settle]) -> None:
    assert broken(attrs.evolve(seen(row(1, attempt=2)), settles=settles)) == ["settled_twice"]
