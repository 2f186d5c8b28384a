"""The judge of the kill test: what was promised, beside what is there.

    acks     ids that `enqueue` returned             runs     (id, attempt) a handler was given
    settles  (id, attempt, verdict) after commits    rows     the jobs, as the store has them

A killed process may leave out its last lines of `settles`: each line is proof, a missing
one is none.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs

from batchq.core.lifecycle import JobState
from batchq.core.record import JobRecord

__all__ = ["Counts", "Evidence", "Run", "Settle", "miscounted", "violations"]

Counts = Mapping[str, Mapping[JobState, int]]

# What a handler may make of a payload for good, as the store calls it; see fate.py.
_REASONS = {"discard": "discarded", "raise": "exhausted"}


@attrs.frozen
class Run:
    """A handler was given a job."""

    id: int
    attempt: int


@attrs.frozen
class Settle:
    """A hook was told of a commit: ok, fail and retry were applied, stale was refused."""

    id: int
    attempt: int
    verdict: str


@attrs.frozen(kw_only=True)
class Evidence:
    """All that is known at the end.

    Attributes:
        acks: ids of acknowledged jobs.
        runs: what handlers were given, in order.
        settles: what hooks were told, in order.
        rows: the stored jobs by id.
        fates: what the handler makes of each stored job, by id.
        counts: how many jobs the store says it has, by queue and state.
    """

    acks: Sequence[int]
    runs: Sequence[Run]
    settles: Sequence[Settle]
    rows: Mapping[int, JobRecord]
    fates: Mapping[int, str]
    counts: Counts


def violations(evidence: Evidence) -> dict[str, list[str]]:
    """Compare; returns each promise with the jobs that break it, none where it holds."""
    return {
        "lost": [*_lost(evidence)],
        "unfinished": [*_unfinished(evidence.rows.values())],
        "settled_twice": [*_settled_twice(evidence)],
        "never_run": [*_never_run(evidence)],
        "receipt_twice": [*_receipt_twice(evidence.runs)],
        "over_budget": [*_over_budget(evidence.rows.values())],
        "wrong_end": [*_wrong_end(evidence)],
        "miscounted": [*miscounted(evidence.counts, evidence.rows.values())],
    }


def miscounted(counts: Counts, rows: Iterable[JobRecord]) -> Iterator[str]:
    """Tell where the store's own counts are not those of its rows."""
    there = Counter((row.queue, row.state) for row in rows)
    said = {(queue, state): n for queue, states in counts.items() for state, n in states.items()}
    for queue, state in there.keys() | said.keys():
        found = there[queue, state]
        if said.get((queue, state), 0) != found:
            yield f"{queue} has {found} jobs {state.value}, counted {said.get((queue, state), 0)}"


def _lost(evidence: Evidence) -> Iterator[str]:
    """An acknowledged job is there."""
    counted = Counter(evidence.acks)
    for id_, count in counted.items():
        if id_ not in evidence.rows:
            yield f"job {id_} was acknowledged and is gone"
        if count > 1:
            yield f"job {id_} was acknowledged {count} times: two jobs share an id"


def _unfinished(rows: Iterable[JobRecord]) -> Iterator[str]:
    """When faults have stopped, every job comes to its end."""
    for row in rows:
        if row.state in {JobState.PENDING, JobState.PROCESSING}:
            yield f"job {row.id} is still {row.state.value}"


def _settled_twice(evidence: Evidence) -> Iterator[str]:
    """One receipt settles once; nothing is applied after the end, nor by an old receipt."""
    applied: dict[int, list[Settle]] = defaultdict(list)
    for settle in evidence.settles:
        if settle.verdict != "stale":
            applied[settle.id].append(settle)
    for id_, settles in applied.items():
        attempts = [settle.attempt for settle in settles]
        ends = [settle for settle in settles if settle.verdict != "retry"]
        row = evidence.rows.get(id_)
        if len(set(attempts)) < len(attempts) or len(ends) > 1:
            yield f"job {id_} was settled twice: {json.dumps([attrs.astuple(s) for s in settles])}"
        elif row is not None and ends and _contradicts(ends[0], row):
            yield (
                f"job {id_}: {ends[0].verdict} was applied for attempt {ends[0].attempt}, and"
                f" the store says {row.state.value} after attempt {row.attempt}"
            )


def _contradicts(end: Settle, row: JobRecord) -> bool:
    state = JobState.COMPLETED if end.verdict == "ok" else JobState.FAILED
    return row.attempt != end.attempt or row.state is not state


def _never_run(evidence: Evidence) -> Iterator[str]:
    """A completed job was run by the very attempt that completed it."""
    runs = set(evidence.runs)
    for row in evidence.rows.values():
        if row.state is JobState.COMPLETED and Run(row.id, row.attempt) not in runs:
            yield f"job {row.id} is completed, and no handler had its attempt {row.attempt}"


def _receipt_twice(runs: Iterable[Run]) -> Iterator[str]:
    """Two workers never hold the same receipt."""
    for run, count in Counter(runs).items():
        if count > 1:
            yield f"job {run.id}, attempt {run.attempt}, was given out {count} times"


def _over_budget(rows: Iterable[JobRecord]) -> Iterator[str]:
    """Attempts that count are no more than allowed."""
    for row in rows:
        if not 0 <= row.refunds <= row.attempt or row.used > (row.max_attempts or 0):
            yield f"job {row.id} used {row.used} of {row.max_attempts} attempts"


def _wrong_end(evidence: Evidence) -> Iterator[str]:
    """A job ends as its handler says, or was buried when all its attempts were cut off."""
    for row in evidence.rows.values():
        buried = row.reason == "crashed" and row.used == row.max_attempts
        wanted = _REASONS.get(evidence.fates[row.id])
        last = row.used == row.max_attempts or row.reason != "exhausted"
        if row.state is JobState.FAILED and not buried and not (row.reason == wanted and last):
            yield f"job {row.id} failed ({row.reason}) after {row.used} attempts"
        if row.state is JobState.COMPLETED and wanted is not None:
            yield f"job {row.id} is completed, and its handler never said so"
