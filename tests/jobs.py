"""A store that remembers and fails as told, a slow road to it, and short commands."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import attrs
import trio

from batchq import JobState, QueueManager
from batchq.core.job import Answers, ClaimRequest, Group, NewJob
from batchq.core.record import JobFilter, JobRecord
from batchq.stores.base import Store
from batchq.stores.memory import MemoryStore

__all__ = [
    "Hops",
    "WatchedStore",
    "claim",
    "jobs_in",
    "new_job",
    "no_trouble",
    "nothing_is_leased",
    "said",
    "store_of",
    "until",
    "work_off",
]


def no_trouble(_: Group) -> Exception | None:
    return None


class WatchedStore(MemoryStore):
    """A memory store that remembers what it committed, and fails as told.

    Attributes:
        groups: what was committed, in order.
        trouble: what the next commits raise, one each.
        refuses: what a commit of this group raises; None: nothing.
    """

    def __init__(self, *, clock: Callable[[], float] | None = trio.current_time) -> None:
        super().__init__(clock=clock)
        self.groups: list[Group] = []
        self.trouble: list[BaseException] = []
        self.refuses: Callable[[Group], BaseException | None] = no_trouble

    def commit(self, group: Group) -> Answers:
        error = self.trouble.pop(0) if self.trouble else self.refuses(group)
        if error is not None:
            raise error
        answers = super().commit(group)
        self.groups.append(group)
        return answers


@attrs.define
class Hops:
    """A road to the store on which each commit takes a while, as in a thread.

    Attributes:
        takes: how long [s].
        count: commits that went that way.
    """

    takes: float = 0.0
    count: int = 0

    async def __call__(self, call: Callable[[Any], Any], argument: Any, /) -> Any:  # noqa: ANN401 - any call
        self.count += isinstance(argument, Group)
        await trio.sleep(self.takes)
        return call(argument)


def new_job(payload: object = 0, *, queue: str = "q", delay: float = 0.0) -> NewJob:
    return NewJob(queue=queue, handler=queue, payload=str(payload).encode(), delay=delay)


def claim(limit: int = 1, *, queue: str = "q", lease: float = 30.0) -> ClaimRequest:
    return ClaimRequest(queue=queue, handlers=(queue,), limit=limit, lease=lease, worker="w")


def store_of(manager: QueueManager) -> Store:
    return manager._ledgers.get().store


def jobs_in(where: QueueManager | Store, *ids: int) -> list[JobRecord]:
    """Read these jobs, or all there are."""
    store: Any = store_of(where) if isinstance(where, QueueManager) else where
    found: Iterable[JobRecord] = store.get(ids) if ids else store.find(JobFilter(), limit=100_000)
    return list(found)


def nothing_is_leased(where: QueueManager | Store) -> bool:
    return all(job.state is not JobState.PROCESSING for job in jobs_in(where))


def said(manager: QueueManager, job_id: int) -> str:
    """Say how the job's last attempt failed."""
    line = store_of(manager).errors(job_id)[0].line
    return f"{line.kind}: {line.message}"


async def until(done: Callable[[], bool]) -> None:
    """Wait for what other threads do, in real time."""
    with trio.fail_after(20):
        while not done():  # noqa: ASYNC110 - no event of ours tells of it
            await trio.sleep(0.02)


async def work_off(manager: QueueManager) -> None:
    """Work until nothing waits, in real time."""
    waiting = {JobState.PENDING, JobState.PROCESSING}
    async with manager.working():
        await until(lambda: not any(job.state in waiting for job in jobs_in(manager)))
