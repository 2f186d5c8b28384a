"""One lock file per database: for write transactions, checkpoints, opening and closing.

SQLite before 3.51.3 can corrupt a file when two connections write and checkpoint at one
instant, so both happen under this lock. It is a file of its own, which stays: the
database's files must never be opened behind SQLite's back, and to delete a lock file is
to have two of them.
"""

from __future__ import annotations

import fcntl
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from batchq.errors import StoreBusy
from batchq.stores.sqlite.trouble import os_trouble

__all__ = ["SUFFIX", "FileLock", "retry"]

SUFFIX: Final = "-lock"
# SQLite's own waiting grows longer with each try and starves all processes but one.
_SHORTEST: Final = 0.0002
_LONGEST: Final = 0.002


def retry(attempt: Callable[[], bool], *, patience: float, path: str) -> None:
    """Call `attempt` until it returns True, with short random pauses.

    Args:
        attempt: try once; False: others hold the lock.
        patience: give up after so long [s].
        path: what is locked, for the message.

    Raises:
        StoreBusy: it never did.
    """
    if attempt():
        return
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        time.sleep(random.uniform(_SHORTEST, _LONGEST))  # noqa: S311 - a pause, no secret
        if attempt():
            return
    raise StoreBusy(f"{path} was locked by others for {patience:g} s; nothing was done")


class FileLock:
    """An exclusive lock between processes; taken again by its holder, it stays one.

    Args:
        path: the database it guards.

    Raises:
        StoreError: its file can't be made.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._descriptor = os.open(path + SUFFIX, flags, 0o600)
        except OSError as error:
            raise os_trouble(error, f"open {path + SUFFIX}") from error

    def take(self) -> bool:
        """Take the lock if nobody else has it."""
        if self._descriptor < 0:
            return True  # closed: there is nothing left to guard
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Let others have it."""
        if self._descriptor >= 0:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    @contextmanager
    def held(self, patience: float) -> Iterator[None]:
        """Hold the lock for the block, waiting `patience` [s] for it."""
        retry(self.take, patience=patience, path=self.path)
        try:
            yield
        finally:
            self.release()

    def close(self) -> None:
        """Let go of the file; idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
