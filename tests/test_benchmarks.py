"""The benchmarks run, and judge rightly what they measured."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.harness import (
    CLOCK,
    Case,
    Goal,
    Outcome,
    Plan,
    Reading,
    Stopwatch,
    find,
    run_rounds,
    verdict,
)
from benchmarks.raw import a_raw_store, payload
from benchmarks.run import cases, line, main, report, run, short

ROOT = Path(__file__).parent.parent
ALL = list(cases([], full=True))


def a_case(**changes: object) -> Case:
    settings = {
        "name": "made/up",
        "ours": lambda size: Reading(float(size)),
        "floor": lambda _: Reading(10.0),
        "beside": "ten",
        "size": 5,
        "smoke": 1,
        "reach": Goal(0.4, 0.6),
    }
    return Case(**(settings | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_both_sides_of_every_case_run(case: Case) -> None:
    if not case.available:
        pytest.skip(f"{case.needs} is not installed")
    report = run_rounds(case, ("floor", "ours"), rounds=1, turn=0, size=case.smoke, warm=case.smoke)
    assert math.isfinite(report["floor"])
    assert math.isfinite(report["ours"])


def test_a_case_is_found_by_its_name() -> None:
    assert [find(case.name) for case in ALL] == ALL


def test_only_takes_beginnings_of_names() -> None:
    assert [case.name for case in cases(["queue/process_"], full=False)] == ["queue/process_loops"]


@pytest.mark.parametrize("wrong", [["--only", "queue,nothing"], ["--repeats", "0"]])
def test_a_run_that_would_measure_nothing_is_refused(
    wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(wrong)
    said = capsys.readouterr().err
    assert ("queue/process_loops" in said) == ("--only" in wrong)
    assert wrong[1].rpartition(",")[2] in said


@pytest.mark.parametrize(
    ("value", "better", "said"),
    [
        (0.3, "more", "no"), (0.4, "more", "soon"), (0.6, "more", "goal"),
        (0.7, "less", "no"), (0.6, "less", "soon"), (0.4, "less", "goal"),
    ],
)  # fmt: skip
def test_a_target_is_met_from_its_very_value_on(value: float, better: str, said: str) -> None:
    reach = Goal(0.4, 0.6) if better == "more" else Goal(0.6, 0.4)
    assert verdict(value, reach, better=better) == said


def test_the_ratio_is_the_median_of_the_repeats() -> None:
    outcome = Outcome(
        case=a_case(),
        values={"ours": [1.0, 5.0, 9.0], "floor": [10.0, 10.0, 1.0]},
        facts={},
        peak=1,
        load=0.0,
    )
    assert outcome.ratio == 0.5
    assert outcome.reached() == "soon"
    assert "0.1-9" in line(outcome)
    assert json.loads(json.dumps(report([outcome])))["outcomes"][0]["ratio"] == 0.5


def test_a_case_beside_a_peer_that_is_not_installed_is_left_out() -> None:
    said = io.StringIO()
    assert run([a_case(needs="no_such.module")], Plan(smoke=True), said) == []
    assert "left out: no_such.module is not installed" in said.getvalue()


def test_a_case_tells_what_was_counted_beside_it() -> None:
    case = a_case(
        ours=lambda size: Reading(float(size), {"commits per job": 0.5}),
        facts={"commits per job": Goal(0.6, 0.4)},
    )
    said = io.StringIO()
    [outcome] = run([case], Plan(smoke=True), said)
    assert outcome.facts == {"commits per job": [0.5]}
    assert said.getvalue().splitlines()[-1].split() == [
        "commits", "per", "job", "0.5", "0.6", "0.4", "soon"
    ]  # fmt: skip


def test_what_is_done_by_hand_keeps_order_and_is_fenced() -> None:
    with a_raw_store() as store:
        store.enqueue([payload(number).decode() for number in range(3)])
        held = store.claim(2)
        assert held == [(1, 1, payload(0).decode()), (2, 1, payload(1).decode())]
        assert store.cycle([held[0]], 5) == [(3, 1, payload(2).decode())]
        store.settle([(2, 7, "")])  # another attempt's
        states = store.connection.execute("SELECT state FROM batchq_jobs ORDER BY id").fetchall()
    assert states == [("completed",), ("processing",), ("processing",)]


def test_seconds_of_cpu_do_not_pass_while_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CLOCK, "cpu")
    with Stopwatch() as watch:
        time.sleep(0.05)
    assert watch.seconds < 0.05


def test_a_smoke_test_takes_few_items_once() -> None:
    plan = Plan(repeats=5, smoke=True)
    assert plan.size(a_case()) == 1
    assert plan.rounds == 1


@pytest.mark.parametrize(
    ("value", "text"), [(0.000476, "0.000476"), (1.5, "1.5"), (2_000.0, "2k"), (9.6e6, "9.6M")]
)
def test_figures_are_short(value: float, text: str) -> None:
    assert short(value) == text


def test_the_command_prints_its_table() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.run", "--smoke", "--only", "core/whole", "--json", "-"],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert "core/whole" in done.stderr
    assert json.loads(done.stdout)["outcomes"][0]["case"] == "core/whole"
