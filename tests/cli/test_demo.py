"""`batchq demo`, for real: processes, sockets, a kill, a file."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

Command = Callable[..., list[str]]
Environment = Callable[..., dict[str, str]]
Run = Callable[..., subprocess.CompletedProcess[str]]


class Demo(NamedTuple):
    database: Path
    done: subprocess.CompletedProcess[str]
    seconds: float

    @property
    def url(self) -> str:
        return f"sqlite:///{self.database}"


@pytest.fixture(scope="module")
def quick(
    tmp_path_factory: pytest.TempPathFactory, command: Command, environment: Environment
) -> Demo:
    """One quick campaign, kill included, for all the tests that look at what it leaves."""
    folder = tmp_path_factory.mktemp("demo")
    began = time.monotonic()
    done = subprocess.run(
        command("demo", "--quick", "--json"),
        cwd=folder,
        env=environment(),
        timeout=60,
        capture_output=True,
        text=True,
        check=False,
    )
    return Demo(folder / "batchq-demo.db", done, time.monotonic() - began)


def workers_on(database: Path) -> list[int]:
    """Return the processes that work on this database."""
    mark = f"BATCHQ_URL=sqlite:///{database}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue  # it has just ended, or is somebody else's
    return found


def until_gone(database: Path, within: float) -> None:
    deadline = time.monotonic() + within
    while workers_on(database):
        assert time.monotonic() < deadline, "workers outlive the demo"
        time.sleep(0.05)


def test_five_hundred_letters_a_killed_worker_and_nobody_lost(quick: Demo) -> None:
    assert quick.done.returncode == 0, quick.done.stderr
    report = json.loads(quick.done.stdout)
    assert report["adds_up"] is True
    assert report["lost"] == []
    assert report["recipients"] == report["stored"] == 500
    assert report["sent"] + report["refused"] == 500
    assert report["refused"] == 5
    assert report["deferred"] == 20
    assert report["killed"]["accepted"] > 0
    # What arrived twice is what the killed worker had sent and not yet written down.
    assert report["twice"] == report["twice_by_kill"] <= report["killed"]["accepted"]
    assert report["same_id"] is True
    assert report["retries"] >= report["deferred"]
    assert report["batches"] >= 5
    assert 0 < report["commits_per_job"] < 0.5
    assert quick.seconds < 45  # 8 on an idle machine of two cores
    assert "killed worker" in quick.done.stderr


def test_the_database_says_the_same_as_the_report(quick: Demo) -> None:
    report = json.loads(quick.done.stdout)
    with closing(sqlite3.connect(quick.database)) as connection:
        rows = connection.execute("SELECT state, count(*) FROM batchq_jobs GROUP BY state")
        assert dict(rows.fetchall()) == {
            "completed": report["sent"],
            "failed": report["refused"],
        }
    until_gone(quick.database, within=2)


def test_stats_counts_what_the_demo_left(quick: Demo, batchq: Run) -> None:
    told = json.loads(batchq("stats", "--url", quick.url, "--json").stdout)
    [queue] = told["queues"]
    assert (queue["queue"], queue["completed"], queue["failed"]) == ("newsletter", 495, 5)
    assert queue["pending"] == queue["processing"] == queue["retrying"] == queue["stalled"] == 0
    report = json.loads(quick.done.stdout)
    assert sum(worker["commits"] for worker in told["workers"]) == report["commits"]
    assert sum(worker["batches"] for worker in told["workers"]) == report["batches"]
    # The first to commit stored all jobs, up to a thousand of them at once.
    assert told["workers"][-1]["commits"] == 1
    shown = batchq("stats", BATCHQ_URL=quick.url)
    assert shown.returncode == 0
    assert re.search(r"^queue +completed +failed$", shown.stdout, re.MULTILINE)
    assert re.search(r"^newsletter +495 +5$", shown.stdout, re.MULTILINE)


def test_jobs_lists_pages_and_one_job_tells_why_it_failed(quick: Demo, batchq: Run) -> None:
    first = json.loads(
        batchq("jobs", "--url", quick.url, "--status", "failed", "--limit", "3", "--json").stdout
    )
    assert len(first) == 3
    assert {row["status"] for row in first} == {"failed"}
    rest = json.loads(
        batchq(
            "jobs",
            "--url",
            quick.url,
            "--status",
            "failed",
            "--json",
            "--after",
            str(first[-1]["id"]),
        ).stdout
    )
    assert len({row["id"] for row in first + rest}) == 5
    shown = batchq("jobs", "--url", quick.url, "--status", "failed", "--limit", "3").stdout
    assert shown.splitlines()[0].split() == (
        ["id", "queue", "handler", "status", "attempt", "due", "payload", "last", "error"]
    )
    assert "550 5.1.1 no such mailbox here" in shown
    assert f"--after {first[-1]['id']}" in shown
    number = str(first[0]["id"])
    one = batchq("job", number, "--url", quick.url).stdout
    assert "failed (discarded)" in one
    assert "550 5.1.1 no such mailbox here" in one
    detail = json.loads(batchq("job", number, "--url", quick.url, "--json").stdout)
    assert detail["payload"]["to"].count("@") == 1
    assert detail["errors"][0]["attempt"] == detail["attempt"]


def test_a_job_that_is_not_there_is_one_line(quick: Demo, batchq: Run) -> None:
    done = batchq("job", "123456", "--url", quick.url)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no job 123456" in done.stderr


PEOPLE = """\
Name;Email
"Silva; Ana";ana@example.com
João Gonçalves;joão@example.org
Zoë;zoe@bücher.example
nobody;no address
Rui;
Ana again;ANA@example.com
"""


@pytest.fixture
def on_a_terminal(
    tmp_path: Path, command: Command, environment: Environment
) -> Iterator[Callable[..., tuple[int, str]]]:
    """Run a command with a terminal for its output; returns (exit code, what it shows)."""
    ours, theirs = pty.openpty()

    def run(*arguments: str | Path) -> tuple[int, str]:
        process = subprocess.Popen(
            command(*arguments),
            cwd=tmp_path,
            env=environment(TERM="xterm", COLUMNS="200"),
            stdout=theirs,
            stderr=subprocess.STDOUT,
        )
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 65_536):
                shown += part
        except OSError:
            pass  # the other end is closed
        return process.wait(10), shown.decode()

    yield run
    os.close(ours)


def test_ones_own_list_of_people_on_a_terminal(
    on_a_terminal: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    people = tmp_path / "people.csv"
    people.write_text(PEOPLE)
    database = tmp_path / "own place.db"
    code, shown = on_a_terminal("demo", "--recipients", people, "--database", database, "--no-kill")
    assert code == 0, shown
    assert "3 recipients" in shown
    assert re.search(r"line 5: .*no address", shown)
    assert re.search(r"line 6: no address", shown)
    assert re.search(r"line 7: as on line 2", shown)
    assert re.search(r"arrived twice +0  no worker was killed", shown)
    assert "It adds up: 3 recipients = 3 sent + 0 refused, nobody lost." in shown
    assert "items/s" in shown
    assert "\x1b[" in shown  # a bar, redrawn
    with closing(sqlite3.connect(database)) as connection:
        payloads = connection.execute("SELECT payload FROM batchq_jobs ORDER BY id").fetchall()
    names = [json.loads(payload)["name"] for (payload,) in payloads]
    assert names == ["Silva; Ana", "João Gonçalves", "Zoë"]


def test_a_demo_replaces_only_what_a_finished_demo_left(quick: Demo, batchq: Run) -> None:
    folder = quick.database.parent
    arguments = ("demo", "--count", "3", "--no-kill")
    used = folder / "used.db"
    with closing(sqlite3.connect(quick.database)) as old, closing(sqlite3.connect(used)) as new:
        old.backup(new)
    own = folder / "own.db"
    with closing(sqlite3.connect(own)) as connection:
        connection.execute("CREATE TABLE batchq_demo (pid, finished)")
        connection.execute("CREATE TABLE diary (text)")
        connection.commit()
    text = folder / "text.db"
    text.write_text("Dear diary")
    for path in (own, text):
        before = path.read_bytes()
        done = batchq(*arguments, "--database", path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
        assert path.read_bytes() == before
    done = batchq(*arguments, "--database", used)
    assert done.returncode == 0, done.stderr
    with closing(sqlite3.connect(used)) as connection:
        assert connection.execute("SELECT count(*) FROM batchq_jobs").fetchone() == (3,)
        connection.execute("UPDATE batchq_jobs SET queue = 'mine' WHERE id = 1")
        connection.commit()
    assert batchq(*arguments, "--database", used).returncode == 2


def test_a_taken_name_is_left_alone_and_the_next_one_used(batchq: Run, tmp_path: Path) -> None:
    taken = tmp_path / "batchq-demo.db"
    taken.write_text("not a database")
    done = batchq("demo", "--count", "2", "--no-kill")
    assert done.returncode == 0, done.stderr
    assert taken.read_text() == "not a database"
    assert f"The jobs are in {tmp_path / 'batchq-demo-2.db'}" in done.stdout
    assert "batchq stats --url sqlite:///batchq-demo-2.db" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--recipients", "nowhere.csv"], "cannot read nowhere.csv: No such file"),
        (["--recipients", "phones.csv"], "has no column email"),
        (["--database", "nowhere/x.db"], "there is no directory nowhere"),
        (["--database", "/proc/x.db"], "cannot write the database /proc/x.db"),
        (["--database", "."], "no finished demo made it"),
    ],
)
def test_what_cannot_begin_is_one_line_and_leaves_nothing(
    batchq: Run, tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "phones.csv").write_text("name,phone\nAna,1\n")
    done = batchq("demo", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["phones.csv"]


def test_options_that_contradict_each_other_are_refused(batchq: Run) -> None:
    assert batchq("demo", "--quick", "--count", "3").returncode == 2
    assert batchq("demo", "--quick", "--recipients", "x.csv").returncode == 2
    assert batchq("demo", "--count", "0").returncode == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_a_demo_that_is_stopped(
    tmp_path: Path, command: Command, environment: Environment, number: signal.Signals
) -> None:
    database = tmp_path / "batchq-demo.db"
    process = subprocess.Popen(
        command("demo", "--count", "20000"),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 20
    while len(workers_on(database)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    until_gone(database, within=10)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert said == f"batchq: stopped; what was not sent waits in {database}\n"
