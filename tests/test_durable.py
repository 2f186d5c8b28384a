"""What a handler says, and what becomes of its jobs: the table of verdicts, row by row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from batchq import Backoff, Job, JobState, QueueManager, Result, RetryPolicy, Throttled
from batchq.core.job import Group, JobRecord, NewJob
from tests.jobs import WatchedStore, jobs_in, nothing_is_leased, store_of

NO_RETRY = RetryPolicy(max_retries=0)
TWICE = RetryPolicy(max_retries=2, backoff=Backoff(schedule=(4, 16), jitter="none"))


@pytest.fixture
def store() -> WatchedStore:
    return WatchedStore()


@pytest.fixture
def manager(store: WatchedStore) -> QueueManager:
    return QueueManager(store)


def said(manager: QueueManager, job_id: int) -> str:
    """Say how the job's last attempt failed."""
    line = store_of(manager).errors(job_id)[0].line
    return f"{line.kind}: {line.message}"


async def became(manager: QueueManager, answer: Callable[[], Any]) -> JobRecord:
    """Run one job of a plain handler that answers so; return what it is a second later."""

    @manager.handler(retry=TWICE)
    async def handler() -> Any:  # noqa: ANN401 - as the test says
        return answer()

    async with manager.working():
        job = await handler.enqueue()
        await trio.sleep(1)
        [record] = jobs_in(manager, job.id)
    return record


def throw(error: Exception) -> Any:  # noqa: ANN401 - never returns
    raise error


# ---- Plain handlers


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (None, None),
        (0, b"0"),
        ([], b"[]"),
        ({"success": False, "error": "no"}, b'{"success":false,"error":"no"}'),
        (Result.ok(7), b"7"),
        (Result.ok(), None),
    ],
)
async def test_a_value_completes_the_job_and_is_stored(
    manager: QueueManager, answer: object, value: bytes | None, autojump_clock: MockClock
) -> None:
    job = await became(manager, lambda: answer)
    assert (job.state, job.value, job.attempt, job.refunds) == (JobState.COMPLETED, value, 1, 0)


@pytest.mark.parametrize(
    "answer",
    [
        lambda: throw(ValueError("no")),
        lambda: ValueError("no"),
        lambda: Result.fail(ValueError("no")),
    ],
    ids=["raised", "returned", "as a result"],
)
async def test_a_failure_comes_again_after_the_policys_delay(
    manager: QueueManager, answer: Callable[[], object], autojump_clock: MockClock
) -> None:
    job = await became(manager, answer)
    assert (job.state, job.due_at, job.attempt, job.refunds) == (JobState.PENDING, 4.0, 1, 0)
    assert said(manager, job.id) == "ValueError: no"


async def test_retry_comes_again_not_before_its_own_delay(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    job = await became(manager, lambda: Result.retry("later", after=100))
    assert (job.state, job.due_at, job.used) == (JobState.PENDING, 100.0, 1)


async def test_discard_fails_at_once(manager: QueueManager, autojump_clock: MockClock) -> None:
    job = await became(manager, lambda: Result.discard("550 unknown"))
    assert (job.state, job.reason, job.attempt) == (JobState.FAILED, "discarded", 1)
    assert said(manager, job.id) == "text: 550 unknown"


async def test_a_snooze_refunds_the_attempt(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    job = await became(manager, lambda: Result.snooze(50))
    assert (job.state, job.due_at) == (JobState.PENDING, 50.0)
    assert (job.attempt, job.refunds, job.used) == (1, 1, 0)


async def test_a_value_that_cannot_be_kept_is_a_breach_of_contract(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    job = await became(manager, object)
    assert (job.state, job.reason) == (JobState.FAILED, "contract")
    assert said(manager, job.id).startswith("PayloadError: handler returned what cannot be kept")


async def test_attempts_end_and_their_delays_are_exact(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    runs = list[tuple[float, int]]()

    @manager.batch_handler(batch_size=1, retry=TWICE)
    async def send(jobs: list[Job[str]]) -> None:
        runs.append((trio.current_time(), jobs[0].attempt))
        raise ValueError("no")

    async with manager.working():
        job = await send.enqueue("ana")
        await trio.sleep(100)
    assert runs == [(0, 1), (4, 2), (20, 3)]
    [record] = jobs_in(manager, job.id)
    assert (record.state, record.reason, record.finished_at) == (JobState.FAILED, "exhausted", 20)
    assert [failure.attempt for failure in store_of(manager).errors(job.id)] == [3, 2, 1]


async def test_the_policys_check_decides_whether_a_failure_comes_again(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    policy = RetryPolicy(max_retries=3, retryable=lambda error: isinstance(error, OSError))

    @manager.handler(retry=policy)
    async def call(kind: str) -> None:
        raise OSError("down") if kind == "os" else KeyError("wrong")

    async with manager.working():
        jobs = [await call.enqueue(kind) for kind in ("os", "key")]
        await trio.sleep(0.01)
        states = [job.state for job in jobs_in(manager)]
    assert states == [JobState.PENDING, JobState.FAILED]
    assert jobs_in(manager, jobs[1].id)[0].reason == "discarded"


async def test_max_retries_of_one_job_wins_over_the_handlers(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    @manager.handler(retry=RetryPolicy(max_retries=5))
    async def fail() -> None:
        raise ValueError("no")

    async with manager.working():
        job = await fail.using(max_retries=0).enqueue()
        await trio.sleep(0.01)
    assert (jobs_in(manager, job.id)[0].reason, jobs_in(manager)[0].attempt) == ("exhausted", 1)


# ---- Throttled


async def test_throttled_snoozes_and_claims_nothing_meanwhile(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    runs = list[tuple[float, str]]()

    @manager.batch_handler(batch_size=2, flush_interval=0, concurrency=2)
    async def call(items: list[str]) -> None:
        runs.append((trio.current_time(), "".join(items)))
        if len(runs) == 1:
            raise Throttled(8)

    async with manager.working():
        await call.enqueue_many("ab")
        await trio.sleep(1)
        await call.enqueue_many("cd")
        await trio.sleep(5)
        fresh, waiting = jobs_in(manager)[0], jobs_in(manager)[2]
        assert (fresh.state, fresh.due_at, fresh.used) == (JobState.PENDING, 8.0, 0)
        assert (waiting.state, waiting.attempt) == (JobState.PENDING, 0)  # not claimed
        await trio.sleep(10)
    assert sorted(runs) == [(0, "ab"), (8, "ab"), (8, "cd")]
    assert {job.state for job in jobs_in(manager)} == {JobState.COMPLETED}


# ---- Batch handlers


async def test_none_completes_every_job_of_the_batch(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    @manager.batch_handler(batch_size=3)
    async def send(items: list[int]) -> None: ...

    async with manager.working():
        await send.enqueue_many(range(3))
        await trio.sleep(1)
    assert [(job.state, job.value) for job in jobs_in(manager)] == [(JobState.COMPLETED, None)] * 3


async def test_each_job_goes_by_its_own_result(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    answers = [Result.ok("a"), "b", None, ValueError("no"), Result.discard("x"), Result.snooze(9)]

    @manager.batch_handler(batch_size=6, retry=NO_RETRY)
    async def send(items: list[int]) -> list[Any]:
        return [answers[item] for item in items]

    async with manager.working():
        await send.enqueue_many(range(6))
        await trio.sleep(1)
        jobs = jobs_in(manager)
    assert [(job.state.value, job.value, job.reason) for job in jobs] == [
        ("completed", b'"a"', None),
        ("completed", b'"b"', None),
        ("completed", None, None),
        ("failed", None, "exhausted"),
        ("failed", None, "discarded"),
        ("pending", None, None),
    ]
    assert jobs[5].due_at == 9.0


@pytest.mark.parametrize(
    "answers",
    [[], [1], [1, 2, 3], (1, 2, 3), {1: "a", 2: "b"}, {0: "a", 1: "b"}, 7, "ab", iter("ab")],
    ids=repr,
)
async def test_other_than_one_answer_per_job_fails_them_all_for_good(
    manager: QueueManager, answers: object, autojump_clock: MockClock
) -> None:
    @manager.batch_handler(batch_size=2)
    async def send(items: list[int]) -> Any:  # noqa: ANN401 - a wrong one
        return answers

    async with manager.working():
        jobs = await send.enqueue_many(range(2))
        await trio.sleep(1)
    assert [(job.state.value, job.reason) for job in jobs_in(manager)] == [
        ("failed", "contract")
    ] * 2
    assert said(manager, jobs[0].id).startswith("ContractError: ")


async def test_raising_fails_every_job_of_the_call(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    @manager.batch_handler(batch_size=3, retry=TWICE)
    async def send(items: list[int]) -> None:
        raise OSError("down")

    async with manager.working():
        await send.enqueue_many(range(3))
        await trio.sleep(1)
        jobs = jobs_in(manager)
    assert [(job.state, job.due_at) for job in jobs] == [(JobState.PENDING, 4.0)] * 3


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
