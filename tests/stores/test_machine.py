"""Every history of a store, beside the simplest model of one.

What holds at every step: no job is lost, and each is in one state (J1); no receipt is
handed out twice (J2); a settlement applies once, a stale one never, and neither touches
its neighbours (J3, J4); attempts add up and end (J5); claims come in order, neither early
nor late (J6, J14); bytes come back as they went in (J17); pages are whole (J19).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import ClassVar

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from batchq.core.job import (
    ClaimedJob,
    ClaimRequest,
    ErrorLine,
    Extension,
    Group,
    NewJob,
    Receipt,
    Settlement,
    Verdict,
)
from batchq.core.record import Failure, JobFilter, WorkerRecord
from batchq.stores.base import Store
from tests.stores.kit import MEMORY, SQLITE, StoreKind
from tests.stores.model import Model, Row

QUEUES = st.sampled_from(["mail", "other"])
HANDLERS = st.sampled_from(["send", "resize"])
WORKERS = st.sampled_from(["ada", "bob"])
SECONDS = st.sampled_from([0.0, 0.25, 1.0, 4.0])
LEASES = st.sampled_from([0.25, 1.0, 4.0])
LIMITS = st.sampled_from([1, 2, 3, 100])
MESSAGES = st.sampled_from(["boom", "", "ünïcödé \x00 \n"])
STATUSES = st.sampled_from(
    [None, "pending", "processing", "completed", "failed", "scheduled", "retrying", "stalled"]
)

NEW_JOBS = st.builds(
    NewJob,
    queue=QUEUES,
    handler=HANDLERS,
    payload=st.binary(max_size=4),
    priority=st.sampled_from([0, 2, 9]),
    delay=SECONDS,
    max_attempts=st.sampled_from([1, 2, 3, None]),
)
REQUESTS = st.builds(
    ClaimRequest,
    queue=QUEUES,
    handlers=st.lists(HANDLERS, max_size=2).map(tuple),
    limit=LIMITS,
    lease=LEASES,
    worker=WORKERS,
    suspect=st.booleans(),
)


def as_row(failure: Failure) -> Row:
    return {
        "attempt": failure.attempt,
        "at": failure.at,
        "message": failure.line.message,
        "worker": failure.worker,
    }


class StoreMachine(RuleBasedStateMachine):
    """Drives a store beside the model, group by group."""

    kind: ClassVar[StoreKind]

    @initialize()
    def open(self) -> None:
        self.model = Model()
        self.issued: list[Receipt] = []
        self.folder = tempfile.TemporaryDirectory()
        self.store: Store = self.kind.open(Path(self.folder.name), lambda: self.model.now)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        self.model.now += seconds

    @rule(jobs=st.lists(NEW_JOBS, min_size=1, max_size=6), worker=WORKERS)
    def enqueue(self, jobs: list[NewJob], worker: str) -> None:
        self.commit(Group(enqueue=jobs, worker=worker))

    @rule(request=REQUESTS)
    def claim(self, request: ClaimRequest) -> None:
        self.commit(Group(claim=[request], worker=request.worker))

    @precondition(lambda self: self.issued)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        settlements = data.draw(st.lists(self.settlements(), min_size=1, max_size=6))
        self.commit(Group(settle=settlements, worker="ada", batches=1))

    @precondition(lambda self: self.issued)
    @rule(data=st.data())
    def extend(self, data: st.DataObject) -> None:
        self.commit(Group(extend=data.draw(self.extensions()), worker="ada"))

    @rule(
        data=st.data(),
        jobs=st.lists(NEW_JOBS, max_size=3),
        requests=st.lists(REQUESTS, max_size=3),
        worker=st.sampled_from(["", "ada"]),
        batches=st.integers(0, 2),
    )
    def everything_at_once(
        self,
        *,
        data: st.DataObject,
        jobs: list[NewJob],
        requests: list[ClaimRequest],
        worker: str,
        batches: int,
    ) -> None:
        self.commit(
            Group(
                settle=data.draw(st.lists(self.settlements(), max_size=4)),
                extend=data.draw(self.extensions()),
                enqueue=jobs,
                claim=requests,
                worker=worker,
                batches=batches,
            )
        )

    @rule()
    def the_store_is_opened_again(self) -> None:
        if self.kind.lasting:
            self.store.close()
            self.store = self.kind.open(Path(self.folder.name), lambda: self.model.now)

    @rule(status=STATUSES, queue=st.none() | QUEUES, handler=st.none() | HANDLERS, size=LIMITS)
    def people_list_jobs(
        self, status: str | None, queue: str | None, *, handler: str | None, size: int
    ) -> None:
        where = JobFilter(status=status, queue=queue, handler=handler)
        listed: list[int] = []
        while page := self.store.find(where, after=listed[-1] if listed else 0, limit=size):
            assert not {job.id for job in page} & set(listed)
            listed += [job.id for job in page]
        assert listed == self.model.find(status, queue, handler)

    @precondition(lambda self: self.model.errors)
    @rule(data=st.data(), limit=LIMITS)
    def people_look_at_one_job(self, data: st.DataObject, limit: int) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.model.errors)))
        failures = [as_row(failure) for failure in self.store.errors(job_id, limit=limit)]
        assert failures == self.model.errors[job_id][::-1][:limit]

    @invariant()
    def each_job_is_as_the_model_has_it(self) -> None:
        if not hasattr(self, "store"):
            return
        ids = list(self.model.jobs)
        records = self.store.get([*ids, len(ids) + 1])
        assert records.pop() is None
        stored = [msgspec.structs.asdict(record) for record in records if record is not None]
        assert [{**job, "state": job["state"].value} for job in stored] == list(
            self.model.jobs.values()
        )
        for job in stored:
            assert 0 <= job["refunds"] <= job["attempt"] == self.model.claims[job["id"]]
            limit = job["max_attempts"]
            assert limit is None or job["attempt"] - job["refunds"] <= limit

    @invariant()
    def what_people_read_is_as_the_model_has_it(self) -> None:
        if not hasattr(self, "store"):
            return
        counts = {
            queue: {state.value: jobs for state, jobs in states.items()}
            for queue, states in self.store.counts().items()
        }
        assert counts == self.model.counts()
        failures = self.store.errors(limit=10_000)
        times = [failure.at for failure in failures]
        assert times == sorted(times, reverse=True)
        errors: dict[int, list[Row]] = {}
        for failure in reversed(failures):
            errors.setdefault(failure.job_id, []).append(as_row(failure))
        assert errors == self.model.errors
        assert {worker.worker: worker for worker in self.store.workers()} == {
            name: WorkerRecord(name, row["commits"], row["batches"], row["seen_at"])
            for name, row in self.model.workers.items()
        }

    def commit(self, group: Group) -> None:
        answers = self.store.commit(group)
        settled, extended, enqueued, claimed = self.model.commit(group)
        assert [answer.value for answer in answers.settle] == settled
        assert [[answer.value for answer in part] for part in answers.extend] == extended
        assert [stored.id for stored in answers.enqueue] == enqueued
        assert len(answers.claim) == len(claimed)
        for answer, expected in zip(answers.claim, claimed, strict=True):
            receipts = [job.receipt for job in answer.jobs]
            assert [msgspec.structs.astuple(receipt) for receipt in receipts] == expected[
                "receipts"
            ]
            assert (answer.buried, answer.wait) == (expected["buried"], expected["wait"])
            assert not set(receipts) & set(self.issued)
            self.issued += receipts
            for job in answer.jobs:
                self.is_handed_over_whole(job)

    def is_handed_over_whole(self, job: ClaimedJob) -> None:
        stored = self.model.jobs[job.receipt.job_id]
        assert (job.handler, job.payload) == (stored["handler"], stored["payload"])
        assert (job.priority, job.enqueued_at) == (stored["priority"], stored["enqueued_at"])
        assert job.max_attempts == stored["max_attempts"]
        assert 1 <= job.used <= job.receipt.attempt
        assert job.max_attempts is None or job.used <= job.max_attempts

    def receipts(self) -> st.SearchStrategy[Receipt]:
        """Draw a receipt: mostly a late one, seldom one that nobody was given."""
        unknown = [Receipt(1, 99), Receipt(9_999, 1)]
        return st.sampled_from([*unknown, *self.issued, *self.issued[-6:] * 3])

    def settlements(self) -> st.SearchStrategy[Settlement]:
        return st.builds(
            Settlement,
            receipt=self.receipts(),
            verdict=st.sampled_from(list(Verdict)),
            value=st.none() | st.binary(max_size=4),
            error=st.none() | st.builds(ErrorLine, st.just("text"), MESSAGES),
            delay=SECONDS,
            reason=st.sampled_from([None, "discarded"]),
        )

    def extensions(self) -> st.SearchStrategy[list[Extension]]:
        held = st.builds(Extension, st.lists(self.receipts(), max_size=4), LEASES)
        return st.lists(held, max_size=2)


class MemoryMachine(StoreMachine):
    kind = MEMORY


class SqliteMachine(StoreMachine):
    kind = SQLITE


TestMemory = MemoryMachine.TestCase
TestSqlite = SqliteMachine.TestCase
# Each history makes a database, which takes most of the time: a fifth of them will do, for
# the memory store goes through all against the same model.
TestSqlite.settings = settings(
    TestSqlite.settings, max_examples=max(50, settings().max_examples // 5)
)
