"""The manager in processes of its own: signals, and children that were forked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batchq import JobState
from batchq.core.record import JobRecord
from batchq.stores.sqlite import SqliteStore
from tests.jobs import jobs_in

ROOT = Path(__file__).parents[1]
APP = """
import sys, threading, time
from pathlib import Path
import trio
from batchq import QueueManager

manager = QueueManager("sqlite:///jobs.db", poll_interval=0.05, lease=5, grace={grace})

@manager.handler(concurrency=1)
async def work(seconds: float) -> str:
    Path("started").touch()
    await trio.sleep(seconds)
    return "done"

@manager.handler
def hang() -> None:
    Path("started").touch()
    threading.Event().wait(60)

@manager.handler
async def block() -> None:
    Path("started").touch()
    time.sleep(60)
"""
RUN = APP + "\nmanager.run()\nprint('left in order')\n"
FORK = """
import os, signal, sys
from batchq import QueueManager

manager = QueueManager("sqlite:///jobs.db", poll_interval=0.02)

@manager.handler
def work(number: int) -> int:
    return number

@manager.handler(tier="memory")
def passing(number: int) -> int:
    return number

first = work.enqueue_sync(0)
if {working}:
    manager.start_workers()
    first.result_sync(20)
children = []
for number in range(1, 6):
    if (pid := os.fork()) == 0:
        signal.alarm(20)  # a child that hangs must not outlive the test
        try:
            for each in range(10):
                assert work.enqueue_sync(number * 100 + each).id > 0
            if {working}:
                try:
                    passing.enqueue_sync(1)
                except Exception as error:
                    assert "working()" in str(error), error
                else:
                    raise AssertionError("a forked child has no workers")
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    children.append(pid)
    work.enqueue_sync(number)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
last = work.enqueue_sync(99)
if {working}:
    assert last.result_sync(20) == 99
    manager.stop_workers()
"""

HELD = """
import os, signal, threading
from batchq import QueueManager

manager = QueueManager("sqlite:///jobs.db", poll_interval=0.02)

@manager.handler
def work() -> int:
    return 7

held, go = threading.Event(), threading.Event()

def hold():
    with manager._ledgers._lock, manager._at_work.ends._here.lock:
        held.set()
        go.wait(60)

work.enqueue_sync()
manager.start_workers()
thread = threading.Thread(target=hold)
thread.start()
held.wait(60)
if (pid := os.fork()) == 0:
    signal.alarm(20)  # a child that hangs must not outlive the test
    manager.start_workers()
    result = work.enqueue_sync().result_sync(10)
    manager.stop_workers()
    manager.close()
    os._exit(result)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
go.set()
thread.join()
manager.stop_workers()
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start programs, which end with the test whatever happens."""
    processes = list[subprocess.Popen[str]]()

    def run(program: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def jobs(folder: Path) -> list[JobRecord]:
    store = SqliteStore(folder / "jobs.db")
    found = jobs_in(store)
    store.close()
    return found


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"no {path.name}"
        time.sleep(0.01)


def begin(start: Start, folder: Path, job: str, *, grace: float) -> subprocess.Popen[str]:
    """Store jobs and run workers on them; returns once the first has started."""
    app = APP.format(grace=grace)
    assert start(f"{app}\n{job}").wait(30) == 0
    process = start(RUN.format(grace=grace))
    wait_for(folder / "started")
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_handlers_finish_and_gives_the_rest_back(
    start: Start, tmp_path: Path, number: signal.Signals
) -> None:
    store = "work.enqueue_sync(0.5); work.enqueue_sync(0.5)"
    process = begin(start, tmp_path, store, grace=20)
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (0, "left in order\n"), errors
    first, second = jobs(tmp_path)
    assert (first.state, first.value) == (JobState.COMPLETED, b'"done"')
    assert (second.state, second.used) == (JobState.PENDING, 0)


def test_after_the_grace_what_runs_is_given_back(start: Start, tmp_path: Path) -> None:
    process = begin(start, tmp_path, "work.enqueue_sync(60)", grace=0.1)
    process.terminate()
    assert process.wait(30) == 0
    [job] = jobs(tmp_path)
    assert (job.state, job.attempt, job.used) == (JobState.PENDING, 1, 0)


@pytest.mark.parametrize("gap", [0.06, 0.5])
@pytest.mark.parametrize("job", ["work.enqueue_sync(60)", "block.enqueue_sync()"])
def test_a_second_signal_ends_the_process_at_once(
    start: Start, tmp_path: Path, job: str, gap: float
) -> None:
    process = begin(start, tmp_path, job, grace=60)
    process.terminate()
    time.sleep(gap)
    assert process.poll() is None
    process.terminate()
    assert process.wait(10) == -signal.SIGTERM
    assert jobs(tmp_path)[0].state is JobState.PROCESSING  # its lease brings it back


def test_two_signals_at_one_instant_are_one(start: Start, tmp_path: Path) -> None:
    process = begin(start, tmp_path, "work.enqueue_sync(0.5)", grace=60)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert jobs(tmp_path)[0].state is JobState.COMPLETED


def test_a_thread_that_hangs_does_not_keep_the_process_from_ending(
    start: Start, tmp_path: Path
) -> None:
    process = begin(start, tmp_path, "hang.enqueue_sync()", grace=0.1)
    process.terminate()
    assert process.wait(30) == 0
    assert jobs(tmp_path)[0].state is JobState.PENDING


@pytest.mark.parametrize("working", [False, True])
def test_forked_children_enqueue_and_the_parent_goes_on(
    start: Start, tmp_path: Path, *, working: bool
) -> None:
    process = start(FORK.format(working=working))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    found = jobs(tmp_path)
    assert len(found) == 1 + 5 * 11 + 1
    assert len({job.payload for job in found}) == len(found)


def test_a_forked_child_works_while_another_thread_of_its_parent_holds_the_locks(
    start: Start, tmp_path: Path
) -> None:
    process = start(HELD)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
