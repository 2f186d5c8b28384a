"""Each proof of README.md in its short form, as a command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.crash import full
from tests.crash.shim import why_not

ROOT = Path(__file__).parents[2]
needs_shim = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


def proved(name: str, *arguments: str) -> dict[str, Any]:
    """Run a proof; return its one line of JSON."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.crash.{name}", *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [line] = done.stdout.splitlines()
    report: dict[str, Any] = json.loads(line)
    return report


@needs_shim
def test_a_power_cut_takes_nothing_that_was_acknowledged() -> None:
    report = proved("power", "--short", "--seed", "1")
    full, process, off = (report[name] for name in ("full", "process", "off"))
    assert full["images"] >= 400
    assert (full["lost"], full["corrupt"], full["unopenable"]) == (0, 0, 0)
    assert (process["corrupt"], process["unopenable"]) == (0, 0)
    assert process["most_lost_at_once"] > 0
    assert off["unopenable"] > 0
    # Of 80 commits each waits for the disk. To open, close and checkpoint does so, too, as often
    # as time has it.
    assert full["changes"]["synced"] > process["changes"]["synced"] + 40


@needs_shim
def test_a_call_that_fails_is_told_and_spoils_nothing() -> None:
    report = proved("nth", "--short")
    assert len(report["faults"]) == 10
    assert report["faults"]["the disk is full"]["told"].keys() == {"StoreFull"}
    told = report["faults"]["an fsync fails"]["told"]
    assert told.keys() == {"StoreBroken", "StoreError"}  # of the store; of a copy
    assert told["StoreBroken"] > told["StoreError"]


def test_four_processes_that_write_at_once_take_turns() -> None:
    report = proved("contention", "--short")
    assert report["errors"] == 0
    assert len(report["commits"]) == 4


def test_workers_that_are_told_to_stop_leave_nothing_behind() -> None:
    report = proved("sigterm", "--short", "--seed", "1")
    assert report["stops"] == 6
    assert report["refunded"] > 0


@needs_shim
def test_leases_and_delays_do_not_follow_the_wall_clock() -> None:
    report = proved("clock", "--short")
    assert [report[part]["steps"] for part in ("calm", "kills")] == [5, 5]
    assert report["kills"]["longest_lease_of_the_dead_s"] > 0


@pytest.mark.skipif(full.why_not() is not None, reason=str(full.why_not()))
def test_a_disk_that_is_full_refuses_and_goes_on() -> None:
    report = proved("full", "--short")
    assert report["refused"] > 0
    assert report["told"].keys() == {"StoreFull"}
