"""The pump: each call by itself, and nothing started that was taken back."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import Any, Final, Self

import attrs
import pytest
import trio
import trio.testing

import batchq
from batchq import BatchedQueue, Hooks
from batchq.core.batch import Batch
from batchq.core.entry import EntryStatus
from batchq.core.result import Result
from batchq.errors import BatchTimeout, DrainTimeout, QueueClosed
from batchq.marks import in_a_call
from batchq.work_queue import work_queue
from tests.calls import Calls, Clock, batched, echo, spell

PACKAGE: Final = str(Path(batchq.__file__).parent)


def tasks_of(queue: BatchedQueue[Any, Any]) -> list[trio.lowlevel.Task]:
    """Return the tasks of a queue that start and make its calls."""
    found = queue._nest.nursery
    return [] if found is None else [each for each in found.child_tasks if "_serve" in each.name]


@pytest.mark.parametrize("outside", ["of the program", None])
async def test_what_one_call_sets_the_next_does_not_see(
    outside: str | None, autojump_clock: Clock
) -> None:
    setting: ContextVar[str | None] = ContextVar("setting", default=None)
    seen: list[str | None] = []

    async def processor(batch: Batch[Any]) -> None:
        seen.append(setting.get())
        setting.set("of a call")

    if outside is not None:
        setting.set(outside)
    async with batched(processor, batch_size=1, flush_interval=0) as queue:
        await queue.enqueue_many("abc")
        await queue.wait_idle()
        await queue.enqueue("d")
    assert seen == [outside] * 4


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


async def test_a_task_whose_call_was_cancelled_is_given_no_batch(autojump_clock: Clock) -> None:
    """As above: it ends at its next checkpoint, and the batch would be lost."""

    async def processor(batch: Batch[str]) -> None:
        if batch[0] == "a":
            with trio.CancelScope(shield=True):
                await trio.sleep(2)

    for _ in range(9):  # whether it ends before or after the next ones are due is trio's to choose
        options: Any = {"batch_size": 1, "concurrency": 3, "cancel_abandoned": True}
        async with batched(processor, **options) as queue:
            entry = await queue.enqueue("a")
            entries = await queue.enqueue_many(["b", "c"], delay=2)
            await trio.sleep(1)
            assert not entry.cancel()
            with trio.fail_after(9):
                for each in entries:
                    assert (await each.wait()).success


@attrs.define(eq=False)
class Steps(trio.abc.Instrument):
    """Whose steps were taken, and how many functions of the package were called in them."""

    tasks: list[trio.lowlevel.Task] = attrs.field(factory=list)
    calls: int = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.tasks.append(task)

    def profile(self, frame: FrameType, event: str, _: object) -> None:
        self.calls += event == "call" and frame.f_code.co_filename.startswith(PACKAGE)

    def __enter__(self) -> Self:
        trio.lowlevel.add_instrument(self)
        sys.setprofile(self.profile)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        trio.lowlevel.remove_instrument(self)


async def test_who_has_waited_for_a_lone_item_answers_it_without_detours(
    autojump_clock: Clock,
) -> None:
    async with batched(echo, flush_interval=1) as queue:
        await queue.process("a")
        with Steps() as steps:
            await queue.process("b")
    # The queue's task sets its alarm, and makes the call when it rings; its caller is next.
    task = steps.tasks[0]
    assert steps.tasks == [task, task, trio.lowlevel.current_task()]
    # On cold caches each takes a microsecond and more.
    assert steps.calls <= 90


async def test_a_queue_that_is_cancelled_as_its_alarm_rings_starts_nothing(
    autojump_clock: Clock,
) -> None:
    for _ in range(9):  # which of the two comes first is trio's to choose
        calls = Calls()
        with trio.move_on_after(1):
            async with batched(calls, flush_interval=1) as queue:
                entry = await queue.enqueue("a")
                await trio.sleep_forever()
        assert calls.seen == []
        assert entry.status is EntryStatus.CLOSED


async def test_nobody_keeps_watch_where_time_brings_nothing(autojump_clock: Clock) -> None:
    async with batched(echo, flush_interval=1) as queue:
        for item in "abc":
            assert await queue.process(item) == item
            assert len(tasks_of(queue)) == 1
        # What comes when nobody watches is not forgotten, nor what is refused.
        queue.pause()
        await trio.testing.wait_all_tasks_blocked()
        queue.resume()
        await queue.process("d")
    with pytest.raises(QueueClosed):
        queue.enqueue_nowait("e")


async def test_what_is_due_while_the_task_that_kept_watch_makes_a_call_is_not_late(
    autojump_clock: Clock,
) -> None:
    calls = Calls(takes=9)
    async with batched(calls, flush_interval=1, concurrency=3) as queue:
        await queue.enqueue("a")
        await queue.enqueue("c", delay=4)
        await trio.sleep(2)
        await queue.enqueue("b")
        await trio.sleep(3)
    assert spell(calls) == [(1, "a"), (3, "b"), (4, "c")]


async def test_what_a_hook_hands_over_while_the_queue_looks_is_seen_at_once(
    autojump_clock: Clock,
) -> None:
    sizes: list[int] = []

    def hand_over(size: int) -> None:
        sizes.append(size)
        if size < 3:
            queue.enqueue_nowait("more")

    hooks: Hooks[str, None] = Hooks(on_queue_size_change=hand_over)
    async with batched(Calls(), flush_interval=1, hooks=hooks) as queue:
        await queue.enqueue("a")
        await trio.testing.wait_all_tasks_blocked()
        assert sizes == [1, 2, 3]


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
