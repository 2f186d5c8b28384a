"""What people order of a manager: under trio, under asyncio, and without an event loop."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from batchq import JobFilter, JobHandle, JobState, OptionError, Ordered, QueueManager, UnknownJob
from batchq.cli.orders import STATUSES
from batchq.stores.memory import MemoryStore

DONE, ASKED, REFUSED, UNKNOWN = Ordered.DONE, Ordered.ASKED, Ordered.REFUSED, Ordered.UNKNOWN


@pytest.fixture
def store(autojump_clock: MockClock) -> MemoryStore:
    return MemoryStore(clock=autojump_clock.current_time)


def a_manager(store: MemoryStore | str) -> QueueManager:
    manager = QueueManager(store, poll_interval=64)

    @manager.handler
    async def work(number: int) -> int:
        return number

    return manager


async def enqueue(manager: QueueManager, *numbers: int) -> list[JobHandle[object]]:
    return [await manager.add_job("work", {"number": number}) for number in numbers]


async def test_orders_take_ids_handles_and_filters(
    store: MemoryStore, autojump_clock: MockClock
) -> None:
    manager = a_manager(store)
    first, _, third = await enqueue(manager, 1, 2, 3)
    outcome = await manager.cancel([first, 2, 2, 99], "spring")
    assert list(outcome.answers) == [DONE, DONE, REFUSED, UNKNOWN]
    assert (outcome.done, outcome.counts[REFUSED], list(outcome.asked)) == (2, 1, [])
    assert (await manager.get(first)).reason == "spring"
    outcome = await manager.retry(JobFilter(status="cancelled"))
    assert (outcome.answers, outcome.counts) == ([], {DONE: 2})
    assert (await manager.cancel(third)).done == 1
    for status in ("pending", JobState.PENDING):
        assert [job.id for job in await manager.jobs(JobFilter(status=status))] == [1, 2]
    assert [job.id for job in await manager.jobs(newest_first=True, limit=2)] == [3, 2]
    with pytest.raises(UnknownJob, match="no job 99"):
        await manager.get(99)


async def test_a_filter_of_thousands_is_worked_off(
    store: MemoryStore, autojump_clock: MockClock
) -> None:
    manager = a_manager(store)
    async with manager, trio.open_nursery() as nursery:
        for number in range(2_100):
            nursery.start_soon(enqueue, manager, number)
    assert (await manager.cancel(JobFilter(queue="work"))).counts == {DONE: 2_100}
    assert len((await manager.cancel(range(1, 2_101))).answers) == 2_100
    assert (await manager.delete(JobFilter(last_id=2_050))).counts == {DONE: 2_050}
    assert await manager.clean(grace=0) == 50
    assert await manager.jobs() == []


async def test_jobs_that_ended_are_deleted_and_no_others(
    store: MemoryStore, autojump_clock: MockClock
) -> None:
    manager = a_manager(store)
    first, second, third = await enqueue(manager, 1, 2, 3)
    await manager.cancel([first, second])
    outcome = await manager.delete([first, 1, third, 99])
    assert list(outcome.answers) == [DONE, UNKNOWN, REFUSED, UNKNOWN]
    counts = {JobState.PENDING: 1, JobState.CANCELLED: 1}
    assert (await manager.stats()).queues == {"work": counts}
    assert [job.id for job in await manager.jobs()] == [2, 3]


async def test_a_running_job_is_stopped_at_once_where_it_runs(
    store: MemoryStore, autojump_clock: MockClock
) -> None:
    manager = QueueManager(store, lease=600, poll_interval=64)
    stopped: list[float] = []

    @manager.handler
    async def work() -> None:
        try:
            await trio.sleep(500)
        finally:
            stopped.append(trio.current_time())

    async with manager.working():
        job = await work.enqueue()
        await trio.sleep(1)
        started = trio.current_time()
        assert await job.cancel("late") is ASKED
        await trio.sleep(1)
        assert stopped == [started]
        assert (await manager.get(job)).state is JobState.CANCELLED
        assert (await manager.get(job)).reason == "late"


async def test_what_is_retried_or_resumed_is_looked_for_at_once(
    store: MemoryStore, autojump_clock: MockClock
) -> None:
    manager = a_manager(store)
    async with manager.working():
        await trio.sleep(1)
        await manager.pause("work")
        [job] = await enqueue(manager, 1)
        await trio.sleep(100)
        assert await job.refresh() is JobState.PENDING
        assert (await manager.stats()).paused == {"work"}
        before = trio.current_time()
        await manager.resume("work")
        assert await job.result() == 1
        assert await job.retry() is DONE
        assert await job.result() == 1
        assert trio.current_time() - before < 4


async def test_stats_count_what_is_there_and_what_happened(
    store: MemoryStore, autojump_clock: MockClock
) -> None:
    manager = a_manager(store)
    await enqueue(manager, 1, 2)
    await manager.cancel(1)
    stats = await manager.stats()
    assert stats.queues == {"work": {JobState.PENDING: 1, JobState.CANCELLED: 1}}
    [tally] = stats.tallies
    assert (tally.queue, tally.enqueued, tally.cancelled) == ("work", 2, 1)
    assert len(stats.workers) == 1


async def test_what_failed_is_listed_youngest_first(
    store: MemoryStore, autojump_clock: MockClock
) -> None:
    manager = QueueManager(store)

    @manager.handler(queue="mail")
    async def fails() -> None:
        raise ValueError

    @manager.handler(queue="other")
    async def fails_too() -> None:
        raise ValueError

    async with manager.working():
        for handler in (fails, fails, fails_too):
            job = await handler.using(max_retries=0).enqueue()
            with pytest.raises(Exception, match="failed"):
                await job.result()
    assert [job.id for job in await manager.failed()] == [3, 2, 1]
    assert [job.id for job in await manager.failed("mail", limit=1)] == [2]


async def test_nonsense_is_refused(store: MemoryStore, autojump_clock: MockClock) -> None:
    manager = a_manager(store)
    with pytest.raises(OptionError, match="queue's name"):
        await manager.pause("no such/name")
    with pytest.raises(OptionError, match="grace"):
        await manager.clean(grace=-1)
    with pytest.raises(OptionError, match="queue's name"):
        await manager.clean(grace=0, queue="no such/name")
    for states in (["failed"], [JobState.PENDING], [None], "failed"):
        with pytest.raises(OptionError, match=r"states must be of .*FAILED.*, got"):
            await manager.clean(grace=0, states=states)  # type: ignore[arg-type]


BAD_FILTERS: list[tuple[Any, str]] = [
    (
        JobFilter(status="nope"),
        f"status must be one of {', '.join(STATUSES)}, or None, got 'nope'",
    ),
    (JobFilter(status=["failed"]), "status must be one of"),  # type: ignore[arg-type]
    (JobFilter(queue=7), "queue must be a text, or None, got 7"),  # type: ignore[arg-type]
    (JobFilter(tag=b"red"), "tag must be a text, or None"),  # type: ignore[arg-type]
    (JobFilter(first_id="1"), "first_id must be a whole number"),  # type: ignore[arg-type]
    (JobFilter(last_id=True), "last_id must be a whole number"),
    (JobFilter(stored_since=float("nan")), "stored_since must be a number of seconds"),
    (JobFilter(ended_before="now"), "ended_before must be a number"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("where", "said"), BAD_FILTERS, ids=range(len(BAD_FILTERS)))
async def test_a_filter_that_could_mean_no_job_is_refused(
    where: JobFilter, said: str, store: MemoryStore, autojump_clock: MockClock
) -> None:
    manager = a_manager(store)
    await enqueue(manager, 1)
    for order in (manager.jobs, manager.cancel, manager.retry):
        with pytest.raises(OptionError, match=re.escape(said)):
            await order(where)
    with pytest.raises(OptionError, match=re.escape(said)):
        await trio.to_thread.run_sync(manager.jobs_sync, where)


@pytest.mark.parametrize("place", ["memory:", "sqlite:///{}/jobs.db"])
@pytest.mark.parametrize(
    ("page", "said"),
    [
        ({"limit": -1}, "limit must be a whole number from 0, got -1"),
        ({"limit": 2.0}, "limit must be a whole number from 0, got 2.0"),
        ({"limit": True}, "limit must be"),
        ({"limit": None}, "limit must be"),
        ({"limit": "5; DROP TABLE batchq_jobs"}, "limit must be"),
        ({"after": "1"}, "after must be the id of a job, or None, got '1'"),
        ({"after": 1.5}, "after must be"),
        ({"after": float("nan")}, "after must be"),
        ({"where": "failed"}, "a JobFilter, got 'failed'"),
        ({"where": None}, "a JobFilter, got None"),
    ],
    ids=str,
)
def test_a_page_that_is_none_is_refused(
    tmp_path: Path, place: str, page: dict[str, Any], said: str
) -> None:
    manager = a_manager(place.format(tmp_path))
    manager.add_job_sync("work", {"number": 1})
    with pytest.raises(OptionError, match=re.escape(said)):
        manager.jobs_sync(**page)
    with pytest.raises(OptionError, match=r"(limit|queue) must be"):
        manager.failed_sync(**{"limit": -1} if "where" in page or "after" in page else page)
    assert len(manager.jobs_sync()) == 1
    manager.close()


@pytest.mark.parametrize("place", ["memory:", "sqlite:///{}/jobs.db"])
def test_a_page_may_be_empty_huge_or_begin_anywhere(tmp_path: Path, place: str) -> None:
    manager = a_manager(place.format(tmp_path))
    for number in range(3):
        manager.add_job_sync("work", {"number": number})

    def ids(**page: Any) -> list[int]:  # noqa: ANN401 - of either kind
        return [job.id for job in manager.jobs_sync(**page)]

    assert ids(limit=0) == ids(after=10**30) == ids(after=-1, newest_first=True) == []
    assert ids(limit=10**30) == ids(after=-(10**30)) == ids(after=0) == [1, 2, 3]
    assert ids(after=10**30, newest_first=True) == [3, 2, 1]
    assert ids(where=JobFilter(first_id=-(10**30), last_id=10**30)) == [1, 2, 3]
    assert ids(where=JobFilter(queue="\udcff\0", key="\x1b")) == []
    assert ids(where=JobFilter(stored_since=-(10**300), stored_before=1e300)) == [1, 2, 3]
    manager.close()


async def test_what_names_no_job_and_what_says_no_reason_is_refused(
    store: MemoryStore, autojump_clock: MockClock
) -> None:
    manager = QueueManager(store)

    @manager.handler
    async def send() -> None: ...

    await send.enqueue()
    for wrong in (True, None, 1.5, "x", [1.0], [None]):
        with pytest.raises(TypeError, match="named by its id or its handle"):
            await manager.cancel(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="named by its id or its handle"):
        await manager.get("1")  # type: ignore[arg-type]
    for reason in (None, "", "a\x1b[31m"):
        with pytest.raises(OptionError, match="reason must be a text"):
            await manager.cancel(1, reason)  # type: ignore[arg-type]
    assert (await manager.get(1)).state is JobState.PENDING


def test_each_order_has_a_twin_without_an_event_loop(tmp_path: Path) -> None:
    manager = a_manager(f"sqlite:///{tmp_path}/jobs.db")
    job = manager.add_job_sync("work", {"number": 1})
    assert job.cancel_sync() is DONE
    assert job.retry_sync() is DONE
    manager.pause_sync("work")
    assert manager.stats_sync().paused == {"work"}
    manager.resume_sync("work")
    assert manager.cancel_sync(job.id).done == 1
    assert manager.retry_sync([job]).done == 1
    assert manager.get_sync(job).state is JobState.PENDING
    assert [each.id for each in manager.jobs_sync()] == [1]
    assert manager.failed_sync() == []
    assert manager.clean_sync(grace=0) == 0
    assert list(manager.delete_sync(job).answers) == [REFUSED]
    manager.close()


async def test_a_twin_that_blocks_says_what_to_write_in_an_event_loop(
    store: MemoryStore, autojump_clock: MockClock
) -> None:
    manager = a_manager(store)
    with pytest.raises(RuntimeError, match=r"await manager\.cancel"):
        manager.cancel_sync(1)


def test_orders_work_under_asyncio(tmp_path: Path) -> None:
    manager = a_manager(f"sqlite:///{tmp_path}/jobs.db")

    async def main() -> None:
        job = await manager.add_job("work", {"number": 1})
        assert await job.cancel() is DONE
        assert (await manager.stats()).queues == {"work": {JobState.CANCELLED: 1}}
        await manager.pause("work")
        assert [each.id for each in await manager.jobs()] == [1]

    asyncio.run(main())
    manager.close()
