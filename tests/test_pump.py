"""The pump: each call by itself, and nothing started that was taken back."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import pytest
import trio
import trio.testing

from batchq import Hooks
from batchq.core.batch import Batch
from batchq.core.result import Result
from batchq.errors import BatchTimeout, DrainTimeout
from batchq.marks import in_a_call
from batchq.work_queue import work_queue
from tests.calls import Calls, Clock, batched, echo

_setting: ContextVar[str] = ContextVar("setting", default="unset")


async def test_what_one_call_sets_the_next_does_not_see(autojump_clock: Clock) -> None:
    seen: list[str] = []

    async def processor(batch: Batch[Any]) -> None:
        seen.append(_setting.get())
        _setting.set("of a call")

    _setting.set("outside")
    async with batched(processor, batch_size=1, flush_interval=0) as queue:
        await queue.enqueue_many("abc")
        await queue.wait_idle()
        await queue.enqueue("d")
    assert seen == ["outside"] * 4


async def test_calls_in_a_row_leave_no_trail_of_marks(autojump_clock: Clock) -> None:
    outer: list[object] = []

    async def processor(_: Batch[Any]) -> None:
        mark = in_a_call()
        assert mark is not None
        outer.append(mark.outer)

    async with batched(processor, batch_size=1) as queue:
        await queue.enqueue_many(range(50))
    assert outer == [None] * 50


async def test_calls_in_a_row_are_made_by_one_task(autojump_clock: Clock) -> None:
    tasks: list[trio.lowlevel.Task] = []

    async def processor(_: Batch[Any]) -> None:
        tasks.append(trio.lowlevel.current_task())

    async with batched(processor, batch_size=1) as queue:
        await queue.enqueue_many(range(3))
        await queue.wait_idle()
        await trio.sleep(1)
        await queue.enqueue(3)
    assert len(set(tasks)) == 1
    assert len(tasks) == 4


async def test_a_task_outlives_the_time_limit_of_its_last_call(autojump_clock: Clock) -> None:
    tasks: list[trio.lowlevel.Task] = []

    async def processor(_: Batch[Any]) -> None:
        tasks.append(trio.lowlevel.current_task())

    async with batched(processor, batch_size=1, processor_timeout=2) as queue:
        for _ in range(4):
            await queue.process(0)
            await trio.sleep(9)
    assert len(set(tasks)) == 1


async def test_a_call_that_was_cut_short_leaves_the_next_one_unharmed(
    autojump_clock: Clock,
) -> None:
    async def processor(batch: Batch[float]) -> None:
        await trio.sleep(batch[0])

    async with batched(processor, batch_size=1, processor_timeout=2) as queue:
        for takes, ends in ((1, None), (3, BatchTimeout), (1, None), (1, None)):
            entry = await queue.enqueue(takes)
            found = await entry.wait()
            assert type(found.error) is (ends or type(None))
            await trio.sleep(9)  # far beyond the limit of the last call


async def test_a_call_that_ends_although_it_was_cancelled_spoils_no_other(
    autojump_clock: Clock,
) -> None:
    async def processor(batch: Batch[float]) -> None:
        with trio.CancelScope(shield=batch[0] > 2):
            await trio.sleep(batch[0])

    async with batched(processor, batch_size=1, processor_timeout=2) as queue:
        entries = await queue.enqueue_many([3, 1, 1])
        assert [(await entry.wait()).success for entry in entries] == [True] * 3
        assert trio.current_time() == 5


async def test_a_task_whose_call_outlived_its_limit_is_given_no_batch(
    autojump_clock: Clock,
) -> None:
    """Or the batch is lost: the task is cancelled before it calls."""

    async def processor(batch: Batch[float]) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(batch[0])

    async with batched(processor, batch_size=1, concurrency=2, processor_timeout=2) as queue:
        entries = await queue.enqueue_many([3, 3, 1, 1])  # two tasks end at once, and look
        with trio.fail_after(9):
            for entry in entries:
                assert (await entry.wait()).success


async def test_errors_in_a_group_with_the_cancellation_of_a_call_are_its_errors(
    autojump_clock: Clock,
) -> None:
    async def fail() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("on the way out")

    async def processor(batch: Batch[float]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            nursery.start_soon(trio.sleep_forever)

    async with batched(processor, batch_size=1, processor_timeout=2) as queue:
        entries = await queue.enqueue_many("ab")
        for number, entry in enumerate(entries, start=1):
            error = (await entry.wait()).error
            assert isinstance(error, ExceptionGroup)
            assert [type(each) for each in error.exceptions] == [ValueError]
            assert trio.current_time() == 2 * number


async def test_a_queue_inside_a_call_of_another_may_be_waited_for(autojump_clock: Clock) -> None:
    async def outer(batch: Batch[Any]) -> list[Any]:
        async with batched(Calls(list)) as inner:
            entries = await inner.enqueue_many(list(batch))
            await inner.flush()
            with pytest.raises(RuntimeError):
                await queue.flush()
            return [await entry.result() for entry in entries]

    async with batched(outer) as queue:
        entry = await queue.enqueue("a")
        await queue.flush()
        assert await entry.result() == "a"


async def test_the_slot_is_free_only_after_the_last_hook(autojump_clock: Clock) -> None:
    running: list[int] = []

    def look(*_: object) -> None:
        running.append(queue.stats().running)

    async with batched(Calls(), batch_size=1, hooks=Hooks(on_batch_complete=look)) as queue:
        await queue.enqueue_many("ab")
    assert running == [1, 1]
    assert queue.stats().running == 0


async def test_verdicts_are_written_before_the_slot_is_free(autojump_clock: Clock) -> None:
    written: list[tuple[float, list[Any]]] = []

    async def verdicts(batch: Batch[Any], results: Any) -> None:  # noqa: ANN401 - results
        await trio.sleep(1)
        written.append((trio.current_time(), [result.success for result in results]))

    answers: list[Result[Any]] = [Result.ok(), Result.retry(), Result.snooze(5)]
    calls = Calls(lambda _: answers)
    queue = work_queue(calls, verdicts, batch_size=3, flush_interval=0)
    async with queue:
        entries = queue.enqueue_many_nowait("abcdef")
        await queue.wait_idle()
    assert written == [(1, [True, False, None]), (2, [True, False, None])]
    assert calls.times == [0, 1]
    # What would come again leaves: its store brings it back.
    assert [entry.status.value for entry in entries[:3]] == ["succeeded", "failed", "cancelled"]


async def test_verdicts_are_written_even_when_the_queue_is_cancelled(
    autojump_clock: Clock,
) -> None:
    written: list[float] = []

    async def verdicts(batch: Batch[Any], results: Any) -> None:  # noqa: ANN401 - results
        await trio.sleep(3)
        written.append(trio.current_time())

    with trio.move_on_after(1):
        async with work_queue(Calls(), verdicts, flush_interval=0) as queue:
            await queue.enqueue("a")
            await trio.sleep_forever()
    assert written == [3]


async def test_an_interrupted_call_writes_no_verdict(autojump_clock: Clock) -> None:
    written: list[object] = []

    async def verdicts(batch: Batch[Any], results: Any) -> None:  # noqa: ANN401 - results
        written.append(batch)

    async with work_queue(Calls(takes=9), verdicts, flush_interval=0) as queue:
        await queue.enqueue("a")
        await trio.sleep(1)
        with pytest.raises(DrainTimeout):
            await queue.drain(0)
    assert not written


def test_a_task_that_was_cancelled_at_rest_is_given_no_batch() -> None:
    async def main() -> None:
        with trio.CancelScope() as scope:
            async with batched(echo, flush_interval=0) as queue:
                await queue.process("a")
                await trio.testing.wait_all_tasks_blocked()
                queue.enqueue_nowait("b")
                scope.cancel()
                await trio.sleep_forever()
        assert queue.stats().running == 0

    for _ in range(50):  # which of the two comes first is trio's to choose
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_no_batch_is_given_to_the_task_that_keeps_watch(autojump_clock: Clock) -> None:
    async def processor(batch: Batch[float]) -> None:
        await trio.sleep(batch[0])

    async with batched(processor, batch_size=2, concurrency=3, flush_interval=0.125) as queue:
        await queue.enqueue_many([0.125] * 6)  # three tasks
        await queue.flush()
        for _ in range(40):  # a call ends when the alarm rings, and tasks run in any order
            await queue.enqueue_many([0.125, 0.125])
            await queue.enqueue(0.0)
            await trio.sleep(0.25)
            await queue.enqueue_many([0.0] * 6)
            await queue.flush(timeout=5)
