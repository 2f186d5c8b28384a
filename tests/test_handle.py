"""What callers hold: an entry can be waited for by many, before and after its end."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from batchq.core.entry import EntryStatus
from batchq.errors import EntryCancelled
from tests.calls import Calls, Clock, batched


async def test_many_tasks_may_wait_for_one_entry(autojump_clock: Clock) -> None:
    got: list[str] = []
    async with batched(Calls(list), flush_interval=2) as queue:
        entry = await queue.enqueue("a")

        async def wait(limit: float) -> None:
            with trio.move_on_after(limit):
                got.append(await entry.result())

        async with trio.open_nursery() as nursery:
            for limit in (5, 1, 5, 0.5, 5):
                nursery.start_soon(wait, limit)
        assert got == ["a"] * 3
        assert entry.waiter is None
        assert await entry.result() == "a"


async def test_waiting_is_a_cancel_point_even_when_all_is_over(autojump_clock: Clock) -> None:
    async with batched(Calls(list), flush_interval=0) as queue:
        entry = await queue.enqueue("a")
        await queue.wait_idle()
        for call in (entry.wait, entry.result):
            with trio.CancelScope() as scope:
                scope.cancel()
                await call()
            assert scope.cancelled_caught


async def test_who_waits_in_a_row_for_what_is_over_lets_others_run(autojump_clock: Clock) -> None:
    ran = 0

    async def other() -> None:
        nonlocal ran
        while True:
            ran += 1
            await trio.lowlevel.checkpoint()

    async with batched(Calls(list), flush_interval=0) as queue:
        entries = await queue.enqueue_many(range(320))
        await queue.wait_idle()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            assert [await entry.result() for entry in entries] == list(range(320))
            nursery.cancel_scope.cancel()
    assert 4 <= ran <= 6  # at every 64th of 320, whoever goes first


async def test_a_cancelled_waiter_leaves_nothing_behind(autojump_clock: Clock) -> None:
    async with batched(Calls(list), flush_interval=9) as queue:
        entry = await queue.enqueue("a")
        with trio.move_on_after(1):
            await entry.wait()
        assert entry.waiter is None


async def test_an_entry_tells_what_it_is(autojump_clock: Clock) -> None:
    async with batched(Calls(list), priority_levels=3) as queue:
        first = await queue.enqueue("a", 2)
        second = await queue.enqueue("b")
        assert (first.id, second.id) == (1, 2)
        assert (first.priority, second.priority) == (2, 1)
        assert (first.item, first.status, first.attempts) == ("a", EntryStatus.PENDING, 0)
        assert repr(first) == "<Entry 1 pending, 0 attempts>"


async def test_an_entry_does_not_keep_its_queue_alive(autojump_clock: Clock) -> None:
    async with batched(Calls(list)) as queue:
        entry = await queue.enqueue("a")
        assert entry.cancel()
    del queue
    assert not entry.cancel()
    with pytest.raises(EntryCancelled):
        await entry.result()
