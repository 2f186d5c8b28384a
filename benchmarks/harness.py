"""Runs a case and its floor side by side, and tells the ratio.

A machine under load is slow for both sides at once, so only ratios taken in one run count:

    repeat = one fresh process:  warm up ─▶ floor, ours, ours, floor, floor, ours ...
    value of a side in a repeat = median of its rounds;   ratio = ours / floor
    what is printed             = median of the repeats, with the smallest and the largest

Rule 1: the two sides of a case do the same work, and alternate who goes first.
Rule 2: connections, files and loops are made before the clock starts; items are made as
they are handed over, by both sides.
Rule 3: memory is the growth of a fresh process's peak, one side per process.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import os
import platform
import resource
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal, Self

import attrs

__all__ = [
    "CLOCK",
    "Case",
    "Goal",
    "Outcome",
    "Plan",
    "Reading",
    "Side",
    "Stopwatch",
    "machine",
    "measure",
]

ROOT: Final = Path(__file__).parent.parent
SIDES: Final = ("floor", "ours")
_ROUNDS: Final = 3
CLOCK: Final = "BATCHQ_CLOCK"  # the variable that says what a second is
_CHILD_TIMEOUT: Final = 900.0  # seconds; a case that hangs must not hang the run


@attrs.frozen
class Reading:
    """What one run of one side measured.

    Attributes:
        value: in the case's unit.
        facts: what was counted beside it, by name.
    """

    value: float
    facts: Mapping[str, float] = attrs.field(factory=dict)


@attrs.frozen
class Goal:
    """What a figure is to reach: now or soon, and in the end."""

    soon: float
    goal: float


Side = Callable[[int], Reading]


@attrs.frozen(kw_only=True)
class Case:
    """One thing measured, and what it is measured against.

    Attributes:
        name: `module/what`.
        ours: measures batchq at a size.
        floor: measures the hand-written code, or whatever stands beside it.
        beside: what `floor` is, in a few words.
        unit: of both values.
        size: items per run.
        smoke: items per run of a smoke test.
        better: whether more or less of the ratio is better.
        reach: what the ratio is to reach; None: it is only told.
        facts: what figures of our side are to stay below, by name.
        apart: True: each side in a process of its own, once: memory, and what takes long.
        full: True: only measured in the full mode.
        needs: the module that `floor` needs; the case is left out where it is missing.
    """

    name: str
    ours: Side
    floor: Side
    beside: str
    size: int
    smoke: int
    unit: str = "items/s"
    better: Literal["more", "less"] = "more"
    reach: Goal | None = None
    facts: Mapping[str, Goal] = attrs.field(factory=dict)
    apart: bool = False
    full: bool = False
    needs: str = ""

    @property
    def available(self) -> bool:
        """Whether what it needs is installed."""
        try:
            return not self.needs or importlib.util.find_spec(self.needs) is not None
        except ModuleNotFoundError:  # not even the package that it is in
            return False


@attrs.frozen(kw_only=True)
class Plan:
    """How much to measure."""

    repeats: int = 5
    smoke: bool = False

    def size(self, case: Case) -> int:
        """Return how many items one run of `case` takes."""
        return case.smoke if self.smoke else case.size

    @property
    def rounds(self) -> int:
        """How often each side runs in one process."""
        return 1 if self.smoke else _ROUNDS


@attrs.frozen(kw_only=True)
class Outcome:
    """What a case measured: per side, the value of every repeat.

    Attributes:
        case: what was measured.
        values: by side, one value per repeat.
        facts: by name, one value of our side per repeat.
        peak: the highest peak memory of a repeat's process [bytes].
        load: the machine's load when the case began.
    """

    case: Case
    values: Mapping[str, Sequence[float]]
    facts: Mapping[str, Sequence[float]]
    peak: int
    load: float

    @property
    def ratios(self) -> list[float]:
        """Ours by floor, one per repeat."""
        pairs = zip(self.values["ours"], self.values["floor"], strict=True)
        return [ours / floor for ours, floor in pairs]

    @property
    def ratio(self) -> float:
        """The median of the ratios."""
        return statistics.median(self.ratios)

    def reached(self) -> str:
        """Say which of the case's targets the ratio has met."""
        return verdict(self.ratio, self.case.reach, better=self.case.better)

    def as_json(self) -> dict[str, Any]:
        """Return all that was measured, for a file."""
        reach = self.case.reach
        return {
            "case": self.case.name,
            "beside": self.case.beside,
            "unit": self.case.unit,
            "size": self.case.size,
            "better": self.case.better,
            "ours": list(self.values["ours"]),
            "floor": list(self.values["floor"]),
            "ratios": self.ratios,
            "ratio": self.ratio,
            "soon": reach and reach.soon,
            "goal": reach and reach.goal,
            "reached": self.reached(),
            "facts": {name: list(values) for name, values in self.facts.items()},
            "peak_bytes": self.peak,
            "load": self.load,
        }


class Stopwatch:
    """Times a block, with the collector's debts paid before.

    With $BATCHQ_CLOCK=cpu it counts the process's own seconds of CPU, all threads together.
    """

    seconds: float = 0.0

    def __enter__(self) -> Self:
        gc.collect()
        self._started = _now()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = _now() - self._started

    def rate(self, count: int, **facts: float) -> Reading:
        """Read it as things per second."""
        return Reading(count / self.seconds, facts)

    def each(self, count: int) -> Reading:
        """Read it as seconds per thing."""
        return Reading(self.seconds / count)


def _now() -> float:
    return time.process_time() if os.environ.get(CLOCK) == "cpu" else time.perf_counter()


def verdict(value: float, reach: Goal | None, *, better: str) -> str:
    """Say which targets `value` has met: `goal`, `soon`, `no`; `-` where there are none."""
    if reach is None:
        return "-"
    sign = 1 if better == "more" else -1
    if sign * value >= sign * reach.goal:
        return "goal"
    return "soon" if sign * value >= sign * reach.soon else "no"


def measure(case: Case, plan: Plan) -> Outcome:
    """Measure a case in fresh processes, `plan.repeats` times."""
    load = os.getloadavg()[0]
    reports = [_repeat(case, plan, turn) for turn in range(1 if plan.smoke else plan.repeats)]
    names = {name for report in reports for name in report["facts"]}
    return Outcome(
        case=case,
        values={side: [report[side] for report in reports] for side in SIDES},
        facts={name: [report["facts"][name] for report in reports] for name in sorted(names)},
        peak=max(report["peak"] for report in reports),
        load=load,
    )


def _repeat(case: Case, plan: Plan, turn: int) -> dict[str, Any]:
    if plan.smoke and not case.apart:  # nobody reads the figures; a process takes a second
        return run_rounds(case, SIDES, rounds=1, turn=turn, size=case.smoke, warm=0)
    if not case.apart:
        return _child(case, {"sides": SIDES, "rounds": plan.rounds, "turn": turn}, plan)
    order = SIDES if turn % 2 == 0 else SIDES[::-1]
    parts = [_child(case, {"sides": [side], "rounds": 1, "turn": turn}, plan) for side in order]
    whole: dict[str, Any] = {"facts": {}}
    for part in parts:
        whole |= part | {"facts": whole["facts"] | part["facts"]}
    whole["peak"] = max(part["peak"] for part in parts)
    return whole


def _child(case: Case, order: Mapping[str, object], plan: Plan) -> dict[str, Any]:
    order = {**order, "case": case.name, "size": plan.size(case), "warm": case.smoke}
    command = [sys.executable, "-m", "benchmarks.harness", json.dumps(order)]
    done = subprocess.run(  # noqa: S603 - our own command
        command, cwd=ROOT, capture_output=True, text=True, timeout=_CHILD_TIMEOUT, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{case.name} failed:\n{done.stderr}")
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def find(name: str) -> Case:
    """Find a case by its name, in the module that the name begins with."""
    module = importlib.import_module(f"benchmarks.{name.partition('/')[0]}")
    cases: Sequence[Case] = module.CASES
    return next(case for case in cases if case.name == name)


def run_rounds(
    case: Case, sides: Sequence[str], *, rounds: int, turn: int, size: int, warm: int
) -> dict[str, Any]:
    """Run the sides in turn, in this process; what the child of a repeat does."""
    runs: Mapping[str, Side] = {"ours": case.ours, "floor": case.floor}
    if warm and not case.apart:
        for side in sides:
            runs[side](warm)
    values: dict[str, list[float]] = {side: [] for side in sides}
    facts: dict[str, float] = {}
    for number in range(rounds):
        order = sides if (number + turn) % 2 == 0 else list(reversed(sides))
        for side in order:
            reading = runs[side](size)
            values[side].append(reading.value)
            if side == "ours":
                facts |= reading.facts
    return {side: statistics.median(found) for side, found in values.items()} | {
        "facts": facts,
        "peak": peak_memory(),
    }


def peak_memory() -> int:
    """Return the most memory that this process ever had [bytes]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def machine() -> dict[str, Any]:
    """Describe where the figures come from; the machine's name is nobody's business."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpus": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        **{name: version(name) for name in ("trio", "msgspec", "attrs")},
        "load": [round(load, 2) for load in os.getloadavg()],
        "seconds": "of CPU" if os.environ.get(CLOCK) == "cpu" else "elapsed",
    }


def _main() -> None:
    order = json.loads(sys.argv[1])
    case = find(order.pop("case"))
    sides = order.pop("sides")
    print(json.dumps(run_rounds(case, sides, **order)))


if __name__ == "__main__":
    _main()
