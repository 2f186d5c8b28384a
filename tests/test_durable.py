"""What a handler says, and what becomes of its jobs: the table of verdicts, row by row."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from batchq import (
    Backoff,
    Job,
    JobFailed,
    JobState,
    QueueManager,
    Result,
    RetryPolicy,
    Throttled,
    context,
)
from batchq.core.record import JobRecord
from batchq.exits import ctrl_c_is_taken
from tests.jobs import WatchedStore, jobs_in, said, store_of

NO_RETRY = RetryPolicy(max_retries=0)
TWICE = RetryPolicy(max_retries=2, backoff=Backoff(schedule=(4, 16), jitter="none"))


@pytest.fixture
def store() -> WatchedStore:
    return WatchedStore()


@pytest.fixture
def manager(store: WatchedStore) -> QueueManager:
    return QueueManager(store)


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
    ids=lambda answers: "iterator" if isinstance(answers, Iterator) else repr(answers),
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


class Leave(BaseException):
    """Somebody's own way to end a program."""


ENDS_PROGRAMS = [
    (SystemExit(3), "called sys.exit(3)"),
    (Leave("now"), "raised Leave('now')"),
    (GeneratorExit(), "raised GeneratorExit()"),
    (asyncio.CancelledError(), "raised CancelledError()"),
    (BaseExceptionGroup("some", [ValueError(), Leave()]), "raised BaseExceptionGroup('some', "),
]


@pytest.mark.parametrize(("error", "told"), ENDS_PROGRAMS, ids=lambda each: type(each).__name__)
async def test_a_handler_that_would_end_the_program_fails_its_jobs_and_ends_nothing(
    error: BaseException, told: str, manager: QueueManager, autojump_clock: MockClock
) -> None:
    runs = list[object]()

    @manager.batch_handler(batch_size=3, retry=TWICE)
    async def send(items: list[int]) -> None:
        runs.append(items)
        raise error

    async with manager.working():
        await send.enqueue_many(range(3))
        await trio.sleep(100)
        jobs = jobs_in(manager)
    assert runs[0] == [0, 1, 2]
    assert [(job.state, job.used) for job in jobs] == [(JobState.FAILED, 3)] * 3
    assert said(manager, jobs[0].id).startswith(f"RuntimeError: handler 'send' {told}")


async def test_where_ctrl_c_is_taken_a_keyboard_interrupt_is_a_failure(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    @manager.handler(retry=RetryPolicy(max_retries=0))
    async def work() -> None:
        raise KeyboardInterrupt

    taken = ctrl_c_is_taken.set(True)  # as `run` does
    async with manager.working():
        job = await work.enqueue()
        with pytest.raises(JobFailed, match=r"raised KeyboardInterrupt\(\)"):
            await job.result(5)
    ctrl_c_is_taken.reset(taken)


async def test_a_group_of_cancellations_is_a_cancellation(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    @manager.handler(timeout=1, retry=RetryPolicy(max_retries=0))
    async def work() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled as cancelled:
            raise BaseExceptionGroup("", [cancelled]) from None  # noqa: ASYNC104 - as nurseries do

    async with manager.working():
        job = await work.enqueue()
        with pytest.raises(JobFailed, match="BatchTimeout: "):
            await job.result(5)


async def test_an_error_beside_tasks_that_were_stopped_is_the_error(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    async def stop() -> None:
        await trio.sleep(2)
        context().check()

    @manager.handler(timeout=1, retry=RetryPolicy(max_retries=0))
    async def work() -> None:
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stop)
                try:
                    await trio.sleep_forever()
                finally:
                    raise ValueError("while it was cleared away")

    async with manager.working():
        job = await work.enqueue()
        with pytest.raises(JobFailed, match=r"^.*ExceptionGroup: .*while it was cleared away"):
            await job.result(5)


@pytest.mark.parametrize("ends", [Leave, KeyboardInterrupt])
async def test_what_ends_programs_beside_a_cancellation_leaves_that_its_way(
    ends: type[BaseException], manager: QueueManager, autojump_clock: MockClock
) -> None:
    """A job is cancelled, and one of its handler's tasks ends the program while it is."""
    seen = list[str]()

    async def leave() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ends

    @manager.handler(retry=RetryPolicy(max_retries=0))
    async def work() -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(leave)
                await trio.sleep_forever()
        except* trio.Cancelled:
            seen.append("cancelled")
            raise

    async def block() -> None:
        async with manager.working():
            job = await work.enqueue()
            await trio.sleep(1)
            await job.cancel()
            await trio.sleep(1)

    if ends is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            await block()
    else:
        await block()
    assert seen == ["cancelled"]
    assert [job.state for job in jobs_in(manager)] == [JobState.CANCELLED]


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
