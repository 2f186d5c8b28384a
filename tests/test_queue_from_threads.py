"""Callers in plain threads: each is answered, however the queue ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio

from batchq import BatchedQueue, QueueClosed
from batchq.core.batch import Batch
from tests.calls import batched, echo


async def test_a_thread_of_the_processor_cannot_wait_for_an_item_of_its_own_queue() -> None:
    refused: list[str] = []

    async def processor(batch: Batch[str]) -> None:
        for abandon in (False, True):
            with pytest.raises(RuntimeError, match="own processor"), trio.fail_after(5):
                await trio.to_thread.run_sync(queue.process_sync, "b", abandon_on_cancel=abandon)
            refused.append(batch[0])

    async with batched(processor, batch_size=1) as queue:
        await queue.process("a")
    assert refused == ["a", "a"]


async def test_a_plain_thread_hands_items_over_and_gets_its_own_value() -> None:
    async with batched(echo, flush_interval=0) as queue:
        assert await trio.to_thread.run_sync(queue.process_sync, 21) == 21
        entry = await trio.to_thread.run_sync(queue.enqueue_sync, 5)
        assert await entry.result() == 5
        with pytest.raises(RuntimeError, match="would block trio's thread"):
            queue.process_sync(1)
    with pytest.raises(QueueClosed):
        await trio.to_thread.run_sync(queue.enqueue_sync, 5)


async def hang(_: Batch[Any]) -> None:
    await trio.sleep_forever()


async def crash(_: Batch[Any]) -> None:
    await trio.sleep(0.01)
    raise SystemExit("the processor ends it all")


@pytest.mark.parametrize("started", [True, False])
async def test_a_cancelled_queue_tells_the_threads_that_its_block_waits_for(
    *, started: bool
) -> None:
    told: list[Exception] = []
    with trio.fail_after(10), trio.CancelScope() as outside:
        async with batched(hang, flush_interval=0 if started else 3600) as queue:
            await _in_a_thread(queue.process_sync, told, outside.cancel, queue)
    assert outside.cancelled_caught
    assert [type(error) for error in told] == [QueueClosed]
    assert "process_sync(): the queue ended" in str(told[0])
    assert queue.stats().pending == queue.stats().in_flight == 0


async def test_a_thread_that_comes_after_the_cancellation_is_refused() -> None:
    told: list[Exception] = []

    def call(item: str) -> object:
        trio.from_thread.run_sync(outside.cancel)
        trio.from_thread.run(trio.sleep, 0, trio_token=token)  # until the queue has seen it
        trio.from_thread.run(trio.sleep, 0, trio_token=token)
        return queue.enqueue_sync(item)

    token = trio.lowlevel.current_trio_token()
    with trio.fail_after(10), trio.CancelScope() as outside:
        async with batched(hang) as queue:
            await _in_a_thread(call, told, lambda: None, queue)
    assert [type(error) for error in told] == [QueueClosed]


async def test_a_crashed_queue_tells_the_threads_that_its_block_waits_for() -> None:
    told: list[Exception] = []
    with trio.fail_after(10), pytest.raises(SystemExit):
        async with batched(crash, flush_interval=0) as queue:
            await _in_a_thread(queue.process_sync, told, lambda: None, queue)
    assert [type(error) for error in told] == [QueueClosed]


async def _in_a_thread(
    call: Callable[[str], object],
    told: list[Exception],
    then: Callable[[], object],
    queue: BatchedQueue[Any, Any],
) -> None:
    """Let a thread make a call; once its item is in, do `then`; wait for the thread."""

    def work() -> None:
        try:
            call("a")
        except Exception as error:
            told.append(error)

    async def interrupt() -> None:
        while not queue.stats().enqueued:  # noqa: ASYNC110 - the thread is not to be told
            await trio.sleep(0.01)
        then()

    async with trio.open_nursery() as nursery:
        if call == queue.process_sync:
            nursery.start_soon(interrupt)
        await trio.to_thread.run_sync(work)
