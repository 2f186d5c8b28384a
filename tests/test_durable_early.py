"""Verdicts that a handler fixes while its call goes on."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from batchq import (
    Job,
    JobFailed,
    JobHooks,
    JobState,
    LeaseLost,
    QueueManager,
    Result,
    RetryPolicy,
)
from tests.jobs import WatchedStore, jobs_in, nothing_is_leased

NO_RETRY = RetryPolicy(max_retries=0)


@pytest.fixture
def store() -> WatchedStore:
    return WatchedStore()


@pytest.fixture
def manager(store: WatchedStore) -> QueueManager:
    return QueueManager(store)


async def test_an_early_verdict_is_written_soon_while_the_call_goes_on(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    @manager.batch_handler(batch_size=3)
    async def send(jobs: list[Job[str]]) -> None:
        await trio.sleep(1)
        jobs[1].settle(Result.ok("early"))
        await trio.sleep(10)

    async with manager.working():
        await send.enqueue_many("abc")
        await trio.sleep(1.0625)
        states = [job.state.value for job in jobs_in(manager)]
        assert states == ["processing", "completed", "processing"]
        assert jobs_in(manager)[1].value == b'"early"'
        await trio.sleep(20)
    assert [job.state for job in jobs_in(manager)] == [JobState.COMPLETED] * 3


async def test_many_early_verdicts_share_a_commit(
    manager: QueueManager, store: WatchedStore, autojump_clock: MockClock
) -> None:
    @manager.batch_handler(batch_size=100)
    async def send(jobs: list[Job[int]]) -> None:
        for job in jobs:
            job.settle(Result.ok())
            await trio.sleep(0.0005)
        await trio.sleep(1)

    async with manager.working():
        await send.enqueue_many(range(100))
        await trio.sleep(2)
    sizes = [len(group.settle) for group in store.groups if group.settle]
    assert sum(sizes) == 100
    assert len(sizes) <= 2


@pytest.mark.parametrize("waits", [True, False], ids=["after a while", "at once"])
@pytest.mark.parametrize("ending", ["raises", "wrong count", "says otherwise"])
async def test_what_the_call_does_later_does_not_touch_it(
    manager: QueueManager, ending: str, autojump_clock: MockClock, *, waits: bool
) -> None:
    @manager.batch_handler(batch_size=3, retry=NO_RETRY)
    async def send(jobs: list[Job[str]]) -> Any:  # noqa: ANN401 - wrong at times
        jobs[0].settle(Result.ok(7))
        jobs[1].settle(Result.snooze(60))
        jobs[0].settle(Result.discard("too late"))
        if waits:
            await trio.sleep(1)
        if ending == "raises":
            raise ValueError("no")
        return [1] if ending == "wrong count" else [Result.discard("x")] * 3

    async with manager.working():
        await send.enqueue_many("abc")
        await trio.sleep(5)
    first, second, third = jobs_in(manager)
    assert (first.state, first.value, first.attempt) == (JobState.COMPLETED, b"7", 1)
    assert (second.state, second.used) == (JobState.PENDING, 0)
    assert third.state is JobState.FAILED


async def test_an_early_failure_comes_again_when_the_call_has_ended(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    runs = list[tuple[float, int]]()

    @manager.batch_handler(batch_size=1)
    async def send(jobs: list[Job[str]]) -> None:
        runs.append((trio.current_time(), jobs[0].attempt))
        if jobs[0].attempt == 1:
            jobs[0].settle(Result.retry(after=2))
            await trio.sleep(100)

    async with manager.working():
        job = await send.enqueue("a")
        await job.result(200)
    assert [attempt for _, attempt in runs] == [1, 2]
    assert 102 <= runs[1][0] < 104  # two runs of one job never meet


@pytest.mark.parametrize("verdict", ["done", None, 1], ids=repr)
async def test_a_verdict_that_is_no_result_is_refused_and_ends_nothing(
    manager: QueueManager, verdict: object, autojump_clock: MockClock
) -> None:
    @manager.batch_handler
    async def send(jobs: list[Job[str]]) -> None:
        with pytest.raises(TypeError, match="settled with a Result"):
            jobs[0].settle(verdict)  # type: ignore[arg-type]

    async with manager.working():
        job = await send.enqueue("a")
        await job.result(5)


async def test_hooks_are_told_of_the_failure_of_a_value_that_cannot_be_kept(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    told = list[Result[object]]()
    hooks = JobHooks(on_processed=lambda _, result: told.append(result))

    @manager.handler(hooks=hooks)
    async def odd() -> object:
        return object()

    async with manager.working():
        with pytest.raises(JobFailed, match="contract"):
            await (await odd.enqueue()).result(5)
    assert [result.success for result in told] == [False]


async def test_a_verdict_that_comes_after_the_call_is_refused(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    kept = list[Job[str]]()

    @manager.batch_handler(batch_size=1)
    async def send(jobs: list[Job[str]]) -> None:
        kept.extend(jobs)

    async with manager.working():
        await (await send.enqueue("a")).result()
        with pytest.raises(LeaseLost, match="job 1 can't be settled"):
            kept[0].settle(Result.discard("too late"))
        await trio.sleep(1)
    with pytest.raises(LeaseLost):
        kept[0].settle(Result.discard("too late"))
    assert jobs_in(manager)[0].state is JobState.COMPLETED


@pytest.mark.parametrize("ending", ["cancelled", "raises", "finishes anyway", "its nursery"])
async def test_what_was_settled_early_stays_so_when_the_call_is_stopped(
    store: WatchedStore, ending: str, autojump_clock: MockClock
) -> None:
    manager = QueueManager(store, grace=0)

    async def stubborn() -> None:
        with trio.CancelScope(shield=ending == "finishes anyway"):
            try:
                await trio.sleep(3)
            finally:
                if ending == "raises":
                    raise ValueError("while it is stopped")

    @manager.batch_handler(batch_size=4)
    async def send(jobs: list[Job[str]]) -> None:
        jobs[0].settle(Result.ok(1))
        await trio.sleep(1)
        jobs[1].settle(Result.ok(2))
        jobs[2].settle(Result.snooze(60))
        if ending == "its nursery":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stubborn)
                await stubborn()
        await stubborn()

    async with manager.working():
        await send.enqueue_many("abcd")
        await trio.sleep(1.0078125)
    first, second, third, fourth = jobs_in(manager)
    assert (first.state, first.value) == (JobState.COMPLETED, b"1")
    assert (second.state, second.value) == (JobState.COMPLETED, b"2")
    assert (third.state, third.used) == (JobState.PENDING, 0)
    assert (fourth.state, fourth.used) == (JobState.PENDING, 0)


async def test_a_job_that_was_settled_early_is_not_extended_any_more(
    manager: QueueManager, store: WatchedStore, autojump_clock: MockClock
) -> None:
    @manager.batch_handler(batch_size=2)
    async def send(jobs: list[Job[str]]) -> None:
        jobs[0].settle(Result.ok())
        await trio.sleep(25)

    async with manager.working():
        await send.enqueue_many("ab")
        await trio.sleep(30)
    extended = [len(each.receipts) for group in store.groups for each in group.extend]
    assert extended == [1, 1]


def test_a_thread_settles_its_jobs_one_by_one() -> None:
    async def main() -> None:
        manager, go_on = QueueManager("memory:"), threading.Event()

        @manager.batch_handler(batch_size=2, retry=NO_RETRY)
        def send(jobs: list[Job[str]]) -> list[str]:
            jobs[0].settle(Result.ok("early"))
            go_on.wait(5)
            jobs[1].settle(Result.ok("at the last moment"))
            raise ValueError("and then this")

        async with manager.working():
            first, second = await send.enqueue_many("ab")
            began = trio.current_time()
            assert await first.result(5) == "early"
            assert trio.current_time() - began < 2
            assert await second.refresh() is JobState.PROCESSING
            go_on.set()
            assert await second.result(5) == "at the last moment"
        assert nothing_is_leased(manager)

    trio.run(main)
