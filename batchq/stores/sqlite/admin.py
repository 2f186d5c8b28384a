"""What people ask of the SQLite store, over a connection that only reads.

Rule 1: a question that concerns live jobs goes through the partial index of what may be
claimed, one that concerns failed ones through theirs: neither reads the millions that
completed.
Rule 2: a row that somebody else has spoiled is shown with what can be read of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

import attrs
import msgspec

from batchq.core.job import ErrorLine
from batchq.core.lifecycle import JobState
from batchq.core.record import (
    EVERY_JOB,
    Beat,
    Failure,
    JobFilter,
    JobRecord,
    QueueRecord,
    Tally,
    WorkerRecord,
)
from batchq.stores.sqlite.counting import FIELDS
from batchq.stores.sqlite.look import any_text
from batchq.stores.sqlite.rows import READERS

__all__ = [
    "bounded",
    "counts",
    "errors",
    "find",
    "find_ids",
    "get",
    "is_id",
    "listing",
    "queues",
    "tally",
    "workers",
]

# JobRecord's own fields, in its order, but for the last.
_FIELDS: Final = """
    SELECT id, queue, handler, state, priority, due_at, attempt, refunds, max_attempts, crashes,
           CAST(payload AS BLOB), worker, CAST(value AS BLOB), reason,
           enqueued_at, started_at, finished_at, cancel, expires_at, tags,
           key, key_scope, key_until, holds_key,
           (SELECT progress FROM batchq_notes
             WHERE job = batchq_jobs.id AND attempt = batchq_jobs.attempt),
           (SELECT note FROM batchq_notes
             WHERE job = batchq_jobs.id AND attempt = batchq_jobs.attempt)
"""
_BY_ID: Final = "FROM batchq_jobs WHERE id IN (SELECT value FROM json_each(:ids))"
_GET: Final = _FIELDS + _BY_ID

# Where a listing looks: no index; live jobs; lost ones; those with a key.
_ANY: Final = "FROM batchq_jobs NOT INDEXED WHERE TRUE"
_LIVE: Final = (
    "FROM batchq_jobs INDEXED BY batchq_jobs_due WHERE state IN ('pending', 'processing')"
)
_LOST: Final = "FROM batchq_jobs INDEXED BY batchq_jobs_lost WHERE state IN ('failed', 'cancelled')"
_KEYED: Final = "FROM batchq_jobs INDEXED BY batchq_jobs_key WHERE key IS NOT NULL"
# A stored state, or a reading of it as JobRecord.status has them -> where, and which.
_STATUS: Final[dict[str | None, tuple[str, str]]] = {
    None: (_ANY, ""),
    "completed": (_ANY, "AND state = 'completed'"),
    "failed": (_LOST, "AND state = 'failed'"),
    "cancelled": (_LOST, "AND state = 'cancelled'"),
    "pending": (_LIVE, "AND state = 'pending'"),
    "processing": (_LIVE, "AND state = 'processing'"),
    "scheduled": (_LIVE, "AND state = 'pending' AND due_at > :now AND attempt = 0"),
    "retrying": (_LIVE, "AND state = 'pending' AND due_at > :now AND attempt > 0"),
    "stalled": (_LIVE, "AND state = 'processing' AND due_at <= :now"),
}
# JobFilter's own fields, but for its status.
_TERMS: Final = {
    "queue": "AND queue = :queue",
    "handler": "AND handler = :handler",
    # CASE, for one text that is no JSON would end the whole query.
    "tag": """
        AND CASE WHEN json_valid(tags)
                 THEN EXISTS (SELECT 1 FROM json_each(tags) AS each WHERE each.value = :tag) END
    """,
    "key": "AND key = :key",
    "first_id": "AND id >= :first_id",
    "last_id": "AND id <= :last_id",
    "stored_since": "AND enqueued_at >= :stored_since",
    "stored_before": "AND enqueued_at < :stored_before",
    "ended_since": "AND finished_at >= :ended_since",
    "ended_before": "AND finished_at < :ended_before",
}
# As bytes: a text that is no UTF-8 would not come back as it was, and be the next for ever.
# Each plus takes an affinity away for which SQLite would seek by the queue alone.
_NEXT_KIND: Final = """
    SELECT CAST(queue AS BLOB), CAST(handler AS BLOB)
      FROM batchq_jobs
     WHERE state IN ('pending', 'processing')
       AND (queue, handler) > (+CAST(? AS TEXT), +CAST(? AS TEXT))
     ORDER BY queue, handler
     LIMIT 1
"""
_COUNTS: Final = """
    SELECT queue, state, count(*)
      FROM batchq_jobs INDEXED BY batchq_jobs_due
     WHERE state IN ('pending', 'processing')
     GROUP BY queue, state
     UNION ALL
    SELECT queue, 'completed', all_completed FROM batchq_queues WHERE all_completed > 0
     UNION ALL
    SELECT queue, 'failed', all_failed FROM batchq_queues WHERE all_failed > 0
     UNION ALL
    SELECT queue, 'cancelled', all_cancelled FROM batchq_queues WHERE all_cancelled > 0
"""
_COUNTED: Final = f"SELECT queue, minute, {', '.join(FIELDS)} FROM"
_TALLIES: Final = f"""
    {_COUNTED} batchq_tallies WHERE minute >= :since
     UNION ALL
    {_COUNTED} batchq_queues WHERE minute >= :since
     ORDER BY minute, queue
"""
_QUEUES: Final = """
    SELECT queue, paused FROM batchq_queues WHERE paused IS NOT NULL ORDER BY queue
"""
_FAILURES: Final = """
    SELECT job, attempt, at, kind, message, traceback, worker
      FROM batchq_errors
"""
_NEWEST: Final = " ORDER BY id DESC LIMIT :limit"
_OF_JOB: Final = _FAILURES + "WHERE job = :job" + _NEWEST
_OF_ALL: Final = _FAILURES + _NEWEST
_WORKERS: Final = """
    SELECT worker, commits, batches, seen_at, beat
      FROM batchq_workers
     ORDER BY seen_at DESC
"""
_LARGEST: Final = 2**63 - 1
_NAMES: Final = JobRecord.__struct_fields__[:-1]
_SPOILED: Final = "spoiled"


def get(connection: sqlite3.Connection, ids: Sequence[int]) -> list[JobRecord | None]:
    """Read jobs; one answer per id, in order."""
    wanted = msgspec.json.encode([id_ for id_ in ids if is_id(id_)]).decode()
    found = {row[0]: _record(row) for row in connection.execute(_GET, {"ids": wanted})}
    return [found.get(id_) for id_ in ids]


def listing(
    columns: str, where: JobFilter, *, now: float, after: int | None, newest_first: bool = False
) -> tuple[str, dict[str, Any]] | None:
    """Return the query for jobs by id, without its limit, and its parameters.

    Returns:
        None: no job can be meant.
    """
    if where.status not in _STATUS:
        return None
    place, status = _STATUS[where.status]
    given = {
        name: value
        for name, value in attrs.asdict(where).items()
        if value is not None and name != "status"
    }
    if "key" in given:
        place = _KEYED
    beyond = "" if after is None else "AND id < :after" if newest_first else "AND id > :after"
    order = "ORDER BY id DESC" if newest_first else "ORDER BY id"
    terms = [_TERMS[name] for name in given]
    sql = "\n".join([columns, place, status, *terms, beyond, order])
    parameters = {name: _storable(value) for name, value in given.items()}
    return sql, {**parameters, "now": now, "after": None if after is None else bounded(after)}


def find(
    connection: sqlite3.Connection,
    where: JobFilter,
    *,
    now: float,
    after: int | None,
    limit: int,
    newest_first: bool,
) -> list[JobRecord]:
    """List jobs by rising or falling id, from the first beyond `after`."""
    query = listing(_FIELDS, where, now=now, after=after, newest_first=newest_first)
    if query is None:
        return []
    sql, parameters = query
    parameters["limit"] = bounded(limit)
    return [_record(row) for row in connection.execute(f"{sql} LIMIT :limit", parameters)]


def find_ids(
    connection: sqlite3.Connection, where: JobFilter, *, now: float, after: int, limit: int
) -> list[int]:
    """List the ids alone, by rising id, from the first above `after`."""
    query = listing("SELECT id", where, now=now, after=after)
    if query is None:
        return []
    sql, parameters = query
    parameters["limit"] = bounded(limit)
    return [id_ for (id_,) in connection.execute(f"{sql} LIMIT :limit", parameters)]


def counts(connection: sqlite3.Connection) -> dict[str, dict[JobState, int]]:
    """Count jobs per queue and stored state."""
    counted: dict[str, dict[JobState, int]] = {}
    for queue, state, jobs in connection.execute(_COUNTS):
        counted.setdefault(queue, {})[JobState(state)] = jobs
    return counted


def kinds(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """List whose jobs have not ended: one seek for each, however many jobs there are."""
    found: list[tuple[str, str]] = []
    last = (b"", b"")
    while (last := connection.execute(_NEXT_KIND, last).fetchone()) is not None:
        found.append((any_text(last[0]), any_text(last[1])))
    return found


def tally(connection: sqlite3.Connection, since: float) -> list[Tally]:
    """List what happened, by minute and queue."""
    names = Tally.__struct_fields__
    rows = connection.execute(_TALLIES, {"since": since})
    return [Tally(**dict(zip(names, row, strict=True))) for row in rows]


def queues(connection: sqlite3.Connection) -> list[QueueRecord]:
    """List what is ordered, by queue."""
    return [QueueRecord(queue, bool(paused)) for queue, paused in connection.execute(_QUEUES)]


def errors(
    connection: sqlite3.Connection, job_id: int | None, where: JobFilter, *, now: float, limit: int
) -> list[Failure]:
    """List kept failures, newest first."""
    parameters: dict[str, Any] = {"limit": bounded(limit)}
    if job_id is not None:
        sql = _OF_JOB
        parameters["job"] = bounded(job_id)
    elif where == EVERY_JOB:
        sql = _OF_ALL
    else:
        query = listing("SELECT id", where, now=now, after=None)
        if query is None:
            return []
        jobs, more = query
        sql = f"{_FAILURES} WHERE job IN ({jobs}) {_NEWEST}"
        parameters |= more
    return [_failure(row) for row in connection.execute(sql, parameters)]


def workers(connection: sqlite3.Connection) -> list[WorkerRecord]:
    """List who has committed, the latest first."""
    return [
        WorkerRecord(
            worker,
            commits,
            batches,
            seen_at,
            None if beat is None else _beat(beat),
        )
        for worker, commits, batches, seen_at, beat in connection.execute(_WORKERS)
    ]


def bounded(number: int) -> int:
    """Return `number` as SQLite can hold it; negative ones are none."""
    return min(max(number, 0), _LARGEST)


def is_id(number: int) -> bool:
    """Tell whether a job could have this id."""
    return 0 < number <= _LARGEST


def _record(row: tuple[Any, ...]) -> JobRecord:
    fields = dict(zip(_NAMES, row, strict=True))
    spoiled: list[str] = []

    def read(name: str) -> object:
        try:
            return None if fields[name] is None else READERS[name](fields[name])
        except ValueError as error:  # DecodeError is one
            spoiled.append(f"{name}: {error}")
            return None

    state = read("state")
    read_too = {
        "tags": read("tags") or (),
        "key_scope": read("key_scope"),
        "holds_key": bool(fields["holds_key"]),
    }
    if state is None:
        read_too |= {"state": JobState.FAILED, "reason": _SPOILED}
    else:
        read_too["state"] = state
    return JobRecord(**{**fields, **read_too, "spoiled": "; ".join(spoiled) or None})


def _beat(content: str) -> Beat | None:
    try:
        return msgspec.json.decode(content, type=Beat)
    except msgspec.DecodeError:  # nothing depends on it
        return None


def _failure(row: tuple[Any, ...]) -> Failure:
    job_id, attempt, at, kind, message, traceback, worker = row
    return Failure(job_id, attempt, at, ErrorLine(kind, message, traceback), worker)


def _storable(value: object) -> object:
    """Return a filter's value as SQLite takes it; no stored text has lone surrogates."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    return bounded(value) if isinstance(value, int) else value
