"""The tools for users' tests do what they say."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from batchq import Backoff, BatchedQueue, Hooks, OptionError, Result, RetryPolicy
from batchq.errors import StorageInUse
from batchq.testing import FaultyStorage, ScriptedProcessor, echo, put, run_timeline

Clock = trio.testing.MockClock


# The scripted processor.


async def test_steps_are_taken_in_order_and_then_all_succeed(autojump_clock: Clock) -> None:
    send = ScriptedProcessor(OSError("down"), [Result.fail("no")], takes=0.5)
    async with BatchedQueue[str, None](send, batch_size=1, flush_interval=0) as queue:
        entries = [await queue.enqueue(item) for item in "abc"]
        errors = [(await entry.wait()).error for entry in entries]
    assert [type(error) for error in errors] == [OSError, str, type(None)]
    assert send.timeline == [(0.0, ["a"]), (0.5, ["b"]), (1.0, ["c"])]


async def test_a_function_answers_for_the_batch_and_the_last_step_repeats() -> None:
    send = ScriptedProcessor(lambda batch: {batch.entries[0].id: "first"}, then=echo)
    async with BatchedQueue[int, Any](send, batch_size=1, flush_interval=0) as queue:
        assert [await queue.process(n) for n in (7, 8, 9)] == ["first", 8, 9]


async def test_calls_are_counted_while_they_run(autojump_clock: Clock) -> None:
    send = ScriptedProcessor(takes=lambda batch: float(batch[0]))
    async with BatchedQueue[int, None](
        send, batch_size=1, flush_interval=0, concurrency=2
    ) as queue:
        await queue.enqueue_many([1, 2, 3])
        await trio.sleep(0.5)
        assert send.running == 2
    assert (send.running, send.most_running) == (0, 2)
    assert [call.batch.trigger.value for call in send.calls] == ["size"] * 3


# The timeline.


def test_a_timeline_tells_when_each_call_began_and_with_what() -> None:
    queue = partial(BatchedQueue[int, None], ScriptedProcessor(), batch_size=3, flush_interval=10)
    assert run_timeline(queue, [(0, put(*range(7)))]) == [
        (0, [0, 1, 2]),
        (0, [3, 4, 5]),
        (10, [6]),
    ]


def test_a_subclass_makes_its_own_queue_and_any_function_is_an_action() -> None:
    class Letters(BatchedQueue[str, None]):
        batch_size = 10
        flush_interval = 60.0
        priority_levels = 2

        async def process_batch(self, batch: object) -> None:
            pass

    async def drain(queue: BatchedQueue[str, None]) -> None:
        await queue.drain()

    actions = [
        (0, BatchedQueue.pause),
        (1, put("b", "c", priority=1)),
        (2, put("a", priority=0)),
        (5, drain),
    ]
    assert run_timeline(Letters, actions) == [(5, ["a", "b", "c"])]


def test_hours_of_retries_take_no_time() -> None:
    send = ScriptedProcessor(*[OSError("down")] * 3)
    retry = RetryPolicy(
        max_retries=3, backoff=Backoff(initial_delay=3600, max_delay=1e6, jitter="none")
    )
    queue = partial(BatchedQueue[str, None], send, flush_interval=0, retry=retry)
    calls = run_timeline(queue, [(0, put("a"))])
    assert calls == [(0, ["a"]), (3600, ["a"]), (3 * 3600, ["a"]), (7 * 3600, ["a"])]


def test_what_waits_for_ever_is_not_called() -> None:
    queue = partial(BatchedQueue[int, None], ScriptedProcessor(), flush_interval=None)
    assert run_timeline(queue, [(0, put(1))]) == []
    assert run_timeline(queue, []) == []


def test_the_queues_own_hooks_are_told_too() -> None:
    told: list[tuple[str, list[int]]] = []

    def teller(name: str) -> Hooks[int, None]:
        return Hooks(on_batch_start=lambda batch: told.append((name, list(batch))))

    class Watched(BatchedQueue[int, None]):
        flush_interval = 0
        hooks = [teller("attribute")]  # noqa: RUF012 - as users write it
        process_batch = ScriptedProcessor().__call__

    assert run_timeline(Watched, [(0, put(1))]) == [(0, [1])]
    bare = partial(Watched, hooks=teller("argument"))
    assert run_timeline(bare, [(0, put(2))]) == [(0, [2])]
    assert run_timeline(partial(bare, hooks=None), [(0, put(3))]) == [(0, [3])]
    assert told == [("attribute", [1]), ("argument", [2])]


def test_an_error_of_an_action_comes_out_by_itself() -> None:
    def fail(_: object) -> None:
        raise KeyError("mine")

    queue = partial(BatchedQueue[int, None], ScriptedProcessor())
    with pytest.raises(KeyError, match="mine"):
        run_timeline(queue, [(0, fail)])


@pytest.mark.parametrize("times", [(1, 0), (-1, 0), (float("nan"), 1)])
def test_times_rise_from_zero(times: tuple[float, float]) -> None:
    queue = partial(BatchedQueue[int, None], ScriptedProcessor())
    with pytest.raises(OptionError, match="rise from 0"):
        run_timeline(queue, [(at, put(1)) for at in times])


# The faulty storage.


async def test_a_storage_fails_as_often_as_it_was_told(autojump_clock: Clock) -> None:
    storage = FaultyStorage(takes=0.25)
    storage.fail(times=2)
    storage.fail("load", KeyError("gone"))
    for _ in range(2):
        with pytest.raises(OSError, match="save was told to fail"):
            await storage.save("k", [b"1"])
    with pytest.raises(KeyError, match="gone"):
        await storage.load("k")
    assert await storage.load("k") == []
    await storage.save("k", [b"12", b"34"])
    storage.tear("k", 1)
    assert await storage.load("k") == [b"12", b"3"]
    assert storage.saves == [(1.25, 2)]


async def test_a_storage_has_one_owner_per_key() -> None:
    storage = FaultyStorage()
    await storage.acquire("k")
    with pytest.raises(StorageInUse):
        await storage.acquire("k")
    await storage.release("k")
    await storage.acquire("k")


@pytest.mark.parametrize(
    ("told", "error"), [(("zap", OSError()), ValueError), (("save", "text"), TypeError)]
)
def test_a_storage_refuses_faults_that_would_never_come(told: Any, error: type[Exception]) -> None:  # noqa: ANN401 - as a user errs
    with pytest.raises(error, match="must be"):
        FaultyStorage().fail(*told)
