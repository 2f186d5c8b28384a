"""Builds the shim of shim.c, steers it, and reads what it has written down.

It stands between a process and the C library by LD_PRELOAD, so it works under the very
SQLite that Python links. Linux only, and a C compiler is needed: `why_not` says what lacks.
"""

from __future__ import annotations

import ctypes
import enum
import mmap
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

__all__ = [
    "Change",
    "Kind",
    "Orders",
    "Record",
    "build",
    "environment",
    "records",
    "scratch",
    "why_not",
]

SOURCE: Final = Path(__file__).with_name("shim.c")
_RECORD: Final = struct.Struct("<IIQQQ")


class Kind(enum.IntEnum):
    """What kinds of calls can be told to fail, as enum kind of shim.c."""

    WRITE = 0
    SYNC = 1
    CREATE = 2
    READ = 3
    REMOVE = 4


class Change(enum.IntEnum):
    """What may change a folder on a disk, as enum change of shim.c."""

    MADE = 1
    WROTE = 2
    CUT = 3
    SYNCED = 4
    SYNCED_FOLDER = 5
    LINKED = 6
    UNLINKED = 7
    RENAMED = 8


@attrs.frozen
class Record:
    """One change, as it was written down.

    Attributes:
        change: what it was.
        name: the file's, in the folder; "" is the folder.
        inode: the file's number; 0 where only names change.
        offset: where it wrote, or the new size [bytes].
        data: what it wrote; the second name of a link or a renaming.
    """

    change: Change
    name: str
    inode: int
    offset: int
    data: bytes


def scratch(prefix: str) -> tempfile.TemporaryDirectory[str]:
    """Make a folder whose fsyncs cost nothing, where there is one: the shim sees them all."""
    memory = Path("/dev/shm")  # noqa: S108 - a temporary folder is made in it
    there = memory if os.access(memory, os.W_OK) else None
    return tempfile.TemporaryDirectory(prefix=f"batchq-{prefix}-", dir=there)


def why_not() -> str | None:
    """Say why there can't be a shim here; None: there can."""
    if sys.platform != "linux":
        return "LD_PRELOAD as it is needed here is Linux's"
    if shutil.which("gcc") is None and shutil.which("cc") is None:
        return "the shim is C, and there is no gcc or cc to build it"
    return None


def build(folder: Path) -> Path:
    """Build the shim there; returns the library."""
    library = folder / "shim.so"
    compiler = shutil.which("gcc") or shutil.which("cc") or "cc"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return library


def environment(
    library: Path, folder: Path, *, orders: Path | None = None, trace: Path | None = None
) -> dict[str, str]:
    """Return the environment in which a process has the shim.

    Args:
        library: what `build` made.
        folder: whose files are looked at.
        orders: of `Orders`; None: nothing fails.
        trace: where changes are written down; None: nowhere. It may not be in `folder`.
    """
    found = {**os.environ, "LD_PRELOAD": str(library), "BATCHQ_SHIM_FOLDER": str(folder)}
    if orders is not None:
        found["BATCHQ_SHIM_ORDERS"] = str(orders)
    if trace is not None:
        found["BATCHQ_SHIM_TRACE"] = str(trace)
    return found


class _Orders(ctypes.Structure):
    """`struct orders` of shim.c."""

    _fields_ = (
        ("calls", ctypes.c_int64 * len(Kind)),
        *((name, ctypes.c_int64) for name in (
            "kind", "first", "last", "error", "half", "failed", "repeated", "wall_step",
        )),
        ("broken", ctypes.c_int64 * 16),
    )  # fmt: skip


class Orders:
    """The memory that the shim looks at, shared by all processes that have it.

    Args:
        path: its file; made if missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        size = ctypes.sizeof(_Orders)
        with path.open("a+b") as file:
            file.truncate(size)
            memory = mmap.mmap(file.fileno(), size)
        self._there = _Orders.from_buffer(memory)

    def calls(self, kind: Kind) -> int:
        """Return how many calls of a kind there were since `fail` was called."""
        return int(self._there.calls[kind])

    @property
    def failed(self) -> int:
        """How many calls were made to fail."""
        return int(self._there.failed)

    @property
    def repeated(self) -> int:
        """How many fsyncs there were of a file whose last one failed, unwritten since."""
        return int(self._there.repeated)

    def fail(self, kind: Kind, error: int, *, first: int, last: int, half: bool = False) -> None:
        """Let calls `first` to `last` of a kind fail, counted from now.

        Args:
            kind: which calls.
            error: their errno.
            first: the first that does [1 is the next one].
            last: the last that does.
            half: the first of them writes half of its bytes instead, as on a disk that
                fills up.
        """
        there = self._there
        self.heal()
        there.calls[:] = [0] * len(Kind)
        there.failed = there.repeated = 0
        there.broken[:] = [0] * len(there.broken)
        there.first, there.last, there.error, there.half = first, last, error, half
        there.kind = kind

    def heal(self) -> None:
        """Let nothing fail any more."""
        self._there.kind = -1

    def step_wall_clock(self, seconds: float) -> None:
        """Let the time of day be so far from the true one [s]."""
        self._there.wall_step = round(seconds * 1e9)


def records(trace: Path) -> Iterator[Record]:
    """Read what was written down, in order."""
    content, at = trace.read_bytes(), 0
    while at < len(content):
        change, name_size, inode, offset, size = _RECORD.unpack_from(content, at)
        at += _RECORD.size
        name = content[at : at + name_size].decode()
        at += name_size
        data = content[at : at + size]
        at += size
        yield Record(Change(change), name, inode, offset, data)
