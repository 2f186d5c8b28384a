"""Cancelling: what it takes back, what it leaves alone, and what it never breaks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from batchq import BatchedQueue, Hooks, Result, RetryPolicy
from batchq.core.batch import Batch
from batchq.core.entry import EntryStatus
from batchq.errors import DrainTimeout, EntryCancelled, QueueClosed, QueueFull, Throttled
from tests.calls import Calls, Clock, batched

Queue = BatchedQueue[Any, Any]


async def test_c1_enqueue_in_a_cancelled_scope_admits_nothing(autojump_clock: Clock) -> None:
    told: list[Any] = []
    async with batched(Calls(), hooks=Hooks(on_enqueue=told.append)) as queue:
        for call in (queue.enqueue, queue.process):
            with trio.CancelScope() as scope:
                scope.cancel()
                await call("a")
        assert queue.stats().enqueued == 0
        assert not told


async def test_c1_a_blocked_producer_that_is_cancelled_was_never_there(
    autojump_clock: Clock,
) -> None:
    calls, told = Calls(), list[Any]()
    queue = batched(calls, batch_size=1, max_queue_size=1, hooks=Hooks(on_enqueue=told.append))
    async with queue:
        queue.pause()
        await queue.enqueue("a")
        with trio.move_on_after(1) as scope:
            await queue.enqueue("b")
        assert scope.cancelled_caught
        assert queue.stats().enqueued == 1
        with pytest.raises(QueueFull):
            queue.enqueue_nowait("c")
        queue.resume()
        await queue.enqueue("d")
    assert calls.items == [["a"], ["d"]]
    assert told == ["a", "d"]


async def test_c1_enqueue_many_cancelled_half_way_has_handed_over_the_first_half(
    autojump_clock: Clock,
) -> None:
    calls = Calls()
    async with batched(calls, batch_size=2, max_queue_size=2) as queue:
        queue.pause()
        with trio.move_on_after(1):
            await queue.enqueue_many("abcd")
        assert queue.stats().enqueued == 2
    assert calls.items == [["a", "b"]]


@pytest.mark.parametrize("way", ["wait", "result"])
async def test_c2_cancelling_who_waits_leaves_the_entry_alone(
    way: str, autojump_clock: Clock
) -> None:
    async with batched(Calls(list), flush_interval=2) as queue:
        entry = await queue.enqueue("a")
        with trio.move_on_after(1) as scope:
            await getattr(entry, way)()
        assert scope.cancelled_caught
        assert entry.status is EntryStatus.PENDING
        assert await entry.result() == "a"


@pytest.mark.parametrize("delay", [0, 5])
async def test_c3_cancelling_process_while_it_waits_frees_the_seat_for_the_next(
    delay: float, autojump_clock: Clock
) -> None:
    calls, dropped = Calls(), list[Any]()
    hooks: Hooks[Any, Any] = Hooks(on_drop=lambda *told: dropped.append(told))
    async with batched(calls, batch_size=1, max_queue_size=1, hooks=hooks) as queue:
        queue.pause()

        async def next_one() -> None:
            await trio.sleep(0.5)
            await queue.enqueue("b")
            assert trio.current_time() == 1

        async with trio.open_nursery() as others:
            others.start_soon(next_one)
            with trio.move_on_after(1):
                await queue.process("a", delay=delay)
        assert queue.stats().cancelled == 1
    assert calls.items == [["b"]]
    assert dropped == [("a", "cancelled")]


async def test_c3_a_cancelled_entry_says_so_to_who_waits_for_it(autojump_clock: Clock) -> None:
    async with batched(Calls()) as queue:
        entry = await queue.enqueue("a")
        assert entry.cancel()
        assert not entry.cancel()
        with pytest.raises(EntryCancelled):
            await entry.result()


async def test_c4_cancelling_in_flight_leaves_the_batch_alone(autojump_clock: Clock) -> None:
    calls = Calls(lambda _: [Result.fail("no"), "fine"], takes=1)
    policy = RetryPolicy(5)
    async with batched(calls, batch_size=2, retry=policy) as queue:
        first, second = await queue.enqueue_many("ab")
        await trio.sleep(0.5)
        assert not first.cancel()
        assert await second.result() == "fine"
        assert first.status is EntryStatus.FAILED  # final: nobody wants it any more
    assert len(calls.seen) == 1


@pytest.mark.parametrize("how", ["throttled", "snoozed", "interrupted"])
async def test_c4_an_abandoned_entry_without_a_verdict_is_cancelled(
    how: str, autojump_clock: Clock
) -> None:
    def answer(_: Batch[Any]) -> list[Any]:
        if how == "throttled":
            raise Throttled(1)
        return [Result.snooze(1)]

    calls, dropped = Calls(answer, takes=1), list[Any]()
    hooks: Hooks[Any, Any] = Hooks(on_drop=lambda *told: dropped.append(told))
    async with batched(calls, flush_interval=0, hooks=hooks) as queue:
        entry = await queue.enqueue("a")
        await trio.sleep(0.5)
        assert not entry.cancel()
        if how == "interrupted":
            with pytest.raises(DrainTimeout) as caught:
                await queue.drain(0)
            assert caught.value.remaining == 0
        await entry.wait()
        assert entry.status is EntryStatus.CANCELLED
    assert len(calls.seen) == 1
    assert dropped == [("a", "cancelled")]


async def test_c5_an_emptied_queue_has_no_time_to_keep(autojump_clock: Clock) -> None:
    calls = Calls()
    async with batched(calls, batch_size=2, flush_interval=1) as queue:
        first = await queue.enqueue("a")
        await trio.sleep(0.5)
        first.cancel()
        await queue.enqueue("b")
        await trio.sleep(5)
    assert calls.seen == [(1.5, ["b"])]


async def test_c6_a_call_that_nobody_wants_is_cancelled_if_asked_for(
    autojump_clock: Clock,
) -> None:
    calls, dropped = Calls(takes=9), list[Any]()
    hooks: Hooks[Any, Any] = Hooks(on_drop=lambda *told: dropped.append(told))
    async with batched(calls, batch_size=2, cancel_abandoned=True, hooks=hooks) as queue:
        first, second = await queue.enqueue_many("ab")
        await trio.sleep(1)
        assert not first.cancel()
        await trio.sleep(1)
        assert calls.running == 1
        assert not second.cancel()
        await queue.wait_idle()
        assert trio.current_time() == 2
        assert first.status is second.status is EntryStatus.CANCELLED
    assert dropped == [("a", "cancelled"), ("b", "cancelled")]


async def test_c6_a_call_that_has_not_begun_is_not_made_for_nobody(autojump_clock: Clock) -> None:
    calls = Calls(takes=1)
    told: list[Any] = []
    hooks: Hooks[Any, Any] = Hooks(
        on_batch_start=told.append, on_batch_complete=lambda batch, _: told.append(batch)
    )
    async with batched(calls, batch_size=1, cancel_abandoned=True, hooks=hooks) as queue:
        entry = await queue.enqueue("a")
        while entry.status is EntryStatus.PENDING:  # noqa: ASYNC110
            await trio.lowlevel.checkpoint()
        if not calls.seen:  # chosen, and its task has not run yet
            assert not entry.cancel()
            assert entry.status is EntryStatus.CANCELLED
        await queue.wait_idle()
    assert len(told) == 2 * len(calls.seen)


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), SystemExit(3)])
async def test_c7_what_ends_the_block_comes_out_by_itself(
    error: BaseException, autojump_clock: Clock
) -> None:
    error.__cause__ = cause = OSError("deeper")
    calls, dropped = Calls(takes=5), list[Any]()
    hooks: Hooks[Any, Any] = Hooks(on_drop=lambda *told: dropped.append(told))
    entries: list[Any] = []

    async def block() -> None:
        async with batched(calls, batch_size=2, flush_interval=9, hooks=hooks) as queue:
            entries.extend(await queue.enqueue_many("abc"))
            await trio.sleep(1)
            raise error

    with pytest.raises(type(error)) as caught:
        await block()
    assert caught.value is error
    assert error.__cause__ is cause
    assert trio.current_time() == 1  # no drain
    assert [entry.status for entry in entries] == [EntryStatus.CLOSED] * 3
    assert dropped == [("a", "closed"), ("b", "closed"), ("c", "closed")]
    with pytest.raises(QueueClosed):
        await entries[0].result()


async def test_c7_a_call_that_has_not_begun_when_the_block_ends_is_not_made(
    autojump_clock: Clock,
) -> None:
    for _ in range(20):  # tasks run in any order
        calls, entries = Calls(), list[Any]()

        async def block(calls: Calls, entries: list[Any]) -> None:
            async with batched(calls, batch_size=1) as queue:
                entries.append(await queue.enqueue("a"))
                while entries[0].status is EntryStatus.PENDING:  # noqa: ASYNC110
                    await trio.lowlevel.checkpoint()
                raise ValueError("mine")

        with pytest.raises(ValueError, match="mine"):
            await block(calls, entries)
        # The processor saw it and was quick, or it did not see it at all.
        assert (entries[0].status is EntryStatus.CLOSED) == (not calls.seen)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
async def test_c7_a_processor_that_is_told_to_stop_stops_the_queue(
    error: BaseException, autojump_clock: Clock
) -> None:
    def answer(_: Batch[Any]) -> None:
        raise error

    entries: list[Any] = []

    async def block() -> None:
        async with batched(Calls(answer, takes=1), batch_size=1) as queue:
            entries.extend(await queue.enqueue_many("ab"))
            await trio.sleep_forever()

    with pytest.raises(type(error)) as caught:
        await block()
    assert caught.value is error
    assert [entry.status for entry in entries] == [EntryStatus.CLOSED] * 2


async def test_c7_a_cancelled_block_drains_nothing_and_closes_what_is_left(
    autojump_clock: Clock,
) -> None:
    calls, entries = Calls(takes=5), list[Any]()
    with trio.move_on_after(1) as scope:
        async with batched(calls, batch_size=1) as queue:
            entries += await queue.enqueue_many("ab")
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() == 1
    assert [entry.status for entry in entries] == [EntryStatus.CLOSED] * 2
    assert queue.stats(recount=True).closed == 2


async def test_c7_those_who_wait_elsewhere_are_told_that_it_is_over(
    autojump_clock: Clock,
) -> None:
    ends: list[str] = []

    async def wait(call: Callable[[], Awaitable[Any]]) -> None:
        try:
            await call()
        except QueueClosed:
            ends.append("closed")
        else:
            ends.append("ended")

    async def block(nursery: trio.Nursery) -> None:
        async with batched(Calls(takes=9), batch_size=1, max_queue_size=1) as queue:
            await queue.enqueue_many("ab")
            await trio.sleep(0.5)
            for call in (
                lambda: queue.process("c"),
                queue.wait_room,
                queue.wait_idle,
                queue.flush,
                queue.drain,
            ):
                nursery.start_soon(wait, call)
                await trio.testing.wait_all_tasks_blocked()
            raise ValueError("mine")

    async with trio.open_nursery() as nursery:
        with pytest.raises(ValueError, match="mine"):
            await block(nursery)
    # The drain closed the intake; it did not come to its end, and does not say that it did.
    assert sorted(ends) == ["closed", "closed", "closed", "ended", "ended"]


async def test_c8_siblings_settle_in_one_step(autojump_clock: Clock) -> None:
    counts: set[int] = set()
    async with batched(Calls(list, takes=1), batch_size=3) as queue:
        entries = await queue.enqueue_many("abc")

        async def watch() -> None:
            while not all(entry.settled for entry in entries):
                counts.add(sum(entry.settled for entry in entries))
                await trio.lowlevel.cancel_shielded_checkpoint()
                await trio.sleep(0.125)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await entries[1].wait()
            assert all(entry.settled for entry in entries)
    assert counts == {0}


async def test_a_waiter_beside_a_cancelled_process_is_told(autojump_clock: Clock) -> None:
    async with batched(Calls()) as queue:
        entries: list[Any] = []
        queue_hooked = queue._door
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:

                async def other() -> None:
                    await trio.testing.wait_all_tasks_blocked()
                    entries.extend(queue_hooked._waiting)
                    nursery.start_soon(entries[0].wait)
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()

                nursery.start_soon(other)
                await queue.process("a")
        assert entries[0].status is EntryStatus.CANCELLED
