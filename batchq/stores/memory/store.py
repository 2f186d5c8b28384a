"""The memory store, put together."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable, Sequence

from batchq.core.job import Answers, Failure, Group, JobFilter, JobRecord, WorkerRecord
from batchq.core.lifecycle import JobState
from batchq.stores.base import StoreInfo
from batchq.stores.memory.admin import Admin
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

    def find(self, where: JobFilter, *, after: int = 0, limit: int = 100) -> list[JobRecord]:
        """List jobs by rising id, from the first above `after`, at most `limit`."""
        with self._lock:
            return self._admin.find(where, self._clock(), after=after, limit=limit)

    def counts(self) -> dict[str, dict[JobState, int]]:
        """Count jobs per queue and stored state; a state without jobs is left out."""
        with self._lock:
            return self._admin.counts()

    def errors(self, job_id: int | None = None, *, limit: int = 100) -> list[Failure]:
        """List kept failures, newest first, of one job or of all."""
        with self._lock:
            return self._admin.errors(job_id, limit=limit)

    def workers(self) -> list[WorkerRecord]:
        """List who has committed here, and how often; the latest first."""
        with self._lock:
            return self._admin.workers()

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
