"""The manager's side of handlers and handles: where jobs go in, and are looked up.

Rule 1: nothing need be started to store a job. Inside a block of the manager what comes in
gathers in the ledger; elsewhere each call is a commit of its own.
Rule 2: under trio, under asyncio and in plain threads alike.
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import compress
from typing import Any, Final, TypeVar

import attrs
import trio

from batchq.admin import Admin, read_job, read_store
from batchq.bridge import Bell, forbid_event_loop, in_trio, run_blocking
from batchq.core.job import Enqueued, Group, NewJob
from batchq.core.lifecycle import JobState
from batchq.core.record import JobRecord, Ordered
from batchq.ends import Ends
from batchq.job_handle import JobHandle, Read
from batchq.ledger import Ledger
from batchq.pending import Pending

__all__ = ["AtFirstUse", "DurableIntake", "JobLookup"]

T = TypeVar("T")

# A job that another process runs is asked for after so long [s], and each time so much later.
_FIRST: Final = 0.01
_SLOWER: Final = 1.5
_UNDER_WAY: Final = 0.005  # so long a commit may take whose jobs have to be counted first [s]


@attrs.define(eq=False)
class AtFirstUse:
    """The ledger of one manager, opened when it is first needed; from any thread.

    Attributes:
        make: opens it; it blocks.
        ledger: None until then.
    """

    make: Callable[[], Ledger]
    ledger: Ledger | None = None
    # By process id: a child must not wait for a lock that its parent held.
    _locks: dict[int, threading.Lock] = attrs.field(factory=dict, init=False)

    def get(self) -> Ledger:
        """Return it, opened."""
        ledger = self.ledger
        if ledger is not None:
            return ledger
        with self._lock:
            if self.ledger is None:
                self.ledger = self.make()
            return self.ledger

    async def aget(self) -> Ledger:
        """Return it, opened without blocking the event loop."""
        ledger = self.ledger
        return await run_blocking(self.get) if ledger is None else ledger

    def close(self) -> None:
        """Close the store; the next use opens one given by URL anew."""
        with self._lock:
            if self.ledger is not None:
                self.ledger.close()
                self.ledger = None

    @property
    def _lock(self) -> threading.Lock:
        return self._locks.setdefault(os.getpid(), threading.Lock())


@attrs.define(eq=False)
class _Patience:
    """How long to wait for a job's end from one look to the next [s]."""

    timeout: float
    longest: float
    now: Callable[[], float]
    _began: float = attrs.field(init=False)
    _pause: float = attrs.field(default=_FIRST, init=False)

    def __attrs_post_init__(self) -> None:
        self._began = self.now()

    def pause(self, record: JobRecord) -> float:
        left = self._began + self.timeout - self.now()
        if left <= 0:
            raise TimeoutError(
                f"job {record.id} did not end within {self.timeout:g} s; it is {record.state.value}"
            )
        pause, self._pause = self._pause, min(self._pause * _SLOWER, self.longest)
        return min(pause, left)


@attrs.define(eq=False)
class JobLookup:
    """Looks stored jobs up, for their handles.

    Attributes:
        ledgers: the road to the store.
        ends: tells of jobs that end in this process.
        poll_interval: longest time between two looks for a job's end [s].
        admin: carries orders out.
    """

    ledgers: AtFirstUse
    ends: Ends
    poll_interval: float
    admin: Admin

    async def get(self, job_id: int) -> tuple[JobRecord, str]:
        """Read a job and its status; see `Records`."""
        return await self.read(partial(self.get_sync, job_id))

    def get_sync(self, job_id: int) -> tuple[JobRecord, str]:
        """Do the same, blocking."""
        store = self.ledgers.get().store
        record = read_job(store, job_id)
        return record, record.status(store.now())

    async def last_error(self, job_id: int) -> str:
        """Say how a job's last attempt failed; see `Records`."""
        return await self.read(partial(self.last_error_sync, job_id))

    def last_error_sync(self, job_id: int) -> str:
        """Do the same, blocking."""
        failures = self.ledgers.get().store.errors(job_id, limit=1)
        return str(failures[0].line) if failures else ""

    async def ended(self, job_id: int, timeout: float | None) -> JobRecord:  # noqa: ASYNC109
        """Wait until a job is final; see `Records`."""
        patience, bell = await self.read(partial(self._patience, timeout)), Bell()
        with self.ends.watch(job_id, bell.ring):
            while not (record := (await self.get(job_id))[0]).state.final:
                await bell.wait(patience.pause(record))
        return record

    def ended_sync(self, job_id: int, timeout: float | None) -> JobRecord:
        """Do the same, blocking."""
        forbid_event_loop("result_sync()", "await job.result()")
        patience, bell = self._patience(timeout), Bell()
        with self.ends.watch(job_id, bell.ring):
            while not (record := self.get_sync(job_id)[0]).state.final:
                bell.wait_sync(patience.pause(record))
        return record

    async def cancel(self, job_id: int, reason: str) -> Ordered:
        """Cancel a job; see `Records`."""
        return (await self.admin.cancel(job_id, reason)).answers[0]

    def cancel_sync(self, job_id: int, reason: str) -> Ordered:
        """Do the same, blocking."""
        return self.admin.cancel_sync(job_id, reason).answers[0]

    async def retry(self, job_id: int) -> Ordered:
        """Let a job run again; see `Records`."""
        return (await self.admin.retry(job_id)).answers[0]

    def retry_sync(self, job_id: int) -> Ordered:
        """Do the same, blocking."""
        return self.admin.retry_sync(job_id).answers[0]

    async def read(self, call: Callable[[], T]) -> T:
        """Run a read of the store; see `read_store`."""
        return await read_store(self.ledgers, lambda _: call())

    def _patience(self, timeout: float | None) -> _Patience:
        longest = max(_FIRST, self.poll_interval)
        return _Patience(
            math.inf if timeout is None else timeout, longest, self.ledgers.get().store.now
        )


@attrs.define(eq=False)
class DurableIntake:
    """Stores the jobs of durable handlers.

    Attributes:
        lookup: for their handles.
        pending: how many may wait.
        on_stored: told of new jobs and their ids, in order, and of the store's clock; after
            the commit, in the thread that stored them.
    """

    lookup: JobLookup
    pending: Pending
    on_stored: Callable[[Sequence[NewJob], Sequence[int], Callable[[], float]], object]

    async def add(self, job: NewJob, read: Read) -> Any:  # noqa: ANN401 - see `Intake`
        """Store a job; see `Intake`."""
        ledger = self.lookup.ledgers.ledger
        if ledger is None or not trio.lowlevel.in_trio_task():
            [handle] = await self.enqueue([job], read)
            return handle
        # As for many, without their lists, which take as long as the rest.
        if self.pending.keeps(job.queue):
            answer = await self._within(job.queue, 1, lambda: ledger.submit(job))
        else:
            answer = await ledger.submit(job)
        if answer.fresh:
            self.on_stored([job], [answer.id], ledger.store.now)
        return JobHandle(answer.id, self.lookup, read, answer.fresh)

    async def enqueue(self, jobs: Sequence[NewJob], read: Read) -> list[Any]:
        """Store jobs; see `Intake`."""
        ledger = self.lookup.ledgers.ledger or await self.lookup.ledgers.aget()
        if in_trio():
            group = Group(enqueue=jobs)
            queue, many = jobs[0].queue, len(jobs)  # they are one handler's
            if self.pending.keeps(queue):
                answers = await self._within(queue, many, lambda: ledger.submit(group))
            else:
                answers = await ledger.submit(group)
            return self._told(ledger, jobs, answers.enqueue, read=read)
        # A task that is cancelled does not wait, but what it began is stored, and told of.
        return await asyncio.shield(asyncio.to_thread(self._store, ledger, jobs, read))

    def enqueue_sync(self, jobs: Sequence[NewJob], read: Read) -> list[Any]:
        """Do the same, blocking."""
        forbid_event_loop("enqueue_sync()", "await handler.enqueue(...)")
        return self._store(self.lookup.ledgers.get(), jobs, read)

    def _waiting(self, queue: str) -> int:
        return self.lookup.ledgers.get().store.counts().get(queue, {}).get(JobState.PENDING, 0)

    def _store(self, ledger: Ledger, jobs: Sequence[NewJob], read: Read) -> list[Any]:
        queue, many = jobs[0].queue, len(jobs)
        kept = self.pending.keeps(queue)
        if kept:
            self._take_room_now(queue, many)
        try:
            answers = ledger.commit_now(Group(enqueue=jobs))
        finally:
            if kept:
                self.pending.end(queue, many)
        return self._told(ledger, jobs, answers.enqueue, read=read)

    async def _within(self, queue: str, wanted: int, submit: Callable[[], Awaitable[T]]) -> T:
        """Submit what stores jobs of a queue that has a limit, once there is room for them."""
        await self._take_room(queue, wanted)
        try:
            return await submit()
        finally:
            self.pending.end(queue, wanted)

    async def _take_room(self, queue: str, wanted: int) -> None:
        while (since := self.pending.take(queue, wanted)) is not None:
            waiting = await self.lookup.read(partial(self._waiting, queue))
            if self.pending.renew(queue, wanted, waiting=waiting, since=since):
                return
            await trio.sleep(_UNDER_WAY)

    def _take_room_now(self, queue: str, wanted: int) -> None:
        while (since := self.pending.take(queue, wanted)) is not None:
            waiting = self._waiting(queue)
            if self.pending.renew(queue, wanted, waiting=waiting, since=since):
                return
            time.sleep(_UNDER_WAY)

    def _told(
        self, ledger: Ledger, jobs: Sequence[NewJob], answers: Sequence[Enqueued], *, read: Read
    ) -> list[Any]:
        """Tell of jobs that were stored, and return their handles."""
        ids = [answer.id for answer in answers]
        fresh = [answer.fresh for answer in answers]
        if all(fresh):
            self.on_stored(jobs, ids, ledger.store.now)
        elif stored := [*compress(jobs, fresh)]:
            self.on_stored(stored, [*compress(ids, fresh)], ledger.store.now)
        return [JobHandle(answer.id, self.lookup, read, fresh=answer.fresh) for answer in answers]
