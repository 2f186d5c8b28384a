"""Jobs whose payloads can't be read, and when and in which order jobs run."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from batchq import Backoff, Job, JobState, QueueManager, RetryPolicy
from batchq.core.job import Group, NewJob
from tests.jobs import WatchedStore, jobs_in, nothing_is_leased, said

NO_RETRY = RetryPolicy(max_retries=0)
TWICE = RetryPolicy(max_retries=2, backoff=Backoff(schedule=(4, 16), jitter="none"))


@pytest.fixture
def store() -> WatchedStore:
    return WatchedStore()


@pytest.fixture
def manager(store: WatchedStore) -> QueueManager:
    return QueueManager(store)


# ---- Payloads that can't be read


def store_raw(manager: QueueManager, name: str, *payloads: bytes) -> None:
    jobs = [NewJob(queue=name, handler=name, payload=payload) for payload in payloads]
    manager._ledgers.get().commit_now(Group(enqueue=jobs))


@pytest.mark.parametrize("annotated", ["items", "jobs"])
async def test_an_undecodable_job_fails_alone(
    manager: QueueManager, annotated: str, autojump_clock: MockClock
) -> None:
    seen = list[int]()

    if annotated == "items":

        @manager.batch_handler(batch_size=4, name="send")
        async def send(items: list[int]) -> list[int]:
            seen.extend(items)
            return [item * 2 for item in items]
    else:

        @manager.batch_handler(batch_size=4, name="send")
        async def send_jobs(jobs: list[Job[int]]) -> list[int]:
            seen.extend(job.payload for job in jobs)
            return [job.payload * 2 for job in jobs]

    store_raw(manager, "send", b"1", b"\xff{", b"3", b'"four"')
    async with manager.working():
        await trio.sleep(1)
    assert seen == [1, 3]
    assert [(job.state.value, job.reason, job.value) for job in jobs_in(manager)] == [
        ("completed", None, b"2"),
        ("failed", "undecodable", None),
        ("completed", None, b"6"),
        ("failed", "undecodable", None),
    ]
    assert said(manager, 4).startswith("PayloadError: send cannot take this payload")


async def test_a_batch_of_nothing_but_undecodable_jobs_calls_nobody(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    @manager.batch_handler(batch_size=2)
    async def send(items: list[int]) -> None:
        raise AssertionError("called")

    store_raw(manager, "send", b"[]", b"")
    async with manager.working():
        await trio.sleep(1)
    assert [job.reason for job in jobs_in(manager)] == ["undecodable"] * 2


async def test_a_wrong_count_beside_an_undecodable_job_is_a_breach_of_contract(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    @manager.batch_handler(batch_size=3)
    async def send(items: list[int]) -> list[int]:
        return [1, 2, 3]  # one for each job, but it got two items

    store_raw(manager, "send", b"1", b"x", b"3")
    async with manager.working():
        await trio.sleep(1)
    reasons = [job.reason for job in jobs_in(manager)]
    assert reasons == ["contract", "undecodable", "contract"]


async def test_a_plain_handlers_arguments_may_be_undecodable_too(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    @manager.handler
    async def resize(path: str, width: int = 3) -> str:
        return path * width

    store_raw(manager, "resize", b'{"path":"a"}', b'{"path":1}', b'{"width":1}', b"[]")
    async with manager.working():
        await trio.sleep(1)
    jobs = jobs_in(manager)
    assert [job.reason for job in jobs] == [None] + ["undecodable"] * 3
    assert jobs[0].value == b'"aaa"'


# ---- When and in which order


async def test_a_delayed_job_runs_when_its_delay_is_over(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    runs = list[float]()

    @manager.handler
    async def note() -> None:
        runs.append(trio.current_time())

    async with manager.working():
        job = await note.using(delay=2.75).enqueue()
        await job.refresh()
        assert job.status == "scheduled"
        await trio.sleep(5)
    assert runs == [2.75]


async def test_jobs_run_by_priority_then_due_time_then_age(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    runs = list[str]()

    @manager.handler(concurrency=1)
    async def note(name: str) -> None:
        runs.append(name)

    await note.enqueue("a")
    await note.using(priority="low").enqueue("last")
    await note.using(priority=9).enqueue("very last")
    await note.using(priority="urgent").enqueue("first")
    await note.enqueue("b")
    async with manager.working():
        await trio.sleep(1)
    assert runs == ["first", "a", "b", "last", "very last"]


async def test_a_timeout_cancels_the_call_and_is_retryable(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    @manager.handler(timeout=2, retry=TWICE)
    async def hang() -> None:
        await trio.sleep_forever()

    async with manager.working():
        job = await hang.enqueue()
        await trio.sleep(3)
        [record] = jobs_in(manager)
        assert (record.state, record.due_at) == (JobState.PENDING, 6.0)
        assert said(manager, job.id) == "BatchTimeout: handler 'hang' took longer than timeout=2 s"


async def test_jobs_of_unknown_handlers_stay_where_they_are(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    @manager.handler(queue="shared")
    async def known() -> None: ...

    job = NewJob(queue="shared", handler="unknown", payload=b"{}")
    manager._ledgers.get().commit_now(Group(enqueue=[job]))
    async with manager.working():
        await known.enqueue()
        await trio.sleep(5)
    assert [job.state for job in jobs_in(manager)] == [JobState.PENDING, JobState.COMPLETED]
    assert nothing_is_leased(manager)


async def test_an_alias_runs_jobs_stored_under_an_old_name(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    runs = list[str]()

    @manager.handler(aliases=("old",), queue="shared")
    async def new(name: str) -> None:
        runs.append(name)

    old = NewJob(queue="shared", handler="old", payload=b'{"name":"a"}')
    manager._ledgers.get().commit_now(Group(enqueue=[old]))
    async with manager.working():
        await new.enqueue("b")
        await trio.sleep(1)
    assert sorted(runs) == ["a", "b"]
