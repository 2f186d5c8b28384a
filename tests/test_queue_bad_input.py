"""What users get wrong: each mistake has its error or its fallback, and no item is lost."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import pytest
import trio
import trio.testing

from batchq import (
    AdaptiveBatchSize,
    AdaptiveConcurrency,
    Backoff,
    BatchedQueue,
    ContractError,
    DuplicateKey,
    Hooks,
    OptionError,
    Persistence,
    RetryPolicy,
    SlidingWindow,
    StrategyError,
    TokenBucket,
)
from batchq.core.batch import Batch
from batchq.core.options import Options
from batchq.testing import FaultyStorage
from tests.calls import UNLOGGED, Calls, Clock, batched, echo

Queue = BatchedQueue[Any, Any]
NAN: Final = float("nan")


def first(item: Any) -> Any:  # noqa: ANN401 - of any type
    return item[0]


def words(items: list[Any]) -> list[list[Any]]:
    return [items]


# Each option in a way that is not its default, and its values that are at its ends.
ALONE: Final[dict[str, list[Any]]] = {
    "name": ["mail"],
    "batch_size": [1, 3, AdaptiveBatchSize(max_size=10)],
    "flush_interval": [0, 0.5, math.inf, None],
    "weigh": [len],
    "max_batch_weight": [1, 4, math.inf],
    "oversize": ["reject", "alone"],
    "priority_levels": [2, 1000],
    "default_priority": [0],
    "priority_by": [lambda _: 0],
    "priority_aging": [0.5, None],
    "mix_priorities": [False],
    "partition_by": [first],
    "partition_concurrency": [1, 5],
    "ordered": [True],
    "batching_strategy": [words],
    "concurrency": [7, AdaptiveConcurrency()],
    "throttle": [0.25],
    "rate_limit": [TokenBucket(100, 5), [SlidingWindow(3, 1), TokenBucket(9, 9, "batch")], []],
    "max_queue_size": [None, 100],
    "max_outstanding": [100],
    "max_queue_weight": [100, math.inf],
    "drop_policy": ["reject_new", "drop-oldest", "drop_newest", "drop-lowest-priority"],
    "coalesce_by": [first],
    "coalesce_policy": ["replace", "reject", lambda old, _: old],
    "retry": [RetryPolicy(), RetryPolicy(0)],
    "bisect": ["off", "immediate", "exhausted", None],
    "processor_timeout": [5],
    "cancel_abandoned": [True],
    "shutdown_timeout": [None, 50],
    "save_timeout": [0, 50],
    "queue_timeout": [50],
    "delivery_timeout": [50],
    "persistence": [Persistence(storage=FaultyStorage())],
    "hooks": [UNLOGGED, [UNLOGGED, Hooks()], []],
    "rng": [random.Random(1)],
}


def test_every_option_is_tried_alone() -> None:
    assert set(ALONE) == set(Options.__annotations__)


@pytest.mark.parametrize(
    ("option", "value"), [(name, value) for name in ALONE for value in ALONE[name]]
)
async def test_each_option_works_alone(option: str, value: object, autojump_clock: Clock) -> None:
    """Items come in, fail or not, and leave, each with its own answer."""

    def answer(batch: Batch[str]) -> list[Any]:
        return [ValueError(item) if item == "a2" else item for item in batch]

    options: dict[str, Any] = {option: value}
    async with batched(Calls(answer, takes=0.125), **options) as queue:
        entries = await queue.enqueue_many(["a1", "b1", "a2", "b2", "c1"])
        await queue.flush()
        report = await queue.drain()
        results = [await entry.wait() for entry in entries]
    shared = 2 * (option == "coalesce_by")
    assert report.dropped == report.expired == report.cancelled == 0
    assert (queue.stats().succeeded, queue.stats().failed) == (
        4 - (shared and 1),
        1 - (shared and 1),
    )
    assert [it.value for it in results if it.success] == (
        ["a1", "b1", "a1", "b1", "c1"] if shared else ["a1", "b1", "b2", "c1"]
    )


CLASHES: Final = {
    frozenset({"ordered", "priority_levels"}),
    frozenset({"ordered", "batching_strategy"}),
    frozenset({"ordered", "partition_concurrency"}),
}


@pytest.mark.parametrize("option", ALONE)
def test_each_option_works_with_every_other_one(option: str) -> None:
    """Each item leaves once, whatever two options say of it; or they are refused together."""
    for other in ALONE:
        if other > option:
            for value, another in itertools.product(ALONE[option], ALONE[other]):
                clashes = live_with({option: value, other: another})
                assert not clashes or frozenset({option, other}) in CLASHES


def live_with(options: dict[str, Any]) -> bool:
    """Lead a queue's life with these options; tell whether they were refused together."""
    try:
        batched(echo, **options)
    except OptionError as error:
        text = str(error)
        return all(name in text for name in options)
    trio.run(a_busy_minute, options, clock=trio.testing.MockClock(autojump_threshold=0))
    return False


async def a_busy_minute(options: dict[str, Any]) -> None:
    """Let items come, fail, be cancelled and leave; see that the numbers add up."""

    def answer(batch: Batch[str]) -> list[Any]:
        if "e1" in batch and batch.attempt == 1:
            raise OSError("once")
        return [ValueError(item) if item == "a2" else item for item in batch]

    calls = Calls(answer, takes=0.25)
    storage = {"persistence": Persistence(storage=FaultyStorage())}
    fresh = storage if "persistence" in options else {}
    async with batched(calls, **{"hooks": UNLOGGED} | options | fresh) as queue:
        gone = await queue.enqueue("x1", delay=5)
        entries = list(await queue.enqueue_many(["b1", "c1"]))
        for item, delay in (("a1", 0.0), ("a2", 0.0), ("d1", 1.0), ("e1", 0.0), ("e2", 0.0)):
            with suppress(DuplicateKey):
                entries.append(await queue.enqueue(item, delay=delay))
        await trio.sleep(0.5)
        assert gone.cancel()
        await queue.flush()
        await queue.enqueue("g1")
    stats = queue.stats(recount=True)
    assert all(entry.settled for entry in entries)
    assert stats.outstanding == stats.size == stats.running == 0
    ended = stats.succeeded + stats.failed + stats.dropped + stats.cancelled + stats.expired
    assert ended + stats.closed == stats.enqueued
    assert stats.closed == stats.dropped == stats.expired == 0
    assert stats.cancelled == 1


# ---- What is said of one item.

SAID: Final[list[tuple[dict[str, Any], type[Exception], str]]] = [
    *(
        ({"priority": bad}, OptionError, r"priority must be a whole number from 0 to 2 ")
        for bad in (True, "1", 1.0, -1, 3, NAN)
    ),
    *(
        ({"weight": bad}, OptionError, r"weight must be a finite number from 0, got ")
        for bad in (-1, NAN, math.inf, True, "1", 10**400)
    ),
    *(
        ({"delay": bad}, OptionError, r"delay must be a number of seconds from 0 to 3155760000 ")
        for bad in (-1, NAN, math.inf, None, True, False, "", "1", 10**400, 1e308)
    ),
    *(
        ({name: bad}, OptionError, rf"{name} must be a number of seconds above 0, or None, got ")
        for name in ("queue_timeout", "delivery_timeout")
        for bad in (0, -1, NAN, True, "1", 10**400)
    ),
    ({"partition": []}, TypeError, r"partition must be hashable, got \[\]"),
    ({"key": {}}, TypeError, r"key must be hashable, got {}"),
    ({"prioroty": 1}, TypeError, r"nothing of the name 'prioroty' can be said of an item, but "),
]


@pytest.mark.parametrize(("said", "kind", "message"), SAID)
async def test_what_is_said_of_an_item_is_checked_and_costs_no_other_one(
    said: dict[str, Any], kind: type[Exception], message: str, autojump_clock: Clock
) -> None:
    calls = Calls()
    async with batched(calls, flush_interval=1, priority_levels=3) as queue:
        await queue.enqueue("good")
        attempts: list[Callable[[], Any]] = [
            lambda: queue.enqueue("bad", **said),
            lambda: queue.process("bad", **said),
            lambda: queue.enqueue_many(["bad", "worse"], **said),
            lambda: queue.enqueue_nowait("bad", **said),
            lambda: queue.enqueue_many_nowait(["bad", "worse"], **said),
        ]
        for attempt in attempts:
            with pytest.raises(kind, match=message):
                await settled(attempt())
        assert (queue.stats().enqueued, queue.stats().size) == (1, 1)
    assert calls.items == [["good"]]


async def settled(found: Any) -> Any:  # noqa: ANN401 - what a call returned
    return await found if isinstance(found, Awaitable) else found


# ---- The user's functions.


def broken(*_: object) -> Any:  # noqa: ANN401 - of any type
    raise LookupError("the user's function")


async def asynchronous(*_: object) -> Any:  # noqa: ANN401 - of any type
    """Be none of these functions."""


FUNCTIONS: Final = (
    "weigh", "priority_by", "partition_by", "coalesce_by", "batching_strategy", "coalesce_policy"
)  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_async_function_is_refused_by_its_name(name: str) -> None:
    options: dict[str, Any] = {name: asynchronous}
    with pytest.raises(OptionError, match=rf"{name} must be a plain function, got the async"):
        batched(echo, **options)


@pytest.mark.parametrize("name", ["weigh", "priority_by", "partition_by", "coalesce_by"])
async def test_a_function_that_raises_costs_its_own_caller_the_entry(
    name: str, autojump_clock: Clock
) -> None:
    def only_bad(item: str) -> int:
        return broken() if item == "bad" else 0

    calls = Calls()
    options: dict[str, Any] = {name: only_bad}
    async with batched(calls, batch_size=2, flush_interval=1, **options) as queue:
        for item in ("good", "bad"):
            try:
                await queue.enqueue(item)
            except LookupError:
                assert item == "bad"
        with pytest.raises(LookupError):
            await queue.enqueue_many(["fine", "bad"])
        queue.enqueue_nowait("better")
        await queue.wait_idle()
    sent = sorted(item for items in calls.items for item in items)
    assert sent == (["good"] if name == "coalesce_by" else ["better", "good"])


@pytest.mark.parametrize("name", ["partition_by", "coalesce_by"])
async def test_a_function_that_gives_a_coroutine_is_its_callers_mistake(
    name: str, autojump_clock: Clock
) -> None:
    options: dict[str, Any] = {name: lambda item: asynchronous(item)}  # noqa: PLW0108 - no async def
    async with batched(echo, **options) as queue:
        with pytest.raises(TypeError, match=r"(partition|key) must be a value"):
            await queue.enqueue("a")
    assert queue.stats().enqueued == 0


async def test_a_merge_that_raises_costs_its_own_caller_the_entry(autojump_clock: Clock) -> None:
    calls = Calls()
    rules: Any = {"coalesce_by": first, "coalesce_policy": broken}
    async with batched(calls, flush_interval=1, **rules) as queue:
        await queue.enqueue("a1")
        with pytest.raises(LookupError):
            await queue.enqueue("a2")
        await queue.wait_idle()
    assert calls.items == [["a1"]]


STRATEGIES: Final[dict[str, Callable[[list[Any]], Any]]] = {
    "foreign objects": lambda _: [[object()]],
    "copies": lambda items: [[item + "" for item in items], ["".join(items)]],
    "one item twice": lambda items: [items, items[:1]],
    "a flat list": lambda items: items,
    "a text": lambda _: "ab",
    "None": lambda _: None,
    "a number": lambda _: 5,
    "raises": broken,
    "a generator that raises": lambda _: (broken() for _ in "a"),
    "a coroutine": lambda items: asynchronous(items),  # noqa: PLW0108 - no async def
    "groups of groups": lambda items: [[items]],
}


@pytest.mark.parametrize("name", STRATEGIES)
async def test_a_strategy_of_no_sense_is_told_and_the_default_rule_serves(
    name: str, autojump_clock: Clock
) -> None:
    calls, errors = Calls(takes=1), list[Exception]()
    hooks: Hooks[Any, Any] = Hooks(on_error=errors.append)
    rules: Any = {"batching_strategy": STRATEGIES[name], "hooks": hooks}
    async with batched(calls, batch_size=2, flush_interval=1, **rules) as queue:
        entries = await queue.enqueue_many(["first", "second", "third"])
        await queue.wait_idle()
        assert all(entry.settled for entry in entries)
    assert calls.seen == [(0, ["first", "second"]), (1, ["third"])]
    assert errors
    assert {type(error) for error in errors} == {StrategyError}


# ---- The processor.


async def generates(batch: Batch[Any]) -> Any:  # noqa: ANN401 - as users write it
    return (item for item in batch)


async def forgets_one(batch: Batch[Any]) -> list[Any]:
    return list(batch)[1:]


async def forgets_to_await(batch: Batch[Any]) -> Any:  # noqa: ANN401 - as users write it
    return asynchronous(batch)


async def answers_in_a_text(batch: Batch[Any]) -> str:
    return "".join(batch)


@pytest.mark.parametrize("processor", [generates, forgets_one, forgets_to_await, answers_in_a_text])
async def test_an_answer_of_no_sense_fails_each_item_once_and_the_queue_goes_on(
    processor: Callable[[Batch[Any]], Awaitable[Any]], autojump_clock: Clock
) -> None:
    errors = list[Exception]()
    retry = RetryPolicy(3, backoff=Backoff(schedule=[1]))
    hooks: Hooks[Any, Any] = Hooks(on_error=errors.append)
    async with batched(processor, batch_size=2, retry=retry, hooks=hooks) as queue:
        for _ in range(2):
            for entry in await queue.enqueue_many("ab"):
                with pytest.raises(ContractError):
                    await entry.result()
        assert (queue.stats().failed, queue.stats().batches) == (4, 2)
    assert [type(error) for error in errors] == [ContractError] * 2


async def test_an_early_verdict_that_is_none_is_refused_and_fails_no_one(
    autojump_clock: Clock,
) -> None:
    refused: list[str] = []

    async def processor(batch: Batch[str]) -> None:
        settle: Any = batch.settle
        for bad in ("done", None, True, ValueError("no"), {"success": True}):
            with pytest.raises(TypeError, match=r"an item is settled with a Result, .* got ") as no:
                settle(0, bad)
            refused.append(str(no.value))
        with pytest.raises(IndexError):
            batch.succeed(1)

    async with batched(processor, flush_interval=0) as queue:
        await queue.process("a")
    assert len(refused) == 5


async def test_a_check_that_is_async_is_refused() -> None:
    with pytest.raises(OptionError, match="retryable"):
        RetryPolicy(retryable=asynchronous)  # type: ignore[arg-type]


async def test_numbers_of_things_are_no_times(autojump_clock: Clock) -> None:
    async with batched(echo, flush_interval=0) as queue:
        entry = await queue.enqueue("a")
        for bad in (-1, NAN, "1", True):
            for call in (queue.flush, queue.drain):
                with pytest.raises(OptionError, match=r"timeout must be a number of seconds"):
                    await call(bad)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await queue.enqueue_many(5)  # type: ignore[arg-type]
        await trio.sleep(1)
        assert await entry.result() == "a"
    assert queue.stats().enqueued == 1


# ---- The wrong event loop


async def test_a_queue_entered_under_asyncio_says_what_to_write() -> None:
    queue = Queue(echo)

    def enter() -> None:
        asyncio.run(queue.__aenter__())

    with pytest.raises(RuntimeError, match=r"^a queue runs under trio; .*Portal\(queue\)"):
        await trio.to_thread.run_sync(enter)
    async with queue:  # nothing was left half begun
        assert await queue.process(1) == 1
