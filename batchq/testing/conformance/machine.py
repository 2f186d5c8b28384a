"""Every history of a store, beside the simplest model of one.

What holds at every step: no job is lost, and each is in one state (J1); no receipt is
handed out twice (J2); a settlement applies once, a stale one never, and neither touches
its neighbours (J3, J4); attempts add up and end (J5); claims come in order, neither early
nor late (J6, J14); of a paused queue there are none (J8); a key is held by one job (J9);
what is asked to stop never waits again (J13); what is cleaned was old, and leaves nothing
behind (J15); bytes come back as they went in (J17); pages are whole (J19); a suspect comes
alone (J21).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, ClassVar

import msgspec
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
from batchq.core.record import Failure, JobFilter, Tally, WorkerRecord
from batchq.stores.base import Store
from batchq.testing.conformance.draws import (
    FILTERS,
    LEASES,
    LIMITS,
    MESSAGES,
    NEW_JOBS,
    REQUESTS,
    SECONDS,
    WORKERS,
)
from batchq.testing.conformance.kit import StoreKind
from batchq.testing.conformance.model import Model
from batchq.testing.conformance.rows import Row

__all__ = ["StoreMachine"]


class StoreMachine(RuleBasedStateMachine):
    """Drives a store beside the model, group by group.

    Attributes:
        kind: which store; a subclass says it.
    """

    kind: ClassVar[StoreKind]

    @initialize()
    def open(self) -> None:
        self.model = Model()
        self.issued: list[Receipt] = []
        self.folder = tempfile.TemporaryDirectory()
        self.store: Store = self.kind.open(Path(self.folder.name), lambda: self.model.now)
        self.lasting = self.store.info().durability != "memory"

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        self.model.now += seconds

    # ---- Groups

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
        if self.lasting:
            self.store.close()
            self.store = self.kind.open(Path(self.folder.name), lambda: self.model.now)

    # ---- What people read

    @rule(where=FILTERS, size=LIMITS, newest_first=st.booleans())
    def people_list_jobs(self, where: JobFilter, size: int, *, newest_first: bool) -> None:
        listed: list[int] = []
        after: int | None = None
        while page := self.store.find(where, after=after, limit=size, newest_first=newest_first):
            assert len(page) <= size
            assert not {job.id for job in page} & set(listed)
            listed += [job.id for job in page]
            after = listed[-1]
        assert listed == list(self.model.find(where))[:: -1 if newest_first else 1]

    @precondition(lambda self: self.model.errors)
    @rule(data=st.data(), where=FILTERS, limit=LIMITS)
    def people_look_at_failures(self, data: st.DataObject, where: JobFilter, *, limit: int) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.model.errors)))
        failures = [_as_row(failure) for failure in self.store.errors(job_id, limit=limit)]
        assert failures == self.model.errors[job_id][::-1][:limit]
        found = [failure.job_id for failure in self.store.errors(where=where, limit=10_000)]
        expected = [id_ for id_ in self.model.find(where) for _ in self.model.errors.get(id_, [])]
        assert sorted(found) == sorted(expected)

    @invariant()
    def each_job_is_as_the_model_has_it(self) -> None:
        if not hasattr(self, "store"):
            return
        ids = list(self.model.jobs)
        records = self.store.get([*ids, self.model.last_id + 1])
        assert records.pop() is None
        stored = [msgspec.structs.asdict(record) for record in records if record is not None]
        assert [_plain(job) for job in stored] == list(self.model.jobs.values())
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
            errors.setdefault(failure.job_id, []).append(_as_row(failure))
        assert errors == self.model.errors

    @invariant()
    def what_is_counted_is_as_the_model_has_it(self) -> None:
        if not hasattr(self, "store"):
            return
        assert {worker.worker: worker for worker in self.store.workers()} == {
            name: WorkerRecord(name, row["commits"], row["batches"], row["seen_at"], row["beat"])
            for name, row in self.model.workers.items()
        }
        paused = {queue.queue: queue.paused for queue in self.store.queues()}
        assert paused == self.model.paused
        tallies: list[Tally] = [
            Tally(queue=queue, minute=minute, **added)  # type: ignore[arg-type]  # counts
            for (queue, minute), added in self.model.tallies.items()
        ]
        assert sorted(tallies, key=lambda tally: (tally.minute, tally.queue)) == (
            self.store.tally(0)
        )

    # ---- Within

    def commit(self, group: Group) -> None:
        answers = self.store.commit(group)
        settled, extended, enqueued, claimed = self.model.commit(group)
        assert [answer.value for answer in answers.settle] == settled
        assert [[answer.value for answer in part] for part in answers.extend] == extended
        assert [(stored.id, stored.fresh) for stored in answers.enqueue] == enqueued
        assert len(answers.claim) == len(claimed)
        for answer, expected in zip(answers.claim, claimed, strict=True):
            receipts = [job.receipt for job in answer.jobs]
            pairs = [msgspec.structs.astuple(receipt) for receipt in receipts]
            assert pairs == expected["receipts"]
            assert [job.suspect for job in answer.jobs] == expected["suspects"]
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

    def ids(self) -> st.SearchStrategy[list[int]]:
        """Draw ids, mostly of jobs there are; the same one twice, now and then."""
        known = sorted(self.model.jobs) or [1]
        return st.lists(st.sampled_from([*known, *known[-6:], 9_999]), max_size=4)

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


def _as_row(failure: Failure) -> Row:
    return {
        "attempt": failure.attempt,
        "at": failure.at,
        "message": failure.line.message,
        "worker": failure.worker,
    }


def _plain(job: dict[str, Any]) -> Row:
    scope = job["key_scope"]
    return {
        **job,
        "state": job["state"].value,
        "key_scope": None if scope is None else scope.value,
    }
