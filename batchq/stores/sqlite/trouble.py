"""From SQLite's errors to ours: what is wrong, and what to do next."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from batchq.errors import StoreBroken, StoreBusy, StoreError, StoreFull

__all__ = ["RESCUE", "is_busy", "os_trouble", "store_error", "translated"]

# PROTOCOL is what a race for the WAL's locks may end in; it passes as the others do.
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_FULL: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_NOMEM})
# A full disk shows itself so where the WAL's index has to grow; nothing is written then.
_FULL_IO: Final = frozenset({sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_NOMEM})
_SHUT: Final = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM})
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
RESCUE: Final = (
    "stop the workers and put a copy that `batchq backup` made in its place; without one,"
    " `sqlite3 OLD .recover | sqlite3 NEW` saves what can still be read"
)


def is_busy(error: sqlite3.Error) -> bool:
    """Say whether others hold the lock: nothing was done, and it will pass."""
    return _code(error) & 0xFF in _BUSY


def store_error(error: sqlite3.Error | MemoryError, path: str) -> StoreError:
    """Return what a caller is told of `error`."""
    if isinstance(error, MemoryError):
        return StoreFull(f"{path}: no memory left; nothing was done")
    code = _code(error)
    if code & 0xFF in _BUSY:
        return StoreBusy(f"{path} is locked by others; nothing was done, repeat as is ({error})")
    if code & 0xFF in _FULL or code in _FULL_IO:
        return StoreFull(f"{path}: no space left; nothing was done, repeat when there is ({error})")
    if code & 0xFF in _CORRUPT:
        return StoreBroken(f"{path} is corrupt ({error}): {RESCUE}")
    if code & 0xFF == sqlite3.SQLITE_IOERR:
        return StoreBroken(
            f"{path} can't be trusted any more ({error}): stop, see to the disk, start again"
        )
    return StoreError(f"{path}: {error}{_what_is_shut(path) if code & 0xFF in _SHUT else ''}")


def os_trouble(error: OSError, asked: str) -> StoreError:
    """Return what a caller is told of a file that the system would not give.

    Args:
        error: the system's.
        asked: what could not be done: "make jobs.db".
    """
    kind = StoreFull if error.errno in _NO_SPACE else StoreError
    return kind(f"cannot {asked}: {error.strerror}")


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Turn the driver's errors into ours."""
    try:
        yield
    except (sqlite3.Error, MemoryError) as error:
        raise store_error(error, path) from error


def _code(error: sqlite3.Error) -> int:
    # The module's own complaints (a closed connection, a wrong parameter) carry no code.
    return getattr(error, "sqlite_errorcode", None) or sqlite3.SQLITE_ERROR


def _what_is_shut(path: str) -> str:
    """Say what of a database this user may not write to, if that is the reason."""
    shut = [
        str(place.absolute())
        for place in (Path(path).parent, Path(path))
        if os.access(place, os.F_OK) and not os.access(place, os.R_OK | os.W_OK)
    ]
    if not shut:
        return ""
    return f"; SQLite writes even to read, and this user may not write to {' and '.join(shut)}"
