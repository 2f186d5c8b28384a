"""A batch handler that raises: who pays for it, and what is written when."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from batchq import Backoff, Job, JobHooks, JobState, QueueManager, Result, RetryPolicy, Throttled
from batchq.core.record import JobRecord
from tests.jobs import Hops, WatchedStore, jobs_in, nothing_is_leased
from tests.test_durable_leases import steal

FIRM = RetryPolicy(2, backoff=Backoff(initial_delay=1.0, jitter="none"))
ONCE = RetryPolicy(0)


@pytest.fixture
def store() -> WatchedStore:
    return WatchedStore()


def states(store: WatchedStore) -> list[str]:
    return [job.state.value for job in jobs_in(store)]


async def test_only_the_job_that_breaks_the_call_fails(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    calls = list[list[int]]()
    manager = QueueManager(store)

    @manager.batch_handler(batch_size=16, retry=ONCE)
    async def insert(items: list[int]) -> None:
        calls.append(items)
        if 5 in items:
            raise ValueError("a bad row")

    async with manager.working():
        await insert.enqueue_many(range(16))
        await trio.sleep(5)
    assert len(calls) <= 1 + 2 * math.ceil(math.log2(16))
    found = states(store)
    assert found.pop(5) == "failed"
    assert set(found) == {"completed"}
    assert jobs_in(store, 6)[0].used == 1


async def test_the_batch_is_tried_again_whole_until_an_attempt_runs_out(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    calls = list[tuple[float, list[int]]]()
    manager = QueueManager(store)

    @manager.batch_handler(batch_size=4, retry=FIRM)
    async def insert(items: list[int]) -> None:
        calls.append((trio.current_time(), items))
        if 2 in items:
            raise ValueError("a bad row")

    async with manager.working():
        await insert.enqueue_many(range(4))
        await trio.sleep(20)
    whole = [0, 1, 2, 3]
    assert calls[:4] == [(0, whole), (1, whole), (3, whole), (3, [0, 1])]
    assert calls[4:] == [(3, [2, 3]), (3, [2]), (3, [3])]
    assert states(store) == ["completed", "completed", "failed", "completed"]
    assert [job.used for job in jobs_in(store)] == [3] * 4
    assert jobs_in(store)[2].reason == "exhausted"


async def test_what_broke_a_call_alone_is_called_alone_from_then_on(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    calls = list[list[int]]()
    manager = QueueManager(store)

    @manager.batch_handler(batch_size=8, flush_interval=0, retry=FIRM, bisect="immediate")
    async def insert(items: list[int]) -> None:
        calls.append(items)
        if 1 in items:
            raise ValueError("a bad row")

    async with manager.working():
        await insert.enqueue_many(range(4))
        await trio.sleep(0.5)
        assert states(store) == ["completed", "pending", "completed", "completed"]
        calls.clear()
        await insert.using(delay=0.5).enqueue_many(range(4, 8))  # due together with it
        await trio.sleep(10)
    assert [call for call in calls if 1 in call] == [[1], [1]]
    assert jobs_in(store)[1].reason == "exhausted"
    assert store.counts()["insert"] == {JobState.COMPLETED: 7, JobState.FAILED: 1}


async def test_each_part_is_settled_as_it_ends(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    manager = QueueManager(store)

    @manager.batch_handler(batch_size=4, retry=ONCE, bisect="immediate")
    async def insert(items: list[int]) -> None:
        await trio.sleep(1)
        if 3 in items:
            raise ValueError("a bad row")

    async with manager.working():
        await insert.enqueue_many(range(4))
        await trio.sleep(2.5)
        assert states(store) == ["completed", "completed", "processing", "processing"]
        await trio.sleep(2)
        assert states(store) == ["completed", "completed", "completed", "processing"]
        await trio.sleep(1)
        assert states(store) == ["completed", "completed", "completed", "failed"]


async def test_an_outage_is_not_answered_with_a_call_per_job(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    calls = list[int]()
    manager = QueueManager(store)

    @manager.batch_handler(batch_size=64, retry=ONCE)
    async def send(items: list[int]) -> None:
        calls.append(len(items))
        raise ConnectionError("refused")

    async with manager.working():
        await send.enqueue_many(range(64))
        await trio.sleep(5)
        assert nothing_is_leased(store)
    assert len(calls) == 1 + 2 * (6 + 1)
    assert states(store) == ["failed"] * 64


async def test_what_is_an_outage_the_handlers_policy_says(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    calls = list[int]()
    policy = RetryPolicy(0, retryable=lambda error: "later" in str(error))
    manager = QueueManager(store)

    @manager.batch_handler(batch_size=64, retry=policy, bisect="immediate")
    async def send(items: list[int]) -> None:
        calls.append(len(items))
        raise ValueError("come later" if items[0] < 64 else "never")

    async with manager.working():
        await send.enqueue_many(range(64))
        await trio.sleep(5)
        assert len(calls) == 1 + 2 * (6 + 1)
        calls.clear()
        await send.enqueue_many(range(64, 128))
        await trio.sleep(5)
        assert len(calls) == 2 * 64 - 1


async def test_early_verdicts_are_untouched_by_a_bisect(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    seen = list[list[int]]()
    manager = QueueManager(store)

    @manager.batch_handler(batch_size=4, retry=ONCE)
    async def send(jobs: list[Job[int]]) -> None:
        seen.append([job.payload for job in jobs])
        if len(jobs) == 4:
            jobs[0].settle(Result.ok("early"))
            jobs[1].settle(Result.snooze(60))
            raise ValueError("half-way")

    async with manager.working():
        await send.enqueue_many(range(4))
        await trio.sleep(5)
        assert seen == [[0, 1, 2, 3], [2], [3]]
        assert states(store) == ["completed", "pending", "completed", "completed"]
        assert jobs_in(store)[0].value == b'"early"'


async def test_a_throttled_part_is_called_again_and_nothing_is_claimed_meanwhile(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    calls = list[tuple[float, list[int]]]()
    manager = QueueManager(store)

    @manager.batch_handler(batch_size=2, retry=ONCE)
    async def send(items: list[int]) -> None:
        calls.append((trio.current_time(), items))
        if len(items) == 2:
            raise ValueError("a bad pair")
        if len(calls) == 2:
            raise Throttled(7)

    async with manager.working():
        await send.enqueue_many(range(2))
        await trio.sleep(1)
        assert states(store) == ["processing", "processing"]
        await trio.sleep(20)
    assert calls == [(0, [0, 1]), (0, [0]), (7, [0]), (7, [1])]
    assert states(store) == ["completed", "completed"]
    assert [job.used for job in jobs_in(store)] == [1, 1]


async def test_a_job_that_is_lost_meanwhile_is_in_no_part_to_come(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    calls, lost = list[list[int]](), list[int]()
    manager = QueueManager(store, lease=9)

    @manager.batch_handler(
        batch_size=4,
        retry=ONCE,
        hooks=JobHooks(on_lease_lost=lambda job: lost.append(job.id)),
    )
    async def send(items: list[int]) -> list[int]:
        calls.append(items)
        await trio.sleep(0 if len(items) == 4 else 5)
        if len(items) == 4:
            raise ValueError("a bad four")
        return items

    async with manager.working():
        await send.enqueue_many(range(4))
        await trio.sleep(1)
        steal(store, [3])
        await trio.sleep(20)
    assert calls == [[0, 1, 2, 3], [0, 1], [3]]
    assert states(store) == ["completed", "completed", "processing", "completed"]
    assert lost == [3]


async def test_a_bisect_is_given_back_when_the_grace_is_over(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    manager = QueueManager(store, grace=2.25, run_sync=Hops(takes=0.125))

    @manager.batch_handler(batch_size=4, retry=ONCE)
    async def send(items: list[int]) -> None:
        await trio.sleep(1)
        if 0 in items:
            raise ValueError("a bad row")

    async with manager.working():
        await send.enqueue_many(range(4))
        await trio.sleep(2.5)
    assert trio.current_time() <= 5.5
    assert nothing_is_leased(store)
    assert states(store)[1:] == ["completed", "pending", "pending"]
    assert all(job.used == 0 for job in jobs_in(store) if job.state is JobState.PENDING)


async def test_hooks_are_told_of_the_split_and_of_each_call(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    told = list[Any]()
    hooks = JobHooks(
        on_batch_start=lambda batch: told.append(len(batch)),
        on_bisect=lambda _, error, left, right: told.append((str(error), len(left), len(right))),
        on_processed=lambda job, result: told.append((job.id, result.success)),
    )
    manager = QueueManager(store, hooks=hooks)

    @manager.batch_handler(batch_size=2, flush_interval=0, retry=ONCE)
    async def send(items: list[int]) -> None:
        if 0 in items:
            raise ValueError("a bad row")

    async with manager.working():
        await send.enqueue_many(range(2))
        await trio.sleep(1)
    assert told == [2, ("a bad row", 1, 1), 1, (1, False), 1, (2, True)]


@given(
    poison=st.sets(st.integers(0, 30), max_size=4),
    count=st.integers(1, 31),
    size=st.integers(1, 12),
    mode=st.sampled_from(["exhausted", "immediate"]),
    retries=st.integers(0, 2),
)
def test_exactly_the_poison_fails_however_they_lie(
    poison: set[int], count: int, size: int, mode: str, retries: int
) -> None:
    async def main() -> list[JobRecord]:
        manager = QueueManager(WatchedStore(), poll_interval=100)
        policy = RetryPolicy(retries, retryable=lambda _: retries > 0)

        @manager.batch_handler(
            batch_size=size, flush_interval=0.5, retry=policy, bisect=mode, concurrency=2
        )
        async def work(items: list[int]) -> None:
            await trio.sleep(0.125)
            if poison.intersection(items):
                raise ValueError("poison")

        async with manager.working():
            await work.enqueue_many(range(count))
            await trio.sleep(100)
        return jobs_in(manager)

    found = trio.run(main, clock=MockClock(autojump_threshold=0))
    expected = ["failed" if number in poison else "completed" for number in range(count)]
    assert [job.state.value for job in found] == expected
    assert all(job.used <= 1 + retries for job in found)


@pytest.mark.parametrize("mode", ["off", "exhausted", "immediate"])
async def test_the_memory_tier_takes_batches_apart_too(
    mode: str, autojump_clock: MockClock
) -> None:
    calls = list[Sequence[int]]()
    manager = QueueManager("memory:")

    @manager.batch_handler(batch_size=2, tier="memory", retry=ONCE, bisect=mode)
    async def send(items: list[int]) -> None:
        calls.append(items)
        if 0 in items:
            raise ValueError("a bad row")

    async with manager.working():
        await send.enqueue_many(range(2))
        await trio.sleep(1)
    assert calls == ([[0, 1]] if mode == "off" else [[0, 1], [0], [1]])
