"""What people ask a manager about jobs, and order.

    await manager.cancel(job)    manager.cancel_sync(17)    await manager.retry(JobFilter(...))

Rule 1: every order has a twin that blocks, for programs without an event loop.
Rule 2: an order about a filter's jobs is worked off by thousands, each a transaction of its
own: nobody waits long for it, and what it did before an error stands.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import trio

from batchq.bridge import forbid_event_loop, in_trio, run_blocking
from batchq.core.checks import checked_wait
from batchq.core.filters import check_filter, check_page, ends
from batchq.core.job_options import check_name
from batchq.core.lifecycle import USER, JobState
from batchq.core.record import (
    EVERY_JOB,
    Changed,
    Cleaned,
    JobFilter,
    JobRecord,
    Ordered,
    Outcome,
    StoreStats,
)
from batchq.errors import OptionError, UnknownJob
from batchq.job_handle import JobHandle
from batchq.ledger import Ledger
from batchq.stores.base import Store

__all__ = ["Admin", "Ledgers", "read_job", "read_store"]

T = TypeVar("T")

Jobs: TypeAlias = int | JobHandle[Any] | Iterable[int | JobHandle[Any]] | JobFilter

_AT_ONCE: Final = 1_000
_LATELY: Final = 3_600.0  # [s]
_FINAL: Final = tuple(state for state in JobState if state.final)
_Steps: TypeAlias = Generator[Callable[[Store], Any], Any, T]


class Ledgers(Protocol):
    """Where a manager has its ledger."""

    def get(self) -> Ledger:
        """Return it, opened; it blocks."""

    async def aget(self) -> Ledger:
        """Return it, opened without blocking the event loop."""


class _Order(Protocol):
    """What to do to some jobs: ids, or a filter's from where on."""

    def __call__(self, store: Store, *, which: Sequence[int] | JobFilter, after: int) -> Changed:
        """Do it to the next of them."""


class Admin:
    """The part of a manager that people give orders to.

    Args:
        ledgers: the road to the store.
        on_asked: told which jobs were asked to stop.
        on_news: told that jobs may be due that were not.
    """

    def __init__(
        self,
        ledgers: Ledgers,
        on_asked: Callable[[Sequence[int]], object],
        on_news: Callable[[], object],
    ) -> None:
        self._road = ledgers
        self._on_asked = on_asked
        self._on_news = on_news

    async def cancel(self, jobs: Jobs, reason: str = USER) -> Outcome:
        """Cancel jobs that wait, and ask those that are running to stop.

        An async handler is cancelled at its next checkpoint, in whatever process it runs; a
        thread is not stopped. A job that completes first is completed.

        Args:
            jobs: an id, a handle, several of them, or a `JobFilter`.
            reason: why, in one word; it is kept with the job.

        Raises:
            TypeError: what is to be cancelled is neither an id nor a handle.
            OptionError: the reason is empty, or can't be printed; or the filter says what
                no job could be, as a status that there is not.
            StoreError: it was not done; of a filter's jobs, not to the end.
        """
        return await self._drive(self._cancel(jobs, reason))

    def cancel_sync(self, jobs: Jobs, reason: str = USER) -> Outcome:
        """Do the same, blocking."""
        return self._drive_sync(self._cancel(jobs, reason), "cancel")

    async def retry(self, jobs: Jobs) -> Outcome:
        """Let jobs that ended run again, with all their attempts; and waiting ones run now.

        Args:
            jobs: an id, a handle, several of them, or a `JobFilter`.

        Raises:
            TypeError, OptionError: as of `cancel`.
            StoreError: it was not done; of a filter's jobs, not to the end.
        """
        return await self._drive(self._retry(jobs))

    def retry_sync(self, jobs: Jobs) -> Outcome:
        """Do the same, blocking."""
        return self._drive_sync(self._retry(jobs), "retry")

    async def delete(self, jobs: Jobs) -> Outcome:
        """Delete jobs that ended, with what is kept of their failures.

        Refused are those that have not ended: cancel them first; and those whose key still
        keeps others away for a time.

        Args:
            jobs: an id, a handle, several of them, or a `JobFilter`.

        Raises:
            TypeError, OptionError: as of `cancel`.
            StoreError: it was not done; of a filter's jobs, not to the end.
        """
        return await self._drive(_each(jobs, _delete))

    def delete_sync(self, jobs: Jobs) -> Outcome:
        """Do the same, blocking."""
        return self._drive_sync(_each(jobs, _delete), "delete")

    async def pause(self, queue: str) -> None:
        """Let nothing of a queue be claimed, by any process, until `resume`.

        What runs goes on, and jobs may be stored. It outlives every restart.
        """
        await self._drive(self._set_queue(queue, paused=True))

    def pause_sync(self, queue: str) -> None:
        """Do the same, blocking."""
        self._drive_sync(self._set_queue(queue, paused=True), "pause")

    async def resume(self, queue: str) -> None:
        """Let a queue's jobs be claimed again."""
        await self._drive(self._set_queue(queue, paused=False))

    def resume_sync(self, queue: str) -> None:
        """Do the same, blocking."""
        self._drive_sync(self._set_queue(queue, paused=False), "resume")

    async def clean(
        self, *, grace: float, queue: str | None = None, states: Iterable[JobState] = _FINAL
    ) -> int:
        """Delete jobs that ended long enough ago, with what is kept of their failures.

        Args:
            grace: how long ago at least [s].
            queue: only its jobs; None: all.
            states: only those that ended so.

        Returns:
            How many are gone.

        Raises:
            OptionError: no such wait, or no such end.
        """
        return await self._drive(self._clean(grace, queue, states))

    def clean_sync(
        self, *, grace: float, queue: str | None = None, states: Iterable[JobState] = _FINAL
    ) -> int:
        """Do the same, blocking."""
        return self._drive_sync(self._clean(grace, queue, states), "clean")

    async def get(self, job: int | JobHandle[Any]) -> JobRecord:
        """Read one job.

        Raises:
            UnknownJob: the store has none of that id.
        """
        return await read_store(self._road, partial(read_job, job_id=_id_of(job)))

    def get_sync(self, job: int | JobHandle[Any]) -> JobRecord:
        """Do the same, blocking."""
        return read_job(self._road.get().store, _id_of(job))

    async def jobs(
        self,
        where: JobFilter = EVERY_JOB,
        *,
        after: int | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> list[JobRecord]:
        """List jobs in the order they were stored, page by page.

        Args:
            where: which.
            after: the id of the last job of the page before; None: the first page.
            limit: at most so many [jobs].
            newest_first: begin with the youngest.

        Raises:
            OptionError: there is no such status, limit or id; it says which there are.
        """
        page = _page(where, after, limit, newest_first=newest_first)
        return await read_store(self._road, page)

    def jobs_sync(
        self,
        where: JobFilter = EVERY_JOB,
        *,
        after: int | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> list[JobRecord]:
        """Do the same, blocking."""
        page = _page(where, after, limit, newest_first=newest_first)
        return page(self._road.get().store)

    async def failed(self, queue: str | None = None, *, limit: int = 100) -> list[JobRecord]:
        """List what failed, the youngest first: the dead letters of a queue, or of all."""
        where = JobFilter(status=JobState.FAILED, queue=queue)
        return await self.jobs(where, limit=limit, newest_first=True)

    def failed_sync(self, queue: str | None = None, *, limit: int = 100) -> list[JobRecord]:
        """Do the same, blocking."""
        where = JobFilter(status=JobState.FAILED, queue=queue)
        return self.jobs_sync(where, limit=limit, newest_first=True)

    async def stats(self) -> StoreStats:
        """Count what is there, and what happened within the last hour."""
        return await read_store(self._road, _stats)

    def stats_sync(self) -> StoreStats:
        """Do the same, blocking."""
        return _stats(self._road.get().store)

    # ---- Orders, step by step: each yields what to do to the store, and gets the answer.

    def _cancel(self, jobs: Jobs, reason: str) -> _Steps[Outcome]:
        said: object = reason
        if not isinstance(said, str) or not said or not said.isprintable():
            raise OptionError(f"reason must be a text that can be printed, got {reason!r}")

        def order(store: Store, *, which: Sequence[int] | JobFilter, after: int) -> Changed:
            return store.cancel(which, reason, after=after)

        outcome = yield from _each(jobs, order)
        if outcome.asked:
            self._on_asked(outcome.asked)
        return outcome

    def _retry(self, jobs: Jobs) -> _Steps[Outcome]:
        def order(store: Store, *, which: Sequence[int] | JobFilter, after: int) -> Changed:
            return store.retry(which, after=after)

        outcome = yield from _each(jobs, order)
        self._on_news()
        return outcome

    def _set_queue(self, queue: str, *, paused: bool) -> _Steps[None]:
        check_name("a queue's name", queue)
        yield lambda store: store.set_queue(queue, paused=paused)
        if not paused:
            self._on_news()

    def _clean(self, grace: float, queue: str | None, states: Iterable[JobState]) -> _Steps[int]:
        if queue is not None:
            check_name("a queue's name", queue)
        retention = dict.fromkeys(ends(states), checked_wait("grace", grace))

        def step(store: Store, *, after: int) -> Cleaned:
            return store.clean(retention, queue=queue, after=after)

        deleted, after = 0, 0
        while True:
            cleaned: Cleaned = yield partial(step, after=after)
            deleted += cleaned.deleted
            if cleaned.next is None:
                return deleted
            after = cleaned.next

    async def _drive(self, steps: _Steps[T]) -> T:
        ledger = await self._road.aget()
        answer: Any = None
        while True:
            try:
                call = steps.send(answer)
            except StopIteration as end:
                done: T = end.value
                return done
            if in_trio():
                answer = await ledger.call(call)
            else:  # a task that is cancelled does not wait, but what it began is done
                answer = await asyncio.shield(asyncio.to_thread(ledger.call_now, call))

    def _drive_sync(self, steps: _Steps[T], name: str) -> T:
        forbid_event_loop(f"{name}_sync()", f"await manager.{name}(...)")
        ledger = self._road.get()
        answer: Any = None
        while True:
            try:
                call = steps.send(answer)
            except StopIteration as end:
                done: T = end.value
                return done
            answer = ledger.call_now(call)


def _each(jobs: Jobs, order: _Order) -> _Steps[Outcome]:
    """Carry an order out on ids, or on a filter's jobs, by thousands."""
    counts: Counter[Ordered] = Counter()
    answers: list[Ordered] = []
    asked: list[int] = []
    for which in _portions(jobs):
        after: int | None = 0
        while after is not None:
            changed: Changed = yield partial(order, which=which, after=after)
            counts.update(changed.answers)
            asked += [
                id_
                for id_, answer in zip(changed.ids, changed.answers, strict=True)
                if answer is Ordered.ASKED
            ]
            if not isinstance(jobs, JobFilter):
                answers += changed.answers
            after = changed.next
    return Outcome(answers=answers, counts=dict(counts), asked=asked)


def _delete(store: Store, *, which: Sequence[int] | JobFilter, after: int) -> Changed:
    if not isinstance(which, JobFilter):
        return Changed(which, store.delete(which))
    found = [job.id for job in store.find(which, after=after, limit=_AT_ONCE)]
    return Changed(found, store.delete(found), found[-1] if len(found) == _AT_ONCE else None)


def _page(
    where: JobFilter, after: int | None, limit: int, *, newest_first: bool
) -> Callable[[Store], list[JobRecord]]:
    check_filter(where)
    check_page(after, limit)
    return lambda store: store.find(where, after=after, limit=limit, newest_first=newest_first)


def _portions(jobs: Jobs) -> Iterator[Sequence[int] | JobFilter]:
    if isinstance(jobs, JobFilter):
        check_filter(jobs)
        yield jobs
        return
    ids = map(_id_of, jobs if isinstance(jobs, Iterable) else [jobs])
    while portion := list(islice(ids, _AT_ONCE)):
        yield portion


def _id_of(job: object) -> int:
    if isinstance(job, JobHandle):
        return job.id
    if not isinstance(job, int) or isinstance(job, bool):
        raise TypeError(f"a job is named by its id or its handle, got {job!r}")
    return job


async def read_store(ledgers: Ledgers, call: Callable[[Store], T]) -> T:
    """Run a read of the store, in a thread if the store needs one; under trio or asyncio."""
    store = (await ledgers.aget()).store
    if not store.info().inline:
        return await run_blocking(partial(call, store))
    if in_trio():
        await trio.lowlevel.checkpoint()
    return call(store)


def read_job(store: Store, job_id: int) -> JobRecord:
    """Read one job.

    Raises:
        UnknownJob: there is none of that id.
    """
    [record] = store.get([job_id])
    if record is None:
        raise UnknownJob(f"the store {store.info().location} has no job {job_id}")
    return record


def _stats(store: Store) -> StoreStats:
    now = store.now()
    return StoreStats(
        now=now,
        queues=store.counts(),
        paused=frozenset(queue.queue for queue in store.queues() if queue.paused),
        tallies=store.tally(now - _LATELY),
        workers=store.workers(),
    )
