"""`batchq job cancel|retry|delete`, `batchq queue pause|resume|list`, `batchq clean`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from batchq.core.job import ClaimRequest, Group, NewJob, Settlement, Verdict
from batchq.core.lifecycle import JobState
from batchq.stores.base import Store
from batchq.stores.url import open_store

Run = Callable[..., subprocess.CompletedProcess[str]]
URL = ("--url", "sqlite:///jobs.db")


def opened(folder: Path) -> closing[Store]:
    return closing(open_store(f"sqlite:///{folder}/jobs.db"))


@pytest.fixture(autouse=True)
def jobs(tmp_path: Path) -> None:
    """Store five jobs: 1 failed, 2 is processing, the others wait."""
    with opened(tmp_path) as store:
        store.commit(Group(enqueue=[NewJob("mail", "send", b"null") for _ in range(5)]))
        request = ClaimRequest("mail", ("send",), 2, 600.0, "ada")
        held = store.commit(Group(claim=[request])).claim[0].jobs
        store.commit(Group(settle=[Settlement(held[0].receipt, Verdict.FAIL)]))


def states(folder: Path) -> list[str]:
    with opened(folder) as store:
        return [job.state.value if job else "gone" for job in store.get(range(1, 6))]


def test_jobs_are_cancelled_by_number_or_by_what_they_are(batchq: Run, tmp_path: Path) -> None:
    done = batchq("job", "cancel", "1", "2", "3", "99", "77", *URL, "--reason", "spring")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "1 cancelled",
        "1 asked to stop: they run, and their workers will hear of it (job 2)",
        "1 refused: a job in their state can't (job 1)",
        "2 unknown: there are no such jobs (jobs 99, 77)",
    ]
    done = batchq("job", "cancel", "--status", "pending", "--queue", "mail", "--json", *URL)
    assert json.loads(done.stdout) == {"counts": {"done": 2}, "answers": []}
    assert states(tmp_path) == ["failed", "processing", *["cancelled"] * 3]
    with opened(tmp_path) as store:
        [job] = store.get([2])
        assert job is not None
        assert job.cancel == "spring"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("jobs", "--limit", "0"), "'--limit': 0 is not in the range 1<=x<=10000"),
        (("jobs", "--limit", "-3"), "'--limit': -3 is not in the range 1<=x<=10000"),
        (("jobs", "--limit", "many"), "'--limit': 'many' is not a valid integer"),
        (("jobs", "--after", "-1"), "'--after': -1 is not in the range x>=0"),
        (("jobs", "--status", "nope"), "'--status': 'nope' is not one of 'pending',"),
        (("job", "0"), "'0' is no job's id: it is a whole number from 1, as `batchq jobs` lists"),
        (("job", "cancel", "abc"), "'abc' is no job's id: it is a whole number from 1"),
        (("job", "retry", "1", "1.5"), "'1.5' is no job's id"),
        (("job", "cancel", "1", "--reason", ""), "reason must be a text that can be printed"),
        (("clean", "--older-than", "-5"), "'--older-than': '-5' is no time: write 90, 15m"),
        (("clean", "--older-than", "36526d"), "'--older-than': '36526d' is too long: at most"),
        (("clean", "--older-than", "9" * 400), "is too long: at most 36525d"),
        (("clean", "--older-than", "1", "--status", "pending"), "'--status': 'pending' is not"),
        (("clean", "--older-than", "1", "--queue", "a b"), "a queue's name must be"),
        (("queue", "pause", ""), "a queue's name must be"),
        (("work", "app", "--processes", "0"), "'--processes': 0 is not in the range 1<=x<=1000"),
        (("work", "app", "-q", "mail=0"), "NAME=N with N from 1, got 'mail=0'"),
        (("work", "app", "-q", "mail=-1"), "NAME=N with N from 1, got 'mail=-1'"),
        (("demo", "--count", "0"), "'--count': 0 is not in the range 1<=x<=1000000"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_what_no_option_takes_is_refused_and_what_it_takes_is_named(
    batchq: Run, words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    done = batchq(*words, BATCHQ_URL="sqlite:///jobs.db")
    assert (done.returncode, done.stdout) == (2, "")
    assert said in " ".join(done.stderr.split())
    assert states(tmp_path) == ["failed", "processing", *["pending"] * 3]


def test_failed_jobs_are_retried(batchq: Run, tmp_path: Path) -> None:
    done = batchq("job", "retry", "--status", "failed", *URL)
    assert (done.returncode, done.stdout) == (0, "1 to run\n")
    assert states(tmp_path)[0] == JobState.PENDING.value
    done = batchq("job", "retry", "2", *URL)
    assert done.returncode == 1
    assert done.stdout == "1 refused: a job in their state can't (job 2)\n"
    done = batchq("job", "retry", "2", "2", *URL)
    assert done.stdout == "2 refused: a job in their state can't (jobs 2, 2)\n"


def test_jobs_that_ended_are_deleted(batchq: Run, tmp_path: Path) -> None:
    done = batchq("job", "delete", "1", "2", *URL)
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        ["1 deleted", "1 refused: a job in their state can't (job 2)"],
    )
    assert states(tmp_path) == ["gone", "processing", *["pending"] * 3]
    done = batchq("job", "delete", "--status", "failed", "--json", *URL)
    assert (done.returncode, json.loads(done.stdout)) == (0, {"counts": {}, "answers": []})


@pytest.mark.parametrize("words", [(), ("1", "--status", "failed")])
def test_which_jobs_are_meant_has_to_be_said_once(batchq: Run, words: tuple[str, ...]) -> None:
    for order in ("cancel", "retry", "delete"):
        done = batchq("job", order, *words, *URL)
        assert done.returncode == 2
        assert "by their ids, or by --status" in done.stderr


def test_a_job_is_shown_without_a_word(batchq: Run) -> None:
    plain, full = batchq("job", "2", *URL), batchq("job", "show", "2", *URL)
    assert plain.stdout.splitlines()[0] == full.stdout.splitlines()[0] == "job       2"
    assert "cancel" in batchq("job", "--help").stdout


def test_a_queue_is_paused_and_goes_on(batchq: Run, tmp_path: Path) -> None:
    assert batchq("queue", "pause", "mail", *URL).stdout == "mail is paused\n"
    done = batchq("queue", "pause", "new", *URL)
    assert done.stdout == "new is paused (it has no jobs yet)\n"
    listed = json.loads(batchq("queue", "list", "--json", *URL).stdout)
    assert listed == [{"queue": "mail", "paused": True}, {"queue": "new", "paused": True}]
    with opened(tmp_path) as store:
        request = ClaimRequest("mail", ("send",), 2, 600.0, "ada")
        assert store.commit(Group(claim=[request])).claim[0].jobs == []
    assert batchq("queue", "resume", "mail", *URL).stdout == "mail goes on\n"
    assert "mail" in batchq("queue", "list", *URL).stdout
    done = batchq("queue", "pause", "no name", *URL)
    assert done.returncode == 2
    assert "queue's name" in done.stderr


def test_what_ended_is_cleaned_away(batchq: Run, tmp_path: Path) -> None:
    assert batchq("clean", "--older-than", "7d", *URL).stdout == "0 jobs deleted\n"
    done = batchq("clean", "--older-than", "0", "--status", "completed", *URL)
    assert done.stdout == "0 jobs deleted\n"
    done = batchq("clean", "--older-than", "0s", "--queue", "mail", "--json", *URL)
    assert json.loads(done.stdout) == {"deleted": 1}
    assert states(tmp_path)[0] == "gone"
    done = batchq("clean", "--older-than", "soon", *URL)
    assert done.returncode == 2
    assert "write 90, 15m, 24h or 7d" in done.stderr
