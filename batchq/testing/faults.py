"""A store that fails when it is told to: for the tests of stores, and of what stands on them.

    FaultyStore(store, script({3: Fault.BEFORE}))      the third call is not carried out
    FaultyStore(store, seeded(7, before=0.05, after=0.05))

Rule 1: the plan is a function of the call's number alone: a history that was made shorter
keeps its faults.
Rule 2: what fails is a whole unit: inside it a failure rolls back, and only its end can lose
a reply.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import TypeVar

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
from batchq.errors import StoreUnavailable
from batchq.stores.base import Store, StoreInfo

__all__ = ["Fault", "FaultyStore", "Plan", "script", "seeded"]

T = TypeVar("T")


class Fault(Enum):
    """What becomes of a call.

    NONE: nothing. BEFORE: it is not carried out. AFTER: it is, and its reply is lost.
    """

    NONE = "none"
    BEFORE = "before"
    AFTER = "after"


Plan = Callable[[int], Fault]


def script(faults: Mapping[int, Fault]) -> Plan:
    """Plan faults by the number of the call, counted from 1; the others go well."""
    return lambda number: faults.get(number, Fault.NONE)


def seeded(seed: int, *, before: float, after: float) -> Plan:
    """Plan faults by chance; the same ones for the same seed.

    Args:
        seed: which history of faults.
        before: how likely a call is not carried out [0 .. 1].
        after: how likely its reply is lost [0 .. 1].
    """

    def plan(number: int) -> Fault:
        draw = random.Random(f"{seed}:{number}").random()  # noqa: S311 - no secret
        if draw < before:
            return Fault.BEFORE
        return Fault.AFTER if draw < before + after else Fault.NONE

    return plan


class FaultyStore:
    """A store whose calls fail as planned, with `StoreUnavailable`.

    A call that only reads is never half done: where its reply is lost, it fails before.

    Args:
        store: carries out what does not fail.
        plan: what becomes of each call; `now`, `info`, `changed` and `close` never fail.

    Attributes:
        calls: how many calls there were.
        lost: what the last call said whose reply was lost.
    """

    def __init__(self, store: Store, plan: Plan) -> None:
        self.calls = 0
        self.lost: object = None
        self._store = store
        self._plan = plan

    def now(self) -> float:
        """Tell the time [s, store clock]."""
        return self._store.now()

    def commit(self, group: Group) -> Answers:
        """Carry out the whole group, or fail."""
        return self._write(lambda: self._store.commit(group))

    def get(self, ids: Sequence[int]) -> list[JobRecord | None]:
        """Read jobs, or fail."""
        return self._read(lambda: self._store.get(ids))

    def find(
        self,
        where: JobFilter,
        *,
        after: int | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> list[JobRecord]:
        """List jobs, or fail."""
        return self._read(
            lambda: self._store.find(where, after=after, limit=limit, newest_first=newest_first)
        )

    def kinds(self) -> list[tuple[str, str]]:
        """List whose jobs have not ended."""
        return self._read(self._store.kinds)

    def counts(self) -> dict[str, dict[JobState, int]]:
        """Count jobs, or fail."""
        return self._read(self._store.counts)

    def tally(self, since: float) -> list[Tally]:
        """List what happened, or fail."""
        return self._read(lambda: self._store.tally(since))

    def errors(
        self, job_id: int | None = None, *, where: JobFilter = EVERY_JOB, limit: int = 100
    ) -> list[Failure]:
        """List failures, or fail."""
        return self._read(lambda: self._store.errors(job_id, where=where, limit=limit))

    def queues(self) -> list[QueueRecord]:
        """List queues, or fail."""
        return self._read(self._store.queues)

    def workers(self) -> list[WorkerRecord]:
        """List workers, or fail."""
        return self._read(self._store.workers)

    def record(self, notes: Sequence[Note]) -> Sequence[bool]:
        """Keep notes, or fail."""
        return self._write(lambda: self._store.record(notes))

    def cancel(
        self,
        selection: Sequence[int] | JobFilter,
        reason: str = USER,
        *,
        after: int = 0,
        limit: int = 1_000,
    ) -> Changed:
        """Cancel jobs, or fail."""
        return self._write(lambda: self._store.cancel(selection, reason, after=after, limit=limit))

    def retry(
        self, selection: Sequence[int] | JobFilter, *, after: int = 0, limit: int = 1_000
    ) -> Changed:
        """Let jobs run again, or fail."""
        return self._write(lambda: self._store.retry(selection, after=after, limit=limit))

    def delete(self, ids: Sequence[int]) -> Sequence[Ordered]:
        """Delete jobs, or fail."""
        return self._write(lambda: self._store.delete(ids))

    def clean(
        self,
        retention: Mapping[JobState, float],
        *,
        queue: str | None = None,
        after: int = 0,
        limit: int = 1_000,
    ) -> Cleaned:
        """Delete old jobs, or fail."""
        return self._write(
            lambda: self._store.clean(retention, queue=queue, after=after, limit=limit)
        )

    def set_queue(self, queue: str, *, paused: bool) -> None:
        """Order about a queue, or fail."""
        self._write(lambda: self._store.set_queue(queue, paused=paused))

    def beat(self, beat: Beat) -> None:
        """Keep what a worker says, or fail."""
        self._write(lambda: self._store.beat(beat))

    def changed(self) -> bool:
        """Hint that somebody has written."""
        return self._store.changed()

    def info(self) -> StoreInfo:
        """Say what the store is."""
        return self._store.info()

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def _write(self, call: Callable[[], T]) -> T:
        self.calls += 1
        fault = self._plan(self.calls)
        if fault is Fault.BEFORE:
            raise StoreUnavailable(f"call {self.calls} failed as planned", outcome="not sent")
        answer = call()
        if fault is Fault.AFTER:
            self.lost = answer
            raise StoreUnavailable(f"the reply to call {self.calls} is lost", outcome="unknown")
        return answer

    def _read(self, call: Callable[[], T]) -> T:
        self.calls += 1
        if self._plan(self.calls) is not Fault.NONE:
            raise StoreUnavailable(f"call {self.calls} failed as planned", outcome="not sent")
        return call()
