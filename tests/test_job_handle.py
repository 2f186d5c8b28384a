"""Handles of stored jobs: state, status, results, and how they fail to come."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from batchq import (
    Handler,
    JobFailed,
    JobHandle,
    JobState,
    PayloadError,
    QueueManager,
    Result,
    RetryPolicy,
    UnknownJob,
)
from batchq.core.job import Group, Receipt, Settlement, Verdict
from tests.jobs import WatchedStore, claim, store_of


@pytest.fixture
def manager() -> QueueManager:
    return QueueManager(WatchedStore())


def settle(manager: QueueManager, queue: str, **said: object) -> None:
    """Claim and settle one job of a queue, as another process does."""
    store = store_of(manager)
    [job] = store.commit(Group(claim=[claim(1, queue=queue)])).claim[0].jobs
    settlement = Settlement(job.receipt, **said)  # type: ignore[arg-type]  # as the test says
    store.commit(Group(settle=[settlement]))


async def test_a_handle_knows_what_was_last_read(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    @manager.handler
    async def work() -> None: ...

    job = await work.using(delay=5).enqueue()
    assert (job.id, job.state, job.status) == (1, JobState.PENDING, "pending")
    assert await job.refresh() is JobState.PENDING
    assert job.status == "scheduled"
    await trio.sleep(5)
    await job.refresh()
    assert job.status == "pending"
    settle(manager, "work", verdict=Verdict.RETRY, delay=10)
    assert job.status == "pending"
    await job.refresh()
    assert job.status == "retrying"
    await trio.sleep(10)
    store_of(manager).commit(Group(claim=[claim(1, queue="work", lease=3)]))
    assert await job.refresh() is JobState.PROCESSING
    assert job.status == "processing"
    await trio.sleep(3)
    await job.refresh()
    assert job.status == "stalled"
    assert repr(job).startswith("JobHandle(id=1, state=")


async def test_a_result_comes_as_soon_as_the_job_ends_here(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    @manager.handler
    async def work(seconds: float) -> dict[str, float]:
        await trio.sleep(seconds)
        return {"slept": seconds}

    async with manager.working():
        job = await work.enqueue(33.0)
        assert await job.result() == {"slept": 33.0}
        assert trio.current_time() == 33.0
        assert (job.state, job.status) == (JobState.COMPLETED, "completed")
        assert await job.result(0) == {"slept": 33.0}


async def test_a_result_is_of_the_type_that_the_handler_says(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    @manager.batch_handler(batch_size=2)
    async def work(items: list[int]) -> list[Result[set[int]]]:
        return [Result.ok({item}) for item in items]

    async with manager.working():
        first, second = await work.enqueue_many([1, 2])
        assert (await first.result(), await second.result()) == ({1}, {2})


async def test_a_value_that_does_not_fit_its_annotation_is_an_error_of_the_reader(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    @manager.handler
    async def work() -> int:
        return "text"  # type: ignore[return-value]  # that is the point

    async with manager.working():
        job = await work.enqueue()
        with pytest.raises(PayloadError, match="work gave a value that it says it does not"):
            await job.result()


async def test_a_result_that_does_not_come_in_time_is_a_timeout_and_the_job_goes_on(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    @manager.handler
    async def work() -> int:
        await trio.sleep(10)
        return 7

    async with manager.working():
        job = await work.enqueue()
        await trio.sleep(1)
        with pytest.raises(TimeoutError, match=r"job 1 did not end within 4 s; it is processing"):
            await job.result(4)
        assert trio.current_time() == 5.0
        assert await job.result(20) == 7


async def test_a_timeout_of_0_looks_once(manager: QueueManager, autojump_clock: MockClock) -> None:
    @manager.handler
    async def work() -> None: ...

    job = await work.enqueue()
    with pytest.raises(TimeoutError, match="it is pending"):
        await job.result(0)
    assert trio.current_time() == 0.0


async def test_a_failed_job_says_why_and_how_it_failed_last(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    @manager.handler(retry=RetryPolicy(max_retries=1))
    async def work(reason: str) -> Result[None]:
        if reason == "exhausted":
            raise ValueError("no")
        return Result.discard("550 unknown")

    async with manager.working():
        exhausted, discarded = await work.enqueue("exhausted"), await work.enqueue("discarded")
        with pytest.raises(JobFailed) as caught:
            await exhausted.result()
        assert str(caught.value) == (
            "job 1 of handler 'work' is failed (exhausted) after 2 attempts; the last one:"
            " ValueError: no"
        )
        found = (caught.value.job_id, caught.value.state, caught.value.reason)
        assert found == (1, "failed", "exhausted")
        with pytest.raises(
            JobFailed, match=r"\(discarded\) after 1 attempt; the last one: 550 unknown$"
        ):
            await discarded.result()


async def test_a_job_that_ends_elsewhere_is_noticed_within_a_poll_interval(
    autojump_clock: MockClock,
) -> None:
    manager = QueueManager(WatchedStore(), poll_interval=2)

    @manager.handler
    async def work() -> int:
        return 0

    job = await work.enqueue()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(job.result)
        await trio.sleep(60)
        settle(manager, "work", verdict=Verdict.OK, value=b"7")
    assert trio.current_time() <= 62
    assert await job.result() == 7


async def test_many_may_wait_for_one_job_and_one_of_them_may_give_up(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    got = list[int]()

    @manager.handler
    async def work() -> int:
        await trio.sleep(5)
        return 7

    async def wait(job: JobHandle[int]) -> None:
        got.append(await job.result())

    async with manager.working():
        job = await work.enqueue()
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(wait, job)
            with trio.move_on_after(2):
                await wait(job)
        assert got == [7] * 10
    assert not manager._at_work.ends._here.waiting


async def test_a_job_that_is_not_there_is_unknown(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    @manager.handler
    async def work() -> None: ...

    job = await work.enqueue()
    job.id = 99
    for call in (job.refresh, job.result):
        with pytest.raises(UnknownJob, match="memory: has no job 99"):
            await call()
    with pytest.raises(LookupError):
        job.refresh_sync()


async def test_a_buried_job_ends_its_waiting(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    @manager.handler(retry=RetryPolicy(max_retries=0))
    async def work() -> None: ...

    job = await work.enqueue()
    store_of(manager).commit(Group(claim=[claim(1, queue="work", lease=10)]))
    async with manager.working():
        with pytest.raises(
            JobFailed, match=r"\(crashed\) after 1 attempt; the last one: lease ran out$"
        ):
            await job.result(60)
        assert trio.current_time() <= 12


def test_receipts_are_ordered_and_plain() -> None:
    assert Receipt(1, 2) < Receipt(2, 1)


# ---- Without trio, in real time


@pytest.fixture
def started(tmp_path: Path) -> Iterator[QueueManager]:
    manager = QueueManager(f"sqlite:///{tmp_path}/jobs.db")
    yield manager
    manager.stop_workers()
    manager.close()


def echo_of(manager: QueueManager) -> Handler[[int], int]:
    @manager.handler
    def echo(number: int) -> int:
        if number < 0:
            raise ValueError("negative")
        return number

    return echo


def test_result_sync_waits_in_a_plain_program(started: QueueManager) -> None:
    echo = echo_of(started)
    started.start_workers()
    job = echo.enqueue_sync(7)
    assert job.result_sync(10) == 7
    assert job.refresh_sync() is JobState.COMPLETED
    failing = echo.using(max_retries=0).enqueue_sync(-1)
    with pytest.raises(JobFailed, match="ValueError: negative"):
        failing.result_sync(10)
    started.stop_workers()
    with pytest.raises(TimeoutError, match=r"did not end within 0\.05 s"):
        echo.enqueue_sync(8).result_sync(0.05)


def test_result_sync_ends_long_before_the_poll_interval(tmp_path: Path) -> None:
    manager = QueueManager(f"sqlite:///{tmp_path}/jobs.db", poll_interval=60)
    go_on = threading.Event()

    @manager.handler
    def work() -> int:
        go_on.wait(10)
        return 7

    manager.start_workers()
    job = work.enqueue_sync()
    threading.Timer(0.5, go_on.set).start()
    assert job.result_sync(10) == 7
    manager.stop_workers()
    manager.close()


def test_results_come_under_asyncio(started: QueueManager) -> None:
    echo = echo_of(started)

    async def main() -> None:
        async with started.working():
            jobs = [await echo.enqueue(number) for number in range(20)]
            assert await asyncio.gather(*(job.result(10) for job in jobs)) == list(range(20))
            with pytest.raises(RuntimeError, match=r"write await job\.result\(\)"):
                jobs[0].result_sync()
            late = await echo.using(delay=60).enqueue(1)
            with pytest.raises(TimeoutError):
                await late.result(0.05)

    asyncio.run(main())
