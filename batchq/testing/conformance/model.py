"""The simplest model of a store: plain dicts, and loops over all of them.

It knows nothing of batchq/core/lifecycle.py and changes.py: what the stores share, it must
not share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from batchq.core.job import ClaimRequest, Group, NewJob, Receipt, Settlement
from batchq.core.record import Beat, Note
from batchq.testing.conformance.rows import LIVE, Row, Rows

__all__ = ["Model"]


class Groups(Rows):
    """Settles, extends, enqueues and claims."""

    def commit(
        self, group: Group
    ) -> tuple[list[str], list[list[str]], list[tuple[int, bool]], list[Row]]:
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
            worker = self.worker(group.worker)
            worker["commits"] += 1
            worker["batches"] += group.batches
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
        self.count(job, settled=1, ran=self.now - job["started_at"])
        if verdict in {"retry", "fail"} and settlement.error is not None:
            self.error(job, settlement.error.message)
        if verdict == "ok":
            job["value"] = settlement.value
            self.end(job, "completed", None)
        elif verdict == "fail":
            self.end(job, "failed", settlement.reason)
        elif verdict == "cancel" or job["cancel"] is not None:
            self.end(job, "cancelled", settlement.reason or job["cancel"] or "user")
        elif verdict == "retry" and self.is_used_up(job):
            self.end(job, "failed", "exhausted")
        elif verdict == "release":
            job.update(state="pending", due_at=job["enqueued_at"], refunds=job["refunds"] + 1)
        else:
            job.update(state="pending", due_at=self.now + settlement.delay)
            job["refunds"] += verdict == "snooze"
            self.count(job, retried=int(verdict == "retry"))
        return "applied"

    def extend(self, receipt: Receipt, lease: float) -> str:
        job = self.jobs.get(receipt.job_id)
        if job is None or (job["state"], job["attempt"]) != ("processing", receipt.attempt):
            return "stale"
        self.changed = True
        job["due_at"] = self.now + lease
        return "ok" if job["cancel"] is None else "cancel"

    def enqueue(self, job: NewJob) -> tuple[int, bool]:
        if job.key is not None:
            for holder in self.holders(job.handler, job.key.text):
                if job.key.replace and holder["key_scope"] == "waiting":
                    holder.update(payload=job.payload, due_at=self.now + job.delay)
                    self.changed = True
                return holder["id"], False
        self.changed = True
        self.last_id += 1
        self.claims[self.last_id] = 0
        self.jobs[self.last_id] = self.new(job)
        self.count(self.jobs[self.last_id], enqueued=1)
        return self.last_id, True

    def new(self, job: NewJob) -> Row:
        key = job.key
        return {
            "id": self.last_id,
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
            "expires_at": None if job.expires is None else self.now + job.expires,
            "tags": job.tags,
            "key": None if key is None else key.text,
            "key_scope": None if key is None else key.scope.value,
            "key_until": None if key is None or key.lasts is None else self.now + key.lasts,
            "holds_key": key is not None,
            "progress": None,
            "note": None,
            "spoiled": None,
        }

    def claim(self, request: ClaimRequest) -> Row:
        claimed: list[Row] = []
        passed: list[int] = []
        buried, full = 0, False
        if self.paused.get(request.queue):
            return {"receipts": [], "suspects": [], "buried": 0, "wait": None}
        for job in sorted(self.due(request), key=in_order):
            if full:
                break
            if self.buries(job):
                buried += 1
                continue
            suspect = job["state"] == "processing" and job["crashes"] >= 1
            if suspect and not request.suspect:
                passed.append(job["id"])
            elif suspect and claimed:
                full = True
            else:
                claimed.append(job)
                full = suspect or len(claimed) == request.limit
        for job in claimed:
            self.take(job, request)
        return {
            "receipts": [(job["id"], job["attempt"]) for job in claimed],
            "suspects": [job["crashes"] >= 2 for job in claimed],
            "buried": buried,
            "wait": 0.0 if full else self.wait(request, passed),
        }

    def buries(self, job: Row) -> bool:
        """End a due job that is not to be handed out, if it is one."""
        if job["cancel"] is not None:
            fate = "cancelled", job["cancel"]
        elif self.is_used_up(job):
            fate = "failed", "crashed"
        elif job["state"] == "pending" and self.is_expired(job):
            fate = "failed", "expired"
        else:
            return False
        self.run_out(job)
        job["attempt"] += 1
        job["refunds"] += 1
        job.update(progress=None, note=None)
        self.claims[job["id"]] += 1
        self.end(job, *fate)
        return True

    def take(self, job: Row, request: ClaimRequest) -> None:
        self.count(job, claimed=1, waited=self.now - job["due_at"])
        job["crashes"] += self.run_out(job)
        job["attempt"] += 1
        self.claims[job["id"]] += 1
        self.changed = True
        job.update(state="processing", due_at=self.now + request.lease)
        job.update(worker=request.worker, started_at=self.now, progress=None, note=None)
        if job["key_scope"] == "waiting":
            job["holds_key"] = False

    def run_out(self, job: Row) -> bool:
        if job["state"] != "processing":
            return False
        self.error(job, "lease ran out")
        self.count(job, crashed=1)
        return True

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


class Model(Groups):
    """Takes orders, too."""

    def cancel(self, ids: Iterable[int], reason: str) -> list[str]:
        return [self.cancel_one(self.jobs.get(id_), reason) for id_ in ids]

    def cancel_one(self, job: Row | None, reason: str) -> str:
        if job is None:
            return "unknown"
        if job["state"] == "processing":
            job["cancel"] = reason
            return "asked"
        if job["state"] != "pending":
            return "refused"
        self.end(job, "cancelled", reason)
        return "done"

    def retry(self, ids: Iterable[int]) -> list[str]:
        return [self.retry_one(self.jobs.get(id_)) for id_ in ids]

    def retry_one(self, job: Row | None) -> str:
        if job is None:
            return "unknown"
        if job["state"] == "processing":
            return "refused"
        if job["state"] == "pending":
            job["due_at"] = min(job["due_at"], self.now)
            return "done"
        over = job["key_until"] is not None and job["key_until"] <= self.now
        if job["key"] is not None and not job["holds_key"] and not over:
            if any(self.holders(job["handler"], job["key"])):
                return "conflict"
            job["holds_key"] = True
        job.update(state="pending", due_at=self.now, refunds=job["attempt"], crashes=0)
        job.update(cancel=None, value=None, reason=None, finished_at=None, expires_at=None)
        return "done"

    def delete(self, ids: Iterable[int]) -> list[str]:
        return [self.delete_one(self.jobs.get(id_)) for id_ in ids]

    def delete_one(self, job: Row | None) -> str:
        if job is None:
            return "unknown"
        held = job["holds_key"] and job["key_until"] is not None and job["key_until"] > self.now
        if job["state"] in LIVE or held:
            return "refused"
        del self.jobs[job["id"]]
        self.errors.pop(job["id"], None)
        return "done"

    def clean(self, retention: Mapping[str, float]) -> int:
        old = [
            id_
            for id_, job in self.jobs.items()
            if job["state"] in retention
            and job["finished_at"] <= self.now - retention[job["state"]]
        ]
        return self.delete(old).count("done")

    def record(self, notes: Sequence[Note]) -> list[bool]:
        return [self.note(note) for note in notes]

    def note(self, note: Note) -> bool:
        job = self.jobs.get(note.receipt.job_id)
        if job is None or (job["state"], job["attempt"]) != ("processing", note.receipt.attempt):
            return False
        if note.progress is not None:
            job["progress"] = note.progress
        if note.message is not None:
            job["note"] = note.message
        return True

    def beat(self, beat: Beat) -> None:
        self.worker(beat.worker)["beat"] = beat


def in_order(job: Row) -> tuple[int, float, int]:
    return job["priority"], job["due_at"], job["id"]
