"""A disk that is really full, under a manager at work: refused loudly, and on by itself.

    python -m tests.crash.full [--rounds 5]

On a small disk of its own (a tmpfs in a mount namespace, so Linux, and a system that lets its
users make one) a manager stores jobs and works. In each round a file fills the disk up to the
last byte, while jobs run and wait:

    * `enqueue` raises StoreFull, and no other error comes out anywhere
    * what runs then is not lost: its results are written down when there is space
    * when the file is gone all goes on, with the same manager and without a restart

At the end every acknowledged job has run and is completed, and no other job is there.

Prints one line of JSON; exits with 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import attrs
import click
import trio

from batchq import Job, JobHooks, JobState, QueueManager
from batchq.core.record import JobFilter
from batchq.errors import StoreFull
from tests.command import parser_of, positive

ROOT: Final = Path(__file__).parents[2]
_SIZE: Final = "4m"
_PAYLOAD: Final = "x" * 2_000
_FULL_FOR: Final = 1.5  # [s]
_PATIENCE: Final = 30.0


def why_not() -> str | None:
    """Say why there can't be a small disk here; None: there can."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return "mount namespaces are Linux's, and need `unshare`"
    tried = subprocess.run(_command("true", "/mnt"), capture_output=True, check=False)
    return None if tried.returncode == 0 else "this system lets its users mount nothing"


def _command(command: str, where: str) -> list[str]:
    mount = f"mount -t tmpfs -o size={_SIZE} tmpfs {shlex.quote(where)} && exec {command}"
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", mount]


def fill(path: Path) -> None:
    """Take all the space that is left."""
    with path.open("wb", buffering=0) as file:
        for size in (2**16, 2**12, 1):
            try:
                while file.write(b"x" * size) == size:
                    pass
            except OSError:  # no space
                continue


@attrs.define
class Scene:
    """A manager on a small disk.

    Attributes:
        folder: the disk.
        acked: numbers of the jobs that were stored.
        ran: how often each was run.
        told: the errors that hooks were told.
        refused: how often a job was refused.
        broken: promises that did not hold.
    """

    folder: Path
    acked: list[int] = attrs.field(factory=list)
    ran: Counter[int] = attrs.field(factory=Counter)
    told: Counter[str] = attrs.field(factory=Counter)
    refused: int = 0
    broken: list[str] = attrs.field(factory=list)
    _number: int = 0

    def _hear(self, error: Exception) -> None:
        self.told[type(error).__name__] += 1

    async def play(self, rounds: int) -> None:
        """Fill the disk, and free it, while jobs come and go."""
        hooks = JobHooks(on_store_error=self._hear, on_error=self._hear)
        url = f"sqlite:///{self.folder}/jobs.db"
        manager = QueueManager(url, poll_interval=0.1, lease=20, hooks=hooks)

        @manager.batch_handler(batch_size=10, flush_interval=0.05)
        async def work(jobs: list[Job[tuple[int, str]]]) -> None:
            await trio.sleep(0.2)
            self.ran.update(job.payload[0] for job in jobs)

        async def store() -> bool:
            self._number += 1
            try:
                await work.enqueue((self._number, _PAYLOAD))
            except StoreFull:
                self.refused += 1
                return False
            self.acked.append(self._number)
            return True

        async with manager.working():
            for _ in range(rounds):
                for _ in range(15):
                    await store()
                await self._be_full(store)
            await self._all_have_run()
        self._judge(manager)
        manager.close()

    async def _be_full(self, store: Callable[[], Awaitable[bool]]) -> None:
        filler = self.folder / "filler"
        fill(filler)
        refused = self.refused
        with trio.move_on_after(_FULL_FOR):
            while True:
                await store()
                await trio.sleep(0.02)
        if self.refused == refused:
            self.broken.append("the disk was full, and no job was refused")
        filler.unlink()
        with trio.move_on_after(_PATIENCE):
            while not await store():  # noqa: ASYNC110 - no event tells of space
                await trio.sleep(0.02)
            return
        self.broken.append("there is space again, and jobs are still refused")

    async def _all_have_run(self) -> None:
        with trio.move_on_after(_PATIENCE):
            while set(self.acked) - self.ran.keys():  # noqa: ASYNC110 - as above
                await trio.sleep(0.05)
            return
        self.broken.append("jobs did not run")

    def _judge(self, manager: QueueManager) -> None:
        store = manager._ledgers.get().store
        rows = store.find(JobFilter(), limit=100_000)
        numbers = [json.loads(row.payload)[0] for row in rows]
        if sorted(numbers) != self.acked:
            self.broken.append(f"{len(self.acked)} jobs were acknowledged, {len(rows)} are there")
        self.broken += [
            f"job {row.id} is {row.state.value}"
            for row in rows
            if row.state is not JobState.COMPLETED
        ]
        if self.told.keys() - {"StoreFull"}:
            self.broken.append(f"hooks were told of {dict(self.told)}")


def be(folder: Path, rounds: int) -> int:
    """Be the process on the small disk."""
    scene, started = Scene(folder), time.monotonic()
    trio.run(scene.play, rounds)
    report = {
        "rounds": rounds,
        "seconds": round(time.monotonic() - started, 1),
        "acknowledged": len(scene.acked),
        "refused": scene.refused,
        "ran_again": sum(1 for count in scene.ran.values() if count > 1),
        "told": dict(scene.told),
        "violations": scene.broken[:10],
        "ok": not scene.broken,
    }
    click.echo(json.dumps(report))
    return 0 if report["ok"] else 1


def main() -> int:
    """Run it; returns the exit code."""
    parser = parser_of("tests.crash.full", __doc__)
    parser.add_argument("--rounds", type=positive, default=5, help="how often the disk fills up")
    parser.add_argument("--short", action="store_true", help="one round")
    parser.add_argument("--be", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    rounds = 1 if asked.short else asked.rounds
    if asked.be is not None:
        return be(asked.be, rounds)
    if reason := why_not():
        click.echo(json.dumps({"ok": True, "skipped": reason}))
        return 0
    with tempfile.TemporaryDirectory(prefix="batchq-full-") as folder:
        python = [sys.executable, "-m", "tests.crash.full", "--be", folder]
        command = _command(shlex.join([*python, "--rounds", str(rounds)]), folder)
        return subprocess.run(command, cwd=ROOT, env=os.environ, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
