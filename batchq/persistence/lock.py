"""Who owns a snapshot: one live queue per key, and the system forgets the dead.

Rule 1: a lock file stays. To delete one is to have two of them: an owner's and a newcomer's.
Rule 2: an owner that ends in the middle of a save gives its key up when that is written, or
the next owner's snapshot could be overwritten by it.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from batchq.core.modes import anybody_may_replace
from batchq.errors import StorageInUse

__all__ = ["Owners"]


class _Lock:
    """Held from when it is made until `release`, or until this process dies."""

    def __init__(self, path: Path, key: str) -> None:
        if anybody_may_replace(path.parent.stat().st_mode):
            raise PermissionError(
                f"anybody may write to {path.parent}, and so put another file in the place of"
                f" yours: chmod o-w {path.parent}, or use another folder"
            )
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(path, flags, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise StorageInUse(
                f"storage_key {key!r} has another live owner ({path}): end it first, or give"
                " each queue a storage_key of its own"
            ) from None
        _HELD.add(self)

    def release(self) -> None:
        """Let others have it; idempotent."""
        _HELD.discard(self)
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


_HELD: Final[set[_Lock]] = set()


def _release_all() -> None:
    for lock in list(_HELD):
        lock.release()


# A forked child shares the parent's open file, and would keep the lock of one that died.
os.register_at_fork(after_in_child=_release_all)


@attrs.define(eq=False)
class Owners:
    """The keys that queues of this process own in one storage; for any thread."""

    _locks: dict[str, _Lock] = attrs.field(factory=dict)
    _given_up: set[str] = attrs.field(factory=set)
    _state: threading.Lock = attrs.field(factory=threading.Lock)
    _saving: threading.Lock = attrs.field(factory=threading.Lock)
    _saves: int = 0

    def acquire(self, key: str, path: Path) -> None:
        """Own `key`, whose lock file is `path`.

        Raises:
            StorageInUse: it has another live owner.
            OSError: the file can't be made.
        """
        lock = _Lock(path, key)
        with self._state:
            self._locks[key] = lock

    def release(self, key: str) -> None:
        """Give `key` up, once nothing is being saved; never waits, idempotent."""
        with self._state:
            if key in self._locks:
                self._given_up.add(key)
            self._let_go()

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Save in this block: one at a time, and no key is given up meanwhile."""
        with self._state:
            self._saves += 1
        try:
            with self._saving:
                yield
        finally:
            with self._state:
                self._saves -= 1
                self._let_go()

    def _let_go(self) -> None:
        if self._saves:
            return
        while self._given_up:
            self._locks.pop(self._given_up.pop()).release()
