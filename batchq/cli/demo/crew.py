"""The demo's worker processes: started, one of them killed, another started, stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from typing import IO, Final

import attrs

from batchq.cli.demo.server import Connection, PostOffice
from batchq.cli.work import work_command

__all__ = ["Crew", "Executioner", "WorkersFailed"]

_TARGET: Final = "batchq.cli.demo.worker:manager"
_MAX_FAILURES: Final = 3
_TAIL: Final = 2_000
_STOP: Final = 10.0


class WorkersFailed(Exception):
    """Workers end by themselves again and again; says what they said last."""


@attrs.frozen(eq=False)
class _Worker:
    process: subprocess.Popen[bytes]
    log: IO[bytes]

    def last_words(self) -> str:
        """Return the end of what it wrote."""
        self.log.seek(0)
        return self.log.read()[-_TAIL:].decode(errors="replace").strip()


@attrs.define(eq=False)
class Crew:
    """Some worker processes; those that end unasked are replaced.

    Attributes:
        environment: what they find there, on top of our own.
    """

    environment: Mapping[str, str]
    # Two ends: what the workers read is over when this process has ended, and they stop.
    _line: tuple[int, int] = attrs.field(factory=os.pipe, init=False)
    _workers: dict[int, _Worker] = attrs.field(factory=dict, init=False)
    _failures: int = attrs.field(default=0, init=False)

    @property
    def pids(self) -> Iterable[int]:
        """The process ids of those that run."""
        return self._workers.keys()

    def start(self) -> int:
        """Start one more, and return its process id."""
        # What they write would tear the progress display; it is shown if they fail.
        log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        process = subprocess.Popen(  # noqa: S603 - our own command
            work_command(_TARGET),
            env={**os.environ, **self.environment},
            stdin=self._line[0],
            stdout=log,
            stderr=log,
            process_group=0,  # a Ctrl-C is for the demo, which then stops them in order
        )
        self._workers[process.pid] = _Worker(process, log)
        return process.pid

    def replace_the_dead(self) -> list[tuple[int, int]]:
        """Start one for each that has ended; return pairs of process ids, old and new.

        Raises:
            WorkersFailed: they keep ending, and nobody killed them.
        """
        pairs = []
        for pid, worker in list(self._workers.items()):
            code = worker.process.poll()
            if code is None:
                continue
            del self._workers[pid]
            if code != -signal.SIGKILL:
                self._failures += 1
                if self._failures >= _MAX_FAILURES:
                    raise WorkersFailed(worker.last_words() or f"exit code {code}")
            worker.log.close()
            pairs.append((pid, self.start()))
        return pairs

    def stop(self) -> None:
        """Let all finish what they hold, and wait until they have ended."""
        workers = list(self._workers.values())
        self._workers.clear()
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            try:
                worker.process.wait(_STOP)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            worker.log.close()


@attrs.define(eq=False)
class Executioner:
    """Kills one worker in the middle of a batch, once half of the mail has arrived.

    It is called by the SMTP server between taking a message over and saying so: what the
    worker has sent by then, nobody has written down yet.

    Attributes:
        crew: whose workers may be killed.
        office: knows how much has arrived.
        expected: recipients that will be served in the end [count].
        victim: the connection of the worker that was killed; None until then.
        pid: its process id.
    """

    crew: Crew
    office: PostOffice
    expected: int
    victim: Connection | None = attrs.field(default=None, init=False)
    pid: int | None = attrs.field(default=None, init=False)

    def __call__(self, connection: Connection) -> None:
        """Look whether it is time, and do it."""
        arrived = len(self.office.delivered)
        if self.victim is not None or 2 * arrived < self.expected:
            return
        # Well inside a batch; later on, when batches may be small, inside any.
        late = 4 * arrived >= 3 * self.expected
        if len(connection.accepted) < (1 if late else min(40, 1 + self.expected // 10)):
            return
        pid = int(connection.client.removeprefix("worker-"))
        if pid in self.crew.pids:
            self.victim, self.pid = connection, pid
            os.kill(pid, signal.SIGKILL)
