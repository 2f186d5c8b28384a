"""Keys, tags and ends of patience, as whoever enqueues says them."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from batchq import JobFilter, JobState, OptionError, QueueManager
from batchq.stores.memory import MemoryStore


@pytest.fixture
def manager(autojump_clock: MockClock) -> QueueManager:
    return QueueManager(MemoryStore(clock=autojump_clock.current_time), poll_interval=64)


async def test_while_one_job_has_a_key_no_other_is_stored(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    """J9."""

    @manager.handler
    async def work(number: int) -> int:
        return number

    keyed = work.using(key="once")
    first, second = await keyed.enqueue(1), await keyed.enqueue(2)
    assert (first.id, second.id) == (1, 1)
    assert (first.fresh, second.fresh) == (True, False)
    async with manager.working():
        assert await second.result() == 1
    third = await keyed.enqueue(3)
    assert third.id == 2


async def test_of_many_with_one_key_one_is_stored(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    @manager.batch_handler
    async def work(numbers: list[int]) -> None: ...

    jobs = await work.using(key="once").enqueue_many([1, 2, 3])
    assert [job.id for job in jobs] == [1, 1, 1]
    assert [job.fresh for job in jobs] == [True, False, False]


async def test_a_job_that_nobody_ran_in_time_expires(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    @manager.handler
    async def work() -> None: ...

    job = await work.using(expires=8, delay=16).enqueue()
    async with manager.working():
        with pytest.raises(Exception, match="expired"):
            await job.result()
    assert (await manager.get(1)).state is JobState.FAILED


async def test_jobs_are_found_by_their_tags(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    @manager.handler
    async def work() -> None: ...

    await work.enqueue()
    await work.using(tags=["red", "big"]).enqueue()
    assert [job.id for job in await manager.jobs(JobFilter(tag="red"))] == [2]


@pytest.mark.parametrize(
    "options",
    [
        {"key": ""},
        {"key": "x" * 256},
        {"key": "a\0b"},
        {"key": "\udcff"},
        {"key": 7},
        {"expires": 0},
        {"expires": float("inf")},
        {"tags": "red"},
        {"tags": ["x"] * 17},
        {"tags": ["x" * 65]},
        {"tags": [7]},
    ],
)
def test_nonsense_is_refused_by_name(manager: QueueManager, options: dict[str, Any]) -> None:
    @manager.handler
    async def work() -> None: ...

    with pytest.raises(OptionError, match=next(iter(options)).removesuffix("s")):
        work.using(**options)


def test_an_option_that_there_is_not_is_refused_by_name(manager: QueueManager) -> None:
    @manager.handler
    def work() -> None: ...

    misspelt: dict[str, Any] = {"prio": "high"}
    with pytest.raises(TypeError, match=r"^a job has no option 'prio'; there are: delay, priority"):
        work.using(**misspelt)


@pytest.mark.parametrize("options", [{"key": "k"}, {"expires": 8}, {"tags": ["red"]}])
async def test_the_memory_tier_refuses_what_needs_a_store(
    manager: QueueManager, autojump_clock: MockClock, options: dict[str, Any]
) -> None:
    @manager.handler(tier="memory")
    async def work() -> None: ...

    async with manager.working():
        with pytest.raises(OptionError, match="tier='durable'"):
            await work.using(**options).enqueue()
