"""The ready-made queues: items one by one, at a rate, in batches."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from batchq import OptionError, Result
from batchq.shortcuts import batch_queue, in_memory_queue, rate_limited_queue
from batchq.testing import ScriptedProcessor

Clock = trio.testing.MockClock


async def double(number: int) -> int:
    await trio.sleep(1)
    return 2 * number


async def test_items_are_worked_on_one_by_one_up_to_the_concurrency(autojump_clock: Clock) -> None:
    async with in_memory_queue(double, concurrency=2) as queue:
        entries = await queue.enqueue_many([1, 2, 3])
        assert [await entry.result() for entry in entries] == [2, 4, 6]
    assert trio.current_time() == 2


async def test_a_value_that_looks_like_a_verdict_is_a_value() -> None:
    async def look(_: int) -> dict[str, bool]:
        return {"success": False}

    async with in_memory_queue(look) as queue:
        assert await queue.process(1) == {"success": False}


async def test_a_result_decides_and_an_error_is_the_item_s_own() -> None:
    async def judge(number: int) -> Any:  # noqa: ANN401 - a Result decides, and is no value
        if not number:
            raise ZeroDivisionError
        return Result.ok(number) if number > 0 else Result.discard(ValueError("negative"))

    async with in_memory_queue(judge) as queue:
        assert await queue.process(1) == 1
        with pytest.raises(ValueError, match="negative"):
            await queue.process(-1)
        with pytest.raises(ZeroDivisionError):
            await queue.process(0)


async def test_no_window_holds_more_than_the_limit(autojump_clock: Clock) -> None:
    starts: list[float] = []

    async def call(_: int) -> None:
        starts.append(trio.current_time())

    async with rate_limited_queue(call, limit=2, per=60, concurrency=5) as queue:
        await queue.enqueue_many(range(5))
        await queue.wait_idle()
    assert starts == [0, 0, 60, 60, 120]


async def test_a_batch_queue_hands_over_batches(autojump_clock: Clock) -> None:
    processor = ScriptedProcessor()
    async with batch_queue(processor, batch_size=2) as queue:
        await queue.enqueue_many("abc")
        await queue.wait_idle()
    assert processor.timeline == [(0, ["a", "b"]), (1, ["c"])]


def test_what_contradicts_a_shortcut_is_refused() -> None:
    with pytest.raises(OptionError, match="batch_size must not be given"):
        in_memory_queue(double, batch_size=1)
    with pytest.raises(OptionError, match="limit"):
        rate_limited_queue(double, limit=0, per=60)
    with pytest.raises(TypeError, match="rate_limit"):
        rate_limited_queue(double, limit=1, per=60, rate_limit=None)


def test_work_that_is_not_async_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="work must be an async function"):
        in_memory_queue(lambda number: number)
    with pytest.raises(TypeError, match="work must be an async function"):
        rate_limited_queue(print, limit=1, per=1)  # type: ignore[arg-type]
