"""What the model of a store keeps, and what people read of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from batchq.core.record import JobFilter

__all__ = ["LIVE", "Row", "Rows"]

Row = dict[str, Any]
LIVE: Final = ("pending", "processing")


class Rows:
    """Jobs, errors, workers and queues, as plainly as can be."""

    def __init__(self) -> None:
        self.now = 4096.0
        self.last_id = 0
        self.jobs: dict[int, Row] = {}
        self.errors: dict[int, list[Row]] = {}
        self.workers: dict[str, Row] = {}
        self.paused: dict[str, bool] = {}
        self.tallies: dict[tuple[str, float], dict[str, float]] = {}
        self.claims: dict[int, int] = {}  # by job, burials included
        self.changed = False

    # ---- What people read

    def status(self, job: Row) -> set[str]:
        """Return the stored state, and what is read from it."""
        later = job["due_at"] is not None and job["due_at"] > self.now
        read = {
            "scheduled": job["state"] == "pending" and later and job["attempt"] == 0,
            "retrying": job["state"] == "pending" and later and job["attempt"] > 0,
            "stalled": job["state"] == "processing" and not later,
        }
        return {job["state"], *(name for name, true in read.items() if true)}

    def find(self, where: JobFilter) -> Sequence[int]:
        return [id_ for id_, job in self.jobs.items() if self.fits(job, where)]

    def fits(self, job: Row, where: JobFilter) -> bool:
        return all(
            [
                where.status is None or where.status in self.status(job),
                where.queue in {None, job["queue"]},
                where.handler in {None, job["handler"]},
                where.tag is None or where.tag in job["tags"],
                where.key is None or where.key == job["key"],
                where.first_id is None or job["id"] >= where.first_id,
                where.last_id is None or job["id"] <= where.last_id,
                where.stored_since is None or job["enqueued_at"] >= where.stored_since,
                where.stored_before is None or job["enqueued_at"] < where.stored_before,
                where.ended_since is None or (job["finished_at"] or -1) >= where.ended_since,
                where.ended_before is None
                or (job["finished_at"] is not None and job["finished_at"] < where.ended_before),
            ]
        )

    def counts(self) -> dict[str, dict[str, int]]:
        counted: dict[str, dict[str, int]] = {}
        for job in self.jobs.values():
            states = counted.setdefault(job["queue"], {})
            states[job["state"]] = states.get(job["state"], 0) + 1
        return counted

    # ---- Within

    def end(self, job: Row, state: str, reason: str | None) -> None:
        self.changed = True
        job.update(state=state, reason=reason, due_at=None, finished_at=self.now)
        if job["key_scope"] in {"waiting", "live"}:
            job["holds_key"] = False
        self.count(job, **{state: 1})

    def error(self, job: Row, message: str) -> None:
        errors = self.errors.setdefault(job["id"], [])
        row = {"attempt": job["attempt"], "at": self.now, "message": message}
        errors.append({**row, "worker": job["worker"]})
        if len(errors) > 20:
            del errors[1]

    def holders(self, handler: str, key: str) -> list[Row]:
        """Return who holds a key; one whose time is over lets go of it."""
        found = [
            job
            for job in self.jobs.values()
            if job["holds_key"] and (job["handler"], job["key"]) == (handler, key)
        ]
        for job in found:
            if job["key_until"] is not None and job["key_until"] <= self.now:
                job["holds_key"] = False
        return [job for job in found if job["holds_key"]]

    def worker(self, name: str) -> Row:
        worker = self.workers.setdefault(name, {"commits": 0, "batches": 0, "beat": None})
        worker["seen_at"] = self.now
        return worker

    def count(self, job: Row, **added: float) -> None:
        tally = self.tallies.setdefault((job["queue"], self.now // 60 * 60), {})
        for name, more in added.items():
            tally[name] = tally.get(name, 0) + more

    def is_expired(self, job: Row) -> bool:
        expired = job["expires_at"] is not None and job["expires_at"] <= self.now
        return expired and job["attempt"] == job["refunds"]

    @staticmethod
    def is_used_up(job: Row) -> bool:
        limit = job["max_attempts"]
        return limit is not None and job["attempt"] - job["refunds"] >= limit
