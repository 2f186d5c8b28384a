"""How soon a worker notices what another process stores, and what it costs while idle.

    python -m tests.crash.wake [--jobs 300] [--idle 10] [--ticks]

One process stores jobs, one at a time, at random moments; another works. Prints one line of
JSON, and exits with 1 if the 99th percentile from the call of `enqueue` to the start of the
handler is 20 ms or more, or if the idle worker uses 1 % of a core or more. `stored` is the call
of `enqueue` alone, which ends when the disk has the job. `--ticks` takes the way of systems that
tell nothing of writes to files.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from batchq import QueueManager, wake
from tests.command import parser_of, positive, seconds

__all__ = ["measure"]

MOST_P99: Final = 0.020  # [s]
MOST_CPU: Final = 0.01  # of one core
_POLL: Final = 5.0  # so seldom that a job found by it alone is far beyond the limit [s]


def _manager(folder: Path) -> tuple[QueueManager, Any]:
    manager = QueueManager(f"sqlite:///{folder}/jobs.db", poll_interval=_POLL)

    @manager.handler
    async def note(sent: float) -> None:
        took = time.monotonic() - sent
        with (folder / "took").open("a") as out:
            out.write(f"{took}\n")

    return manager, note


def _none(*_: object) -> None:
    raise OSError("there is no inotify here")


def _work(folder: Path, *, ticks: bool) -> None:
    """Work until SIGTERM; at SIGUSR1 write down the time of the processor so far."""
    if ticks:
        wake._Inotify = _none  # type: ignore[assignment,misc]
    manager, _ = _manager(folder)

    def tell(*_: object) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        (folder / "cpu.new").write_text(str(used.ru_utime + used.ru_stime))
        (folder / "cpu.new").rename(folder / "cpu")

    signal.signal(signal.SIGUSR1, tell)
    manager.run(on_start=lambda _: (folder / "ready").touch())


def _cpu(worker: subprocess.Popen[bytes], folder: Path) -> float:
    """Ask a worker for the time that it has used [s]."""
    (folder / "cpu").unlink(missing_ok=True)
    worker.send_signal(signal.SIGUSR1)
    _wait_for(folder / "cpu", worker)
    return float((folder / "cpu").read_text())


def _wait_for(path: Path, worker: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + 30
    while not path.exists():
        if time.monotonic() > ends or worker.poll() is not None:
            raise RuntimeError(f"the worker has not made {path.name}; it ended: {worker.poll()}")
        time.sleep(0.005)


def measure(*, jobs: int, idle: float, ticks: bool) -> dict[str, Any]:
    """Measure, and return what the line says."""
    draw = random.Random(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-m", "tests.crash.wake", "--work", name]
        worker = subprocess.Popen([*command, *["--ticks"] * ticks])
        try:
            _wait_for(folder / "ready", worker)
            manager, note = _manager(folder)
            stored = list[float]()
            for _ in range(jobs):
                time.sleep(draw.uniform(0.01, 0.05))
                began = time.monotonic()
                note.enqueue_sync(began)
                stored.append(time.monotonic() - began)
            note.enqueue_sync(time.monotonic()).result_sync(30)
            time.sleep(0.5)
            before = _cpu(worker, folder)
            time.sleep(idle)
            cpu = (_cpu(worker, folder) - before) / idle
            manager.close()
        finally:
            worker.terminate()
            worker.wait(30)
        took = sorted(float(line) for line in (folder / "took").read_text().splitlines())
    p99 = statistics.quantiles(took, n=100)[98]
    stored_p99 = statistics.quantiles(stored, n=100)[98]
    return {
        "jobs": len(took),
        "way": "ticks" if ticks or sys.platform != "linux" else "inotify",
        "p50_ms": round(statistics.median(took) * 1_000, 2),
        "p99_ms": round(p99 * 1_000, 2),
        "max_ms": round(took[-1] * 1_000, 2),
        "stored_p99_ms": round(stored_p99 * 1_000, 2),
        "idle_cpu_percent": round(cpu * 100, 3),
        "load": round(os.getloadavg()[0], 1),
        "violations": int(p99 >= MOST_P99) + int(cpu >= MOST_CPU),
    }


def main() -> int:
    """Do what the command line says; return the exit code."""
    parser = parser_of("tests.crash.wake", __doc__)
    parser.add_argument("--jobs", type=positive, default=300, help="stored one at a time")
    parser.add_argument("--idle", type=seconds, default=10.0, help="how long the worker idles [s]")
    parser.add_argument("--ticks", action="store_true", help="look as where there is no inotify")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        _work(Path(asked.work), ticks=asked.ticks)
        return 0
    found = measure(jobs=asked.jobs, idle=asked.idle, ticks=asked.ticks)
    print(json.dumps(found))  # noqa: T201 - its one line
    return int(found["violations"] > 0)


if __name__ == "__main__":
    sys.exit(main())
