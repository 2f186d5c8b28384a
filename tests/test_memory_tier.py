"""tier="memory": the same code, on a queue that lives as long as its manager works."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from batchq import (
    Backoff,
    BatchHandler,
    BatchTimeout,
    ContractError,
    Handler,
    Job,
    JobHooks,
    OptionError,
    PayloadError,
    QueueClosed,
    QueueManager,
    Result,
    RetryPolicy,
    Throttled,
)
from tests.jobs import WatchedStore

TWICE = RetryPolicy(max_retries=2, backoff=Backoff(schedule=(4, 16), jitter="none"))


@pytest.fixture
def manager() -> QueueManager:
    """Make a manager whose store must not be touched."""
    store = WatchedStore()
    store.refuses = lambda _: AssertionError("the memory tier needs no store")
    return QueueManager(store, grace=5)


def double(manager: QueueManager) -> Handler[[int], int]:
    @manager.handler(tier="memory")
    async def double(number: int) -> int:
        return number * 2

    return double


def lengths(manager: QueueManager, **options: Any) -> BatchHandler[str, int]:  # noqa: ANN401
    @manager.batch_handler(tier="memory", **{"batch_size": 3, "flush_interval": 1, **options})
    async def lengths(texts: list[str]) -> list[int]:
        return [len(text) for text in texts]

    return lengths


async def test_the_same_calls_give_the_same_results(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    single, many = double(manager), lengths(manager)
    async with manager.working():
        job = await single.enqueue(21)
        assert (job.id, job.status) == (1, "pending")
        assert await job.result() == 42
        assert job.status == "succeeded"
        jobs = await many.enqueue_many(["a", "bb", "ccc", "dddd"])
        assert [job.id for job in jobs] == [1, 2, 3, 4]
        assert [await job.result(10) for job in jobs] == [1, 2, 3, 4]
        assert trio.current_time() == 1.0  # the last one waited for company
        assert await (await manager.add_job("double", {"number": 4})).result() == 8
        assert await many.store_many("abc") == 3


async def test_outside_a_block_it_takes_nothing_and_says_where_it_would(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    handler = double(manager)
    for _ in range(2):
        with pytest.raises(QueueClosed, match=r"'double' is of the memory tier.*working\(\)"):
            await handler.enqueue(1)
        async with manager.working():
            assert await (await handler.enqueue(1)).result() == 2


async def test_payloads_are_checked_and_copied(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    @manager.batch_handler(tier="memory", flush_interval=0)
    async def count(items: list[list[int]]) -> list[int]:
        return [len(item) for item in items]

    async with manager.working():
        mine = [1, 2]
        job = await count.enqueue(mine)
        mine.append(3)
        assert await job.result() == 2
        with pytest.raises(PayloadError):
            await count.enqueue(["a"])  # type: ignore[list-item]
        with pytest.raises(PayloadError):
            await count.enqueue_many([[1], "x"])  # type: ignore[list-item]


async def test_failures_come_again_at_the_same_delays(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    runs = list[tuple[float, int]]()

    @manager.batch_handler(tier="memory", batch_size=1, retry=TWICE)
    async def work(jobs: list[Job[str]]) -> None:
        runs.append((trio.current_time(), jobs[0].attempt))
        raise ValueError("no")

    async with manager.working():
        job = await work.enqueue("a")
        with pytest.raises(ValueError, match="no"):
            await job.result()
    assert runs == [(0, 1), (4, 2), (20, 3)]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda: {"success": False}, {"success": False}),
        (lambda: Result.ok(7), 7),
        (lambda: Result.discard(ValueError("no")), ValueError),
        (lambda: object, TypeError),
    ],
)
async def test_verdicts_mean_the_same(
    manager: QueueManager,
    answer: Callable[[], Any],
    expected: Any,  # noqa: ANN401 - a value or an error
    autojump_clock: MockClock,
) -> None:
    @manager.handler(tier="memory", retry=TWICE)
    async def work() -> Any:  # noqa: ANN401 - as the test says
        return answer()

    async with manager.working():
        job = await work.enqueue()
        if expected is ValueError:
            with pytest.raises(ValueError, match="no"):
                await job.result()
        elif expected is TypeError:
            assert await job.result() is object  # it never was stored: any value will do
        else:
            assert await job.result() == expected
        assert trio.current_time() == 0.0


async def test_snooze_throttled_timeout_and_early_verdicts(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    runs = list[tuple[float, str, int]]()

    @manager.batch_handler(tier="memory", batch_size=1, timeout=2, retry=TWICE)
    async def work(jobs: list[Job[str]]) -> list[Result[str]] | None:
        [job] = jobs
        runs.append((trio.current_time(), job.payload, job.attempt))
        if job.payload == "early":
            job.settle(Result.ok("kept"))
            raise ValueError("later")
        if trio.current_time() > 30:
            return [Result.ok("done")]
        if job.payload == "throttled":
            raise Throttled(32)
        if job.payload == "slow":
            await trio.sleep_forever()
        return [Result.snooze(32)]

    async with manager.working():
        early = await work.enqueue("early")
        assert await early.result() == "kept"
        snoozed = await work.enqueue("snoozed")
        slow = await work.using(delay=1).enqueue("slow")
        with pytest.raises(BatchTimeout):
            await slow.result()
        assert await snoozed.result() == "done"
        assert [attempt for _, payload, attempt in runs if payload == "snoozed"] == [1, 1]
        throttled = await work.enqueue("throttled")
        assert await throttled.result() == "done"


async def test_what_needs_a_store_is_refused(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    handler = double(manager)
    async with manager.working():
        with pytest.raises(OptionError, match=r"using\(max_retries=\.\.\.\) needs tier='durable'"):
            await handler.using(max_retries=9).enqueue(1)
        assert await (await handler.using(priority="high", delay=2).enqueue(1)).result() == 2
        assert trio.current_time() == 2.0


async def test_priorities_go_first(manager: QueueManager, autojump_clock: MockClock) -> None:
    runs = list[str]()

    @manager.handler(tier="memory", concurrency=1)
    async def work(name: str) -> None:
        runs.append(name)
        await trio.sleep(1)

    async with manager.working():
        await work.enqueue("first")
        await trio.sleep(0.5)
        for priority in (9, 3, 0):
            await work.using(priority=priority).enqueue(f"at {priority}")
    assert runs == ["first", "at 0", "at 3", "at 9"]


async def test_a_result_that_does_not_come_in_time_is_a_timeout(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    many = lengths(manager, flush_interval=10)
    async with manager.working():
        job = await many.enqueue("a")
        with pytest.raises(TimeoutError, match="job 1 was not settled within 4"):
            await job.result(4)
        assert await job.result() == 1


async def test_the_end_of_the_block_finishes_what_is_held(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    many = lengths(manager, flush_interval=100)
    async with manager.working():
        jobs = await many.enqueue_many(["a", "bb", "ccc", "dddd"])
    assert trio.current_time() == 0.0
    assert [await job.result() for job in jobs] == [1, 2, 3, 4]


async def test_what_runs_longer_than_the_grace_is_cancelled_and_says_so(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    @manager.handler(tier="memory", concurrency=1)
    async def hang(number: int) -> None:
        await trio.sleep_forever()

    async with manager.working():
        jobs = [await hang.enqueue(number) for number in range(3)]
        await trio.sleep(1)
    assert trio.current_time() == 6.0
    for job in jobs:
        with pytest.raises(QueueClosed):
            await job.result()


async def test_only_one_block_at_a_time_works_on_it(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    handler = double(manager)

    async def again() -> None:
        async with manager.working():
            raise AssertionError("entered")

    async with manager.working():
        with pytest.raises(RuntimeError, match="'double' of the memory tier works already"):
            await again()
        assert await (await handler.enqueue(1)).result() == 2


async def test_hooks_are_told_with_jobs(manager: QueueManager, autojump_clock: MockClock) -> None:
    told = list[Any]()
    hooks = JobHooks(
        on_enqueue=lambda job: told.append(("enqueue", job.id, job.payload)),
        on_processed=lambda job, result: told.append(("processed", job.id, result.value)),
    )

    @manager.batch_handler(tier="memory", flush_interval=0, hooks=hooks)
    async def work(items: list[int]) -> list[int]:
        return [item + 1 for item in items]

    async with manager.working():
        await (await work.enqueue(7)).result()
    assert told == [("enqueue", 1, 7), ("processed", 1, 8)]


async def test_what_was_admitted_before_an_error_is_in_stored(
    manager: QueueManager, autojump_clock: MockClock
) -> None:
    @manager.batch_handler(tier="memory", batch_size=100, concurrency=1)
    async def work(items: list[int]) -> list[int]:
        await trio.sleep(0.01 if items[0] else 1)
        return items

    async def many() -> None:
        with pytest.raises(QueueClosed) as caught:
            await work.enqueue_many(range(10_500))
        handles: Any = caught.value.stored
        assert [job.id for job in handles] == [*range(1, 10_101)]
        assert [await job.result() for job in handles] == [*range(10_100)]

    async with trio.open_nursery() as nursery, manager.working():
        nursery.start_soon(many)
        await trio.sleep(0.5)
        with pytest.raises(trio.TooSlowError), trio.fail_after(0.1):
            await work.store_many([0])


async def test_a_plain_function_that_returns_an_awaitable_says_so(manager: QueueManager) -> None:
    async def later() -> int:
        return 7

    @manager.handler(tier="memory", name="work")
    def work() -> Any:  # noqa: ANN401 - as the test says
        return later()

    async with manager.working():
        with pytest.raises(ContractError, match="'work' is a plain function and returned a corout"):
            await (await work.enqueue()).result()


# ---- From elsewhere, in real time


def test_who_gives_up_from_another_thread_leaves_nothing_behind(manager: QueueManager) -> None:
    many = lengths(manager, flush_interval=None)

    def tasks() -> int:
        return trio.lowlevel.current_statistics().tasks_living

    def ask(job: Any) -> None:  # noqa: ANN401 - a handle of the memory tier
        for _ in range(5):
            with pytest.raises(TimeoutError):
                job.result_sync(0.01)

    async def main() -> None:
        async with manager.working():
            job = await many.enqueue("a")
            before = tasks()
            await trio.to_thread.run_sync(ask, job)
            await trio.testing.wait_all_tasks_blocked()
            assert tasks() == before

    trio.run(main)


def test_an_event_loop_that_has_ended_is_a_closed_queue(manager: QueueManager) -> None:
    single = double(manager)
    intake: Any = single._intake
    manager.start_workers()
    worked = intake.working
    manager.stop_workers()
    intake.working = worked  # as one sees it who looked this very moment
    with pytest.raises(QueueClosed, match="working"):
        single.enqueue_sync(1)
    with pytest.raises(QueueClosed, match="working"):
        trio.run(single.enqueue, 1)


def test_threads_enqueue_and_wait(manager: QueueManager) -> None:
    single, got = double(manager), list[int]()

    def produce() -> None:
        got.extend(single.enqueue_sync(number).result_sync(10) for number in range(10))

    manager.start_workers()
    threads = [threading.Thread(target=produce) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = single.enqueue_sync(21)
    manager.stop_workers()
    assert sorted(got) == sorted(list(range(0, 20, 2)) * 4)
    assert kept.result_sync(1) == 42  # settled before the loop ended
    with pytest.raises(QueueClosed, match="working"):
        single.enqueue_sync(1)


def test_a_plain_function_runs_in_a_thread(manager: QueueManager) -> None:
    @manager.handler(tier="memory")
    def where() -> str:
        return threading.current_thread().name

    async def main() -> None:
        async with manager.working():
            assert await (await where.enqueue()).result(5) != threading.current_thread().name

    trio.run(main)


def test_it_works_under_asyncio_with_many_that_wait(manager: QueueManager) -> None:
    many = lengths(manager, batch_size=100, flush_interval=None)

    async def ask(text: str) -> int:
        return await (await many.enqueue(text)).result(10)

    async def main() -> None:
        async with manager.working():
            # No thread is kept per waiter: the hundredth still comes in.
            first = [asyncio.ensure_future(ask("x" * number)) for number in range(50)]
            await asyncio.sleep(0.2)
            second = [asyncio.ensure_future(ask("x" * number)) for number in range(50)]
            assert await asyncio.gather(*first, *second) == [*range(50), *range(50)]
            job = await many.enqueue("a")
            with pytest.raises(TimeoutError):
                await job.result(0.05)
            waiting = asyncio.ensure_future(job.result())
            await asyncio.sleep(0.05)
            waiting.cancel()

    asyncio.run(asyncio.wait_for(main(), 20))


def test_another_trio_loop_may_enqueue_and_wait(manager: QueueManager) -> None:
    single = double(manager)

    async def main() -> None:
        job = await single.enqueue(21)
        assert await job.result(5) == 42
        with pytest.raises(RuntimeError, match="event loop"):
            single.enqueue_sync(1)

    manager.start_workers()
    trio.run(main)
    manager.stop_workers()
