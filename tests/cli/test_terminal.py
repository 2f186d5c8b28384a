"""`batchq work` as it is stopped: by Ctrl-C in a terminal, and by who signals a whole family."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from batchq import JobState
from batchq.stores.sqlite import SqliteStore
from tests.jobs import jobs_in

MODULE = """
import os
import trio
from batchq import QueueManager

manager = QueueManager("sqlite:///jobs.db", poll_interval=0.05, lease=60, grace=60)

@manager.handler(concurrency=1)
async def work(seconds: float) -> None:
    with open("started", "a") as file:
        file.write(f"{os.getpid()}\\n")
    await trio.sleep(seconds)
"""
ENQUEUE = "import sys, myapp\nfor _ in range(2): myapp.work.enqueue_sync(float(sys.argv[1]))"
SLOW_IMPORT = """
import os, time
with open("started", "a") as file:
    file.write(f"{os.getpid()}\\n")
time.sleep(60)
"""
# What a shell does for what it starts: the terminal is its own, and so is Ctrl-C.
IN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
CTRL_C = b"\x03"
AGAIN = -signal.SIGINT  # how a process of its own ends at the second Ctrl-C


@attrs.define
class Terminal:
    """A terminal in which workers run."""

    process: subprocess.Popen[bytes]
    keys: int
    folder: Path

    def press(self, keys: bytes) -> None:
        os.write(self.keys, keys)

    def workers(self, count: int) -> list[int]:
        """Wait until so many processes have begun a job each; return their process ids."""
        started, deadline = self.folder / "started", time.monotonic() + 30
        while True:
            found = started.read_text().split() if started.exists() else []
            if len(found) >= count:
                return [int(pid) for pid in found]
            assert time.monotonic() < deadline, found
            time.sleep(0.02)

    def states(self) -> list[JobState]:
        store = SqliteStore(self.folder / "jobs.db")
        found = [job.state for job in jobs_in(store)]
        store.close()
        return found


@pytest.fixture
def start(
    tmp_path: Path, command: Callable[..., list[str]], environment: Callable[..., dict[str, str]]
) -> Iterator[Callable[..., Terminal]]:
    """Store two jobs that take so long, and start workers in a terminal of their own."""
    (tmp_path / "myapp.py").write_text(MODULE)
    opened = list[int]()
    processes = list[subprocess.Popen[bytes]]()

    def run(*arguments: str, seconds: float, module: str = MODULE) -> Terminal:
        enqueue = [sys.executable, "-c", ENQUEUE, str(seconds)]
        subprocess.run(enqueue, cwd=tmp_path, env=environment(), check=True, timeout=30)
        (tmp_path / "myapp.py").write_text(module)
        keys, screen = pty.openpty()
        opened.extend([keys, screen])
        process = subprocess.Popen(
            [sys.executable, "-c", IN_TERMINAL, *command("work", "myapp:manager", *arguments)],
            cwd=tmp_path,
            env=environment(),
            stdin=screen,
            stdout=screen,
            stderr=screen,
            start_new_session=True,
        )
        processes.append(process)
        return Terminal(process, keys, tmp_path)

    yield run
    for process in processes:
        process.kill()
        process.wait()
    for each in opened:
        os.close(each)


def gone(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize(
    ("more", "count"), [((), 1), (("--processes", "2"), 2)], ids=["alone", "supervised"]
)
def test_one_ctrl_c_lets_what_runs_finish(
    start: Callable[..., Terminal], more: tuple[str, ...], count: int
) -> None:
    terminal = start(*more, seconds=1.0)
    pids = terminal.workers(count)
    terminal.press(CTRL_C)
    assert terminal.process.wait(20) == 0
    assert gone(pids)
    left = [JobState.PENDING] * (2 - count)
    assert terminal.states() == [JobState.COMPLETED] * count + left


@pytest.mark.parametrize("gap", [0.1, 0.6])
@pytest.mark.parametrize(
    ("more", "count", "code"),
    [((), 1, AGAIN), (("--processes", "2"), 2, 0)],
    ids=["alone", "supervised"],
)
def test_a_second_ctrl_c_ends_them_at_once_however_soon(
    start: Callable[..., Terminal], more: tuple[str, ...], count: int, code: int, gap: float
) -> None:
    terminal = start(*more, seconds=60.0)
    pids = terminal.workers(count)
    terminal.press(CTRL_C)
    time.sleep(gap)
    assert terminal.process.poll() is None
    terminal.press(CTRL_C)
    assert terminal.process.wait(10) == code
    assert gone(pids)
    assert terminal.states().count(JobState.PROCESSING) == count  # their leases bring them back


@pytest.mark.parametrize("gap", [0.0, 0.6])
def test_a_family_that_is_signalled_together_is_told_once(
    start: Callable[..., Terminal], gap: float
) -> None:
    """As systemd does: the workers hear of it directly, and from their supervisor, too."""
    terminal = start("--processes", "2", seconds=2.0)
    pids = terminal.workers(2)
    terminal.process.terminate()
    time.sleep(gap)  # a busy machine
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    assert terminal.process.wait(20) == 0
    assert terminal.states() == [JobState.COMPLETED] * 2


@pytest.mark.parametrize("times", [1, 2])
def test_a_worker_that_is_signalled_alone_ends_alone(
    start: Callable[..., Terminal], times: int
) -> None:
    terminal = start("--processes", "2", seconds=1.5 if times == 1 else 60.0)
    first, second = terminal.workers(2)
    for _ in range(times):
        os.kill(first, signal.SIGTERM)
        time.sleep(0.1)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{first}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert terminal.process.poll() is None
    assert Path(f"/proc/{second}").exists()


def test_workers_that_still_import_end_at_the_first_ctrl_c(start: Callable[..., Terminal]) -> None:
    terminal = start("--processes", "2", seconds=0.0, module=SLOW_IMPORT)
    pids = terminal.workers(2)
    terminal.press(CTRL_C)
    assert terminal.process.wait(10) == 0
    assert gone(pids)
