"""The errors table: failing attempts only, and at most twenty per job."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

import msgspec

from batchq.core.lifecycle import MAX_FAILURES
from batchq.core.record import Failure

__all__ = ["keep_failures", "storable"]

_INSERT: Final = """
    INSERT INTO batchq_errors (job, attempt, at, kind, message, traceback, worker)
    VALUES (?, ?, ?, ?, ?, ?, ?)
"""
# The first and the last ones tell more than those between.
_TRIM: Final = """
    DELETE FROM batchq_errors
     WHERE id IN (SELECT id
                    FROM (SELECT id,
                                 row_number() OVER (PARTITION BY job ORDER BY id) AS nth,
                                 row_number() OVER (PARTITION BY job ORDER BY id DESC) AS nth_last
                            FROM batchq_errors
                           WHERE job IN (SELECT value FROM json_each(:jobs)))
                   WHERE nth > 1 AND nth_last >= :most)
"""


def keep_failures(connection: sqlite3.Connection, failures: Sequence[Failure]) -> None:
    """Keep failures, and let go of those that are too many for their job."""
    if not failures:
        return
    connection.executemany(_INSERT, [_row(failure) for failure in failures])
    # A job has no more failures than attempts: most need no look at all.
    many = [failure.job_id for failure in failures if failure.attempt > MAX_FAILURES]
    if many:
        jobs = msgspec.json.encode(many).decode()
        connection.execute(_TRIM, {"jobs": jobs, "most": MAX_FAILURES})


def _row(failure: Failure) -> tuple[object, ...]:
    line = failure.line
    return (
        failure.job_id,
        failure.attempt,
        failure.at,
        storable(line.kind),
        storable(line.message),
        storable(line.traceback),
        failure.worker,
    )


def storable(text: str) -> str:
    """Return `text` with its lone surrogates, as in odd file names, written out."""
    return text.encode(errors="backslashreplace").decode()
