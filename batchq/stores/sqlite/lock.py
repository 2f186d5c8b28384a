"""One lock file per database: for write transactions, checkpoints, opening and closing.

SQLite before 3.51.3 can corrupt a file when two connections write and checkpoint at one
instant, so both happen under this lock. It is a file of its own, which stays: the
database's files must never be opened behind SQLite's back, and to delete a lock file is
to have two of them.

    take the turn ─▶ take the lock, give the turn back ─▶ work ─▶ release
         others wait for the turn; one waits for the lock

Rule 1: who has just worked may work on for a moment, and then it is others' turn: whoever
waits for the lock holds the turn, and gets the lock next. Without it a process that writes
all the time takes the lock again before others have looked.
Rule 2: the turn is a courtesy. Who can't get it for long (its holder may be stopped) does
without it; only the lock itself protects.
"""

from __future__ import annotations

import fcntl
import math
import os
import random
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from batchq.errors import StoreBusy
from batchq.stores.sqlite.trouble import os_trouble

__all__ = ["SUFFIX", "FileLock", "retry"]

SUFFIX: Final = "-lock"
# SQLite's own waiting grows longer with each try and starves all processes but one.
_PAUSE: Final = (0.0002, 0.002)
_PAUSE_OF_THE_NEXT: Final = (0.00005, 0.0002)  # only one process looks so often
_MOMENT: Final = 0.005  # to work on in, without waiting for others
_COURTESY: Final = 0.1  # the longest wait for the turn [s]
# A lock on the file's first byte that belongs to the open file, as flock's does, and has
# nothing to do with it. Systems without it have no turns.
_TURN: Final[int] = getattr(fcntl, "F_OFD_SETLK", -1)


def retry(
    attempt: Callable[[], bool],
    *,
    patience: float,
    path: str,
    pauses: Callable[[], tuple[float, float]] = lambda: _PAUSE,
    until: Callable[[], float] = lambda: math.inf,
) -> None:
    """Call `attempt` until it returns True, with short random pauses.

    Args:
        attempt: try once; False: others hold the lock.
        patience: give up after so long [s].
        path: what is locked, for the message.
        pauses: the shortest and the longest pause [s].
        until: give up at this time at the latest [s, `time.monotonic()`].

    Raises:
        StoreBusy: it never did.
    """
    if attempt():
        return
    began = time.monotonic()
    while time.monotonic() < min(began + patience, until()):
        time.sleep(random.uniform(*pauses()))  # noqa: S311 - a pause, no secret
        if attempt():
            return
    waited = min(patience, time.monotonic() - began)
    raise StoreBusy(f"{path} was locked by others for {waited:.3g} s; nothing was done")


class FileLock:
    """An exclusive lock between processes; taken again by its holder, it stays one.

    Args:
        path: the database it guards.

    Attributes:
        hurry: give up waiting at this time at the latest [s, `time.monotonic()`].

    Raises:
        StoreError: its file can't be made.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.hurry = math.inf
        self._my_turn = False
        self._may_work_until = 0.0
        self._polite_until = 0.0
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._descriptor = os.open(path + SUFFIX, flags, 0o600)
        except OSError as error:
            raise os_trouble(error, f"open {path + SUFFIX}") from error

    def take(self) -> bool:
        """Take the lock if nobody else has it, nor waits for it."""
        if self._descriptor < 0:
            return True  # closed: there is nothing left to guard
        if not self._is_my_turn():
            return False
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if self._my_turn:
            self._may_work_until = time.monotonic() + _MOMENT
            self._give_turn_back()
        return True

    def release(self) -> None:
        """Let others have it."""
        if self._descriptor >= 0:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def wait_for(self, attempt: Callable[[], bool], patience: float) -> None:
        """Call `attempt`, which takes the lock, until it does.

        Raises:
            StoreBusy: it never did, for `patience` [s].
        """
        self._polite_until = time.monotonic() + _COURTESY
        try:
            retry(
                attempt,
                patience=patience,
                path=self.path,
                pauses=self._pauses,
                until=lambda: self.hurry,
            )
        finally:
            self._give_turn_back()

    @contextmanager
    def held(self, patience: float) -> Iterator[None]:
        """Hold the lock for the block, waiting `patience` [s] for it."""
        self.wait_for(self.take, patience)
        try:
            yield
        finally:
            self.release()

    def close(self) -> None:
        """Let go of the file; idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _is_my_turn(self) -> bool:
        """Take the turn, where it is needed."""
        if self._my_turn or _TURN < 0:
            return True
        now = time.monotonic()
        if now < self._may_work_until or now > self._polite_until:
            return True
        with suppress(BlockingIOError):
            self._change_turn(fcntl.F_WRLCK)
            self._my_turn = True
        return self._my_turn

    def _give_turn_back(self) -> None:
        if self._my_turn:
            self._my_turn = False
            if self._descriptor >= 0:
                self._change_turn(fcntl.F_UNLCK)

    def _change_turn(self, kind: int) -> None:
        # struct flock: type, whence, start, length and a process id that must be 0.
        fcntl.fcntl(self._descriptor, _TURN, struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 1, 0))

    def _pauses(self) -> tuple[float, float]:
        return _PAUSE_OF_THE_NEXT if self._my_turn else _PAUSE
