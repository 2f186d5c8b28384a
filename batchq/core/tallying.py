"""What one transaction adds to the tallies and totals: counted here, written once at its end."""

from __future__ import annotations

from typing import Final

import attrs

from batchq.core.lifecycle import JobState

__all__ = ["KEEP_TALLIES", "MINUTE", "Count", "Counting"]

MINUTE: Final = 60.0  # [s]
KEEP_TALLIES: Final = 7 * 86_400.0  # a week [s]


@attrs.define(eq=False)
class Count:
    """What is added to one queue's tally of this minute; see `Tally`."""

    enqueued: int = 0
    claimed: int = 0
    settled: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    retried: int = 0
    crashed: int = 0
    waited: float = 0.0
    ran: float = 0.0

    def end(self, state: JobState, jobs: int) -> None:
        """Count jobs that became final."""
        if state is JobState.COMPLETED:
            self.completed += jobs
        elif state is JobState.FAILED:
            self.failed += jobs
        else:
            self.cancelled += jobs


@attrs.define(eq=False)
class Counting:
    """What one transaction adds.

    Attributes:
        now: when [s, store clock].
        queues: by name.
        left: jobs that were final and are so no more, by queue and state.
    """

    now: float
    queues: dict[str, Count] = attrs.field(factory=dict, init=False)
    left: dict[tuple[str, JobState], int] = attrs.field(factory=dict, init=False)

    @property
    def minute(self) -> float:
        """When this minute began [s, store clock]."""
        return self.now // MINUTE * MINUTE

    def of(self, queue: str) -> Count:
        """Return what is added to a queue's tally."""
        count = self.queues.get(queue)
        if count is None:
            count = self.queues[queue] = Count()
        return count

    def end(self, queue: str, state: JobState, jobs: int = 1) -> None:
        """Count jobs that became final."""
        self.of(queue).end(state, jobs)

    def leave(self, queue: str, state: JobState, jobs: int = 1) -> None:
        """Count jobs that were final and are not any more: revived, or gone."""
        self.left[queue, state] = self.left.get((queue, state), 0) + jobs
