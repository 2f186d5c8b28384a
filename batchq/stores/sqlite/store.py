"""The SQLite store, put together: a writer and a reader per process, and their clock."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import attrs

from batchq.core.job import Answers, Group
from batchq.core.lifecycle import USER, JobState
from batchq.core.record import (
    EVERY_JOB,
    Beat,
    Changed,
    Cleaned,
    Failure,
    JobFilter,
    JobRecord,
    Note,
    Ordered,
    QueueRecord,
    Tally,
    WorkerRecord,
)
from batchq.core.tallying import MINUTE
from batchq.errors import OptionError, StoreError
from batchq.stores.base import StoreInfo
from batchq.stores.sqlite import admin
from batchq.stores.sqlite.backup import back_up
from batchq.stores.sqlite.clock import store_clock
from batchq.stores.sqlite.connect import SYNCHRONOUS, Reader, Writer, open_writer
from batchq.stores.sqlite.examine import examine
from batchq.stores.sqlite.fork import at_work
from batchq.stores.sqlite.look import SCHEMA, resolved
from batchq.stores.sqlite.orders import Orders
from batchq.stores.sqlite.trouble import translated
from batchq.stores.sqlite.work import Work
from batchq.stores.upkeep import Finding

__all__ = ["SqliteStore"]

_PATIENCE: Final = 10.0


@attrs.define(eq=False)
class _Open:
    """What one process has open, and under which process id."""

    pid: int
    writer: Writer
    reader: Reader
    clock: Callable[[], float]
    work: Work
    orders: Orders
    version: int = 0


class SqliteStore:
    """Jobs in one SQLite file, shared by the processes of one machine.

    Args:
        path: the file; it is made if missing, readable by its owner only. Its folder
            must be on a local disk.
        durability: `full`: what is stored survives a power cut; `process`: it survives
            the death of every process, and costs no fsync per commit.
        clock: tells the time in place of the host's clock [s]; for tests.
        patience: how long to wait for others' locks [s].

    Raises:
        OptionError: no such durability.
        NotAStore: the file is no database, or has tables of our names that are not ours.
        StoreTooNew: its schema is newer than this code. Either leaves it untouched.
        StoreError: it can't be opened.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: str = "full",
        clock: Callable[[], float] | None = None,
        patience: float = _PATIENCE,
    ) -> None:
        if durability not in SYNCHRONOUS:
            raise OptionError(f"durability must be 'full' or 'process', got {durability!r}")
        if path == ":memory:":
            raise OptionError("sqlite needs a file; memory: is the store without one")
        self._path = resolved(path)
        self._location = os.fspath(path)
        self._durability = durability
        self._clock = clock
        self._patience = patience
        self._opening = threading.Lock()
        self._open: _Open | None = self._connect()

    def now(self) -> float:
        """Tell the time [s, store clock]."""
        return self._here().clock()

    def commit(self, group: Group) -> Answers:
        """Carry out the whole group, or none of it; one answer per member, in order."""
        return self._here().work.commit(group)

    def get(self, ids: Sequence[int]) -> list[JobRecord | None]:
        """Read jobs; one answer per id, in order, None where there is none."""
        with self._here().reader.snapshot() as connection:
            return admin.get(connection, ids)

    def find(
        self,
        where: JobFilter,
        *,
        after: int | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> list[JobRecord]:
        """List jobs by rising or falling id, from the first beyond `after`, at most `limit`."""
        here = self._here()
        with here.reader.snapshot() as connection:
            return admin.find(
                connection, where, now=here.clock(), after=after, limit=limit,
                newest_first=newest_first,
            )  # fmt: skip

    def counts(self) -> dict[str, dict[JobState, int]]:
        """Count jobs per queue and stored state; a state without jobs is left out."""
        with self._here().reader.snapshot() as connection:
            return admin.counts(connection)

    def kinds(self) -> list[tuple[str, str]]:
        """List whose jobs have not ended, as (queue, handler), sorted."""
        with self._here().reader.snapshot() as connection:
            return admin.kinds(connection)

    def tally(self, since: float) -> list[Tally]:
        """List what happened since the minute of `since`, by minute and queue."""
        with self._here().reader.snapshot() as connection:
            return admin.tally(connection, since // MINUTE * MINUTE)

    def errors(
        self, job_id: int | None = None, *, where: JobFilter = EVERY_JOB, limit: int = 100
    ) -> list[Failure]:
        """List kept failures, newest first, of one job or of those that `where` means."""
        here = self._here()
        with here.reader.snapshot() as connection:
            return admin.errors(connection, job_id, where, now=here.clock(), limit=limit)

    def queues(self) -> list[QueueRecord]:
        """List the queues about which something was ordered, by name."""
        with self._here().reader.snapshot() as connection:
            return admin.queues(connection)

    def workers(self) -> list[WorkerRecord]:
        """List who has committed here, and how often; the latest first."""
        with self._here().reader.snapshot() as connection:
            return admin.workers(connection)

    def record(self, notes: Sequence[Note]) -> Sequence[bool]:
        """Keep what handlers say of running jobs; tell per note whether its receipt counts."""
        return self._here().orders.record(notes)

    def cancel(
        self,
        selection: Sequence[int] | JobFilter,
        reason: str = USER,
        *,
        after: int = 0,
        limit: int = 1_000,
    ) -> Changed:
        """Cancel jobs that wait, ask those that are processing to stop."""
        return self._here().orders.cancel(selection, reason, after=after, limit=limit)

    def retry(
        self, selection: Sequence[int] | JobFilter, *, after: int = 0, limit: int = 1_000
    ) -> Changed:
        """Let ended jobs run again, with all their attempts; and waiting ones run now."""
        return self._here().orders.retry(selection, after=after, limit=limit)

    def delete(self, ids: Sequence[int]) -> Sequence[Ordered]:
        """Delete ended jobs and their failures; one answer per id, in order."""
        return self._here().orders.delete(ids)

    def clean(
        self,
        retention: Mapping[JobState, float],
        *,
        queue: str | None = None,
        after: int = 0,
        limit: int = 1_000,
    ) -> Cleaned:
        """Delete, among the next `limit` jobs, those that ended long enough ago."""
        return self._here().orders.clean(retention, queue=queue, after=after, limit=limit)

    def set_queue(self, queue: str, *, paused: bool) -> None:
        """Order, for every process, whether a queue is paused."""
        self._here().orders.set_queue(queue, paused=paused)

    def beat(self, beat: Beat) -> None:
        """Keep what a worker says of itself."""
        self._here().orders.beat(beat)

    def changed(self) -> bool:
        """Hint that somebody else has written since the last call; own commits do not count."""
        here = self._here()
        version, here.version = here.version, here.writer.version()
        return here.version != version

    def hurry(self, until: float) -> None:
        """Let no write wait for others beyond this time [s, `time.monotonic()`]."""
        self._here().writer.lock.hurry = until

    def info(self) -> StoreInfo:
        """Say what this store is."""
        return StoreInfo(
            kind="sqlite",
            location=self._location,
            schema=SCHEMA,
            durability=self._durability,
            inline=False,
            version=sqlite3.sqlite_version,
            shared=True,
            watch=(f"{self._path}-wal",),
        )

    def backup(self, destination: str | os.PathLike[str]) -> None:
        """Copy all of it, as it is at one moment, to a file that is not there yet."""
        back_up(self._here().writer.path, Path(destination))

    def examine(self) -> Sequence[Finding]:
        """Look whether the file is whole, and whether anything about it is odd."""
        with self._here().reader.snapshot() as connection:
            return list(examine(connection, self._path))

    def close(self) -> None:
        """Let go of everything; idempotent."""
        here, self._open = self._open, None
        if here is not None and here.pid == os.getpid():
            here.reader.close()
            here.writer.close()

    def _here(self) -> _Open:
        """Return what this process has open; a forked child opens its own."""
        here = self._open
        if here is None:
            raise StoreError(f"{self._location} was closed")
        return here if here.pid == os.getpid() else self._reopen()

    def _reopen(self) -> _Open:
        with self._opening:
            here = self._open
            if here is not None and here.pid != os.getpid():
                here = self._connect()
                self._open = here
        if here is None:
            raise StoreError(f"{self._location} was closed")
        return here

    def _connect(self) -> _Open:
        with at_work(), ExitStack() as undo:
            writer = open_writer(self._path, durability=self._durability, patience=self._patience)
            undo.callback(writer.close)
            with translated(self._path):
                clock = self._clock or store_clock(writer.connection, writer.transaction)
            reader = Reader(self._path, self._patience)
            here = _Open(
                pid=os.getpid(),
                writer=writer,
                reader=reader,
                clock=clock,
                work=Work(writer, clock),
                orders=Orders(writer, clock),
            )
            here.version = writer.version()
            undo.pop_all()
        return here
