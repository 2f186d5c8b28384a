"""The commands of the tests teach what they do, and refuse a run that would prove nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests import teeth
from tests.simulation import teeth as simulation_teeth
from tests.stores import teeth as store_teeth

ROOT: Final = Path(__file__).parent.parent
COMMANDS: Final = [
    "tests.teeth", "tests.simulation", "tests.simulation.teeth", "tests.stores.teeth",
    "benchmarks.run",
    *(f"tests.crash.{path.stem}" for path in sorted(ROOT.glob("tests/crash/*.py"))
      if "parser_of(" in path.read_text()),
]  # fmt: skip


def run(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", command, *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_shows_how_it_is_called_and_what_it_prints(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert done.stdout.count(f"python -m {command}") >= 2  # as argparse has it, and as people do
    assert "Prints" in done.stdout or "Shows" in done.stdout


@pytest.mark.parametrize("hunt", [teeth, simulation_teeth, store_teeth])
def test_a_word_that_is_in_no_name_is_refused_with_all_names(
    hunt: object, capsys: pytest.CaptureFixture[str]
) -> None:
    main, faults = hunt.main, hunt.FAULTS  # type: ignore[attr-defined]  # each has both
    with pytest.raises(SystemExit, match="2"):
        main([faults[0].name, "no such word"])
    said = capsys.readouterr().err
    assert "'no such word'" in said
    assert all(fault.name in said for fault in faults)


@pytest.mark.parametrize(
    ("command", "option", "least"),
    [
        ("tests.simulation", "--seeds", "whole number from 1"),
        ("tests.crash.kill", "--cycles", "whole number from 1"),
        ("tests.crash.wake", "--idle", "number of seconds above 0"),
        ("tests.crash.contention", "--seconds", "number of seconds above 0"),
    ],
)
@pytest.mark.parametrize("wrong", ["0", "-1", "nan", "x"])
def test_a_run_of_nothing_is_refused(command: str, option: str, least: str, wrong: str) -> None:
    done = run(command, f"{option}={wrong}")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"argument {option}: must be a {least}, got {wrong}" in done.stderr
