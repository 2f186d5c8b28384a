"""The store's clock: the host's steady one, plus an offset that all processes share.

    store time = CLOCK_BOOTTIME + offset        (one offset per boot, in batchq_clock)

It looks like the time of day, and setting the time of day does not move it. A new boot
means that whoever held a lease died with the machine: the first opener makes them all due.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

__all__ = ["store_clock"]

logger = logging.getLogger(__name__)

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

_OFFSET: Final = "SELECT offset FROM batchq_clock WHERE boot_id = :boot_id"

# The newest time that was ever written down, near enough: what comes is not to be older.
_NEWEST: Final = """
    SELECT max(coalesce((SELECT enqueued_at FROM batchq_jobs ORDER BY id DESC LIMIT 1), 0),
               coalesce((SELECT max(seen_at) FROM batchq_workers), 0))
"""
_FORGET: Final = "DELETE FROM batchq_clock"
_REMEMBER: Final = "INSERT INTO batchq_clock (boot_id, offset) VALUES (:boot_id, :offset)"
_VOID_LEASES: Final = """
    UPDATE batchq_jobs
       SET due_at = :now
     WHERE state IN ('pending', 'processing')
       AND state = 'processing'
"""


def store_clock(
    connection: sqlite3.Connection, transaction: Callable[[], AbstractContextManager[object]]
) -> Callable[[], float]:
    """Return the clock of the store behind `connection`, agreed with all its processes.

    Args:
        connection: writes, and has our tables.
        transaction: begins an immediate one over that connection.
    """
    boot_id = _boot_id()
    if boot_id is None:
        logger.warning("this host tells no boot id: leases follow the wall clock")
        return time.time
    offset = _read(connection, boot_id)
    if offset is None:
        with transaction():
            offset = _read(connection, boot_id)  # another process may have been first
            if offset is None:
                offset = _begin(connection, boot_id)
    return _clock(offset)


def _read(connection: sqlite3.Connection, boot_id: str) -> float | None:
    row = connection.execute(_OFFSET, {"boot_id": boot_id}).fetchone()
    return None if row is None else float(row[0])


def _begin(connection: sqlite3.Connection, boot_id: str) -> float:
    """Write down this boot's offset, and make every lease of another boot run out."""
    steady = _steady()
    now = max(time.time(), connection.execute(_NEWEST).fetchone()[0])
    connection.execute(_FORGET)
    connection.execute(_REMEMBER, {"boot_id": boot_id, "offset": now - steady})
    connection.execute(_VOID_LEASES, {"now": now})
    return float(now - steady)


def _clock(offset: float) -> Callable[[], float]:
    return lambda: offset + _steady()


def _steady() -> float:
    """Tell the time since boot, suspension included where the system counts it [s]."""
    return time.clock_gettime(_STEADY)


# CLOCK_MONOTONIC stands still while the machine sleeps, on Linux.
_STEADY: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def _boot_id() -> str | None:
    try:
        return _BOOT_ID.read_text().strip() or None
    except OSError:
        return None
