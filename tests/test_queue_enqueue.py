"""Handing items over: admission, room, blocked producers, what a call costs."""

from __future__ import annotations

import gc
import logging
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Final

import pytest
import trio
import trio.testing

from batchq import BatchedQueue, Hooks, Result, RetryPolicy
from batchq.core.batch import Batch
from batchq.core.entry import EntryStatus
from batchq.errors import Dropped, OptionError, QueueFull
from batchq.hooks import EVENTS
from tests.calls import UNLOGGED, Calls, Clock, batched, echo

Queue = BatchedQueue[Any, Any]


async def test_blocked_producers_enter_in_the_order_of_their_arrival(
    autojump_clock: Clock,
) -> None:
    calls = Calls()
    async with batched(calls, batch_size=2, max_queue_size=2) as queue:
        queue.pause()
        await queue.enqueue_many("ab")
        async with trio.open_nursery() as nursery:
            for item in "cdef":
                nursery.start_soon(queue.enqueue, item)
                await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(QueueFull):  # nobody overtakes
                queue.enqueue_nowait("x")
            queue.resume()
    assert calls.items == [["a", "b"], ["c", "d"], ["e", "f"]]


async def test_a_blocked_producer_starts_what_would_wait_for_ever(autojump_clock: Clock) -> None:
    calls = Calls()
    queue = batched(calls, batch_size=3, max_queue_size=3, flush_interval=None, priority_levels=2)
    async with queue:
        await queue.enqueue("a", delay=99)
        await queue.enqueue_many("bc")
        await queue.enqueue("d")
        await trio.testing.wait_all_tasks_blocked()
        assert calls.seen == [(0, ["b", "c"])]
        with pytest.raises(TimeoutError):
            await queue.drain(1)


async def test_enqueue_many_waits_for_room_and_keeps_the_order(autojump_clock: Clock) -> None:
    calls = Calls(takes=1)
    async with batched(calls, batch_size=3, max_queue_size=3, flush_interval=0) as queue:
        entries = await queue.enqueue_many(iter(range(10)))
        assert [entry.id for entry in entries] == list(range(1, 11))
    assert [item for items in calls.items for item in items] == list(range(10))
    assert {len(items) for items in calls.items[1:-1]} == {3}


async def test_enqueue_many_that_is_refused_half_way_names_what_came_in(
    autojump_clock: Clock,
) -> None:
    calls = Calls()
    queue = batched(calls, batch_size=2, max_queue_size=2, drop_policy="reject-new")
    async with queue:
        queue.pause()
        with pytest.raises(QueueFull) as caught:
            await queue.enqueue_many("abcd")
        assert [entry.id for entry in caught.value.entries] == [1, 2]  # type: ignore[attr-defined]
        with pytest.raises(QueueFull):
            queue.enqueue_many_nowait("xy")
        assert queue.stats().enqueued == 2  # all or none
    assert calls.items == [["a", "b"]]


async def test_enqueue_many_nowait_hands_over_all_that_it_is_given(autojump_clock: Clock) -> None:
    async with batched(echo, batch_size=2, max_queue_size=2) as queue:
        entries = queue.enqueue_many_nowait(["a", "b"])
        assert [await entry.result() for entry in entries] == ["a", "b"]


@pytest.mark.parametrize("priority", [-1, 3, True, 1.0, "0"])
async def test_a_priority_that_is_none_is_refused_and_nothing_clamped(
    priority: Any,  # noqa: ANN401 - of a user without a type checker
    autojump_clock: Clock,
) -> None:
    async with batched(echo, priority_levels=3) as queue:
        with pytest.raises(OptionError, match=r"priority must be a whole number from 0 to 2"):
            await queue.enqueue("a", priority)
        with pytest.raises(OptionError, match=r"priority"):
            await queue.enqueue_many("ab", priority)
        assert queue.stats().enqueued == 0


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf")])
async def test_a_delay_that_is_none_is_refused(delay: float, autojump_clock: Clock) -> None:
    async with batched(echo) as queue:
        with pytest.raises(OptionError, match=r"delay must be a number .* from 0 to"):
            await queue.enqueue("a", delay=delay)
        assert queue.stats().enqueued == 0


async def test_a_full_queue_refuses_its_own_processor_at_once(autojump_clock: Clock) -> None:
    async def processor(batch: Batch[Any]) -> list[Any]:
        with pytest.raises(QueueFull):
            await queue.enqueue_many("xyz")
        return list(batch)

    async with batched(processor, batch_size=2, max_queue_size=2, flush_interval=0) as queue:
        assert await queue.process("a") == "a"
        assert queue.stats().enqueued == 3  # two of the three had room


async def test_wait_room_ends_when_there_is_room(autojump_clock: Clock) -> None:
    async with batched(Calls(takes=1), batch_size=2, max_queue_size=2) as queue:
        assert queue.room() == 2
        await queue.enqueue_many("abcd")
        assert queue.room() == 0
        await queue.wait_room()
        assert trio.current_time() == 1
        assert queue.room() == 2


async def test_enqueue_lets_others_run_at_every_64th_call(autojump_clock: Clock) -> None:
    seen: list[int] = []

    async def watch() -> None:
        while True:
            seen.append(queue.stats().enqueued)
            await trio.lowlevel.checkpoint()

    async with (
        batched(echo, batch_size=500, flush_interval=60) as queue,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(watch)
        for number in range(640):
            await queue.enqueue(number)
        nursery.cancel_scope.cancel()
    # It runs when the producer lets it, which is before the 64th, 128th, ... item comes in.
    assert {count % 64 for count in seen if count} == {63}
    assert len(seen) >= 9


async def test_a_loop_of_dropped_calls_lets_the_queue_run(autojump_clock: Clock) -> None:
    calls = Calls()
    queue = batched(
        calls, batch_size=1, max_queue_size=1, drop_policy="drop-newest", flush_interval=0
    )
    async with queue:
        queue.enqueue_nowait("a")
        for _ in range(200):
            try:
                await queue.process("b")
                break
            except Dropped:
                continue
        else:
            raise AssertionError("the queue never got to run")
    assert calls.items == [["a"], ["b"]]


async def test_items_of_one_moment_cost_one_wake_up_and_share_their_time(
    autojump_clock: Clock,
) -> None:
    await trio.sleep(1)
    async with batched(echo, batch_size=100, flush_interval=5) as queue:
        await trio.testing.wait_all_tasks_blocked()
        steps = Steps("Pump._serve")
        trio.lowlevel.add_instrument(steps)
        entries = [await queue.enqueue(number) for number in range(50)]
        await trio.testing.wait_all_tasks_blocked()
        assert steps.count == 1
        assert {entry.enqueued_at for entry in entries} == {1}
        trio.lowlevel.remove_instrument(steps)


class Steps(trio.abc.Instrument):
    """Counts the steps of tasks of one name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task.name.endswith(self.name)


@pytest.mark.parametrize("state", ["empty", "paused", "half full", "blocked by a call"])
async def test_an_idle_queue_makes_no_wake_up(state: str, autojump_clock: Clock) -> None:
    hours = 3600.0
    calls = Calls(takes=9 * hours if state == "blocked by a call" else 0)
    queue = batched(calls, batch_size=2, flush_interval=None, shutdown_timeout=None)
    async with queue:
        if state == "paused":
            queue.pause()
        if state != "empty":
            await queue.enqueue_many([1] if state == "half full" else range(3))
        await trio.testing.wait_all_tasks_blocked()
        steps = Steps("Pump._serve")
        trio.lowlevel.add_instrument(steps)
        await trio.sleep(5 * hours)
        assert steps.count == 0
        trio.lowlevel.remove_instrument(steps)


async def test_drops_are_warned_of_at_once_and_then_once_a_minute(
    caplog: pytest.LogCaptureFixture, autojump_clock: Clock
) -> None:
    queue = batched(echo, batch_size=1, max_queue_size=1, drop_policy="drop-oldest", name="mail")
    async with queue:
        queue.pause()
        with caplog.at_level(logging.WARNING, "batchq"):
            for _ in range(130):
                await queue.enqueue("x")
                await trio.sleep(1)
    assert [record.getMessage() for record in caplog.records] == [
        "queue 'mail' is full: 1 items dropped",
        "queue 'mail' is full: 60 items dropped",
        "queue 'mail' is full: 60 items dropped",
    ]


@pytest.mark.parametrize("watched", [False, True])
async def test_an_error_that_no_hook_is_told_of_goes_to_the_log(
    watched: bool,  # noqa: FBT001 - a parameter of the test
    caplog: pytest.LogCaptureFixture,
    autojump_clock: Clock,
) -> None:
    async def processor(batch: Batch[str]) -> None:
        raise OSError("gone") if batch[0] == "x" else ValueError("not so")

    told = list[Exception]()
    hooks: Hooks[Any, Any] = Hooks(on_error=told.append if watched else None)
    options: Any = {"batch_size": 2, "flush_interval": 0, "name": "mail", "hooks": hooks}
    async with batched(processor, **options) as queue:
        with caplog.at_level(logging.WARNING, "batchq"):
            for item in ["x"] * 62 + ["y"]:
                await queue.enqueue_many([item, item])
                await trio.sleep(1)
    hint = "(give it an on_error hook to be told of each)"
    assert [record.getMessage() for record in caplog.records] == [
        f"queue 'mail': OSError: gone {hint}",
        f"queue 'mail': OSError (60 of them): gone {hint}",
        f"queue 'mail': ValueError: not so {hint}",
    ] * (not watched)
    assert all(record.exc_info for record in caplog.records)  # where it was raised
    assert len(told) == 63 * watched


async def test_a_raising_hook_is_logged_once(
    caplog: pytest.LogCaptureFixture, autojump_clock: Clock
) -> None:
    hooks: Hooks[Any, Any] = Hooks(on_enqueue=lambda _: 1 / 0)
    async with batched(echo, hooks=hooks) as queue:
        await queue.enqueue("x")
    assert len(caplog.records) == 1


class Thing:
    """An item whose end can be watched."""


async def busy_life(make: Callable[[], Thing]) -> None:
    """Let items end in every way there is; hold on to nothing."""

    async def processor(batch: Batch[Thing]) -> list[object]:
        if batch.attempt == 1:
            raise OSError("the traceback leads back to the batch")
        return [ValueError("no") if index % 2 else Result.ok() for index in range(len(batch))]

    async with batched(
        processor,
        batch_size=3,
        flush_interval=0,
        max_queue_size=6,
        drop_policy="drop-oldest",
        retry=RetryPolicy(2),
        hooks=UNLOGGED,
    ) as queue:
        for _ in range(5):
            queue.enqueue_nowait(make(), delay=1).cancel()
            queue.enqueue_nowait(make()).cancel()
            queue.enqueue_many_nowait([make() for _ in range(7)])
            with trio.move_on_after(0.5):
                await queue.process(make())
            with suppress(ValueError):
                await queue.process(make())
            await trio.sleep(1)
        await queue.wait_idle()
        before_exit = queue.stats(recount=True)
        assert before_exit.outstanding == 0


async def test_at_idle_nothing_keeps_an_item_nor_a_task(autojump_clock: Clock) -> None:  # I28
    refs: list[weakref.ref[Thing]] = []

    def make() -> Thing:
        thing = Thing()
        refs.append(weakref.ref(thing))
        return thing

    before = trio.lowlevel.current_statistics().tasks_living
    await busy_life(make)
    assert trio.lowlevel.current_statistics().tasks_living == before
    gc.collect()
    assert len(refs) > 40
    assert not [ref for ref in refs if ref() is not None]


async def test_a_caught_error_of_an_entry_keeps_nothing_for_ever(autojump_clock: Clock) -> None:
    refs: list[weakref.ref[Thing]] = []

    async def fails(batch: Batch[Thing]) -> None:
        for entry in batch.entries:  # a frame that leads back to the entry itself
            raise ValueError(entry.id)

    async def ask(queue: Queue) -> None:
        thing = Thing()
        refs.append(weakref.ref(thing))
        entry = await queue.enqueue(thing)
        with pytest.raises(ValueError, match=r"[123]"):
            await entry.result()

    async with batched(fails, flush_interval=0, hooks=UNLOGGED) as queue:
        for _ in range(3):
            await ask(queue)
    gc.collect()
    assert [ref() for ref in refs] == [None] * 3


async def test_waiting_entries_are_nothing_for_the_garbage_collector(
    autojump_clock: Clock,
) -> None:
    async with batched(echo, flush_interval=9) as queue:
        entries = [await queue.enqueue({"id": 1}), *await queue.enqueue_many([Thing()])]
        assert not any(map(gc.is_tracked, entries))
        for entry in entries:
            entry.cancel()
        assert all(map(gc.is_tracked, entries))  # they have an answer, an error


# Of batchq's own functions, per item, from its admission through its batch to its end. What is
# resumed counts as called again.
FUNCTIONS: Final = {
    "enqueue_nowait": 2,  # and the door's
    "enqueue": 2,  # likewise
    "enqueue_many": 0,
    "enqueue_many, answers": 0,
    "process": 5,  # resumed once; the door's; wake, and the value that this unwraps
    "results": 3,  # of what is settled: result, wait_or, value
}


@pytest.mark.parametrize("way", FUNCTIONS)
async def test_an_option_that_is_off_costs_no_function_call_per_item(
    way: str, autojump_clock: Clock
) -> None:
    await trio.sleep(1)  # at 0 s the clock is read again and again
    few, many = [await function_calls(count, way) for count in (1000, 3000)]
    # The pump takes a step more or less, as tasks happen to run, and looks whenever enqueue lets
    # others run: that is little beside one call for each of the 2000 items.
    assert many - few == pytest.approx(2000 * FUNCTIONS[way], abs=1000)


async def function_calls(items: int, way: str) -> int:
    """Count the functions of batchq called for so many items in 10 batches."""
    count = 0

    def note(frame: FrameType, event: str, _: object) -> None:
        nonlocal count
        count += event == "call" and "/batchq/" in frame.f_code.co_filename

    processor = Calls(list) if way in {"enqueue_many, answers", "process", "results"} else nothing
    async with batched(processor, batch_size=items // 10) as queue:
        entries = await queue.enqueue_many(range(items)) if way == "results" else []
        await queue.wait_idle()
        sys.setprofile(note)
        try:
            await hand_over(queue, items, way)
            for entry in entries:
                await entry.result()
            await queue.wait_idle()
        finally:
            sys.setprofile(None)
    return count


async def hand_over(queue: BatchedQueue[Any, Any], items: int, way: str) -> None:
    if way.startswith("enqueue_many"):
        await queue.enqueue_many(range(items))
    elif way == "process":
        async with trio.open_nursery() as nursery:
            for number in range(items):
                nursery.start_soon(queue.process, number)
    elif way != "results":
        for number in range(items):
            if way == "enqueue":
                await queue.enqueue(number)
            else:
                queue.enqueue_nowait(number)


async def nothing(_: Batch[Any]) -> None:
    """Succeed."""


async def test_hooks_that_are_set_change_no_result(autojump_clock: Clock) -> None:  # I21
    def broken(*_: object) -> None:
        raise RuntimeError("a hook")

    quiet, loud = Calls(half), Calls(half)
    hooks: Hooks[Any, Any] = Hooks(**dict.fromkeys(EVENTS, broken))
    for calls, watchers in ((quiet, None), (loud, hooks)):
        policy = RetryPolicy(1)
        queue = batched(calls, batch_size=2, flush_interval=0, retry=policy, hooks=watchers)
        async with queue:
            entries = list(await queue.enqueue_many(range(6)))
            entries.append(await queue.enqueue(6, delay=1))
            entries[-1].cancel()
            await queue.wait_idle()
        ends = [EntryStatus.SUCCEEDED, EntryStatus.FAILED] * 3 + [EntryStatus.CANCELLED]
        assert [entry.status for entry in entries] == ends
        assert (queue.stats().hook_errors > 0) == (watchers is not None)
    assert quiet.items[:3] == loud.items[:3]
    assert sorted(map(str, quiet.items)) == sorted(map(str, loud.items))


def half(batch: Batch[Any]) -> list[object]:
    return [ValueError("odd") if item % 2 else item for item in batch]
