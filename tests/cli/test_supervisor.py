"""`batchq work --processes`: real processes, real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchq.cli.supervisor import restart_delay

# Each child adds a line with its process id to `started`, then does what its script says.
SUPERVISE = """
import sys
from batchq.cli.supervisor import Supervisor
sys.exit(Supervisor([sys.executable, "-c", sys.argv[1]], int(sys.argv[2])).run())
"""
CHILD = """
import os, signal, sys, time
with open("started", "a") as file:
    file.write(f"{os.getpid()}\\n")
"""
PATIENT = (
    CHILD
    + """
with open("ready", "a") as file:
    file.write(f"{os.getpid()}\\n")
said = sys.stdin.read()
with open("told", "a") as file:
    file.write(f"{said!r}\\n")
time.sleep({longer})
"""
)
AT_ONCE, LATER = PATIENT.replace("{longer}", "0"), PATIENT.replace("{longer}", "60")


class Supervised:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None

    def start(self, child: str, count: int) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISE, textwrap.dedent(child), str(count)],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            stderr=subprocess.PIPE,
            text=True,
        )
        return self.process

    def lines(self, name: str, at_least: int = 0) -> list[str]:
        path = self.folder / name
        deadline = time.monotonic() + 15
        while True:
            found = path.read_text().splitlines() if path.exists() else []
            if len(found) >= at_least:
                return found
            assert time.monotonic() < deadline, f"only {found} in {name}"
            time.sleep(0.02)


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    it = Supervised(tmp_path)
    yield it
    if it.process is not None:
        it.process.kill()
        it.process.communicate()
        for pid in {int(line) for line in it.lines("started")}:
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_what_they_read_and_all_end_well(
    supervised: Supervised, number: signal.Signals
) -> None:
    process = supervised.start(AT_ONCE, 2)
    supervised.lines("ready", at_least=2)
    process.send_signal(number)
    assert process.wait(10) == 0
    assert supervised.lines("told") == ["''"] * 2


@pytest.mark.parametrize("gap", [0.05, 0.5])
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGHUP])
def test_a_second_signal_kills_them_however_soon(
    supervised: Supervised, first: signal.Signals, gap: float
) -> None:
    process = supervised.start(LATER, 2)
    pids = supervised.lines("ready", at_least=2)
    process.send_signal(first)
    supervised.lines("told", at_least=2)
    time.sleep(gap)
    process.terminate()
    assert process.wait(10) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_copies_of_a_signal_are_one_and_the_end_of_a_terminal_kills_nobody(
    supervised: Supervised,
) -> None:
    process = supervised.start(LATER.replace("60", "0.5"), 2)
    supervised.lines("ready", at_least=2)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    process.send_signal(signal.SIGHUP)
    assert process.wait(10) == 0
    assert supervised.lines("told") == ["''"] * 2


def test_a_crashed_process_is_replaced_and_the_supervisor_says_so(supervised: Supervised) -> None:
    process = supervised.start(AT_ONCE, 2)
    first, second = map(int, supervised.lines("ready", at_least=2))
    os.kill(first, signal.SIGKILL)
    third = int(supervised.lines("ready", at_least=3)[2])
    assert third not in {first, second}
    process.terminate()
    _, said = process.communicate(timeout=10)
    assert process.returncode == 0
    assert f"worker {first} was ended by SIGKILL; another starts in 0.5 s" in said
    assert len(supervised.lines("told")) == 2


def test_a_process_that_ends_well_is_not_replaced(supervised: Supervised) -> None:
    assert supervised.start(CHILD, 3).wait(10) == 0
    assert len(supervised.lines("started")) == 3


def test_a_command_that_cannot_work_is_not_tried_again(supervised: Supervised) -> None:
    process = supervised.start(CHILD + "sys.exit(2)", 2)
    assert process.wait(10) == 2
    assert len(supervised.lines("started")) <= 2


def test_what_was_about_to_be_replaced_is_not_once_all_are_to_stop(supervised: Supervised) -> None:
    process = supervised.start(CHILD + "sys.exit(1)", 1)
    supervised.lines("started", at_least=2)
    process.terminate()
    process.communicate(timeout=10)
    assert process.returncode in {0, 1}
    started = len(supervised.lines("started"))
    time.sleep(0.2)
    assert len(supervised.lines("started")) == started


def test_the_back_off_doubles_up_to_half_a_minute() -> None:
    assert [restart_delay(crashes) for crashes in (1, 2, 3, 7, 1_000)] == [0.5, 1, 2, 30, 30]
