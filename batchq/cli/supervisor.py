"""Keeps worker processes running: starts them, stops them, replaces the crashed.

    running ──exit 0──> ended            running ──crash──> waiting ──back-off──> running
       └──── any exit after a signal ──> ended                 └── a signal ──> ended

Rule 1: children stand in process groups of their own: what is pressed in the terminal comes
here alone. The first signal ends the standard input that all children share, and they stop in
order, as they do when this process dies. The second one kills them.
Rule 2: nothing is polled. Ends of children and signals arrive through one file descriptor.
"""

from __future__ import annotations

import math
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import attrs
import click

__all__ = ["Supervisor", "restart_delay"]

# SIGHUP: the terminal is gone, and the work may finish, however often that is said.
_STOPS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_COPIES: Final = 0.02  # as in batchq/signals.py: so soon after the first it is the same one [s]
_USAGE: Final = 2
# A worker that ran so long was no failed start: its next crash begins the back-off anew.
_STEADY: Final = 10.0


def restart_delay(crashes: int) -> float:
    """Return how long to wait after so many crashes in a row [s]: 0.5, 1, 2, ... 30."""
    return float(min(30.0, 0.5 * 2 ** min(crashes - 1, 10)))


@attrs.define(eq=False)
class _Place:
    """A place that one worker process fills at a time."""

    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    crashes: int = 0
    restart_at: float | None = None

    @property
    def ended(self) -> bool:
        return self.process is None and self.restart_at is None


@attrs.define(eq=False)
class Supervisor:
    """Runs `count` processes of one command until all have ended.

    Attributes:
        command: what each process runs, until its standard input ends.
        count: how many [processes].
        clock: any steady clock [s].
        say: told one line per event.
    """

    command: Sequence[str]
    count: int
    clock: Callable[[], float] = time.monotonic
    say: Callable[[str], object] = attrs.field(
        default=lambda line: click.echo(f"batchq: {line}", err=True)
    )
    _places: list[_Place] = attrs.field(factory=list, init=False)
    # Two ends: what the children read is over when ours is closed.
    _line: tuple[socket.socket, socket.socket] = attrs.field(factory=socket.socketpair, init=False)
    _stopping: bool = attrs.field(default=False, init=False)
    _signalled_at: float = attrs.field(default=math.inf, init=False)
    _killed: bool = attrs.field(default=False, init=False)
    _code: int = attrs.field(default=0, init=False)

    def run(self) -> int:
        """Return once all have ended.

        Returns:
            0: each ended well, or as it was told to; 2: the command cannot work; 1: else.
        """
        with _signals() as wait, self._line[0], self._line[1]:
            self._places = [_Place() for _ in range(self.count)]
            for place in self._places:
                self._start(place)
            while not all(place.ended for place in self._places):
                self._heed(wait(self._timeout()))
                for place in self._places:
                    self._look_after(place)
        return self._code

    def _start(self, place: _Place) -> None:
        place.restart_at = None
        place.started_at = self.clock()
        place.process = subprocess.Popen(  # noqa: S603 - our own command
            self.command, stdin=self._line[0].fileno(), process_group=0
        )

    def _heed(self, numbers: Sequence[int]) -> None:
        for number in (number for number in numbers if number in _STOPS):
            now = self.clock()
            if number != signal.SIGHUP and now >= self._signalled_at + _COPIES:
                self._kill()
            self._signalled_at = min(self._signalled_at, now)
            self._stop()

    def _stop(self) -> None:
        self._stopping = True
        self._line[1].close()
        for place in self._places:
            place.restart_at = None

    def _kill(self) -> None:
        self._killed = True
        for place in self._places:
            if place.process is not None:
                place.process.kill()

    def _timeout(self) -> float | None:
        due = [place.restart_at for place in self._places if place.restart_at is not None]
        return max(0.0, min(due) - self.clock()) if due else None

    def _look_after(self, place: _Place) -> None:
        if place.restart_at is not None and place.restart_at <= self.clock():
            self._start(place)
        if place.process is None or (code := place.process.poll()) is None:
            return
        pid, place.process = place.process.pid, None
        lasted = self.clock() - place.started_at
        if self._stopping:
            # One that was signalled itself, and was still importing, dies of it, and that is well.
            asked = {0, -signal.SIGTERM, -signal.SIGINT}
            if code not in asked and not (self._killed and code == -signal.SIGKILL):
                self._code = self._code or 1
        elif code == _USAGE and lasted < _STEADY:
            self._code = _USAGE  # it has said why, and the next would say the same
            self._stop()
        elif code:
            place.crashes = 1 if lasted >= _STEADY else place.crashes + 1
            delay = restart_delay(place.crashes)
            place.restart_at = self.clock() + delay
            self.say(f"worker {pid} {_how(code)}; another starts in {delay:g} s")


def _how(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"


@contextmanager
def _signals() -> Iterator[Callable[[float | None], list[int]]]:
    """Let signals arrive as numbers: `wait(timeout)` returns those that came."""
    reader, writer = socket.socketpair()
    reader.settimeout(0)
    writer.settimeout(0)
    # nohup and `&` have some ignored, and they stay so.
    heard = [number for number in _STOPS if signal.getsignal(number) is not signal.SIG_IGN]
    watched = [*heard, signal.SIGCHLD]
    before = [signal.signal(number, lambda *_: None) for number in watched]
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)

    def wait(timeout: float | None) -> list[int]:
        select.select([reader], [], [], timeout)
        try:
            return list(reader.recv(4096))
        except BlockingIOError:
            return []

    try:
        yield wait
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in zip(watched, before, strict=True):
            signal.signal(number, handler)
        reader.close()
        writer.close()
