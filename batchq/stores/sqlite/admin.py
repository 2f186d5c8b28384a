"""What people ask of the SQLite store, over a connection that only reads.

Rule 1: a question that concerns live jobs goes through the partial index of what may be
claimed, one that concerns failed ones through theirs: neither reads the millions that
completed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from batchq.core.job import ErrorLine, Failure, JobFilter, JobRecord, WorkerRecord
from batchq.core.lifecycle import JobState

__all__ = ["counts", "errors", "find", "get", "workers"]

# JobRecord's own fields, in its order.
_SELECT: Final = """
    SELECT id, queue, handler, state, priority, due_at, attempt, refunds, max_attempts, crashes,
           CAST(payload AS BLOB), worker, CAST(value AS BLOB), reason,
           enqueued_at, started_at, finished_at
      FROM batchq_jobs """
_GET: Final = _SELECT + "WHERE id IN (SELECT value FROM json_each(:ids))"  # noqa: S608 - constants
_ANY: Final = _SELECT + "NOT INDEXED WHERE TRUE"
_LIVE: Final = _SELECT + "INDEXED BY batchq_jobs_due WHERE state IN ('pending', 'processing')"
_LOST: Final = _SELECT + "INDEXED BY batchq_jobs_lost WHERE state IN ('failed', 'cancelled')"
_PAGE: Final = """
       AND id > :after
       AND (:queue IS NULL OR queue = :queue)
       AND (:handler IS NULL OR handler = :handler)
     ORDER BY id
     LIMIT :limit
"""
# A stored state, or a reading of it as JobRecord.status has them -> the listing.
_FIND: Final[dict[str | None, str]] = {
    None: _ANY + _PAGE,
    "completed": _ANY + " AND state = 'completed'" + _PAGE,
    "failed": _LOST + " AND state = 'failed'" + _PAGE,
    "cancelled": _LOST + " AND state = 'cancelled'" + _PAGE,
    "pending": _LIVE + " AND state = 'pending'" + _PAGE,
    "processing": _LIVE + " AND state = 'processing'" + _PAGE,
    "scheduled": _LIVE + " AND state = 'pending' AND due_at > :now AND attempt = 0" + _PAGE,
    "retrying": _LIVE + " AND state = 'pending' AND due_at > :now AND attempt > 0" + _PAGE,
    "stalled": _LIVE + " AND state = 'processing' AND due_at <= :now" + _PAGE,
}
_COUNTS: Final = """
    SELECT queue, state, count(*)
      FROM batchq_jobs INDEXED BY batchq_jobs_due
     WHERE state IN ('pending', 'processing')
     GROUP BY queue, state
     UNION ALL
    SELECT queue, state, jobs FROM batchq_totals
"""
_FAILURES: Final = """
    SELECT job, attempt, at, kind, message, traceback, worker
      FROM batchq_errors
     ORDER BY id DESC
     LIMIT :limit
"""
_FAILURES_OF: Final = """
    SELECT job, attempt, at, kind, message, traceback, worker
      FROM batchq_errors
     WHERE job = :job
     ORDER BY id DESC
     LIMIT :limit
"""
_WORKERS: Final = """
    SELECT worker, commits, batches, seen_at
      FROM batchq_workers
     ORDER BY seen_at DESC
"""
_LARGEST: Final = 2**63 - 1


def get(connection: sqlite3.Connection, ids: Sequence[int]) -> list[JobRecord | None]:
    """Read jobs; one answer per id, in order."""
    wanted = msgspec.json.encode([id_ for id_ in ids if 0 < id_ <= _LARGEST]).decode()
    found = {row[0]: _record(row) for row in connection.execute(_GET, {"ids": wanted})}
    return [found.get(id_) for id_ in ids]


def find(
    connection: sqlite3.Connection, where: JobFilter, *, now: float, after: int, limit: int
) -> list[JobRecord]:
    """List jobs by rising id, from the first above `after`."""
    sql = _FIND.get(where.status)
    if sql is None:
        return []
    parameters = {
        "now": now,
        "after": _bounded(after),
        "queue": _plain(where.queue),
        "handler": _plain(where.handler),
        "limit": _bounded(limit),
    }
    return [_record(row) for row in connection.execute(sql, parameters)]


def counts(connection: sqlite3.Connection) -> dict[str, dict[JobState, int]]:
    """Count jobs per queue and stored state."""
    counted: dict[str, dict[JobState, int]] = {}
    for queue, state, jobs in connection.execute(_COUNTS):
        counted.setdefault(queue, {})[JobState(state)] = jobs
    return counted


def errors(connection: sqlite3.Connection, job_id: int | None, *, limit: int) -> list[Failure]:
    """List kept failures, newest first."""
    sql = _FAILURES if job_id is None else _FAILURES_OF
    parameters = {"limit": _bounded(limit)}
    if job_id is not None:
        parameters["job"] = _bounded(job_id)
    return [_failure(row) for row in connection.execute(sql, parameters)]


def workers(connection: sqlite3.Connection) -> list[WorkerRecord]:
    """List who has committed, the latest first."""
    return [WorkerRecord(*row) for row in connection.execute(_WORKERS)]


def _record(row: tuple[Any, ...]) -> JobRecord:
    fields = dict(zip(JobRecord.__struct_fields__, row, strict=True))
    return JobRecord(**{**fields, "state": JobState(fields["state"])})


def _failure(row: tuple[Any, ...]) -> Failure:
    job_id, attempt, at, kind, message, traceback, worker = row
    return Failure(job_id, attempt, at, ErrorLine(kind, message, traceback), worker)


def _bounded(number: int) -> int:
    """Return `number` as SQLite can hold it; negative ones are none."""
    return min(max(number, 0), _LARGEST)


def _plain(name: str | None) -> str | None:
    """Return a name without the lone surrogates that no stored one has."""
    return None if name is None else name.encode(errors="replace").decode()
