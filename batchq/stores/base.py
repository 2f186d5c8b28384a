"""What a store must do, whatever keeps its rows.

Rule 1: plain synchronous classes; every method is one atomic unit.
Rule 2: nothing here calls back into the caller, and nothing blocks between begin and
commit. What can be wrong with one job is checked before, or is an answer, never an error.
Rule 3: `due_at` is compared with `now()` and with no other clock. `now()` never goes back
nor jumps within a boot, whatever the wall clock does.
Rule 4: no other error than `StoreError` and its kin leaves a store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import attrs

from batchq.core.lifecycle import USER
from batchq.core.record import EVERY_JOB

if TYPE_CHECKING:
    from batchq.core.job import Answers, Group
    from batchq.core.lifecycle import JobState
    from batchq.core.record import (
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

__all__ = ["Store", "StoreInfo", "Waits"]


@attrs.frozen(kw_only=True)
class StoreInfo:
    """What a store says of itself.

    Attributes:
        kind: `memory` or `sqlite`.
        location: where its rows are, as people write it.
        schema: the number of its schema.
        durability: `full`: what is stored survives a power cut; `process`: it survives
            the death of every process; `memory`: it lives as long as this process.
        inline: True where a call is so short that it needs no thread of its own.
        version: the driver's own version.
        shared: whether other processes may use it at the same time.
        watch: files; a change of one of them hints that somebody has written, as
            `changed` does. They come and go.
    """

    kind: str
    location: str
    schema: int
    durability: str
    inline: bool
    version: str
    shared: bool = False
    watch: tuple[str, ...] = ()


@runtime_checkable
class Waits(Protocol):
    """What a store can do, too, whose writes may have to wait for others'."""

    def hurry(self, until: float) -> None:
        """Let no write wait beyond this time [s, `time.monotonic()`]; inf: as usual."""


class Store(Protocol):
    """Where jobs live.

    Times are seconds on the store's clock. `commit`, `close` and what else writes are called
    by the ledger only, one at a time, from any thread; what reads may be called from any
    thread at any time.
    """

    def now(self) -> float:
        """Tell the time [s, store clock]: near the epoch, steady within a boot."""

    def commit(self, group: Group) -> Answers:
        """Carry out the whole group as one transaction, or none of it.

        The order is settle, extend, enqueue, claim: a lease that ran out is kept before
        it can be claimed, and members of one group see each other.

        Returns:
            One answer per member, in order.

        Raises:
            StoreBusy: others held the lock all the time; nothing was done.
            StoreFull: no space; nothing was done.
            StoreBroken: stop using it.
        """

    def get(self, ids: Sequence[int]) -> list[JobRecord | None]:
        """Read jobs; one answer per id, in order, None where there is none."""

    def find(
        self,
        where: JobFilter,
        *,
        after: int | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> list[JobRecord]:
        """List jobs by rising id, from the first above `after`, at most `limit`.

        With `newest_first` by falling id, from the first below `after`. None begins at the
        end. The last id of a page is the `after` of the next: pages neither skip nor repeat
        a job that did not change. One that can't be read whole, for something else has
        written it, is given with what can be, and `spoiled` says why.

        An unknown status means no job, here and in orders: whoever lets people say it checks
        it, as managers do (core/filters.py). A limit of 0 or less gives no job.
        """

    def counts(self) -> dict[str, dict[JobState, int]]:
        """Count jobs per queue and stored state; a state without jobs is left out."""

    def kinds(self) -> list[tuple[str, str]]:
        """List whose jobs have not ended, as (queue, handler), sorted."""

    def tally(self, since: float) -> list[Tally]:
        """List what happened since the minute of `since` [s, store clock], by minute, queue."""

    def errors(
        self, job_id: int | None = None, *, where: JobFilter = EVERY_JOB, limit: int = 100
    ) -> list[Failure]:
        """List kept failures, newest first, of one job or of those that `where` means."""

    def queues(self) -> list[QueueRecord]:
        """List the queues about which something was ordered, by name."""

    def workers(self) -> list[WorkerRecord]:
        """List who has committed or beat here; the latest first."""

    def record(self, notes: Sequence[Note]) -> Sequence[bool]:
        """Keep what handlers say of running jobs.

        Returns:
            Per note, in order, whether its receipt is current; another changes nothing.
        """

    def cancel(
        self,
        selection: Sequence[int] | JobFilter,
        reason: str = USER,
        *,
        after: int = 0,
        limit: int = 1_000,
    ) -> Changed:
        """Cancel jobs that wait, and ask those that are processing to stop.

        Args:
            selection: ids; or a filter, of whose jobs those are meant that come first
                above `after` by rising id, at most `limit`.
            reason: why, in one word.
            after: where to begin in a filter's jobs; the `next` of the last answer.
            limit: most jobs of a filter in one transaction.
        """

    def retry(
        self, selection: Sequence[int] | JobFilter, *, after: int = 0, limit: int = 1_000
    ) -> Changed:
        """Let ended jobs run again, with all their attempts; and waiting ones run now.

        Args:
            selection: as of `cancel`.
            after: as of `cancel`.
            limit: as of `cancel`.
        """

    def delete(self, ids: Sequence[int]) -> Sequence[Ordered]:
        """Delete ended jobs and their failures; one answer per id, in order."""

    def clean(
        self,
        retention: Mapping[JobState, float],
        *,
        queue: str | None = None,
        after: int = 0,
        limit: int = 1_000,
    ) -> Cleaned:
        """Delete, among the next `limit` jobs, those that ended long enough ago.

        The caller begins at 0 and goes on at each answer's `next` until that is None. With
        the first step old tallies go, too, and what was said of workers long gone.

        Args:
            retention: how long jobs are kept after their end, by final state [s]; a state
                that is missing is kept.
            queue: only its jobs; None: all.
            after: the id after which to look.
            limit: most jobs to look at in one transaction.
        """

    def set_queue(self, queue: str, *, paused: bool) -> None:
        """Order, for every process, whether a queue is paused.

        Nothing of a paused queue is claimed once this returned; what runs goes on.
        """

    def beat(self, beat: Beat) -> None:
        """Keep what a worker says of itself."""

    def changed(self) -> bool:
        """Hint that another process has written since the last call; asked by the ledger.

        May be spurious and may be missed: a poll is the backstop.
        """

    def info(self) -> StoreInfo:
        """Say what this store is."""

    def close(self) -> None:
        """Let go of everything; idempotent."""
