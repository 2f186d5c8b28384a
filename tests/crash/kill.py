"""kill -9 during work: no acknowledged job is lost, and none is settled twice.

    python -m tests.crash.kill --cycles 100 --workers 2

A producer and some workers (`batchq work`, the real one) share a SQLite file in its default
durability. In each cycle one of them is killed in the middle of its work and started again;
now and then a worker is stopped for longer than its lease before, and goes on when others
have its jobs. At the end all work is let finish, and `evidence.py` judges.

Prints one line of JSON; exits with 1 if a promise was broken. The plan (who, when) comes from
the seed; how the processes interleave does not.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import click

from batchq.cli.work import work_command
from batchq.core.lifecycle import JobState
from batchq.core.record import JobFilter, JobRecord
from batchq.stores.url import open_store
from tests.command import parser_of, positive
from tests.crash.evidence import Evidence, Run, Settle, violations
from tests.crash.fate import LEASE, fate

ROOT: Final = Path(__file__).parents[2]
_LONGEST_DELAY: Final = 0.5
_ONE_IN_FROZEN: Final = 5
_PATIENCE: Final = 90.0
_SIDE_FILES: Final = ("acks", "runs", "settles")


class Broken(Exception):
    """The test itself can't go on: says why."""


@attrs.frozen
class Cycle:
    """One step of the plan.

    Attributes:
        place: whom to kill: 0 is the producer, the others are workers.
        delay: how long after its first sign of work [s].
        frozen: the worker to stop for longer than its lease meanwhile, or None.
    """

    place: int
    delay: float
    frozen: int | None


def plan(seed: int, cycles: int, workers: int) -> list[Cycle]:
    """Draw who is killed when: the same for the same numbers."""
    draw = random.Random(seed)
    found = []
    for number in range(1, cycles + 1):
        place, delay = draw.randrange(workers + 1), draw.uniform(0, _LONGEST_DELAY)
        others = [other for other in range(1, workers + 1) if other != place]
        frozen = draw.choice(others) if others and number % _ONE_IN_FROZEN == 0 else None
        found.append(Cycle(place, delay, frozen))
    return found


@attrs.define(eq=False)
class Tail:
    """Reads what has been added to a side file: who has shown signs of work."""

    path: Path
    _at: int = attrs.field(default=0, init=False)
    pids: set[int] = attrs.field(factory=set, init=False)

    def read(self) -> set[int]:
        """Return every process that has written here."""
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self._at)
                whole, newline, _ = file.read().rpartition(b"\n")  # the rest is being written
            self._at += len(whole) + len(newline)
            self.pids |= {int(line.split()[0]) for line in whole.splitlines()}
        return self.pids


@attrs.define(eq=False)
class Company:
    """The producer and the workers: started, killed, started again.

    Attributes:
        folder: where the database and the side files are.
        workers: how many of them there are.
        surroundings: environment variables besides the usual ones.
    """

    folder: Path
    workers: int
    surroundings: Mapping[str, str] = attrs.field(factory=dict)
    # Two ends: what the workers read is over when this process has ended, and they stop.
    _line: tuple[int, int] = attrs.field(factory=os.pipe, init=False)
    _processes: list[subprocess.Popen[bytes]] = attrs.field(factory=list, init=False)
    _tails: dict[str, Tail] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._tails = {name: Tail(self.folder / name) for name in _SIDE_FILES}

    @property
    def url(self) -> str:
        """Where the jobs are."""
        return f"sqlite:///{self.folder}/jobs.db"

    def start(self) -> None:
        """Start them all."""
        self._processes = [self._spawn(place) for place in range(self.workers + 1)]

    def _spawn(self, place: int) -> subprocess.Popen[bytes]:
        producer = [sys.executable, "-m", "tests.crash.producer"]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                work_command("tests.crash.app:manager") if place else producer,
                cwd=ROOT,
                env={
                    **os.environ,
                    "BATCHQ_URL": self.url,
                    "BATCHQ_CRASH_FOLDER": str(self.folder),
                    **self.surroundings,
                },
                stdin=self._line[0],
                stdout=log,
                stderr=log,
                process_group=0,
            )

    def await_work(self, place: int) -> None:
        """Return when this one has done something since it was started."""
        tail = self._tails["runs" if place else "acks"]
        deadline = time.monotonic() + _PATIENCE
        while self._processes[place].pid not in tail.read():
            self.check()
            if time.monotonic() > deadline:
                raise Broken(f"process {place} does no work")
            time.sleep(0.01)

    def check(self) -> None:
        """Raise if one has ended by itself."""
        for place, process in enumerate(self._processes):
            if (code := process.poll()) is not None:
                tail = (self.folder / "log").read_text(errors="replace")[-2_000:]
                raise Broken(f"process {place} ended by itself with {code}: {tail}")

    def kill(self, place: int) -> None:
        """Kill this one, and start another in its place."""
        self._processes[place].kill()
        self._processes[place].wait()
        self.replace(place)

    def process(self, place: int) -> subprocess.Popen[bytes]:
        """Return the one that is in this place now."""
        return self._processes[place]

    def replace(self, place: int) -> None:
        """Start another in the place of one that has ended."""
        self._processes[place] = self._spawn(place)

    @contextmanager
    def frozen(self, place: int | None, seconds: float) -> Iterator[None]:
        """Let this one stand still for the block, and at least so long [s]."""
        if place is None:
            yield
            return
        process, until = self._processes[place], time.monotonic() + seconds
        process.send_signal(signal.SIGSTOP)
        try:
            yield
            time.sleep(max(0.0, until - time.monotonic()))
        finally:
            process.send_signal(signal.SIGCONT)

    def finish(self) -> None:
        """End the producer, let the workers do what is left, and end them in order."""
        self._processes[0].kill()
        self._processes.pop(0).wait()
        with closing(open_store(self.url)) as store:
            fewest, deadline = _left(store.counts()), time.monotonic() + _PATIENCE
            while (left := _left(store.counts())) and time.monotonic() < deadline:
                if left < fewest:
                    fewest, deadline = left, time.monotonic() + _PATIENCE
                self.check()
                time.sleep(0.1)
        for process in self._processes:
            process.terminate()
        codes = [process.wait(20) for process in self._processes]
        self._processes.clear()
        if any(codes):
            raise Broken(f"workers that were told to stop ended with {codes}")

    def end(self) -> None:
        """Leave no process behind."""
        for process in self._processes:
            process.kill()
            process.wait()


def _left(counts: dict[str, dict[JobState, int]]) -> int:
    waiting = (JobState.PENDING, JobState.PROCESSING)
    return sum(counted.get(state, 0) for counted in counts.values() for state in waiting)


def gather(company: Company) -> Evidence:
    """Read what the processes wrote, and what the store says."""
    lines = {
        name: [line.split()[1:] for line in (company.folder / name).read_text().splitlines()]
        for name in _SIDE_FILES
    }
    rows = {row.id: row for row in _rows(company.url)}
    with closing(open_store(company.url)) as store:
        counts = store.counts()
    return Evidence(
        acks=[int(id_) for (id_,) in lines["acks"]],
        runs=[Run(int(id_), int(attempt)) for id_, attempt in lines["runs"]],
        settles=[Settle(int(id_), int(attempt), said) for id_, attempt, said in lines["settles"]],
        rows=rows,
        fates={id_: fate(json.loads(row.payload)) for id_, row in rows.items()},
        counts=counts,
    )


def _rows(url: str) -> Iterator[JobRecord]:
    with closing(open_store(url)) as store:
        after = 0
        while page := store.find(JobFilter(), after=after, limit=1_000):
            yield from page
            after = page[-1].id


def _integrity(company: Company) -> str:
    with closing(sqlite3.connect(company.folder / "jobs.db")) as connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


def _kill_them(company: Company, cycles: list[Cycle]) -> None:
    company.start()
    for number, cycle in enumerate(cycles, start=1):
        company.await_work(cycle.place)
        if cycle.frozen is not None:
            company.await_work(cycle.frozen)
        with company.frozen(cycle.frozen, 1.5 * LEASE):
            time.sleep(cycle.delay)
            company.kill(cycle.place)
        whom = f"worker {cycle.place}" if cycle.place else "producer"
        click.echo(f"\r{number}/{len(cycles)} killed: {whom:<12}", nl=False, err=True)
    click.echo("\nfinishing", err=True)
    company.finish()


def _report(cycles: list[Cycle], evidence: Evidence, integrity: str) -> dict[str, Any]:
    broken = violations(evidence)
    ends = Counter(row.reason or row.state.value for row in evidence.rows.values())
    verdicts = Counter(settle.verdict for settle in evidence.settles)
    return {
        "cycles": len(cycles),
        "kills": {
            "producer": sum(1 for cycle in cycles if not cycle.place),
            "workers": sum(1 for cycle in cycles if cycle.place),
        },
        "freezes": sum(1 for cycle in cycles if cycle.frozen is not None),
        "acknowledged": len(evidence.acks),
        "stored": len(evidence.rows),
        "ends": dict(sorted(ends.items())),
        "runs": len(evidence.runs),
        "ran_again": sum(1 for run in evidence.runs if run.attempt > 1),
        "told": dict(sorted(verdicts.items())),
        **{name: len(found) for name, found in broken.items()},
        "integrity": integrity,
        "violations": [line for found in broken.values() for line in found][:20],
        "ok": integrity == "ok" and not any(broken.values()),
    }


def main() -> int:
    """Run it; returns the exit code."""
    parser = parser_of("tests.crash.kill", __doc__)
    parser.add_argument("--cycles", type=positive, default=100, help="kills")
    parser.add_argument("--workers", type=positive, default=2, help="worker processes")
    parser.add_argument(
        "--seed", type=int, default=None, help="whom to kill when [default: a new one]"
    )
    asked = parser.parse_args()
    seed = random.randrange(1_000_000) if asked.seed is None else asked.seed
    cycles = plan(seed, asked.cycles, asked.workers)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="batchq-kill-") as folder:
        company = Company(Path(folder), asked.workers)
        try:
            _kill_them(company, cycles)
            report = _report(cycles, gather(company), _integrity(company))
        except Broken as error:
            report = {"ok": False, "violations": [str(error)]}
        finally:
            company.end()
    seconds = round(time.monotonic() - started, 1)
    click.echo(json.dumps({"seed": seed, "workers": asked.workers, "seconds": seconds, **report}))
    return 0 if report["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
