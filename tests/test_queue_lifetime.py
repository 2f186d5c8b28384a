"""Pause, resume, flush, wait_idle, drain, close, and leaving the block."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from batchq import Backoff, BatchedQueue, Hooks, Result, RetryPolicy
from batchq.core.batch import Batch
from batchq.core.entry import EntryStatus
from batchq.errors import DrainTimeout, OptionError, QueueClosed, QueuePaused
from tests.calls import UNLOGGED, Calls, Clock, batched

Queue = BatchedQueue[Any, Any]


async def test_pause_starts_nothing_and_lets_what_runs_go_on(autojump_clock: Clock) -> None:
    calls = Calls(list, takes=1)
    async with batched(calls, batch_size=1) as queue:
        first, second = await queue.enqueue_many("ab")
        await trio.sleep(0.5)
        queue.pause()
        queue.pause()
        assert await first.result() == "a"
        await trio.sleep(10)
        assert second.status is EntryStatus.PENDING
        queue.resume()
        assert await second.result() == "b"
    assert calls.times == [0, 11]


async def test_resume_starts_nothing_that_is_neither_full_nor_due(autojump_clock: Clock) -> None:
    calls = Calls()
    async with batched(calls, batch_size=3, flush_interval=5) as queue:
        queue.pause()
        await queue.enqueue("a")
        queue.resume()
        await trio.sleep(4)
        assert not calls.seen
        await trio.sleep(4)
    assert calls.times == [5]


async def test_a_pause_that_accepts_nothing_says_so_and_keeps_who_waits(
    autojump_clock: Clock,
) -> None:
    calls = Calls()
    async with batched(calls, batch_size=1, max_queue_size=1) as queue:
        queue.pause()
        await queue.enqueue("a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(queue.enqueue, "b")
            await trio.testing.wait_all_tasks_blocked()
            queue.pause(accept=False)
            with pytest.raises(QueuePaused):
                await queue.enqueue("c")
            assert queue.room() == 0
            queue.resume()
    assert calls.items == [["a"], ["b"]]


async def test_flush_waits_for_what_is_there_and_not_for_what_comes(autojump_clock: Clock) -> None:
    calls = Calls(takes=1)
    async with batched(calls, batch_size=10, flush_interval=60) as queue:
        await queue.enqueue("a", delay=20)
        await queue.enqueue("b")

        async def produce() -> None:
            while True:
                await queue.enqueue("x")
                await trio.sleep(0.375)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(produce)
            await queue.flush()
            assert trio.current_time() == 1
            nursery.cancel_scope.cancel()
    assert calls.times[0] == 0
    assert calls.items[0][0] == "b"


async def test_flush_ends_where_an_item_is_delayed(autojump_clock: Clock) -> None:
    policy = RetryPolicy(1, backoff=Backoff(initial_delay=20, jitter="none"))
    calls = Calls(lambda _: [Result.retry()])
    async with batched(calls, flush_interval=60, retry=policy) as queue:
        await queue.enqueue("a")
        await queue.flush()
        assert trio.current_time() == 0


async def test_a_flush_that_runs_out_of_time_cancels_nothing(autojump_clock: Clock) -> None:
    calls = Calls(list, takes=5)
    async with batched(calls, flush_interval=60) as queue:
        entry = await queue.enqueue("a")
        with pytest.raises(trio.TooSlowError):
            await queue.flush(2)
        assert await entry.result() == "a"
    assert calls.times == [0]


@pytest.mark.parametrize("limit", [0, None])
async def test_a_flush_of_nothing_ends_at_once(limit: float | None, autojump_clock: Clock) -> None:
    async with batched(Calls()) as queue:
        await queue.enqueue("a", delay=5)
        await queue.flush(limit)
        assert trio.current_time() == 0


async def test_a_bad_timeout_is_refused_and_changes_nothing(autojump_clock: Clock) -> None:
    calls = Calls()
    async with batched(calls, flush_interval=5) as queue:
        await queue.enqueue("a")
        for call in (queue.flush, queue.drain):
            with pytest.raises(OptionError, match=r"timeout must be .* from 0.* got -1"):
                await call(-1)
            with pytest.raises(OptionError, match="nan"):
                await call(float("nan"))
        await trio.sleep(1)
        assert not calls.seen
        await queue.enqueue("b")


async def test_a_flush_does_not_lift_a_pause(autojump_clock: Clock) -> None:
    async with batched(Calls()) as queue:
        queue.pause()
        await queue.enqueue("a")
        with pytest.raises(trio.TooSlowError):
            await queue.flush(1)


async def test_wait_idle_ends_at_the_first_idle_moment(autojump_clock: Clock) -> None:
    async with batched(Calls(takes=1), batch_size=1) as queue:
        await queue.enqueue_many("ab")
        await queue.wait_idle()
        assert trio.current_time() == 2
        await queue.wait_idle()
        await queue.enqueue("the intake is open")


async def test_drain_runs_retries_and_delays_at_their_time(autojump_clock: Clock) -> None:
    policy = RetryPolicy(1, backoff=Backoff(initial_delay=3, jitter="none"))
    calls = Calls(lambda batch: [Result.retry()] * len(batch) if batch.attempt == 1 else None)
    async with batched(calls, flush_interval=60, retry=policy) as queue:
        await queue.enqueue("now")
        await queue.enqueue("later", delay=8)
        report = await queue.drain()
        assert trio.current_time() == 11
        assert (report.succeeded, report.failed) == (2, 0)
    assert calls.seen == [(0, ["now"]), (3, ["now"]), (8, ["later"]), (11, ["later"])]


async def test_a_drain_ends_under_a_producer_that_never_stops(autojump_clock: Clock) -> None:
    ended: list[float] = []

    async def produce(queue: Queue) -> None:
        try:
            while True:
                await queue.enqueue("x")
        except QueueClosed:
            ended.append(trio.current_time())

    async with batched(Calls(takes=1), batch_size=5, max_queue_size=5) as queue:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(produce, queue)
            nursery.start_soon(produce, queue)
            await trio.sleep(3.5)
            await queue.drain()
        assert ended == [3.5, 3.5]
        assert queue.stats().outstanding == 0


async def test_a_drain_out_of_time_puts_back_what_runs_and_can_go_on(
    autojump_clock: Clock,
) -> None:
    calls = Calls(list, takes=5)
    async with batched(calls, batch_size=2, concurrency=2) as queue:
        entries = await queue.enqueue_many("abcdef")
        with pytest.raises(DrainTimeout) as caught:
            await queue.drain(2)
        assert trio.current_time() == 2
        assert caught.value.remaining == 6
        assert isinstance(caught.value, TimeoutError)
        await trio.sleep(20)
        assert calls.running == 0
        assert {(entry.status, entry.attempts) for entry in entries} == {(EntryStatus.PENDING, 0)}
        assert (await queue.drain()).succeeded == 6
        assert trio.current_time() == 32
    assert len(calls.seen) == 5


async def test_a_call_chosen_when_the_time_is_up_is_not_made(autojump_clock: Clock) -> None:
    calls = Calls()
    async with batched(calls, batch_size=1, flush_interval=60) as queue:
        await queue.enqueue("a", delay=2)
        with pytest.raises(DrainTimeout):
            await queue.drain(2)  # to the instant when the item may start
        assert not calls.seen
        assert queue.stats().pending == 1
        await queue.drain()
    assert calls.items == [["a"]]


async def test_a_drain_of_0_seconds_ends_at_once(autojump_clock: Clock) -> None:
    async with batched(Calls()) as queue:
        assert (await queue.drain(0)).succeeded == 0
    async with batched(Calls()) as queue:
        await queue.enqueue("a")
        with pytest.raises(DrainTimeout):
            await queue.drain(0)


async def test_drains_join_at_the_earlier_deadline_with_an_error_each(
    autojump_clock: Clock,
) -> None:
    errors: list[DrainTimeout] = []

    async def drain(queue: Queue, limit: float) -> None:
        with pytest.raises(DrainTimeout) as caught:
            await queue.drain(limit)
        errors.append(caught.value)

    async with batched(Calls(takes=50)) as queue:
        await queue.enqueue("a")
        async with trio.open_nursery() as nursery:
            for limit in (9, 3, 7):
                nursery.start_soon(drain, queue, limit)
                await trio.testing.wait_all_tasks_blocked()
        assert trio.current_time() == 3
    assert [error.remaining for error in errors] == [1, 1, 1]
    assert len(set(map(id, errors))) == 3


async def test_cancelling_drain_ends_the_waiting_only(autojump_clock: Clock) -> None:
    async with batched(Calls(takes=5)) as queue:
        entry = await queue.enqueue("a")
        with trio.move_on_after(1) as scope:
            await queue.drain()
        assert scope.cancelled_caught
        assert (await queue.drain()).succeeded == 1
        assert entry.status is EntryStatus.SUCCEEDED
        assert trio.current_time() == 5


async def test_pause_has_no_effect_during_a_drain(autojump_clock: Clock) -> None:
    async with batched(Calls(takes=1), batch_size=1) as queue:
        await queue.enqueue_many("ab")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(queue.drain)
            await trio.sleep(0.5)
            queue.pause()
        assert trio.current_time() == 2


async def test_close_sends_producers_away_and_keeps_what_is_held(autojump_clock: Clock) -> None:
    calls, refused = Calls(takes=1), list[float]()

    async def produce(queue: Queue) -> None:
        with pytest.raises(QueueClosed):
            await queue.enqueue("b")
        refused.append(trio.current_time())

    async with batched(calls, batch_size=1, max_queue_size=1, flush_interval=9) as queue:
        queue.pause()
        await queue.enqueue("a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(produce, queue)
            await trio.sleep(1)
            queue.close()
            queue.close()
        with pytest.raises(QueueClosed):
            queue.enqueue_nowait("c")
        with pytest.raises(QueueClosed):
            await queue.wait_room()
        queue.resume()
    assert refused == [1]
    assert calls.items == [["a"]]


@pytest.mark.parametrize("call", ["flush", "drain", "wait_idle"])
async def test_the_queues_own_processor_cannot_wait_for_the_queue(
    call: str, autojump_clock: Clock
) -> None:
    refused: list[str] = []

    async def later(queue: Queue) -> None:
        await trio.sleep(5)
        await getattr(queue, call)()  # the mark ended with the call
        refused.append("no more")

    async with trio.open_nursery() as outer:

        async def processor(_: Batch[Any]) -> None:
            async with trio.open_nursery() as nursery:  # noqa: ASYNC112
                nursery.start_soon(refuse)
            outer.start_soon(later, queue)

        async def refuse() -> None:
            with pytest.raises(RuntimeError, match=r"own processor"):
                await getattr(queue, call)()
            refused.append("here")

        async with batched(processor, flush_interval=0) as queue:
            await queue.enqueue("a")
            await trio.sleep(6)
    assert refused == ["here", "no more"]


@pytest.mark.parametrize("concurrency", [1, 2, 3])
async def test_the_last_free_call_cannot_wait_for_an_item_of_its_own_queue(
    concurrency: int, autojump_clock: Clock
) -> None:
    """Each of the items asks for the next one; all slots together have to give way."""

    async def processor(batch: Batch[int]) -> list[int]:
        async def ask() -> None:
            answers.append(await queue.process(batch[0] + 1))

        answers: list[int] = []
        if batch[0] < 3:
            async with trio.open_nursery() as nursery:  # noqa: ASYNC112 - as users do
                nursery.start_soon(ask)
        return [sum(answers) + 1]

    options: Any = {"batch_size": 1, "concurrency": concurrency}
    async with batched(processor, **options, hooks=UNLOGGED) as queue:
        if concurrency == 3:
            assert await queue.process(1) == 3
            return
        with pytest.raises(ExceptionGroup) as caught:  # noqa: ASYNC401 - nested as the calls are
            await queue.process(3 - concurrency)
        assert "own processor" in repr(caught.value)
        assert await queue.process(3) == 1  # the slots are free


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({"ordered": True}, "b1"),
        ({"partition_concurrency": 1}, "b1"),
        ({"partition_concurrency": 2}, "b2"),
        ({"partition_concurrency": 3}, ""),
    ],
)
async def test_the_last_call_of_a_partition_cannot_wait_for_an_item_of_it(
    options: dict[str, Any], refused: str, autojump_clock: Clock
) -> None:
    """An item of partition a asks for one of b, which asks for the next one of b, and so on."""
    asked: list[str] = []

    async def processor(batch: Batch[str]) -> list[str]:
        following = {"a1": "b1", "b1": "b2", "b2": "b3"}.get(batch[0])
        if following is not None:
            try:
                await queue.process(following)
            except RuntimeError as error:
                asked.append(f"{batch[0]} {error}")
        return list(batch)

    options |= {"batch_size": 1, "concurrency": 9, "partition_by": lambda item: item[0]}
    async with batched(processor, **options) as queue:
        assert await queue.process("a1") == "a1"
        assert queue.stats().enqueued == (1 + int(refused[1:] or 3))  # what is refused is not in
    assert [line[:2] for line in asked] == ([refused] if refused else [])
    assert all("own processor" in line and "partition_concurrency" in line for line in asked)


async def test_what_a_call_has_started_elsewhere_may_wait_for_an_item(
    autojump_clock: Clock,
) -> None:
    answers: list[str] = []

    async def ask(item: str) -> None:
        answers.append(await queue.process(item))

    async def processor(batch: Batch[str]) -> list[str]:
        if batch[0] == "a":
            outer.start_soon(ask, "b")
            await trio.sleep(1)  # the task runs before this call has ended
        return list(batch)

    async with batched(processor, batch_size=1) as queue, trio.open_nursery() as outer:
        assert await queue.process("a") == "a"
    assert answers == ["b"]


async def test_the_queues_own_processor_cannot_wait_for_room(autojump_clock: Clock) -> None:
    refused: list[bool] = []

    async def processor(_: Batch[Any]) -> None:
        queue.enqueue_nowait("b")
        with pytest.raises(RuntimeError, match=r"own processor"):
            await queue.wait_room()
        refused.append(True)
        queue.pause()

    async with batched(processor, batch_size=1, max_queue_size=1) as queue:
        await queue.enqueue("a")
        await trio.sleep(1)
        assert refused == [True]
        (entry,) = queue._batcher.waiting
        entry.cancel()


async def test_leaving_drains_within_the_shutdown_timeout(autojump_clock: Clock) -> None:
    entries: list[Any] = []

    async def block() -> None:
        async with batched(Calls(takes=50), batch_size=1, shutdown_timeout=3) as queue:
            entries.extend(await queue.enqueue_many("ab"))

    with pytest.raises(DrainTimeout, match=r"left .*\(shutdown_timeout=3\): 2 .* closed") as caught:
        await block()
    assert caught.value.remaining == 2
    assert trio.current_time() == 3
    assert [entry.status for entry in entries] == [EntryStatus.CLOSED] * 2


async def test_leaving_does_not_drain_again_after_a_drain_out_of_time(
    autojump_clock: Clock,
) -> None:
    async with batched(Calls(takes=50)) as queue:
        entry = await queue.enqueue("a")
        with pytest.raises(DrainTimeout):
            await queue.drain(1)
    assert trio.current_time() == 1
    assert entry.status is EntryStatus.CLOSED


def used(queue: Queue) -> dict[str, Callable[[], Any]]:
    return {
        "enqueue": lambda: queue.enqueue(1),
        "enqueue_nowait": lambda: queue.enqueue_nowait(1),
        "enqueue_many": lambda: queue.enqueue_many([1]),
        "enqueue_many_nowait": lambda: queue.enqueue_many_nowait([1]),
        "process": lambda: queue.process(1),
        "room": queue.room,
        "wait_room": queue.wait_room,
        "pause": queue.pause,
        "resume": queue.resume,
        "flush": queue.flush,
        "wait_idle": queue.wait_idle,
        "drain": queue.drain,
    }


@pytest.mark.parametrize("name", used(batched(Calls())))
@pytest.mark.parametrize("when", ["before", "after"])
async def test_outside_its_block_a_queue_is_closed(
    name: str, when: str, autojump_clock: Clock
) -> None:
    queue = batched(Calls())
    if when == "after":
        async with queue:
            pass
    with pytest.raises(QueueClosed):
        await awaited(used(queue)[name])
    queue.close()
    assert queue.stats().enqueued == 0


async def awaited(call: Callable[[], Any]) -> None:
    returned = call()
    if isinstance(returned, Awaitable):
        await returned


async def test_a_queue_is_entered_once(autojump_clock: Clock) -> None:
    queue = batched(Calls())
    async with queue:
        pass
    with pytest.raises(RuntimeError, match="make a new one"):
        await queue.__aenter__()


async def test_a_producer_let_in_as_the_queue_ends_is_told_of_before_it_is_closed(
    autojump_clock: Clock,
) -> None:
    told: list[str] = []
    hooks: Hooks[Any, Any] = Hooks(
        on_enqueue=lambda item: told.append(f"enqueued {item}"),
        on_drop=lambda item, reason: told.append(f"{reason} {item}"),
    )

    async def block(nursery: trio.Nursery) -> None:
        async with batched(Calls(), batch_size=1, max_queue_size=1, hooks=hooks) as queue:
            queue.pause()
            entry = await queue.enqueue("a")
            nursery.start_soon(queue.enqueue, "b")
            await trio.testing.wait_all_tasks_blocked()
            entry.cancel()  # "b" comes in
            raise ValueError("mine")

    async with trio.open_nursery() as nursery:
        with pytest.raises(ValueError, match="mine"):
            await block(nursery)
    assert told == ["enqueued a", "cancelled a", "enqueued b", "closed b"]
