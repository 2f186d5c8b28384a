"""What people order of the SQLite store, over the connection that writes.

Each order is one transaction. Rows are read, decided on as core/changes.py decides, and
written back many at once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final

import attrs
import msgspec

from batchq.core.job import Receipt
from batchq.core.lifecycle import JobState
from batchq.core.record import Beat, Changed, Cleaned, JobFilter, Note, Ordered
from batchq.core.tallying import Counting
from batchq.stores.sqlite import admin
from batchq.stores.sqlite.cleaning import Step
from batchq.stores.sqlite.connect import Writer
from batchq.stores.sqlite.counting import write_counts
from batchq.stores.sqlite.enqueuing import Holder, find_holders
from batchq.stores.sqlite.failures import storable
from batchq.stores.sqlite.rows import IDS, ROW, Row, any_texts, as_json, forget, free_keys

__all__ = ["Orders"]

_FIND: Final = ROW + IDS
_CANCEL: Final = f"""
    UPDATE batchq_jobs
       SET state = 'cancelled',
           reason = :reason,
           due_at = NULL,
           finished_at = :now,
           holds_key = CASE WHEN key_scope IN ('waiting', 'live') THEN NULL ELSE holds_key END
     {IDS}
"""  # noqa: S608 - constants
_ASK: Final = f"UPDATE batchq_jobs SET cancel = :reason {IDS}"  # noqa: S608 - constants
_REVIVE: Final = f"""
    UPDATE batchq_jobs
       SET state = 'pending',
           refunds = attempt,
           crashes = 0,
           due_at = :now,
           expires_at = NULL,
           cancel = NULL,
           value = NULL,
           reason = NULL,
           finished_at = NULL
     {IDS}
"""  # noqa: S608 - constants
_HASTEN: Final = f"""
    UPDATE batchq_jobs SET due_at = :now {IDS} AND due_at > :now
"""  # noqa: S608 - constants
_HOLD: Final = f"UPDATE batchq_jobs SET holds_key = 1 {IDS}"  # noqa: S608 - constants
_PAUSE: Final = """
    INSERT INTO batchq_queues (queue, paused) VALUES (?, ?)
        ON CONFLICT (queue) DO UPDATE SET paused = excluded.paused
"""
_BEAT: Final = """
    INSERT INTO batchq_workers (worker, commits, batches, seen_at, beat) VALUES (?, 0, 0, ?, ?)
        ON CONFLICT (worker) DO UPDATE SET seen_at = excluded.seen_at, beat = excluded.beat
"""
_CURRENT: Final = """
    SELECT id, attempt
      FROM batchq_jobs
     WHERE id IN (SELECT value FROM json_each(:ids))
       AND state = 'processing'
"""
_NOTE: Final = """
    INSERT INTO batchq_notes (progress, note, job, attempt) VALUES (?, ?, ?, ?)
        ON CONFLICT (job) DO UPDATE
       SET progress = coalesce(excluded.progress, iif(attempt = excluded.attempt, progress, NULL)),
           note = coalesce(excluded.note, iif(attempt = excluded.attempt, note, NULL)),
           attempt = excluded.attempt
"""


@attrs.frozen
class _Task:
    """An order that is under way.

    Attributes:
        rows: the jobs there are, by id.
        ids: about which jobs it is, in order.
        counting: what it adds to the counts.
    """

    connection: sqlite3.Connection
    rows: dict[int, Row]
    ids: Sequence[int]
    counting: Counting

    def change(self, statement: str, ids: Iterable[int], **parameters: object) -> None:
        """Carry a statement out on jobs, if there are any."""
        if found := [*ids]:
            now = self.counting.now
            self.connection.execute(statement, {"ids": as_json(found), "now": now, **parameters})


@attrs.frozen
class Orders:
    """Carries orders out over one connection."""

    writer: Writer
    clock: Callable[[], float]

    def cancel(
        self, selection: Sequence[int] | JobFilter, reason: str, *, after: int, limit: int
    ) -> Changed:
        """Cancel jobs that wait, ask those that are processing to stop."""
        decide = partial(_cancel, reason=storable(reason))
        return self._carry_out(decide, selection, after=after, limit=limit)

    def retry(self, selection: Sequence[int] | JobFilter, *, after: int, limit: int) -> Changed:
        """Let ended jobs run again, and those that wait run now."""
        return self._carry_out(_retry, selection, after=after, limit=limit)

    def delete(self, ids: Sequence[int]) -> Sequence[Ordered]:
        """Delete ended jobs."""
        return self._carry_out(_delete, ids, after=0, limit=0).answers

    def clean(
        self, retention: Mapping[JobState, float], *, queue: str | None, after: int, limit: int
    ) -> Cleaned:
        """Delete ended jobs that were kept long enough, among the next `limit`."""
        with self.writer.transaction():
            counting = Counting(self.clock())
            step = Step(retention, queue, admin.bounded(after), admin.bounded(limit))
            cleaned = step.take(self.writer.connection, counting)
            write_counts(self.writer.connection, counting)
        return cleaned

    def record(self, notes: Sequence[Note]) -> list[bool]:
        """Keep what handlers say of running jobs; tell per note whether it counts."""
        connection = self.writer.connection
        with self.writer.transaction():
            ids = as_json([note.receipt.job_id for note in notes])
            current = {Receipt(*row) for row in connection.execute(_CURRENT, {"ids": ids})}
            counts = [note.receipt in current for note in notes]
            connection.executemany(
                _NOTE,
                [
                    (
                        note.progress,
                        None if note.message is None else storable(note.message),
                        note.receipt.job_id,
                        note.receipt.attempt,
                    )
                    for note, counted in zip(notes, counts, strict=True)
                    if counted
                ],
            )
        return counts

    def set_queue(self, queue: str, *, paused: bool) -> None:
        """Order whether a queue is paused."""
        with self.writer.transaction():
            self.writer.connection.execute(_PAUSE, (queue, int(paused)))

    def beat(self, beat: Beat) -> None:
        """Keep what a worker says of itself."""
        content = msgspec.json.encode(beat).decode()
        with self.writer.transaction():
            self.writer.connection.execute(_BEAT, (beat.worker, self.clock(), content))

    def _carry_out(
        self,
        decide: Callable[[_Task], list[Ordered]],
        selection: Sequence[int] | JobFilter,
        *,
        after: int,
        limit: int,
    ) -> Changed:
        connection = self.writer.connection
        with self.writer.transaction():
            counting = Counting(self.clock())
            following = None
            if isinstance(selection, JobFilter):
                ids = admin.find_ids(
                    connection, selection, now=counting.now, after=after, limit=limit
                )
                following = ids[-1] if 0 < limit == len(ids) else None
            else:
                ids = list(selection)
            known = as_json([id_ for id_ in ids if admin.is_id(id_)])
            with any_texts(connection):
                found = [Row(*row) for row in connection.execute(_FIND, {"ids": known})]
            rows = {row.id: row for row in found if row.known}
            spoiled = {row.id for row in found if not row.known}
            decided = decide(_Task(connection, rows, ids, counting))
            answers = [
                Ordered.REFUSED if id_ in spoiled else answer
                for id_, answer in zip(ids, decided, strict=True)
            ]
            write_counts(connection, counting)
        return Changed(ids, answers, following)


def _cancel(task: _Task, *, reason: str) -> list[Ordered]:
    ended: dict[int, None] = {}
    asked: dict[int, None] = {}
    answers = []
    for id_ in task.ids:
        row = task.rows.get(id_)
        if row is None:
            answers.append(Ordered.UNKNOWN)
        elif row.state.final or id_ in ended:
            answers.append(Ordered.REFUSED)
        elif row.state is JobState.PROCESSING:
            asked[id_] = None
            answers.append(Ordered.ASKED)
        else:
            ended[id_] = None
            task.counting.end(row.queue, JobState.CANCELLED)
            answers.append(Ordered.DONE)
    task.change(_CANCEL, ended, reason=reason)
    task.change(_ASK, asked, reason=reason)
    return answers


def _delete(task: _Task) -> list[Ordered]:
    gone: dict[int, None] = {}
    answers = []
    for id_ in task.ids:
        row = task.rows.get(id_)
        if row is None or id_ in gone:
            answers.append(Ordered.UNKNOWN)
        elif not row.may_go(task.counting.now):
            answers.append(Ordered.REFUSED)
        else:
            gone[id_] = None
            task.counting.leave(row.queue, row.state)
            answers.append(Ordered.DONE)
    forget(task.connection, [*gone])
    return answers


def _retry(task: _Task) -> list[Ordered]:
    needed = (row.key_it_needs(task.counting.now) for row in task.rows.values())
    keys = [key for key in needed if key is not None]
    retry = _Retry(task, find_holders(task.connection, keys) if keys else {})
    answers = [retry.answer(id_) for id_ in task.ids]
    free_keys(task.connection, retry.freed)
    task.change(_REVIVE, retry.revived)
    task.change(_HASTEN, retry.hastened)
    task.change(_HOLD, retry.holding)
    return answers


@attrs.define(eq=False)
class _Retry:
    """Decides, job by job in order, which ones run again."""

    task: _Task
    holders: dict[tuple[str, str], Holder]
    revived: dict[int, None] = attrs.field(factory=dict, init=False)
    hastened: list[int] = attrs.field(factory=list, init=False)
    freed: list[int] = attrs.field(factory=list, init=False)
    holding: list[int] = attrs.field(factory=list, init=False)

    def answer(self, id_: int) -> Ordered:
        row = self.task.rows.get(id_)
        if row is None:
            return Ordered.UNKNOWN
        if row.state is JobState.PROCESSING:
            return Ordered.REFUSED
        if not row.state.final:
            self.hastened.append(id_)
        elif id_ not in self.revived:
            if not self._takes_its_key(row):
                return Ordered.CONFLICT
            self.revived[id_] = None
            self.task.counting.leave(row.queue, row.state)
        return Ordered.DONE

    def _takes_its_key(self, row: Row) -> bool:
        now = self.task.counting.now
        key = row.key_it_needs(now)
        if key is None:
            return True
        holder = self.holders.get(key)
        if holder is not None:
            if not holder.lets_go(now):
                return False
            self.freed.append(holder.id)
        self.holders[key] = Holder(row.id, "", row.key_until)
        self.holding.append(row.id)
        return True
