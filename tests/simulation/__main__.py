"""Runs seeded histories of the durable layer with faults, and says what did not hold.

    python -m tests.simulation --seeds 2000              histories 0 to 1999
    python -m tests.simulation --seeds 100 --first 500   histories 500 to 599
    python -m tests.simulation --replay 571 -v           one history, event by event

Managers, queues, feeders, settlers, leases and ledgers are the real ones, and so are the
stores (three histories of four in memory, one on SQLite). Simulated are the processes, the
time, and what happens to both: see `host.py`, `plan.py` for the faults, `book.py` for what is
checked. One seed in fifty is lived twice, and must be the same history.

Prints one line of JSON; the first history that breaks a promise ends the run, which exits
with 1 and names the seed.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from tests.command import parser_of, positive
from tests.simulation.history import Report, live

_TWICE: Final = 50


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line says; return the exit code."""
    options = _options().parse_args(arguments)
    logging.disable(logging.CRITICAL)  # workers in trouble say so, hundreds of times
    try:
        with tempfile.TemporaryDirectory(prefix="batchq-simulation-", dir=_memory()) as name:
            if options.replay is not None:
                return _replay(options.replay, Path(name), verbose=options.verbose)
            return _run(range(options.first, options.first + options.seeds), Path(name))
    finally:
        logging.disable(logging.NOTSET)


def _run(seeds: range, folder: Path) -> int:
    began = time.process_time()
    counted: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    wrong: list[str] = []
    for seed in seeds:
        report = live(seed, folder)
        wrong = [*report.wrong]
        if seed % _TWICE == 0 and not wrong and live(seed, folder).digest != report.digest:
            wrong = ["the same seed gave another history"]
        _count(report, counted, faults)
        if wrong:
            break
    found = {
        "seeds": counted["histories"],
        "first": seeds.start,
        **{name: counted[name] for name in ("jobs", "commits", "lives", "ran_out")},
        "simulated_hours": round(counted["seconds"] / 3600, 2),
        "faults": dict(sorted(faults.items())),
        "cpu_seconds": round(time.process_time() - began, 1),
        "violations": len(wrong),
    }
    if wrong:
        found |= {"seed": seed, "wrong": wrong[:5]}
    print(json.dumps(found))  # noqa: T201 - it is a command
    return int(bool(wrong))


def _count(report: Report, counted: Counter[str], faults: Counter[str]) -> None:
    counted["histories"] += 1
    counted["seconds"] += round(report.seconds)
    for name in ("jobs", "commits", "lives", "ran_out"):
        counted[name] += getattr(report, name)
    faults.update(event.kind for event in report.plan.events)


def _replay(seed: int, folder: Path, *, verbose: bool) -> int:
    report = live(seed, folder, tell=_tell if verbose else None)
    found: dict[str, Any] = {
        "seed": seed,
        "digest": report.digest,
        "jobs": report.jobs,
        "commits": report.commits,
        "violations": len(report.wrong),
        "wrong": report.wrong,
    }
    print(json.dumps(found))  # noqa: T201 - it is a command
    return int(bool(report.wrong))


def _tell(line: str) -> None:
    print(line, file=sys.stderr)  # noqa: T201 - it is a command


def _memory() -> str | None:
    """Return a folder in memory, where there is one: no history outlives its run."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - made by mkdtemp


def _options() -> argparse.ArgumentParser:
    parser = parser_of("tests.simulation", __doc__)
    parser.add_argument("--seeds", type=positive, default=100, help="how many histories")
    parser.add_argument("--first", type=int, default=0, help="the first one's seed")
    parser.add_argument("--replay", type=int, metavar="SEED", help="one history only")
    parser.add_argument("-v", "--verbose", action="store_true", help="with --replay: all of it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
