"""What is to be known of the SQLite that this Python has."""

from __future__ import annotations

import logging
import sqlite3
from typing import Final

__all__ = ["has_reset_bug", "warn_of_reset_bug"]

logger = logging.getLogger(__name__)

# Where two connections write or checkpoint at one instant, the WAL may be reset under one
# of them: sqlite.org/wal.html, "The WAL-Reset Bug", from 3.7.0 on.
_MENDED: Final = (3, 51, 3)
_MENDED_BRANCHES: Final = {(3, 44): 6, (3, 50): 7}

_warned: Final[set[str]] = set()


def has_reset_bug(version: tuple[int, int, int] = sqlite3.sqlite_version_info) -> bool:
    """Say whether a SQLite can corrupt a file that several connections write, if rarely."""
    major, minor, patch = version
    mended = _MENDED_BRANCHES.get((major, minor))
    return version < _MENDED and (mended is None or patch < mended)


def warn_of_reset_bug(path: str) -> None:
    """Tell, once in a process, that somebody else writes to `path`, where that matters."""
    if not has_reset_bug() or path in _warned:
        return
    _warned.add(path)
    logger.warning(
        "several processes write to %s, and SQLite %s can corrupt a file when two connections"
        " write at one instant (rare; mended in 3.51.3): batchq's own take turns, so let"
        " nothing else write to it; `batchq doctor` looks at the file",
        path,
        sqlite3.sqlite_version,
    )
