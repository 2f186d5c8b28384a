"""Storing new jobs in SQL: many rows per statement; keys are looked at once for a group.

Rule 1: most jobs have no key, no tags and no end of patience: they cost nothing for those.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

import attrs
import msgspec

from batchq.core.job import Enqueued, JobKey, KeyScope, NewJob
from batchq.core.tallying import Counting
from batchq.stores.sqlite.rows import free_keys

__all__ = ["Holder", "enqueue", "find_holders"]

_LAST_ID: Final = "SELECT seq FROM sqlite_sequence WHERE name = 'batchq_jobs'"

_COLUMNS: Final = """
           (id, queue, handler, state, priority, due_at,
            attempt, refunds, max_attempts, crashes, enqueued_at, payload"""
# OR FAIL: a failure rolls the whole transaction back, so SQLite need not keep what would take
# back this statement alone.
_INSERT: Final = f"INSERT OR FAIL INTO batchq_jobs {_COLUMNS}) VALUES "  # noqa: S608 - constants
_EACH: Final = 3  # bound for each row: its id, when it is due, its payload


def _insert_rows(rows: int) -> str:
    """Return the statement that stores so many jobs of one kind; ?1 to ?5 are all rows'."""
    # The cast keeps bytes as they are, and makes them readable in any tool.
    values = [
        f"(?{own}, ?1, ?2, 'pending', ?3, ?{own + 1}, 0, 0, ?4, 0, ?5, CAST(?{own + 2} AS TEXT))"
        for own in range(6, 6 + rows * _EACH, _EACH)
    ]
    return _INSERT + ", ".join(values)


# Many rows per statement take half the time of one each; more than these gain nothing.
_MANY: Final = tuple((rows, _insert_rows(rows)) for rows in (32, 16, 8, 4, 2, 1))
_INSERT_WHOLE: Final = f"""
    INSERT INTO batchq_jobs {_COLUMNS},
            expires_at, tags, key, key_scope, key_until, holds_key)
    VALUES (?, ?, ?, 'pending', ?, ?, 0, 0, ?, 0, ?, CAST(? AS TEXT), ?, ?, ?, ?, ?, ?)
"""  # noqa: S608 - constants
# The join goes from what is wanted, through the index of keys that are held.
_HOLDERS: Final = """
    SELECT handler, batchq_jobs.key, batchq_jobs.id, key_scope, key_until
      FROM json_each(:keys) AS wanted
           CROSS JOIN batchq_jobs INDEXED BY batchq_jobs_held_key
     WHERE handler = wanted.value ->> 0
       AND batchq_jobs.key = wanted.value ->> 1
       AND holds_key = 1
"""
_REPLACE: Final = "UPDATE batchq_jobs SET payload = CAST(? AS TEXT), due_at = ? WHERE id = ?"

# What jobs stored together mostly share: queue, handler, priority, max_attempts.
_Kind = tuple[str, str, int, int | None]


@attrs.frozen
class Holder:
    """A job that holds a key."""

    id: int
    scope: str
    until: float | None

    def lets_go(self, now: float) -> bool:
        """Tell whether its time is over."""
        return self.until is not None and self.until <= now


def enqueue(
    connection: sqlite3.Connection, jobs: Sequence[NewJob], *, counting: Counting
) -> Sequence[Enqueued]:
    """Store jobs; one answer per job, in order."""
    if not jobs:
        return ()
    row = connection.execute(_LAST_ID).fetchone()
    first = 1 if row is None else row[0] + 1
    now = counting.now
    kinds: defaultdict[_Kind, list[Any]] = defaultdict(list)
    for id_, job in enumerate(jobs, first):
        if job.key is not None or job.expires is not None or job.tags:
            return _enqueue_whole(connection, jobs, first=first, counting=counting)
        values = kinds[job.queue, job.handler, job.priority, job.max_attempts]
        values += id_, now + job.delay, _text(job.payload)
    for kind, values in kinds.items():
        _insert(connection, (*kind, now), values)
        counting.of(kind[0]).enqueued += len(values) // _EACH
    return [*map(Enqueued, range(first, first + len(jobs)))]


def find_holders(
    connection: sqlite3.Connection, keys: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], Holder]:
    """Find who holds keys, by (handler, key)."""
    wanted = msgspec.json.encode([*dict.fromkeys(keys)]).decode()
    rows = connection.execute(_HOLDERS, {"keys": wanted})
    return {(handler, key): Holder(*holder) for handler, key, *holder in rows}


def _insert(connection: sqlite3.Connection, shared: Sequence[Any], values: Sequence[Any]) -> None:
    start = 0
    for rows, statement in _MANY:
        while (end := start + rows * _EACH) <= len(values):
            connection.execute(statement, (*shared, *values[start:end]))
            start = end


def _text(payload: bytes) -> str | bytes:
    """Return a payload as it is quicker to store: as text, which it is but for damage."""
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return payload


# ---- Jobs with keys, tags, or an end of patience.


@attrs.define(eq=False)
class _Keyed:
    """Decides, job by job in order, who comes in."""

    holders: dict[tuple[str, str], Holder]
    now: float
    next_id: int
    fresh: list[tuple[int, NewJob]] = attrs.field(factory=list, init=False)
    freed: list[int] = attrs.field(factory=list, init=False)
    replaced: list[tuple[bytes, float, int]] = attrs.field(factory=list, init=False)

    def answer(self, job: NewJob) -> Enqueued:
        key = job.key
        holder = None if key is None else self._holder(job, key)
        if holder is not None:
            return Enqueued(holder, fresh=False)
        id_ = self.next_id
        self.next_id += 1
        self.fresh.append((id_, job))
        if key is not None:
            self.holders[job.handler, key.text] = Holder(
                id_, key.scope.value, _until(key, self.now)
            )
        return Enqueued(id_)

    def _holder(self, job: NewJob, key: JobKey) -> int | None:
        holder = self.holders.get((job.handler, key.text))
        if holder is None:
            return None
        if holder.lets_go(self.now):
            self.freed.append(holder.id)
            return None
        if key.replace and holder.scope == KeyScope.WAITING.value:
            self.replaced.append((job.payload, self.now + job.delay, holder.id))
        return holder.id


def _enqueue_whole(
    connection: sqlite3.Connection, jobs: Sequence[NewJob], *, first: int, counting: Counting
) -> Sequence[Enqueued]:
    keys = [(job.handler, job.key.text) for job in jobs if job.key is not None]
    keyed = _Keyed(find_holders(connection, keys) if keys else {}, counting.now, first)
    answers = [keyed.answer(job) for job in jobs]
    free_keys(connection, keyed.freed)
    rows = [_whole(id_, job, counting.now) for id_, job in keyed.fresh]
    connection.executemany(_INSERT_WHOLE, rows)
    connection.executemany(_REPLACE, keyed.replaced)
    for _, job in keyed.fresh:
        counting.of(job.queue).enqueued += 1
    return answers


def _whole(id_: int, job: NewJob, now: float) -> tuple[Any, ...]:
    expires_at = None if job.expires is None else now + job.expires
    tags = msgspec.json.encode(job.tags).decode() if job.tags else None
    key = job.key
    held: tuple[Any, ...] = (None, None, None, None)
    if key is not None:
        held = key.text, key.scope.value, _until(key, now), 1
    return (
        id_, job.queue, job.handler, job.priority, now + job.delay, job.max_attempts, now,
        job.payload, expires_at, tags, *held,
    )  # fmt: skip


def _until(key: JobKey, now: float) -> float | None:
    return None if key.lasts is None else now + key.lasts
