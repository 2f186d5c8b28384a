"""`batchq work`: a user's own module, in real processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batchq.cli.refusal import Refusal
from batchq.cli.work import queue_slots

Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]
Enqueue = Callable[..., None]

MODULE = """
import os
from batchq import QueueManager

manager = QueueManager("sqlite:///jobs.db", poll_interval=0.05, lease=3)
other = 42

@manager.handler
def note(text: str) -> None:
    with open("notes", "a") as file:
        file.write(f"{os.getpid()} {text}\\n")

@manager.handler
def crash(text: str) -> None:
    if not os.path.exists(text):
        open(text, "w").close()
        os._exit(70)
"""
ENQUEUE = """
import sys, myapp
for line in sys.argv[1:]:
    name, text = line.split("=")
    getattr(myapp, name).enqueue_sync(text)
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "myapp.py").write_text(MODULE)
    return tmp_path


@pytest.fixture
def work(
    app: Path, command: Callable[..., list[str]], environment: Callable[..., dict[str, str]]
) -> Iterator[Start]:
    """Start workers, which end with the test whatever happens."""
    processes = []

    def start(*arguments: str, target: str = "myapp:manager") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command("work", target, *arguments),
            cwd=app,
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def enqueue(app: Path, environment: Callable[..., dict[str, str]]) -> Enqueue:
    def store(*jobs: str) -> None:
        subprocess.run(
            [sys.executable, "-c", ENQUEUE, *jobs],
            cwd=app,
            env=environment(),
            check=True,
            timeout=30,
        )

    return store


def notes(app: Path, at_least: int) -> list[tuple[int, str]]:
    path = app / "notes"
    deadline = time.monotonic() + 20
    while True:
        found = path.read_text().splitlines() if path.exists() else []
        if len(found) >= at_least:
            return [(int(pid), text) for pid, text in (line.split() for line in found)]
        assert time.monotonic() < deadline, f"only {found}"
        time.sleep(0.02)


def test_a_worker_runs_what_was_stored_and_ends_at_a_signal(
    app: Path, work: Start, enqueue: Enqueue
) -> None:
    enqueue("note=one", "note=two")
    process = work()
    found = notes(app, 2)
    assert sorted(text for _, text in found) == ["one", "two"]
    assert {pid for pid, _ in found} == {process.pid}
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 0
    assert said == (
        "batchq: working on crash (5 at a time), note (5 at a time);"
        " Ctrl-C lets what runs finish, a second one stops now\n"
    )


def test_what_is_worked_on_is_said_once_by_the_process_that_was_asked(
    app: Path, work: Start, enqueue: Enqueue
) -> None:
    enqueue("note=one")
    process = work("-q", "note=2", "--processes", "1")
    [(pid, _)] = notes(app, 1)
    assert pid != process.pid
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 0
    assert said == (
        "batchq: 1 process works for myapp:manager;"
        " Ctrl-C lets what runs finish, a second one stops now\n"
    )


READS = """
import sys
from myapp import manager, note

@manager.handler
def read() -> None:
    note(repr(sys.stdin.read()))
read.enqueue_sync()
"""


def test_handlers_of_supervised_workers_find_an_empty_standard_input(
    app: Path, work: Start
) -> None:
    (app / "reads.py").write_text(READS)
    process = work("--processes", "1", target="reads:manager")
    [(_, text)] = notes(app, 1)
    assert text == "''"
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


WARNS = """
import logging, sys
{setup}
from myapp import manager

@manager.handler
def warn(text: str) -> None:
    logging.getLogger("mine").info("not for everybody")
    logging.getLogger("mine").warning(text)
    open("warned", "w").close()

warn.enqueue_sync("careful")
"""


@pytest.mark.parametrize(
    ("setup", "line"),
    [
        ("", r"\d{4}-\d\d-\d\d [\d:,]+ \d+ WARNING mine: careful"),
        ("logging.basicConfig(format='own: %(message)s')", "own: careful"),
    ],
    ids=["by us", "by the module"],
)
def test_warnings_are_shown_as_the_module_says_if_it_says(
    app: Path, work: Start, setup: str, line: str
) -> None:
    (app / "warns.py").write_text(WARNS.format(setup=setup))
    process = work("-q", "warn", target="warns:manager")
    deadline = time.monotonic() + 20
    while not (app / "warned").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=10)
    first, second = said.splitlines()
    assert first.startswith("batchq: working on warn (5 at a time);")
    assert re.fullmatch(line, second)


def test_several_processes_end_together_and_one_that_is_killed_is_replaced(
    app: Path, work: Start, enqueue: Enqueue
) -> None:
    process = work("--processes", "2")
    enqueue("note=first")
    [(pid, _)] = notes(app, 1)
    assert pid != process.pid
    os.kill(pid, signal.SIGKILL)
    enqueue("crash=mark", *[f"note={number}" for number in range(20)])
    found = notes(app, 21)
    assert {text for _, text in found} == {"first", *map(str, range(20))}
    deadline = time.monotonic() + 10
    while not (app / "mark").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert f"worker {pid} was ended by SIGKILL; another starts in 0.5 s" in said
    assert "exited with 70; another starts in" in said
    for pid in {pid for pid, _ in found}:
        assert not Path(f"/proc/{pid}").exists()


def test_workers_end_with_a_supervisor_that_was_killed(
    app: Path, work: Start, enqueue: Enqueue
) -> None:
    process = work("--processes", "1")
    enqueue("note=one")
    [(pid, _)] = notes(app, 1)
    process.kill()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, "the worker is an orphan"
        time.sleep(0.05)


@pytest.mark.parametrize("more", [(), ("--processes", "2")], ids=["alone", "supervised"])
@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nowhere:manager", "there is no module 'nowhere'"),
        ("nowhere.deep:manager", "there is no module 'nowhere.deep'"),
        ("myapp.py", "say MODULE:MANAGER, as in myapp:manager"),
        ("./myapp.py:manager", "say MODULE:MANAGER, as in myapp:manager"),
    ],
)
def test_a_module_that_is_not_there_is_one_line(
    app: Path, batchq: Run, target: str, said: str, more: tuple[str, ...]
) -> None:
    done = batchq("work", target, *more)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("myapp:app", "module 'myapp' has no 'app'; it has manager"),
        ("myapp:other", "myapp:other is no QueueManager but of type int; it has manager"),
        ("json:loads", "is no QueueManager but of type function and no QueueManager at all"),
    ],
)
def test_a_name_that_is_no_manager_is_one_line(
    app: Path, batchq: Run, target: str, said: str
) -> None:
    done = batchq("work", target)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


def test_supervised_workers_that_cannot_begin_are_not_started_again(app: Path, batchq: Run) -> None:
    done = batchq("work", "myapp:other", "--processes", "2")
    assert done.returncode == 2
    assert "another starts" not in done.stderr


@pytest.mark.parametrize("more", [(), ("--processes", "1")])
def test_annotations_that_mean_nothing_are_one_line_and_start_nothing_again(
    app: Path, batchq: Run, more: tuple[str, ...]
) -> None:
    module = MODULE.replace("def note(text: str)", "def note(text: Missing)")
    (app / "myapp.py").write_text("from __future__ import annotations\n" + module)
    done = batchq("work", "myapp", *more)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "batchq: module 'myapp': note is annotated with 'Missing', which is not defined: import"
        " or define it at the top level of its module, and not for type checkers only"
    )
    assert "Traceback" not in done.stderr


def test_an_unknown_queue_is_one_line(app: Path, batchq: Run) -> None:
    done = batchq("work", "myapp:manager", "-q", "nope")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "nope" in done.stderr


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("sqlite:///nowhere/jobs.db", 1, "nowhere/jobs.db"),
        ("sqlite:///text.db", 2, "text.db"),
        ("carrier-pigeon://roof", 2, "carrier-pigeon"),
    ],
)
def test_a_store_that_cannot_be_opened_is_one_line(
    app: Path, batchq: Run, url: str, code: int, said: str
) -> None:
    (app / "text.db").write_text("Dear diary, this is no database at all.")
    (app / "elsewhere.py").write_text(MODULE.replace('"sqlite:///jobs.db"', "None"))
    done = batchq("work", "elsewhere:manager", "--url", url)
    [line] = done.stderr.splitlines()
    assert line.startswith("batchq: ")
    assert said in line
    assert done.returncode == code


def test_an_error_of_the_users_module_keeps_its_traceback(app: Path, batchq: Run) -> None:
    (app / "broken.py").write_text("import json\n1 / 0\n")
    (app / "lacking.py").write_text("import no_such_package\n")
    done = batchq("work", "broken:manager")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert 'broken.py", line 2' in done.stderr
    assert "no_such_package" in batchq("work", "lacking:manager").stderr


def test_queues_are_named_with_or_without_a_number_of_batches() -> None:
    assert queue_slots(()) is None
    assert queue_slots(["email=5,ai", " pdf = 2 ".replace(" ", "")]) == {
        "email": 5,
        "ai": None,
        "pdf": 2,
    }
    for wrong in ("", "=5", "email=", "email=0", "email=many", "email,email=2", "email=-1"):
        with pytest.raises(Refusal):
            queue_slots([wrong])
