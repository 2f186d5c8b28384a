"""SIGTERM at random moments: workers stop in time, and leave nothing leased behind.

    python -m tests.crash.sigterm [--stops 200] [--workers 2] [--short]

A producer and some workers share a file as in kill.py; some jobs take longer than the grace
allows. In each cycle a worker is told to stop in the middle of its work. It ends within the
grace and a second; no job is left to it; what it had not finished comes back without having
lost an attempt. At the end all is let finish, and evidence.py judges. Then workers with a long
job are told twice: they end at once.

Prints one line of JSON; exits with 1 if a promise was broken.
"""

from __future__ import annotations

import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import attrs
import click

from batchq.core.lifecycle import JobState
from batchq.core.record import JobFilter
from batchq.stores.url import open_store
from tests.command import parser_of, positive
from tests.crash.evidence import Evidence, violations
from tests.crash.fate import MAX_ATTEMPTS
from tests.crash.kill import Broken, Company, gather

_GRACE: Final = 0.5
_AFTER: Final = 1.0  # for what is written down then
_LATE: Final = 4.0  # a busy machine's part
_LEASE: Final = 60.0  # nothing comes back by itself
_LONGEST_DELAY: Final = 0.4
_TWICE: Final = 3
_USED: Final = {"ok": 1, "discard": 1, "again": 2, "raise": MAX_ATTEMPTS}


@attrs.define
class Stops:
    """What was seen of workers that were told to stop.

    Attributes:
        codes: how they ended.
        times: how long it took [s].
        left: jobs that stayed with one that had ended.
    """

    codes: Counter[int] = attrs.field(factory=Counter)
    times: list[float] = attrs.field(factory=list)
    left: list[str] = attrs.field(factory=list)

    def stop(self, company: Company, place: int) -> None:
        """Stop a worker, see what it leaves, and start another in its place."""
        process = company.process(place)
        process.terminate()
        began = time.monotonic()
        try:
            code = process.wait(30)
        except subprocess.TimeoutExpired:
            raise Broken(f"worker {place} did not stop within 30 s") from None
        self.times.append(time.monotonic() - began)
        self.codes[code] += 1
        with closing(open_store(company.url)) as store:
            held = store.find(JobFilter(status=JobState.PROCESSING.value), limit=10_000)
            stalled = store.find(JobFilter(status="stalled"), limit=10_000)
        for row in (*held, *stalled):
            if f"-{process.pid}-" in (row.worker or ""):
                self.left.append(f"job {row.id} is left to process {process.pid}, which ended")
        company.replace(place)


def unpaid(evidence: Evidence) -> list[str]:
    """Return jobs of which an attempt was counted that a stop had cut off."""
    return [
        f"job {row.id} ({evidence.fates[row.id]}) used {row.used} attempts"
        for row in evidence.rows.values()
        if row.used != _USED[evidence.fates[row.id]]
    ]


def told_twice(folder: Path) -> list[str]:
    """Tell a worker with a long job twice; returns what is wrong with how it ended."""
    surroundings = {
        "BATCHQ_CRASH_GRACE": "30",
        "BATCHQ_CRASH_SLOW": "1",
        "BATCHQ_CRASH_SECONDS": "30",
    }
    company = Company(folder, 1, surroundings)
    company.start()
    try:
        company.await_work(0)
        company.await_work(1)
        time.sleep(1.0)  # it has a long job by now
        worker = company.process(1)
        worker.terminate()
        time.sleep(0.5)
        worker.terminate()
        began = time.monotonic()
        code = worker.wait(10)
        if code != -signal.SIGTERM or time.monotonic() - began > 1 + _LATE:
            return [f"told twice, it ended with {code} after {time.monotonic() - began:.1f} s"]
    except subprocess.TimeoutExpired:
        return ["told twice, it went on"]
    finally:
        company.end()
    return []


def stop_them(company: Company, stops: int, draw: random.Random) -> Stops:
    """Stop workers in the middle of their work, one after the other."""
    seen = Stops()
    company.start()
    for number in range(1, stops + 1):
        place = draw.randint(1, company.workers)
        company.await_work(0)
        company.await_work(place)
        time.sleep(draw.uniform(0, _LONGEST_DELAY))
        seen.stop(company, place)
        if number % 20 == 0:
            click.echo(f"{number}/{stops} stopped", err=True)
    company.finish()
    return seen


def report_on(seen: Stops, evidence: Evidence) -> dict[str, Any]:
    """Compare with what was promised."""
    broken = {**violations(evidence), "left_leased": seen.left, "unpaid": unpaid(evidence)}
    if seen.codes.keys() - {0}:
        broken["ended_badly"] = [f"exit codes {dict(seen.codes)}"]
    if max(seen.times) > _GRACE + _AFTER + _LATE:
        broken["too_late"] = [f"a stop took {max(seen.times):.1f} s"]
    refunded = sum(row.refunds for row in evidence.rows.values())
    return {
        "stops": seen.codes.total(),
        "median_stop_s": round(statistics.median(seen.times), 2),
        "longest_stop_s": round(max(seen.times), 2),
        "acknowledged": len(evidence.acks),
        "stored": len(evidence.rows),
        "refunded": refunded,
        "lease_lost": sum(1 for settle in evidence.settles if settle.verdict == "stale"),
        **{name: len(found) for name, found in broken.items()},
        "violations": [line for found in broken.values() for line in found][:20],
    }


def main() -> int:
    """Run it; returns the exit code."""
    parser = parser_of("tests.crash.sigterm", __doc__)
    parser.add_argument("--stops", type=positive, default=200, help="SIGTERMs")
    parser.add_argument("--workers", type=positive, default=2, help="worker processes")
    parser.add_argument(
        "--seed", type=int, default=None, help="whom to stop when [default: a new one]"
    )
    parser.add_argument("--short", action="store_true", help="6 stops")
    asked = parser.parse_args()
    seed = random.randrange(1_000_000) if asked.seed is None else asked.seed
    stops = 6 if asked.short else asked.stops
    surroundings = {
        "BATCHQ_CRASH_GRACE": str(_GRACE),
        "BATCHQ_CRASH_LEASE": str(_LEASE),
        "BATCHQ_CRASH_SLOW": "1",
        "BATCHQ_CRASH_PACE": "0.5",
    }
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="batchq-sigterm-") as name:
        (folder := Path(name) / "stops").mkdir()
        company = Company(folder, asked.workers, surroundings)
        try:
            seen = stop_them(company, stops, random.Random(seed))
            report = report_on(seen, gather(company))
        except Broken as error:
            report = {"violations": [str(error)]}
        finally:
            company.end()
        for number in range(1 if asked.short else _TWICE):
            (folder := Path(name) / f"twice-{number}").mkdir()
            report["violations"] += told_twice(folder)
    seconds = round(time.monotonic() - started, 1)
    ok = not report["violations"]
    click.echo(json.dumps({"seed": seed, "seconds": seconds, **report, "ok": ok}))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
