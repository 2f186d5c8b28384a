"""What a handler's `enqueue` gives back, in either tier, and whom handlers and handles ask.

Rule 1: nothing here knows a store, a ledger or a queue: the manager's side of an `Intake`
and of `Records` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from batchq.core.job import NewJob
from batchq.core.lifecycle import USER, JobState
from batchq.core.record import JobRecord, Ordered
from batchq.errors import JobFailed

__all__ = ["Intake", "JobHandle", "Read", "Records"]

R = TypeVar("R")

Read = Callable[[bytes | None], Any]


class Intake(Protocol):
    """Where a handler's jobs go."""

    async def add(self, job: NewJob, read: Read) -> Any:  # noqa: ANN401 - of any handler's value
        """Take one job in, and return its handle; see `enqueue`."""

    async def enqueue(self, jobs: Sequence[NewJob], read: Read) -> list[Any]:
        """Take jobs in: all or none of them (durable tier), or one after the other (memory).

        Args:
            jobs: checked and encoded.
            read: decodes a stored result.

        Returns:
            Their handles, one per job, in order.

        Raises:
            QueueError: they can't come in (memory tier); its `entries` has the handles of
                those that did before.
            StoreError: they were not stored (durable tier).
        """

    def enqueue_sync(self, jobs: Sequence[NewJob], read: Read) -> list[Any]:
        """Do the same, blocking; in an event loop it raises RuntimeError."""


class Records(Protocol):
    """Where handles look their jobs up."""

    async def get(self, job_id: int) -> tuple[JobRecord, str]:
        """Read a job and its status as people say it; raises UnknownJob."""

    def get_sync(self, job_id: int) -> tuple[JobRecord, str]:
        """Do the same, blocking."""

    async def ended(self, job_id: int, timeout: float | None) -> JobRecord:  # noqa: ASYNC109
        """Wait until a job is final; raises TimeoutError."""

    def ended_sync(self, job_id: int, timeout: float | None) -> JobRecord:
        """Do the same, blocking."""

    async def last_error(self, job_id: int) -> str:
        """Say how the job's last attempt failed; empty if it is not known."""

    def last_error_sync(self, job_id: int) -> str:
        """Do the same, blocking."""

    async def cancel(self, job_id: int, reason: str) -> Ordered:
        """Cancel a job that waits, or ask one that is running to stop."""

    def cancel_sync(self, job_id: int, reason: str) -> Ordered:
        """Do the same, blocking."""

    async def retry(self, job_id: int) -> Ordered:
        """Let a job that ended run again, or one that waits run now."""

    def retry_sync(self, job_id: int) -> Ordered:
        """Do the same, blocking."""


# A msgspec.Struct, as the core's Entry: one is made for every job.
class JobHandle(msgspec.Struct, Generic[R], eq=False, weakref=True):
    """A stored job, as whoever enqueued it holds it.

    Attributes:
        id: its number in the store.
        fresh: False: nothing was stored, this is the job that holds its key.
        state: its stored state, when it was last read.
        status: the same as people say it: `scheduled`, `retrying`, `stalled`, or the state.
    """

    id: int
    _records: Records
    _read: Read
    fresh: bool = True
    state: JobState = JobState.PENDING
    status: str = JobState.PENDING.value

    def __repr__(self) -> str:
        return f"JobHandle(id={self.id}, state={self.state}, status={self.status!r})"

    async def refresh(self) -> JobState:
        """Read the job's state anew, and return it.

        Raises:
            UnknownJob: the store has it no more.
        """
        record, self.status = await self._records.get(self.id)
        self.state = record.state
        return self.state

    def refresh_sync(self) -> JobState:
        """Do the same, blocking."""
        record, self.status = self._records.get_sync(self.id)
        self.state = record.state
        return self.state

    async def result(self, timeout: float | None = None) -> R:  # noqa: ASYNC109
        """Wait for the value that the handler returned.

        Args:
            timeout: how long to wait [s]; None is no limit.

        Raises:
            TimeoutError: the job was not final in time; it goes on.
            JobFailed: it has failed or was cancelled.
            PayloadError: the value does not fit the handler's return annotation.
        """
        record = await self._records.ended(self.id, timeout)
        self.state, self.status = record.state, record.state.value
        if record.state is not JobState.COMPLETED:
            raise _failed(record, await self._records.last_error(self.id))
        return self._read(record.value)  # type: ignore[no-any-return]  # of type R, checked

    def result_sync(self, timeout: float | None = None) -> R:
        """Do the same, blocking: for scripts and frameworks without an event loop."""
        record = self._records.ended_sync(self.id, timeout)
        self.state, self.status = record.state, record.state.value
        if record.state is not JobState.COMPLETED:
            raise _failed(record, self._records.last_error_sync(self.id))
        return self._read(record.value)  # type: ignore[no-any-return]  # of type R, checked

    async def cancel(self, reason: str = USER) -> Ordered:
        """Cancel the job if it waits, or ask whoever runs it to stop.

        Args:
            reason: why, in one word; it is kept with the job.

        Returns:
            `DONE`: it is cancelled; `ASKED`: it runs, and is stopped as soon as its worker
            hears of it; `REFUSED`: it has ended; `UNKNOWN`: the store has it no more.
        """
        return await self._records.cancel(self.id, reason)

    def cancel_sync(self, reason: str = USER) -> Ordered:
        """Do the same, blocking."""
        return self._records.cancel_sync(self.id, reason)

    async def retry(self) -> Ordered:
        """Let the job run again if it has ended, with all its attempts; or now if it waits.

        Returns:
            `DONE`; `REFUSED`: it runs; `CONFLICT`: another job has its key; `UNKNOWN`: the
            store has it no more.
        """
        return await self._records.retry(self.id)

    def retry_sync(self) -> Ordered:
        """Do the same, blocking."""
        return self._records.retry_sync(self.id)


def _failed(record: JobRecord, last: str) -> JobFailed:
    why = f" ({record.reason})" if record.reason else ""
    return JobFailed(
        f"job {record.id} of handler {record.handler!r} is {record.state.value}{why} after"
        f" {record.used} attempt{'s' * (record.used != 1)}"
        f"{f'; the last one: {last}' if last else ''}",
        job_id=record.id,
        state=record.state.value,
        reason=record.reason,
    )
