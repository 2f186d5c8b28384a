"""Hooks: told in order, once, of everything; they watch and never steer."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio

from batchq import BatchedQueue, Hooks, Result, RetryPolicy
from batchq.core.batch import Batch
from batchq.errors import HookError, OptionError, Throttled
from batchq.hooks import EVENTS
from tests.calls import Calls, Clock, batched


class Diary:
    """Writes down what the hooks are told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def hooks(self) -> Hooks[Any, Any]:
        def write(event: str) -> Callable[..., None]:
            return lambda *told: self.lines.append(f"{event} {' '.join(map(word, told))}")

        return Hooks(**{event: write(event.removeprefix("on_")) for event in EVENTS})


def word(told: object) -> str:
    if isinstance(told, Batch):
        return "".join(told)
    if isinstance(told, Result):
        return {True: "ok", False: "failed", None: "none"}[told.success]
    if isinstance(told, list):
        return ",".join(map(word, told))
    return type(told).__name__ if isinstance(told, Exception) else str(told)


async def test_a_call_is_told_of_in_order(autojump_clock: Clock) -> None:
    def answer(batch: Batch[Any]) -> list[Any]:
        diary.lines.append("call")
        batch.succeed(1)
        diary.lines.append(f"early {batch.entries[1].status.value}")
        return [ValueError("no"), None, "c"]

    diary = Diary()
    async with batched(Calls(answer), batch_size=3, hooks=diary.hooks()) as queue:
        await queue.enqueue_many("abc")
    assert diary.lines.pop().startswith("drained DrainReport(succeeded=2, failed=1,")
    assert diary.lines == [
        "enqueue a",
        "enqueue b",
        "enqueue c",
        "batch_start abc",
        "call",
        "early succeeded",
        "processed a failed",
        "dead_letter a ValueError",
        "processed b ok",
        "processed c ok",
        "batch_complete abc failed,ok,ok",
        "idle ",
    ]


async def test_a_call_that_raises_is_told_of_once_and_completes(autojump_clock: Clock) -> None:
    def answer(batch: Batch[Any]) -> None:
        if batch.attempt == 1:
            raise OSError("gone")

    diary = Diary()
    policy = RetryPolicy(1)
    queue = batched(Calls(answer), batch_size=2, retry=policy, rng=Half(), hooks=diary.hooks())
    async with queue:
        await queue.enqueue_many("ab")
    assert diary.lines.pop().startswith("drained DrainReport(succeeded=2, failed=0,")
    assert diary.lines[2:] == [
        "batch_start ab",
        "error OSError",
        "retry a OSError 1 0.5",
        "retry b OSError 1 0.5",
        "batch_complete ab failed,failed",
        "queue_size_change 2",
        "queue_size_change 0",
        "batch_start ab",
        "processed a ok",
        "processed b ok",
        "batch_complete ab ok,ok",
        "idle ",
    ]


class Half(random.Random):
    """A source of chance with nothing left to it."""

    def random(self) -> float:
        return 0.5


@pytest.mark.parametrize("end", ["throttled", "timed out", "cancelled"])
async def test_starts_and_completions_are_equal_in_number_whatever_the_end(
    end: str, autojump_clock: Clock
) -> None:
    def answer(_: Batch[Any]) -> None:
        if trio.current_time() < 2:
            raise Throttled(1)

    diary = Diary()
    calls = Calls(answer, takes=1 if end == "throttled" else 9)
    limit = 2 if end == "timed out" else None
    with trio.move_on_after(30 if end != "cancelled" else 3):
        queue = batched(calls, batch_size=2, processor_timeout=limit, hooks=diary.hooks())
        async with queue:
            await queue.enqueue_many("ab")
            await trio.sleep(5)
    starts = [line for line in diary.lines if line.startswith("batch_start")]
    completions = [line for line in diary.lines if line.startswith("batch_complete")]
    assert len(starts) == len(completions) == len(calls.seen) > 0
    if end != "timed out":
        assert completions[0] == "batch_complete ab none,none"


async def test_the_size_is_told_once_per_step_and_ends_at_0(autojump_clock: Clock) -> None:
    sizes: list[int] = []
    hooks: Hooks[Any, Any] = Hooks(on_queue_size_change=sizes.append)
    async with batched(Calls(takes=1), batch_size=2, flush_interval=1, hooks=hooks) as queue:
        await queue.enqueue_many("abcde")
        await trio.sleep(0.5)
        assert sizes == [3]
        await queue.enqueue("f", delay=9)
        await queue.drain()
    assert sizes == [3, 4, 2, 1, 0]


async def test_an_incoming_item_that_is_dropped_is_told_as_dropped_only(
    autojump_clock: Clock,
) -> None:
    diary = Diary()
    policy = "drop-newest"
    queue = batched(
        Calls(), batch_size=1, max_queue_size=1, drop_policy=policy, hooks=diary.hooks()
    )
    async with queue:
        queue.pause()
        await queue.enqueue("a")
        await queue.enqueue("b")
        await queue.enqueue_many("cd")
    told = [line for line in diary.lines if line.startswith(("enqueue", "drop"))]
    assert told == ["enqueue a", "drop b overflow", "drop c overflow", "drop d overflow"]


async def test_a_producer_let_in_is_told_of_before_its_item_starts(autojump_clock: Clock) -> None:
    diary = Diary()
    async with batched(Calls(), batch_size=1, max_queue_size=1, hooks=diary.hooks()) as queue:
        await queue.enqueue_many("abc")
    starts = {item: diary.lines.index(f"batch_start {item}") for item in "abc"}
    assert all(diary.lines.index(f"enqueue {item}") < starts[item] for item in "abc")


async def test_a_raising_hook_is_reported_and_the_next_one_runs(
    caplog: pytest.LogCaptureFixture, autojump_clock: Clock
) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("dashboard down")

    errors, told = list[Exception](), list[Any]()
    hooks: list[Hooks[Any, Any]] = [
        Hooks(on_enqueue=broken, on_error=errors.append),
        Hooks(on_enqueue=told.append),
    ]
    with caplog.at_level(logging.ERROR, "batchq"):
        async with batched(Calls(), hooks=hooks) as queue:
            await queue.enqueue("a")
            assert queue.stats().hook_errors == 1
    assert told == ["a"]
    (error,) = errors
    assert isinstance(error, HookError)
    assert (error.hook, str(error.original)) == ("broken", "dashboard down")
    assert error.__cause__ is error.original
    assert len(caplog.records) == 1


async def test_a_raising_error_hook_is_logged_and_not_told_of_itself(
    caplog: pytest.LogCaptureFixture, autojump_clock: Clock
) -> None:
    def answer(_: Batch[Any]) -> None:
        raise OSError("gone")

    def broken(_: Exception) -> None:
        raise RuntimeError("dashboard down")

    with caplog.at_level(logging.ERROR, "batchq"):
        async with batched(Calls(answer), hooks=Hooks(on_error=broken)) as queue:
            await queue.enqueue("a")
    assert queue.stats().hook_errors == 1
    assert queue.stats().failed == 1


async def test_a_hook_that_returns_something_to_await_counts_as_raising(
    autojump_clock: Clock,
) -> None:
    async def later() -> None:
        """Never runs."""

    errors: list[Any] = []
    hooks: Hooks[Any, Any] = Hooks(on_enqueue=lambda _: later(), on_error=errors.append)
    async with batched(Calls(), hooks=hooks) as queue:
        await queue.enqueue("a")
        assert queue.stats().hook_errors == 1
    assert isinstance(errors[0].original, TypeError)


async def test_the_subclasss_own_method_is_told_first(autojump_clock: Clock) -> None:
    told: list[str] = []

    class Mail(BatchedQueue[str, None]):
        flush_interval = 0

        async def process_batch(self, batch: Batch[str]) -> None:
            told.append("call")

        def on_enqueue(self, item: str) -> None:
            told.append(f"own {item}")

    async with Mail(hooks=Hooks(on_enqueue=lambda item: told.append(f"given {item}"))) as queue:
        await queue.enqueue("a")
    assert told == ["own a", "given a", "call"]


async def test_any_plain_method_may_be_called_from_a_hook(autojump_clock: Clock) -> None:
    dead: BatchedQueue[Any, Any]
    calls = Calls()

    def keep(item: Any, result: Result[Any]) -> None:  # noqa: ANN401
        if not result.success:
            dead.enqueue_nowait(item)
            queue.pause()
            queue.resume()
            assert queue.stats() == queue.stats(recount=True)

    async with (
        batched(calls, flush_interval=0) as dead,
        batched(Calls(lambda _: [Result.fail("no")]), hooks=Hooks(on_processed=keep)) as queue,
    ):
        await queue.enqueue("a")
        await queue.flush()
        await dead.flush()
    assert calls.items == [["a"]]


async def a_coroutine(*_: object) -> None:
    """What a hook must not be."""


@pytest.mark.parametrize("event", EVENTS)
def test_an_async_hook_is_refused_by_its_name(event: str) -> None:
    with pytest.raises(TypeError, match=event):
        Hooks(**{event: a_coroutine})
    methods = {event: a_coroutine, "process_batch": a_coroutine}
    with pytest.raises(TypeError, match=event):
        type("Mail", (BatchedQueue,), methods)()


def test_hooks_that_are_none_are_refused() -> None:
    with pytest.raises(TypeError, match=r"on_drop must be a function or None, got 5"):
        Hooks(on_drop=5)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"hooks must be Hooks or a list of Hooks, got 5"):
        batched(a_coroutine, hooks=[5])


@pytest.mark.parametrize("name", ["on_enqueue", "on_enqeue"])
@pytest.mark.parametrize("kind", [lambda hook: hook, staticmethod, classmethod])
def test_hooks_as_methods_of_their_own_class_are_refused(
    name: str, kind: Callable[[Any], Any]
) -> None:
    """Nobody would ever call them: the fields of that name are None."""
    body = {name: kind(lambda *told: None)}
    with pytest.raises(TypeError, match=rf"Mine.{name} would never be called: .* as arguments"):
        type("Mine", (Hooks,), body)


def test_hooks_may_have_a_subclass_with_more_of_them() -> None:
    @attrs.frozen(kw_only=True)
    class More(Hooks[Any, Any]):
        on_stall: Callable[[], object] | None = None

    assert More(on_stall=print).on_stall is print
