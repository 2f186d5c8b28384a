"""Whatever is awaited, cancelled wherever it waits: what is promised still holds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from batchq import BatchHandler, Handler, JobState, QueueManager
from tests.jobs import Hops, WatchedStore, jobs_in, nothing_is_leased

Stored = list[int]
Story = Callable[["World", Stored], Awaitable[object]]


class World:
    """A manager with two handlers, on a slow road to its store."""

    def __init__(self, *, grace: float) -> None:
        self.done = list[int]()
        store = WatchedStore()
        self.manager = QueueManager(store, run_sync=Hops(), grace=grace, poll_interval=0.5)

        @self.manager.handler
        async def single(number: int) -> int:
            await trio.lowlevel.checkpoint()
            self.done.append(number)
            return number

        @self.manager.batch_handler(batch_size=2, flush_interval=0)
        async def many(items: list[int]) -> list[int]:
            await trio.lowlevel.checkpoint()
            self.done.extend(items)
            return items

        self.single: Handler[[int], int] = single
        self.many: BatchHandler[int, int] = many


async def enqueue(world: World, stored: Stored) -> None:
    stored.append((await world.single.enqueue(1)).id)
    stored.append((await world.single.using(delay=1).enqueue(2)).id)


async def add_job(world: World, stored: Stored) -> None:
    stored.append((await world.manager.add_job("many", 1)).id)


async def enqueue_many(world: World, stored: Stored) -> None:
    stored += [job.id for job in await world.many.enqueue_many([1, 2, 3])]


async def in_a_block(world: World, stored: Stored) -> None:
    async with world.manager:
        await enqueue(world, stored)
        await enqueue_many(world, stored)


async def working(world: World, stored: Stored) -> None:
    async with world.manager.working():
        await in_a_block(world, stored)


async def results(world: World, stored: Stored) -> None:
    async with world.manager.working():
        job = await world.single.enqueue(1)
        stored.append(job.id)
        assert await job.result(100) == 1
        await job.refresh()
        [last] = await world.many.enqueue_many([7])
        stored.append(last.id)
        assert await last.result() == 7


async def cancel_after(ticks: int, scope: trio.CancelScope) -> None:
    for _ in range(ticks):
        await trio.lowlevel.cancel_shielded_checkpoint()
    scope.cancel()


@pytest.mark.parametrize("grace", [0.0, 5.0])
@pytest.mark.parametrize("story", [enqueue, add_job, enqueue_many, in_a_block, working, results])
async def test_a_job_is_stored_iff_the_call_returned_and_nothing_stays_leased(
    story: Story, grace: float, autojump_clock: MockClock
) -> None:
    finished = 0
    for ticks in range(80):
        world, stored = World(grace=grace), Stored()
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_after, ticks, nursery.cancel_scope)
                await story(world, stored)
                finished += 1
                nursery.cancel_scope.cancel()
        found = jobs_in(world.manager)
        assert [job.id for job in found] == stored
        assert nothing_is_leased(world.manager)
        assert all(job.used == 0 for job in found if job.state is JobState.PENDING)
        completed = [job for job in found if job.state is JobState.COMPLETED]
        assert len(completed) <= len(world.done)
        assert world.manager._blocks == {}
        assert world.manager._ledgers.get()._queues == {}
        assert world.manager._at_work.ends._here.waiting == {}
    assert finished
