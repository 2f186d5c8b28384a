"""`batchq stats` and `batchq jobs` look, and change nothing."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from batchq.cli.demo.database import url_of
from batchq.cli.door import existing_store
from batchq.cli.orders import STATUSES
from batchq.cli.refusal import Refusal
from batchq.core.filters import STATUSES as ALL_STATUSES
from batchq.core.job import Group, NewJob
from batchq.core.lifecycle import JobState
from batchq.core.record import Beat
from batchq.errors import StoreError
from batchq.stores.url import open_store, path_of
from tests.stores.sqlite_kit import NOBODY, forked, raw, succeeded

Run = Callable[..., subprocess.CompletedProcess[str]]

COMMANDS = [("stats",), ("jobs",), ("job", "1")]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_looking_for_jobs_makes_no_database(
    batchq: Run, tmp_path: Path, words: tuple[str, ...]
) -> None:
    done = batchq(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "batchq: there is no database batchq.db (--url sqlite:///batchq.db);"
        " name yours by --url, as --url sqlite:///batchq-demo.db after `batchq demo`\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_looking_for_jobs_makes_no_tables_in_somebody_elses_database(
    batchq: Run, tmp_path: Path, words: tuple[str, ...]
) -> None:
    path = tmp_path / "places.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE places (name TEXT)")
        connection.commit()
    before = path.read_bytes()
    done = batchq(*words, "--url", "sqlite:///places.db")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "batchq: places.db is a database without jobs of batchq\n"
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["places.db"]


@pytest.mark.parametrize("url", ["SQLITE:///jobs.db", "sqlite:///of%20today.db"])
def test_a_url_means_the_same_file_to_the_look_before_as_to_the_store(
    batchq: Run, tmp_path: Path, url: str
) -> None:
    done = batchq("stats", "--url", url)
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no database" in done.stderr
    assert list(tmp_path.iterdir()) == []
    for name in ("jobs.db", "of today.db"):
        with closing(open_store(f"sqlite:///{tmp_path / name}")):
            pass
    assert batchq("stats", "--url", url).returncode == 0


def test_the_url_that_a_demo_names_leads_to_its_file() -> None:
    path = Path("/srv/100%25 of #1?.db")
    assert path_of(url_of(path)) == str(path)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("memory:", "lives inside one process"),
        ("sqlite:///text.db", "text.db"),
        ("nonsense", "nonsense"),
        ("carrier-pigeon://roof", "carrier-pigeon"),
    ],
)
def test_a_url_that_leads_nowhere_is_one_line(
    batchq: Run, tmp_path: Path, url: str, said: str
) -> None:
    (tmp_path / "text.db").write_text("Dear diary, this is no database at all.")
    done = batchq("stats", "--url", url)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


def test_a_database_that_this_user_may_not_write_to_is_said_to_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder := tmp_path / "folder").mkdir()
    with closing(open_store(f"sqlite:///{folder / 'jobs.db'}")) as store:
        store.commit(Group(enqueue=[NewJob("mail", "send", b"1")]))
    (folder / "jobs.db").chmod(0o644)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    opened = partial(existing_store, "sqlite:///folder/jobs.db")

    def child(mode: int, kind: type[Exception], said: str) -> None:
        folder.chmod(mode)
        if os.getuid() == 0:
            os.setuid(NOBODY)  # root may write anywhere
        with pytest.raises(kind, match=re.escape(said)), opened():
            pass

    reason = f"SQLite writes even to read, and this user may not write to {folder}"
    assert succeeded(forked(partial(child, 0o555, StoreError, reason)))
    shut = "cannot look at folder/jobs.db: Permission denied"
    assert succeeded(forked(partial(child, 0o000, Refusal, shut)))
    folder.chmod(0o755)


def test_stats_counts_every_job_however_many(batchq: Run, tmp_path: Path) -> None:
    count = 10_001
    job = NewJob("mail", "send", b"1", delay=3600.0)
    with closing(open_store(f"sqlite:///{tmp_path / 'jobs.db'}")) as store:
        store.commit(Group(enqueue=[job] * count + [NewJob("mail", "send", b"1")]))
    [queue] = json.loads(batchq("stats", "--json", BATCHQ_URL="sqlite:///jobs.db").stdout)["queues"]
    assert (queue["pending"], queue["scheduled"]) == (count + 1, count)
    assert queue["retrying"] == queue["stalled"] == queue["completed"] == 0


def test_stats_tell_what_workers_have_lost(batchq: Run, tmp_path: Path) -> None:
    with closing(open_store(f"sqlite:///{tmp_path / 'jobs.db'}")) as store:
        beat = Beat(worker="w1", host="h", pid=1, version="1", queues={}, handlers=(), lost=7)
        store.beat(beat)
        store.commit(Group(enqueue=[NewJob(queue="q", handler="h", payload=b"{}")]))
    [worker] = json.loads(batchq("stats", "--json", BATCHQ_URL="sqlite:///jobs.db").stdout)[
        "workers"
    ]
    assert worker["lost"] == 7
    shown = batchq("stats", BATCHQ_URL="sqlite:///jobs.db").stdout.splitlines()
    [head] = [line for line in shown if "last commit" in line]
    assert head.split() == ["worker", "commits", "batches", "lost", "last", "commit"]


def test_the_statuses_on_offer_are_those_there_are() -> None:
    readings = {"scheduled", "retrying", "stalled"}
    assert STATUSES == ALL_STATUSES
    assert set(STATUSES) == {state.value for state in JobState} | readings


def test_a_spoiled_row_is_shown_and_said_to_be_one(batchq: Run, tmp_path: Path) -> None:
    with closing(open_store(f"sqlite:///{tmp_path / 'jobs.db'}")) as store:
        store.commit(Group(enqueue=[NewJob("mail", "send", b"[" * 2000 + b"]" * 2000)] * 2))
    raw(tmp_path / "jobs.db", "UPDATE batchq_jobs SET state = 'weird' WHERE id = 2")
    url = ("--url", "sqlite:///jobs.db")
    done = batchq("jobs", *url)
    assert (done.returncode, done.stderr) == (0, "")
    assert "spoiled row: state: 'weird' is not a valid JobState" in done.stdout
    [first, second] = json.loads(batchq("jobs", "--json", *url).stdout)
    assert (first["id"], first["spoiled"], second["id"]) == (1, None, 2)
    assert second["spoiled"] == "state: 'weird' is not a valid JobState"
    done = batchq("job", "2", *url)
    assert "failed (spoiled)" in done.stdout
    assert "spoiled   state: 'weird'" in done.stdout
    done = batchq("job", "cancel", "2", *url)
    assert (done.returncode, done.stdout.split()) != (0, [])
    assert "a job in their state can't" in done.stdout + done.stderr
