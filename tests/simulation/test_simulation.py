"""The simulation in its short form; the long one is `python -m tests.simulation`."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.simulation import teeth
from tests.simulation.__main__ import main
from tests.simulation.history import live
from tests.simulation.host import Host, Process, seeded
from tests.teeth import check_places

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("first", range(0, 100, 20))
def test_a_hundred_histories_lose_nothing_and_settle_nothing_twice(
    first: int, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["--seeds", "20", "--first", str(first)])
    printed = capsys.readouterr().out
    assert code == 0, printed
    report = json.loads(printed)
    assert report["violations"] == 0
    assert report["jobs"] > 200
    assert report["ran_out"] > 20


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_one_seed_is_one_history_in_any_process(seed: int, tmp_path: Path) -> None:
    here = live(seed, tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--replay", str(seed)],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["digest"] == here.digest
    assert live(seed + 1, tmp_path).digest != here.digest


def test_a_killed_process_does_nothing_more_and_a_frozen_one_nothing_for_a_while() -> None:
    log = list[tuple[float, str]]()

    def start(host: Host, name: str) -> Process:
        async def main() -> None:
            try:
                for _ in range(10):
                    await trio.sleep(1)
                    log.append((host.now, name))
            finally:
                log.append((host.now, f"{name} ends"))

        return Process(host, name, main)

    with seeded(1):
        host = Host(random.Random(1))
        killed, frozen = start(host, "killed"), start(host, "frozen")
        host.at(2.5, killed.kill)
        host.at(2.5, lambda: frozen.freeze(60))
        assert host.run(lambda: not killed.alive and not frozen.alive, 100.0)
        times = {name: [when for when, who in log if who == name] for name in ("killed", "frozen")}
        assert times["killed"] == [1.0, 2.0]
        assert times["frozen"] == [1.0, 2.0, 62.5, *(63.5 + more for more in range(7))]
        assert "killed ends" not in {who for _, who in log}
        killed.clear_away()
        assert host.run(lambda: not killed.alive, 200.0)


def test_each_planted_fault_still_has_its_one_place() -> None:
    check_places(teeth.FAULTS)
    assert len({fault.name for fault in teeth.FAULTS}) == len(teeth.FAULTS) >= 12


def test_a_planted_fault_is_found() -> None:
    [fault] = [each for each in teeth.FAULTS if each.name == "results go to the neighbours"]
    assert teeth.histories_until_found(fault) is not None
