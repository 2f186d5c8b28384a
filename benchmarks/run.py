"""Run the benchmarks and print what they measured beside their floors.

Run:    python -m benchmarks.run [--smoke | --full] [--only queue,jobs/cycle] [--repeats 5]
                                 [--cpu] [--json FILE|-] [--profile]
Shows:  case, ours, floor, ratio with its spread, the targets and whether they are met.
"""

from __future__ import annotations

import argparse
import cProfile
import importlib
import json
import os
import pstats
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, TextIO

from benchmarks.harness import CLOCK, ROOT, Case, Outcome, Plan, machine, measure, verdict

MODULES: Final = ("core", "queue", "waiting", "shapes", "peers", "stores", "jobs", "growth")
_HEADER: Final = (
    f"{'case':32} {'ours':>9} {'floor':>9} {'unit':9} {'ratio':>7} {'spread':>15}"
    f" {'soon':>6} {'goal':>6} met"
)
_TOP: Final = 30  # lines of a profile


def cases(only: Sequence[str], *, full: bool) -> Iterator[Case]:
    """Yield the cases whose names begin with one of `only`; all if there is none."""
    for module in MODULES:
        found: Sequence[Case] = importlib.import_module(f"benchmarks.{module}").CASES
        for case in found:
            wanted = not only or any(case.name.startswith(prefix) for prefix in only)
            if wanted and (full or not case.full):
                yield case


def short(value: float) -> str:
    """Write a figure in at most 8 characters."""
    for limit, unit in ((1e6, "M"), (1e3, "k"), (1.0, "")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{unit}" if value < limit * 1000 else f"{value:.2e}"
    return f"{value:.3g}"


def line(outcome: Outcome) -> str:
    """Write what a case measured as one line of the table."""
    case = outcome.case
    ours, floor = (statistics.median(outcome.values[side]) for side in ("ours", "floor"))
    spread = f"{min(outcome.ratios):.3g}-{max(outcome.ratios):.3g}"
    soon, goal = (case.reach.soon, case.reach.goal) if case.reach else ("", "")
    return (
        f"{case.name:32} {short(ours):>9} {short(floor):>9} {case.unit:9} {outcome.ratio:7.3g}"
        f" {spread:>15} {soon:>6} {goal:>6} {outcome.reached()}"
    )


def lines_of_facts(outcome: Outcome) -> Iterator[str]:
    """Write what was counted beside a case, one line each."""
    for name, values in outcome.facts.items():
        value, reach = statistics.median(values), outcome.case.facts.get(name)
        soon, goal = (reach.soon, reach.goal) if reach else ("", "")
        met = verdict(value, reach, better="less")
        print_name = f"    {name}"
        yield f"{print_name:32} {value:9.4g} {'':35} {'':9} {soon:>6} {goal:>6} {met}"


def report(outcomes: Sequence[Outcome]) -> dict[str, object]:
    """Gather everything for a JSON file."""
    return {"machine": machine(), "outcomes": [outcome.as_json() for outcome in outcomes]}


def profile(case: Case, plan: Plan) -> None:
    """Profile our side of a case in this process.

    The profiler charges every Python call with some 100 ns of its own: read it for where
    the calls are, and the table for how fast they are.
    """
    case.ours(case.smoke)
    profiler = cProfile.Profile()
    reading = profiler.runcall(case.ours, plan.size(case))
    print(f"{case.name}: {short(reading.value)} {case.unit} under the profiler")
    stats = pstats.Stats(profiler).strip_dirs()
    stats.sort_stats("tottime").print_stats(_TOP)


def run(chosen: Sequence[Case], plan: Plan, out: TextIO) -> list[Outcome]:
    """Measure, and print each line as soon as it is known."""
    print(", ".join(f"{name} {value}" for name, value in machine().items()), file=out)
    print(_HEADER, file=out)
    outcomes = []
    for case in chosen:
        if not case.available:
            print(f"{case.name:32} left out: {case.needs} is not installed", file=out)
            continue
        outcome = measure(case, plan)
        outcomes.append(outcome)
        print(line(outcome), *lines_of_facts(outcome), sep="\n", file=out, flush=True)
    return outcomes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, one repeat: does it run?")
    parser.add_argument("--full", action="store_true", help="with a million items, too")
    parser.add_argument("--only", default="", help="beginnings of names: queue,jobs/cycle")
    parser.add_argument("--repeats", type=int, default=5, help="fresh processes per case, 5")
    parser.add_argument("--cpu", action="store_true", help="count CPU time: for a loaded machine")
    parser.add_argument("--json", metavar="FILE", help="write everything there; - is stdout")
    parser.add_argument("--profile", action="store_true", help="profile our side instead")
    return parser


def check(parser: argparse.ArgumentParser, only: Sequence[str], *, full: bool) -> None:
    """End the process, and say what there is, if one of `only` begins no case's name."""
    for prefix in only:
        if not any(cases([prefix], full=full)):
            there = [case.name + " (--full)" * case.full for case in cases([], full=True)]
            parser.error("\n  ".join([f"no case begins with {prefix!r}; there are", *there]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.repeats < 1:
        parser.error(f"--repeats must be from 1, got {given.repeats}")
    only = [name for name in given.only.split(",") if name]
    check(parser, only, full=given.full)
    sys.path.insert(0, str(ROOT))
    if given.cpu:
        os.environ[CLOCK] = "cpu"  # the processes of the repeats inherit it
    plan = Plan(repeats=given.repeats, smoke=given.smoke)
    chosen = list(cases(only, full=given.full))
    if given.profile:
        for case in chosen:
            profile(case, plan)
        return
    outcomes = run(chosen, plan, sys.stderr if given.json == "-" else sys.stdout)
    if given.json == "-":
        print(json.dumps(report(outcomes), indent=1))
    elif given.json:
        Path(given.json).write_text(json.dumps(report(outcomes), indent=1))


if __name__ == "__main__":
    main()
