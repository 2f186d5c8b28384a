"""What a store must do, whatever keeps its rows.

Rule 1: plain synchronous classes; every method is one atomic unit.
Rule 2: nothing here calls back into the caller, and nothing blocks between begin and
commit. What can be wrong with one job is checked before, or is an answer, never an error.
Rule 3: `due_at` is compared with `now()` and with no other clock. `now()` never goes back
nor jumps within a boot, whatever the wall clock does.
Rule 4: no other error than `StoreError` and its kin leaves a store.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import attrs

if TYPE_CHECKING:
    from batchq.core.job import Answers, Failure, Group, JobFilter, JobRecord, WorkerRecord
    from batchq.core.lifecycle import JobState

__all__ = ["Store", "StoreInfo"]


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
    """

    kind: str
    location: str
    schema: int
    durability: str
    inline: bool
    version: str


class Store(Protocol):
    """Where jobs live.

    Times are seconds on the store's clock. `commit` and `close` are called by the ledger
    only, one at a time, from any thread; what reads may be called from any thread.
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

    def find(self, where: JobFilter, *, after: int = 0, limit: int = 100) -> list[JobRecord]:
        """List jobs by rising id, from the first above `after`, at most `limit`.

        The last id of a page is the `after` of the next: pages neither skip nor repeat
        a job that did not change.
        """

    def counts(self) -> dict[str, dict[JobState, int]]:
        """Count jobs per queue and stored state; a state without jobs is left out."""

    def errors(self, job_id: int | None = None, *, limit: int = 100) -> list[Failure]:
        """List kept failures, newest first, of one job or of all."""

    def workers(self) -> list[WorkerRecord]:
        """List who has committed here, and how often; the latest first."""

    def changed(self) -> bool:
        """Hint that another process has written since the last call.

        May be spurious and may be missed: a poll is the backstop.
        """

    def info(self) -> StoreInfo:
        """Say what this store is."""

    def close(self) -> None:
        """Let go of everything; idempotent."""
