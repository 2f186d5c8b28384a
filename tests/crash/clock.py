"""The wall clock is stepped by hours, both ways, under workers: leases and delays do not care.

    python -m tests.crash.clock [--steps 60] [--workers 2] [--short]

The shim (shim.c) shows the producer and the workers another time of day and leaves the steady
clocks alone. While it is stepped by -2 h, +1 h, +30 d and back:

    calm    nobody is killed: no lease may be lost, no job may run twice
    kills   at each step a worker is killed: its jobs may be claimed again when the lease is
            over (when they are depends on what else waits)
    both    a job with a delay starts after it, and soon after it; nothing has ended before it
            began

Prints one line of JSON; exits with 1 if a promise was broken.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import attrs
import click

from batchq.core.job import Group, NewJob
from batchq.core.lifecycle import JobState
from batchq.core.record import JobFilter
from batchq.stores.base import Store
from batchq.stores.url import open_store
from tests.command import parser_of, positive
from tests.crash.evidence import Evidence, violations
from tests.crash.fate import MAX_ATTEMPTS
from tests.crash.kill import Broken, Company, gather
from tests.crash.shim import Orders, build, environment, why_not

_HOUR: Final = 3600.0
_STEPS: Final = (-2 * _HOUR, 1 * _HOUR, 30 * 24 * _HOUR, 0.0, -30 * 24 * _HOUR)
_LEASE: Final = 3.0
_DELAY: Final = 1.0
_LATE: Final = 3.0  # a busy machine's part
_PAUSE: Final = 0.5  # between two steps


@attrs.define
class Walk:
    """Steps of the clock, and what was seen meanwhile.

    Attributes:
        company: the producer and the workers.
        orders: steps the clock.
        store: the same as theirs, under the true time of day.
        draw: whom to kill.
        delayed: jobs that were stored with a delay.
        back: how long the dead still held jobs [s].
    """

    company: Company
    orders: Orders
    store: Store
    draw: random.Random
    delayed: list[int] = attrs.field(factory=list)
    back: list[float] = attrs.field(factory=list)

    def take(self, step: float, *, kill: bool) -> None:
        """Step the clock, with or without a death."""
        self.company.await_work(0)
        place = self.draw.randint(1, self.company.workers)
        self.company.await_work(place)
        job = NewJob("one", "one", b"1", delay=_DELAY, max_attempts=MAX_ATTEMPTS)
        self.delayed.append(self.store.commit(Group(enqueue=[job])).enqueue[0].id)
        self.orders.step_wall_clock(step)
        time.sleep(_PAUSE)
        self.company.check()
        if kill:
            pid = self.company.process(place).pid
            self.company.kill(place)
            self.back.append(self._until_back(pid))

    def _until_back(self, pid: int) -> float:
        began = time.monotonic()
        while self._held_by(pid):
            if time.monotonic() - began > 60:
                raise Broken(f"jobs of process {pid}, which was killed, do not come back")
            time.sleep(0.02)
        return time.monotonic() - began

    def _held_by(self, pid: int) -> bool:
        rows = self.store.find(JobFilter(status=JobState.PROCESSING.value), limit=10_000)
        now = self.store.now()
        return any(f"-{pid}-" in (row.worker or "") and now < (row.due_at or 0) for row in rows)


def wrong_delays(walk: Walk, evidence: Evidence) -> list[str]:
    """Return the delayed jobs that began too early or too late, and what ran backwards."""
    found = []
    for id_ in walk.delayed:
        row = evidence.rows[id_]
        waited = (row.started_at or 0.0) - row.enqueued_at
        if row.attempt == 1 and not _DELAY <= waited < _DELAY + _LEASE + 1 + _LATE:
            found.append(f"job {id_} was to wait {_DELAY} s, and waited {waited:.2f} s")
    for row in evidence.rows.values():
        started, finished = row.started_at, row.finished_at
        backwards = started is not None and finished is not None and started > finished
        if backwards or (started is not None and started < row.enqueued_at):
            found.append(f"job {row.id} ended before it began")
    return found


def walked(folder: Path, *, library: Path, steps: int, workers: int, kill: bool, seed: int) -> Walk:
    """Let a company work while the clock is stepped, and finish; returns what was seen."""
    orders = Orders(folder.with_suffix(".orders"))
    surroundings = {
        **environment(library, folder / "unseen", orders=orders.path),
        "BATCHQ_CRASH_LEASE": str(_LEASE),
        "BATCHQ_CRASH_SLOW": "1",
        "BATCHQ_CRASH_SECONDS": str(1.5 * _LEASE),
        "BATCHQ_CRASH_PACE": "1",
    }
    company = Company(folder, workers, surroundings)
    try:
        company.start()
        with closing(open_store(company.url)) as store:
            walk = Walk(company, orders, store, random.Random(seed))
            for number in range(steps):
                walk.take(_STEPS[number % len(_STEPS)], kill=kill)
        company.finish()
    finally:
        company.end()
    return walk


def report_on(walk: Walk, *, kill: bool) -> dict[str, Any]:
    """Compare with what was promised."""
    evidence = gather(walk.company)
    evidence = attrs.evolve(evidence, acks=[*evidence.acks, *walk.delayed])
    broken = {**violations(evidence), "wrong_delays": wrong_delays(walk, evidence)}
    lost = sum(1 for settle in evidence.settles if settle.verdict == "stale")
    again = sum(1 for row in evidence.rows.values() if row.crashes or row.reason == "crashed")
    if not kill and lost + again:
        broken["lease_lost"] = [f"{lost} leases were lost, {again} jobs came back"]
    if kill and max(walk.back) > _LEASE + _LATE:
        broken["stranded"] = [f"leases of the dead ended after {max(walk.back):.1f} s"]
    return {
        "steps": len(walk.delayed),
        "acknowledged": len(evidence.acks),
        "stored": len(evidence.rows),
        "longest_lease_of_the_dead_s": round(max(walk.back, default=0.0), 2),
        **{name: len(found) for name, found in broken.items()},
        "violations": [line for found in broken.values() for line in found][:10],
    }


def main() -> int:
    """Run it; returns the exit code."""
    parser = parser_of("tests.crash.clock", __doc__)
    parser.add_argument("--steps", type=positive, default=60, help="of the clock, in each part")
    parser.add_argument("--workers", type=positive, default=2, help="worker processes")
    parser.add_argument("--seed", type=int, default=1, help="whom to kill")
    parser.add_argument("--short", action="store_true", help="5 steps, so each once")
    asked = parser.parse_args()
    if reason := why_not():
        click.echo(json.dumps({"ok": True, "skipped": reason}))
        return 0
    steps = len(_STEPS) if asked.short else asked.steps
    started, found = time.monotonic(), {}
    with tempfile.TemporaryDirectory(prefix="batchq-clock-") as name:
        library = build(Path(name))
        for part, kill in {"calm": False, "kills": True}.items():
            (folder := Path(name) / part).mkdir()
            try:
                walk = walked(
                    folder, library=library, steps=steps, workers=asked.workers, kill=kill,
                    seed=asked.seed,
                )  # fmt: skip
                found[part] = report_on(walk, kill=kill)
            except Broken as error:
                found[part] = {"violations": [str(error)]}
            click.echo(f"{part}: {found[part]}", err=True)
    violations = [line for each in found.values() for line in each["violations"]]
    report = {"seconds": round(time.monotonic() - started, 1), **found, "ok": not violations}
    click.echo(json.dumps(report))
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
