"""The memory store, put together."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable, Mapping, Sequence

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
from batchq.stores.base import StoreInfo
from batchq.stores.memory.admin import Admin
from batchq.stores.memory.orders import Orders
from batchq.stores.memory.shelf import Shelf
from batchq.stores.memory.work import Work

__all__ = ["MemoryStore"]


class MemoryStore:
    """Jobs in this process's memory, for as long as it lives.

    Args:
        clock: tells the time [s]; the default is steady, and near the epoch. Give it
            `trio.current_time` to let tests pass time.
    """

    def __init__(self, *, clock: Callable[[], float] | None = None) -> None:
        self._clock = _steady_clock() if clock is None else clock
        # The ledger commits from its thread while people read from theirs.
        self._lock = threading.Lock()
        shelf = Shelf()
        self._work = Work(shelf)
        self._admin = Admin(shelf)
        self._orders = Orders(shelf, self._admin)

    def now(self) -> float:
        """Tell the time [s, store clock]."""
        return self._clock()

    def commit(self, group: Group) -> Answers:
        """Carry out the whole group, or none of it; one answer per member, in order."""
        with self._lock:
            return self._work.commit(group, self._clock())

    def get(self, ids: Sequence[int]) -> list[JobRecord | None]:
        """Read jobs; one answer per id, in order, None where there is none."""
        with self._lock:
            return self._admin.get(ids)

    def find(
        self,
        where: JobFilter,
        *,
        after: int | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> list[JobRecord]:
        """List jobs by rising or falling id, from the first beyond `after`, at most `limit`."""
        with self._lock:
            return self._admin.find(
                where, self._clock(), after=after, limit=limit, newest_first=newest_first
            )

    def counts(self) -> dict[str, dict[JobState, int]]:
        """Count jobs per queue and stored state; a state without jobs is left out."""
        with self._lock:
            return self._admin.counts()

    def kinds(self) -> list[tuple[str, str]]:
        """List whose jobs have not ended, as (queue, handler), sorted."""
        with self._lock:
            return self._admin.kinds()

    def tally(self, since: float) -> list[Tally]:
        """List what happened since the minute of `since`, by minute and queue."""
        with self._lock:
            return self._admin.tally(since // MINUTE * MINUTE)

    def errors(
        self, job_id: int | None = None, *, where: JobFilter = EVERY_JOB, limit: int = 100
    ) -> list[Failure]:
        """List kept failures, newest first, of one job or of those that `where` means."""
        with self._lock:
            return self._admin.errors(job_id, where, self._clock(), limit=limit)

    def queues(self) -> list[QueueRecord]:
        """List the queues about which something was ordered, by name."""
        with self._lock:
            return self._admin.queues()

    def workers(self) -> list[WorkerRecord]:
        """List who has committed here, and how often; the latest first."""
        with self._lock:
            return self._admin.workers()

    def record(self, notes: Sequence[Note]) -> Sequence[bool]:
        """Keep what handlers say of running jobs; tell per note whether its receipt counts."""
        with self._lock:
            return self._orders.record(notes)

    def cancel(
        self,
        selection: Sequence[int] | JobFilter,
        reason: str = USER,
        *,
        after: int = 0,
        limit: int = 1_000,
    ) -> Changed:
        """Cancel jobs that wait, ask those that are processing to stop."""
        with self._lock:
            return self._orders.cancel(selection, reason, self._clock(), after=after, limit=limit)

    def retry(
        self, selection: Sequence[int] | JobFilter, *, after: int = 0, limit: int = 1_000
    ) -> Changed:
        """Let ended jobs run again, with all their attempts; and waiting ones run now."""
        with self._lock:
            return self._orders.retry(selection, self._clock(), after=after, limit=limit)

    def delete(self, ids: Sequence[int]) -> Sequence[Ordered]:
        """Delete ended jobs and their failures; one answer per id, in order."""
        with self._lock:
            return self._orders.delete(ids, self._clock())

    def clean(
        self,
        retention: Mapping[JobState, float],
        *,
        queue: str | None = None,
        after: int = 0,
        limit: int = 1_000,
    ) -> Cleaned:
        """Delete, among the next `limit` jobs, those that ended long enough ago."""
        with self._lock:
            return self._orders.clean(
                retention, self._clock(), queue=queue, after=after, limit=limit
            )

    def set_queue(self, queue: str, *, paused: bool) -> None:
        """Order whether a queue is paused."""
        with self._lock:
            self._orders.set_queue(queue, paused=paused)

    def beat(self, beat: Beat) -> None:
        """Keep what a worker says of itself."""
        with self._lock:
            self._orders.beat(beat, self._clock())

    def changed(self) -> bool:
        """Say no: no other process can write here."""
        return False

    def info(self) -> StoreInfo:
        """Say what this store is."""
        return StoreInfo(
            kind="memory",
            location="memory:",
            schema=1,
            durability="memory",
            inline=True,
            version=platform.python_version(),
        )

    def close(self) -> None:
        """Do nothing: what is here goes with the object itself."""


def _steady_clock() -> Callable[[], float]:
    ahead = time.time() - time.monotonic()
    return lambda: ahead + time.monotonic()
