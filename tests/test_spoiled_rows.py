"""Rows that somebody else has spoiled: each costs itself, and nobody else.

All of it through the public API and on a SQLite file, as in real life.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from batchq import JobFailed, JobState, QueueManager, RetryPolicy
from batchq.core.record import JobFilter, Ordered
from tests.jobs import jobs_in, store_of, until, work_off
from tests.stores.sqlite_kit import raw

DONE, REFUSED = Ordered.DONE, Ordered.REFUSED


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def manager(path: Path) -> Iterator[QueueManager]:
    opened = QueueManager(f"sqlite:///{path}", poll_interval=0.05, durability="process")
    with closing(opened):
        yield opened


async def four_jobs(manager: QueueManager) -> list[int]:
    """Store the jobs 0 to 3; return where their handler notes that it ran them."""
    seen = list[int]()

    @manager.handler
    async def one(number: int) -> None:
        seen.append(number)

    for number in range(4):
        await one.enqueue(number)
    return seen


async def test_a_row_that_can_not_be_read_fails_alone(manager: QueueManager, path: Path) -> None:
    seen = list[int]()

    @manager.batch_handler(batch_size=10, retry=RetryPolicy(max_retries=1))
    async def many(items: list[int]) -> None:
        seen.extend(items)

    await many.enqueue_many(range(6))
    raw(
        path,
        "UPDATE batchq_jobs SET payload = CAST(x'ff00' AS TEXT) WHERE id = 1",
        "UPDATE batchq_jobs SET payload = '{' WHERE id = 2",
        "UPDATE batchq_jobs SET payload = '\"text\"' WHERE id = 3",
        "UPDATE batchq_jobs SET payload = '' WHERE id = 4",
    )
    await work_off(manager)
    assert seen == [4, 5]
    found = jobs_in(manager)
    assert [row.reason for row in found] == [*["undecodable"] * 4, None, None]
    assert [row.used for row in found] == [1] * 6
    assert len(store_of(manager).errors()) == 4


async def test_a_row_in_no_known_state_or_without_a_due_time_holds_up_no_other(
    manager: QueueManager, path: Path
) -> None:
    seen = await four_jobs(manager)
    raw(
        path,
        "UPDATE batchq_jobs SET due_at = NULL WHERE id = 1",
        "UPDATE batchq_jobs SET state = 'weird' WHERE id = 2",
    )
    async with manager.working():
        await until(lambda: len(seen) == 2)
    assert sorted(seen) == [2, 3]
    assert [row.spoiled is None for row in await manager.jobs()] == [True, False, True, True]


async def test_a_spoiled_row_keeps_no_order_from_the_others(
    manager: QueueManager, path: Path
) -> None:
    @manager.handler
    async def one(number: int) -> None: ...

    for number in range(4):
        await one.enqueue(number)
    raw(path, "UPDATE batchq_jobs SET state = 'bogus' WHERE id IN (1, 4)")
    assert (await manager.cancel(JobFilter(handler="one"))).done == 2
    assert (await manager.retry(JobFilter(handler="one"))).done == 2
    assert (await manager.cancel([1, 2, 3])).answers == [REFUSED, DONE, DONE]
    assert (await manager.retry(1)).answers == [REFUSED]
    assert await manager.clean(grace=0) == 2


async def test_a_spoiled_row_is_shown_with_what_can_be_read_of_it(
    manager: QueueManager, path: Path
) -> None:
    @manager.handler
    async def one(number: int) -> None: ...

    red = one.using(tags=["red"])
    await red.using(key="k").enqueue(0)
    handles = [await red.enqueue(number) for number in range(1, 6)]
    raw(
        path,
        "UPDATE batchq_jobs SET key_scope = 'wide' WHERE id = 1",
        "UPDATE batchq_jobs SET tags = '{bad' WHERE id = 2",
        "UPDATE batchq_jobs SET tags = '7' WHERE id = 3",
        "UPDATE batchq_jobs SET tags = '[\"red\", 7]' WHERE id = 4",
        "UPDATE batchq_jobs SET state = 'weird', reason = 'late' WHERE id = 5",
        "UPDATE batchq_jobs SET worker = CAST(x'41ff' AS TEXT) WHERE id = 6",
    )
    found = await manager.jobs()
    assert [(row.spoiled or "").partition(":")[0] for row in found] == [
        "key_scope", "tags", "tags", "tags", "state", ""
    ]  # fmt: skip
    assert [row.tags for row in found] == [("red",), (), (), (), ("red",), ("red",)]
    assert [row.state for row in found] == [JobState.PENDING] * 4 + [
        JobState.FAILED, JobState.PENDING
    ]  # fmt: skip
    assert (found[4].reason, found[5].worker) == ("spoiled", "A\ufffd")
    assert [json.loads(row.payload)["number"] for row in found] == [*range(6)]
    assert await manager.get(2) == found[1]
    by_tag = await manager.jobs(JobFilter(tag="red"))
    assert [row.id for row in by_tag] == [1, 4, 5, 6]
    assert (await manager.cancel(JobFilter(tag="red"))).counts == {DONE: 3, REFUSED: 1}
    with pytest.raises(JobFailed, match=r"job 5 of handler 'one' is failed \(spoiled\)"):
        await handles[3].result(timeout=1)


@pytest.mark.parametrize("column", ["queue", "handler", "worker", "reason", "key", "cancel"])
async def test_a_text_that_is_none_in_one_row_keeps_nothing_from_the_others(
    manager: QueueManager, path: Path, column: str
) -> None:
    seen = list[int]()

    @manager.handler
    async def one(number: int) -> None:
        seen.append(number)

    for number in range(3):
        await one.enqueue(number)
    # As if its worker had died.
    dead = "state = 'processing', attempt = 1, due_at = 0"
    spoiled = f"{column} = CAST(x'41ff' AS TEXT)"
    raw(path, f"UPDATE batchq_jobs SET {dead}, {spoiled} WHERE id = 1")  # noqa: S608 - ours
    assert [row.id for row in await manager.jobs()] == [1, 2, 3]
    assert (await manager.retry([1, 2, 3])).answers == [REFUSED, DONE, DONE]
    async with manager.working():
        await until(lambda: {1, 2} <= set(seen))
    assert (await manager.retry(JobFilter(first_id=2))).done == 2
    assert (await manager.cancel(JobFilter(queue="one", first_id=2))).done == 2
    assert await manager.clean(grace=0) >= 2
    assert (await manager.stats()).workers


async def test_a_worker_whose_beat_is_spoiled_is_listed_without_it(
    manager: QueueManager, path: Path
) -> None:
    @manager.handler
    async def one(number: int) -> None: ...

    await one.enqueue(1)
    await work_off(manager)
    raw(path, "UPDATE batchq_workers SET beat = '{bad'")
    workers = (await manager.stats()).workers
    assert workers
    assert all(worker.beat is None for worker in workers)


async def test_jobs_of_a_handler_that_is_gone_wait_and_hold_nobody_up(
    manager: QueueManager, path: Path
) -> None:
    seen = await four_jobs(manager)
    raw(path, "UPDATE batchq_jobs SET handler = 'gone' WHERE id < 3")
    async with manager.working():
        await until(lambda: len(seen) == 2)
    assert sorted(seen) == [2, 3]
    assert [row.state for row in jobs_in(manager)][:2] == [JobState.PENDING] * 2
