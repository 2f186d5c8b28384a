"""The simplest model of a store: a list of plain dicts, and loops over all of it.

It knows nothing of core/lifecycle.py: what the stores share, it must not share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from batchq.core.job import ClaimRequest, Group, NewJob, Receipt, Settlement

Row = dict[str, Any]
LIVE = ("pending", "processing")


class Model:
    """Jobs, errors and workers, as plainly as can be."""

    def __init__(self) -> None:
        self.now = 4096.0
        self.jobs: dict[int, Row] = {}
        self.errors: dict[int, list[Row]] = {}
        self.workers: dict[str, Row] = {}
        self.claims: dict[int, int] = {}  # by job, burials included
        self.changed = False

    def commit(self, group: Group) -> tuple[list[str], list[list[str]], list[int], list[Row]]:
        self.changed = False
        answers = (
            [self.settle(settlement) for settlement in group.settle],
            [
                [self.extend(receipt, extension.lease) for receipt in extension.receipts]
                for extension in group.extend
            ],
            [self.enqueue(job) for job in group.enqueue],
            [self.claim(request) for request in group.claim],
        )
        if group.worker and (self.changed or group.batches):
            worker = self.workers.setdefault(group.worker, {"commits": 0, "batches": 0})
            worker["commits"] += 1
            worker["batches"] += group.batches
            worker["seen_at"] = self.now
        return answers

    def settle(self, settlement: Settlement) -> str:
        job = self.jobs.get(settlement.receipt.job_id)
        if job is None or job["attempt"] != settlement.receipt.attempt:
            return "stale"
        if job["state"] != "processing":
            return "recorded"
        self.changed = True
        verdict = settlement.verdict.value
        job["crashes"] = 0
        if verdict in {"retry", "fail"} and settlement.error is not None:
            self.error(job, settlement.error.message)
        if verdict == "ok":
            job.update(state="completed", value=settlement.value)
        elif verdict == "cancel":
            job.update(state="cancelled", reason=settlement.reason or "user")
        elif verdict == "fail":
            job.update(state="failed", reason=settlement.reason)
        elif verdict == "retry" and self.is_used_up(job):
            job.update(state="failed", reason="exhausted")
        elif verdict == "release":
            job.update(state="pending", due_at=job["enqueued_at"], refunds=job["refunds"] + 1)
        else:
            job.update(state="pending", due_at=self.now + settlement.delay)
            job["refunds"] += verdict == "snooze"
        if job["state"] not in LIVE:
            job.update(due_at=None, finished_at=self.now)
        return "applied"

    def extend(self, receipt: Receipt, lease: float) -> str:
        job = self.jobs.get(receipt.job_id)
        if job is None or (job["state"], job["attempt"]) != ("processing", receipt.attempt):
            return "stale"
        self.changed = True
        job["due_at"] = self.now + lease
        return "ok"

    def enqueue(self, job: NewJob) -> int:
        self.changed = True
        id_ = len(self.jobs) + 1
        self.claims[id_] = 0
        self.jobs[id_] = {
            "id": id_,
            "queue": job.queue,
            "handler": job.handler,
            "state": "pending",
            "priority": job.priority,
            "due_at": self.now + job.delay,
            "attempt": 0,
            "refunds": 0,
            "max_attempts": job.max_attempts,
            "crashes": 0,
            "payload": job.payload,
            "worker": None,
            "value": None,
            "reason": None,
            "enqueued_at": self.now,
            "started_at": None,
            "finished_at": None,
            "cancel": None,
            "expires_at": None,
            "tags": (),
            "key": None,
            "key_scope": None,
            "key_until": None,
            "holds_key": False,
            "progress": None,
            "note": None,
        }
        return id_

    def claim(self, request: ClaimRequest) -> Row:
        receipts: list[tuple[int, int]] = []
        buried, full = 0, False
        passed: list[int] = []
        for job in sorted(self.due(request), key=in_order):
            if len(receipts) == request.limit:
                break
            used_up = self.is_used_up(job)
            suspect = job["state"] == "processing" and job["crashes"] >= 1
            if suspect and not used_up:
                if not request.suspect:
                    passed.append(job["id"])
                    continue
                full = True
                if receipts:
                    break
            if job["state"] == "processing":
                self.error(job, "lease ran out")
            job["attempt"] += 1
            self.claims[job["id"]] += 1
            self.changed = True
            if used_up:
                buried += 1
                job.update(state="failed", reason="crashed", due_at=None, finished_at=self.now)
                job["refunds"] += 1
                continue
            job["crashes"] += job["state"] == "processing"
            job.update(state="processing", due_at=self.now + request.lease)
            job.update(worker=request.worker, started_at=self.now)
            receipts.append((job["id"], job["attempt"]))
            if full:
                break
        full = full or len(receipts) == request.limit
        wait = 0.0 if full else self.wait(request, passed)
        return {"receipts": receipts, "buried": buried, "wait": wait}

    def due(self, request: ClaimRequest) -> list[Row]:
        return [job for job in self.waiting(request) if job["due_at"] <= self.now]

    def waiting(self, request: ClaimRequest) -> list[Row]:
        return [
            job
            for job in self.jobs.values()
            if job["state"] in LIVE
            and job["queue"] == request.queue
            and job["handler"] in request.handlers
        ]

    def wait(self, request: ClaimRequest, passed: Sequence[int]) -> float | None:
        jobs = [job for job in self.waiting(request) if job["id"] not in passed]
        due = [job["due_at"] - self.now for job in jobs]
        return min(due) if due else None

    def error(self, job: Row, message: str) -> None:
        errors = self.errors.setdefault(job["id"], [])
        errors.append(
            {
                "attempt": job["attempt"],
                "at": self.now,
                "message": message,
                "worker": job["worker"],
            }
        )
        if len(errors) > 20:
            del errors[1]

    def status(self, job: Row) -> set[str]:
        """Return the stored state, and what is read from it."""
        later = job["due_at"] is not None and job["due_at"] > self.now
        read = {
            "scheduled": job["state"] == "pending" and later and job["attempt"] == 0,
            "retrying": job["state"] == "pending" and later and job["attempt"] > 0,
            "stalled": job["state"] == "processing" and not later,
        }
        return {job["state"], *(name for name, true in read.items() if true)}

    def find(self, status: str | None, queue: str | None, handler: str | None) -> Sequence[int]:
        return [
            id_
            for id_, job in self.jobs.items()
            if (status is None or status in self.status(job))
            and (queue is None or queue == job["queue"])
            and (handler is None or handler == job["handler"])
        ]

    def counts(self) -> dict[str, dict[str, int]]:
        counted: dict[str, dict[str, int]] = {}
        for job in self.jobs.values():
            states = counted.setdefault(job["queue"], {})
            states[job["state"]] = states.get(job["state"], 0) + 1
        return counted

    @staticmethod
    def is_used_up(job: Row) -> bool:
        limit = job["max_attempts"]
        return limit is not None and job["attempt"] - job["refunds"] >= limit


def in_order(job: Row) -> tuple[int, float, int]:
    return job["priority"], job["due_at"], job["id"]
