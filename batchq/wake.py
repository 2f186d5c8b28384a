"""Tells when another process has written to a store, from a thread that only watches.

    Linux:      inotify: a file was written ─▶ is it committed? ask, for 50 ms ─┐
    elsewhere:  ask every 15 ms ────────────────────────────────────────────────┴▶ tell

Rule 1: it is a hint, and only sets others to look. What it misses, a poll finds.
Rule 2: the files are watched by name and never opened: to close one would drop the locks
that SQLite has on it.
Rule 3: what this process writes itself is no news.
"""

from __future__ import annotations

import ctypes
import logging
import math
import os
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import Final, Protocol

import attrs

from batchq.errors import StoreError
from batchq.ledger import Ledger

__all__ = ["Wake"]

logger = logging.getLogger("batchq")

_EVERY: Final = 0.015  # between two looks where nothing tells of writes [s]
_APART: Final = 0.002  # two looks after signs are so far apart at least [s]
_LATE: Final = 0.016  # where all signs are this process's own
_AFTER_TROUBLE: Final = 1.0

_MODIFY: Final = 0x2
_ONCE: Final = 0x8000_0000
_COMES: Final = 0x80 | 0x100  # moved there, created
_CLOEXEC, _NONBLOCK = os.O_CLOEXEC, os.O_NONBLOCK
_EVENT: Final = struct.Struct("iIII")


class _Sign(Enum):
    """What came of waiting."""

    WRITTEN = "written"  # somebody may have
    NOTHING = "nothing"
    STOPPED = "stopped"


class _Signs(Protocol):
    """What shows that somebody may have written.

    Attributes:
        looks: when to look again after a sign, each so long after the last one [s].
    """

    looks: Sequence[float]

    def arm(self) -> None:
        """Let the next sign be seen; the last one has ended that."""

    def wait(self, seconds: float | None) -> _Sign:
        """Wait for a sign, for so long at the most [s]; None is no limit."""


@attrs.define(eq=False)
class _Pace:
    """When to look next.

    Where this process commits itself, signs are mostly its own: it looks less often then,
    for it claims all the time.

    Attributes:
        looks: when to look after a sign of others, each so long after the last one [s].
        ledger: knows of own commits.
        rest: to wait before anything else [s].
    """

    looks: Sequence[float]
    ledger: Ledger
    rest: float = 0.0
    _left: list[float] = attrs.field(factory=list, init=False)
    _commits: int = attrs.field(default=0, init=False)

    @property
    def pause(self) -> float | None:
        """How long to wait for a sign until the next look [s]; None: until one comes."""
        return self._left[0] if self._left else None

    def took(self, sign: _Sign, *, found: bool) -> None:
        """Note what came of waiting, and of the look after it."""
        commits, self._commits = self._commits, self.ledger.commits
        if sign is _Sign.NOTHING:
            self.rest, self._left = 0.0, self._left[1:]
        elif commits == self._commits:
            self.rest, self._left = _APART, [*self.looks]
        else:
            self.rest, self._left = min(2 * self.rest or _APART, _LATE), [*self.looks][-1:]
        if found:
            self._left = []


@attrs.define(eq=False)
class Wake:
    """Watches one store for what other processes write.

    Attributes:
        ledger: the road to the store.
        tell: called, in a thread of its own, when somebody has written.
    """

    ledger: Ledger
    tell: Callable[[], object]
    _stop: threading.Event = attrs.field(factory=threading.Event, init=False)
    # What is sent into one end lets the thread at the other one stop.
    _ends: tuple[socket.socket, socket.socket] = attrs.field(factory=socket.socketpair, init=False)

    def start(self) -> None:
        """Watch from now on."""
        threading.Thread(target=self._run, name="batchq-wake", daemon=True).start()

    def stop(self) -> None:
        """Watch no more; returns at once."""
        self._stop.set()
        self._ends[0].close()

    def _run(self) -> None:
        paths = self.ledger.store.info().watch
        with self._ends[1] as stopped, _signs(paths, self._stop, stopped.fileno()) as signs:
            pace, sign = _Pace(signs.looks, self.ledger), _Sign.WRITTEN  # before it watched
            while sign is not _Sign.STOPPED and not self._stop.wait(pace.rest):
                signs.arm()
                pace.took(sign, found=self._look())
                sign = signs.wait(pace.pause)

    def _look(self) -> bool:
        """Look whether what was written is there, and tell of it; False: not yet."""
        try:
            found = self.ledger.changed()
        except StoreError as error:
            logger.debug("could not look for what others have written: %s", error)
            self._stop.wait(_AFTER_TROUBLE)
            return False
        if found:
            self.tell()
        return found


@contextmanager
def _signs(paths: Sequence[str], stop: threading.Event, stopped: int) -> Iterator[_Signs]:
    """Find what shows that one of these files is written to."""
    watch = None
    if paths and sys.platform == "linux":
        with suppress(OSError, AttributeError):  # no inotify here, or none left
            watch = _Inotify(paths, stopped)
    if watch is None:
        yield _Ticks(stop)
        return
    try:
        yield watch
    finally:
        watch.close()


@attrs.define(eq=False)
class _Ticks:
    """Time goes by, and somebody may have written."""

    stop: threading.Event
    looks: Sequence[float] = ()

    def arm(self) -> None: ...

    def wait(self, _: float | None) -> _Sign:
        return _Sign.STOPPED if self.stop.wait(_EVERY) else _Sign.WRITTEN


class _Inotify:
    """The kernel tells of writes to files that come and go.

    It tells once, and is asked anew: what it tells costs whoever writes.
    """

    # What is written is there for others to see when the disk has it.
    looks: Sequence[float] = (0.001, 0.002, 0.004, *[0.008] * 5)

    def __init__(self, paths: Sequence[str], stopped: int) -> None:
        """Watch these files.

        Raises:
            OSError: the kernel can't.
        """
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(_CLOEXEC | _NONBLOCK)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._paths = [Path(path) for path in paths]
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)
        self._poll.register(stopped, select.POLLIN)
        try:
            for folder in {path.parent for path in self._paths}:
                self._add(folder, _COMES)
            self.arm()
        except OSError:
            self.close()
            raise

    def arm(self) -> None:
        """Let the next write be told of."""
        for path in self._paths:
            with suppress(FileNotFoundError):  # it comes with the first write
                self._add(path, _MODIFY | _ONCE)

    def wait(self, seconds: float | None) -> _Sign:
        """Wait until one of them is written to."""
        limit = math.inf if seconds is None else time.monotonic() + seconds
        while True:
            left = max(0.0, limit - time.monotonic())
            ready = [each for each, _ in self._poll.poll(None if left == math.inf else left * 1000)]
            if not ready:
                return _Sign.NOTHING
            if self._descriptor not in ready:
                return _Sign.STOPPED
            if self._read():
                return _Sign.WRITTEN

    def close(self) -> None:
        """Watch nothing more."""
        os.close(self._descriptor)

    def _read(self) -> bool:
        """Take what the kernel has told; return whether it is about our files."""
        content = os.read(self._descriptor, 65_536)
        names = {path.name.encode() for path in self._paths}
        at, ours = 0, False
        while at < len(content):
            _, mask, _, length = _EVENT.unpack_from(content, at)
            at += _EVENT.size + length
            came = content[at - length : at].rstrip(b"\0") in names
            ours |= came or bool(mask & _MODIFY)
        return ours

    def _add(self, path: Path, mask: int) -> None:
        if (
            self._libc.inotify_add_watch(self._descriptor, os.fsencode(path), ctypes.c_uint32(mask))
            < 0
        ):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
