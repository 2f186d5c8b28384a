"""Four processes write to one file as fast as they can: nobody is refused, nobody starves.

    python -m tests.crash.contention [--seconds 30] [--processes 4] [--short]

Each opens the store and, until the time is up, commits groups of a settlement, a new job and
a claim, and reads now and then. Counted are the commits
of each and its longest wait. No error may surface, and the slowest has done at least half of
what the fastest has.

Prints one line of JSON; exits with 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import click

from batchq.core.job import ClaimRequest, Group, NewJob, Settlement, Verdict
from batchq.errors import StoreError
from batchq.stores.sqlite import SqliteStore
from tests.command import parser_of, positive, seconds

ROOT: Final = Path(__file__).parents[2]
_FAIR: Final = 0.5


def compete(path: Path, seconds: float) -> dict[str, Any]:
    """Commit, when all are ready, until the time is up; returns what was done."""
    commits, longest = 0, 0.0
    errors: list[str] = []
    name = f"worker-{os.getpid()}"
    with closing(SqliteStore(path)) as store:
        click.echo("ready")
        start = float(sys.stdin.readline())
        settle: list[Settlement] = []
        time.sleep(max(0.0, start - time.monotonic()))
        while (begun := time.monotonic()) < start + seconds:
            group = Group(
                settle=settle,
                enqueue=[NewJob("mail", "send", b'{"n": 1}')],
                claim=[ClaimRequest("mail", ("send",), 1, 60.0, name)],
                worker=name,
            )
            try:
                answers = store.commit(group)
            except StoreError as error:
                errors.append(f"{type(error).__name__}: {error}")
                continue
            commits += 1
            longest = max(longest, time.monotonic() - begun)
            settle = [Settlement(job.receipt, Verdict.OK) for job in answers.claim[0].jobs]
            if commits % 50 == 0:
                store.counts()
    return {"commits": commits, "longest": longest, "errors": errors}


def race(folder: Path, processes: int, seconds: float) -> dict[str, Any]:
    """Let them compete; returns what was found."""
    path = folder / "jobs.db"
    SqliteStore(path).close()
    command = [sys.executable, "-m", "tests.crash.contention", "--be", str(path)]
    command += ["--seconds", str(seconds)]
    pipe = subprocess.PIPE
    running = [
        subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
        for _ in range(processes)
    ]
    done = [json.loads(process.communicate()[0]) for process in _started(running)]
    with closing(SqliteStore(path)) as store:
        stored = sum(store.counts()["mail"].values())
        check = store._here().writer.connection.execute("PRAGMA integrity_check").fetchone()[0]
    commits = [each["commits"] for each in done]
    fairness = min(commits) / max(commits)
    violations = [error for each in done for error in each["errors"]]
    if fairness < _FAIR:
        violations.append(f"the slowest did {fairness:.2f} of what the fastest did")
    if (stored, check) != (sum(commits), "ok"):
        violations.append(f"{sum(commits)} jobs were stored, {stored} are there; {check}")
    return {
        "commits": commits,
        "slowest_to_fastest": round(fairness, 3),
        "longest_commit_ms": round(1e3 * max(each["longest"] for each in done), 1),
        "errors": sum(len(each["errors"]) for each in done),
        "violations": violations[:10],
    }


def _started(running: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    """Let them begin together, once all have opened the file."""
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    start = time.monotonic() + 0.1  # one clock for all processes of a boot
    for process in running:
        assert process.stdin is not None
        process.stdin.write(f"{start}\n")
        process.stdin.flush()
    return running


def main() -> int:
    """Run it; returns the exit code."""
    parser = parser_of("tests.crash.contention", __doc__)
    parser.add_argument("--seconds", type=seconds, default=30.0, help="how long they compete")
    parser.add_argument("--processes", type=positive, default=4, help="how many")
    parser.add_argument("--short", action="store_true", help="3 seconds")
    parser.add_argument("--be", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.be is not None:
        click.echo(json.dumps(compete(asked.be, asked.seconds)))
        return 0
    lasts = 3.0 if asked.short else asked.seconds
    with tempfile.TemporaryDirectory(prefix="batchq-contention-") as folder:
        found = race(Path(folder), asked.processes, lasts)
    report = {"seconds": lasts, "sqlite": sqlite3.sqlite_version, **found}
    click.echo(json.dumps({**report, "ok": not found["violations"]}))
    return 1 if found["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
