"""A queue in a thread of its own, for plain threads and for asyncio: real threads, real time."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import trio

from batchq import BatchedQueue, EntryStatus, ItemError, QueueClosed, QueueFull, Result
from batchq.core.batch import Batch
from batchq.portal import Portal


class Doubling(BatchedQueue[int, int]):
    """Doubles what it is given; -1 is an error, -2 ends the process."""

    name = "doubling"
    batch_size = 8
    flush_interval = 0.01
    concurrency = 4

    def __init__(self, **options: float) -> None:
        super().__init__(**options)  # type: ignore[arg-type]  # numbers, as each test says
        self.seen: list[list[int]] = []

    async def process_batch(self, batch: Batch[int]) -> list[object]:
        self.seen.append(list(batch))
        if -2 in batch:
            raise SystemExit(3)
        return [ValueError("no") if n == -1 else Result.ok(2 * n) for n in batch]


@pytest.fixture
def queue() -> Doubling:
    return Doubling()


@pytest.fixture
def portal(queue: Doubling) -> Iterator[Portal[int, int]]:
    with Portal(queue) as portal:
        yield portal


# Threads.


def test_a_blocking_call_returns_its_own_value(portal: Portal[int, int]) -> None:
    assert portal.process_sync(21) == 42


def test_threads_share_batches_and_each_gets_its_own_value(queue: Doubling) -> None:
    with Portal(queue) as portal, ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(portal.process_sync, range(64)))
    assert answers == [2 * n for n in range(64)]
    assert len(queue.seen) < 64


def test_an_error_keeps_its_type(portal: Portal[int, int]) -> None:
    with pytest.raises(ValueError, match="no"):
        portal.process_sync(-1)


def test_what_is_no_exception_comes_as_an_item_error() -> None:
    async def refuse(batch: Batch[int]) -> list[Result[int]]:
        return [Result.fail("no")] * len(batch)

    with (
        Portal(BatchedQueue[int, int](refuse, flush_interval=0)) as portal,
        pytest.raises(ItemError),
    ):
        portal.process_sync(1)


def test_enqueue_returns_at_admission(queue: Doubling) -> None:
    with Portal(Doubling(flush_interval=float("inf"))) as portal:
        entry = portal.enqueue_sync(1)
        assert not entry.settled
        assert portal.call(entry.cancel)
    assert entry.status is EntryStatus.CANCELLED


def test_a_full_queue_refuses_as_it_does_under_trio() -> None:
    queue = BatchedQueue[int, None](
        Doubling().process_batch,
        batch_size=1,
        flush_interval=None,
        max_queue_size=1,
        drop_policy="reject-new",
    )
    with Portal(queue) as portal:
        portal.call(queue.pause)
        portal.enqueue_sync(1)
        with pytest.raises(QueueFull):
            portal.enqueue_sync(2)


def test_a_call_may_say_more_of_its_item() -> None:
    queue = Doubling(flush_interval=float("inf"))
    with Portal(queue) as portal:
        portal.enqueue_sync(1, delay=0.05, partition="a")
        portal.enqueue_sync(2, partition="b")
        assert portal.call(queue.stats).delayed == 1
    assert sorted(queue.seen) == [[1], [2]]


def test_leaving_the_block_drains() -> None:
    queue = Doubling(flush_interval=float("inf"))
    with Portal(queue) as portal:
        entries = [portal.enqueue_sync(n) for n in range(3)]
    assert queue.seen == [[0, 1, 2]]
    assert {entry.status for entry in entries} == {EntryStatus.SUCCEEDED}


def test_a_call_that_waits_while_the_block_is_left_gets_its_value() -> None:
    queue = Doubling(flush_interval=float("inf"))
    with ThreadPoolExecutor(1) as threads, Portal(queue) as portal:
        answer = threads.submit(portal.process_sync, 4)
        while not portal.call(queue.stats).pending:
            pass
    assert answer.result() == 8


def test_an_error_in_the_block_ends_the_queue_without_a_drain() -> None:
    queue = Doubling(flush_interval=float("inf"))
    portal = Portal(queue)
    entries = []

    def use() -> None:
        with portal:
            entries.append(portal.enqueue_sync(1))
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        use()
    assert queue.seen == []
    assert entries[0].status is EntryStatus.CLOSED


def test_a_portal_that_is_not_open_says_so(queue: Doubling) -> None:
    portal = Portal(queue)
    with pytest.raises(QueueClosed, match="'doubling' is not open"):
        portal.process_sync(1)
    with portal:
        pass
    with pytest.raises(QueueClosed, match="'doubling' is not open"):
        portal.process_sync(1)


def test_a_portal_is_entered_once(queue: Doubling) -> None:
    portal = Portal(queue)
    with portal:
        pass
    with pytest.raises(RuntimeError, match="make a new one"), portal:
        pass


def test_a_call_reaches_the_rest_of_the_queue(queue: Doubling) -> None:
    with Portal(queue) as portal:
        portal.enqueue_sync(1)
        portal.call(queue.wait_idle)
        assert portal.call(queue.stats).succeeded == 1
        with pytest.raises(KeyError):
            portal.call({}.popitem)


def test_an_interrupted_call_takes_its_item_back() -> None:
    queue = Doubling(flush_interval=float("inf"))
    main = threading.main_thread().ident
    assert main is not None
    with Portal(queue) as portal:
        interrupt = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT))
        interrupt.start()
        with pytest.raises(KeyboardInterrupt):
            portal.process_sync(1)
        assert portal.call(queue.stats).cancelled == 1
    assert queue.seen == []


def test_callers_of_a_queue_that_crashes_are_told(queue: Doubling) -> None:
    portal = Portal(queue)

    def use() -> None:
        with portal:
            for item in (-2, 1):
                with pytest.raises(QueueClosed):
                    portal.process_sync(item)

    with pytest.raises(SystemExit):
        use()


def test_a_call_that_outlives_the_queue_is_told(queue: Doubling) -> None:
    with ThreadPoolExecutor(1) as threads:
        began = threading.Event()

        async def for_ever() -> None:
            began.set()
            await trio.sleep_forever()

        with Portal(queue) as portal:
            waits = threads.submit(portal.call, for_ever)
            began.wait()
        with pytest.raises(QueueClosed):
            waits.result()


def test_a_forked_child_is_told_to_make_its_own() -> None:
    script = """
        import os, warnings
        from batchq import BatchedQueue
        from batchq.portal import Portal

        async def echo(batch):
            return list(batch)

        warnings.simplefilter("ignore")  # newer Pythons warn of forks beside threads
        with Portal(BatchedQueue(echo, flush_interval=0)) as portal:
            child = os.fork()
            if not child:
                try:
                    portal.process_sync(1)
                except RuntimeError as error:
                    print(error, flush=True)
                os._exit(0)
            os.waitpid(child, 0)
            print(portal.process_sync(1))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[0].endswith("make the portal after the fork")
    assert done.stdout.splitlines()[1] == "1"


# asyncio.


def test_tasks_of_asyncio_share_batches_and_each_gets_its_own_value(queue: Doubling) -> None:
    async def main() -> list[int]:
        async with Portal(queue) as portal:
            return await asyncio.gather(*(portal.process(n) for n in range(64)))

    assert asyncio.run(main()) == [2 * n for n in range(64)]
    assert len(queue.seen) < 64


def test_an_error_keeps_its_type_under_asyncio(queue: Doubling) -> None:
    async def main() -> None:
        async with Portal(queue) as portal:
            await portal.process(-1)

    with pytest.raises(ValueError, match="no"):
        asyncio.run(main())


def test_cancelling_in_asyncio_takes_the_item_back() -> None:
    queue = Doubling(flush_interval=float("inf"))

    async def main() -> None:
        async with Portal(queue) as portal:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(portal.process(1), 0.05)
            assert (await asyncio.to_thread(portal.call, queue.stats)).cancelled == 1
            entry = await portal.enqueue(2)
        assert entry.status is EntryStatus.SUCCEEDED

    asyncio.run(main())
    assert queue.seen == [[2]]


def test_the_loop_of_asyncio_goes_on_while_the_block_is_left() -> None:
    class Slow(Doubling):
        async def process_batch(self, batch: Batch[int]) -> list[object]:
            await trio.sleep(0.2)
            return await super().process_batch(batch)

    ticks: list[None] = []

    async def tick() -> None:
        while True:
            await asyncio.sleep(0.01)
            ticks.append(None)

    async def main() -> int:
        task = asyncio.create_task(tick())
        async with Portal(Slow()) as portal:
            entry = await portal.enqueue(1)
        task.cancel()
        return entry.value()

    assert asyncio.run(main()) == 2
    assert len(ticks) > 3


def test_what_would_block_an_event_loop_is_refused(portal: Portal[int, int]) -> None:
    async def main() -> None:
        for call in (portal.process_sync, portal.enqueue_sync):
            with pytest.raises(RuntimeError, match="await portal"):
                call(1)
        with pytest.raises(RuntimeError, match="to_thread"):
            portal.call(int)
        with pytest.raises(RuntimeError, match="async with"), Portal(Doubling()):
            pass

    asyncio.run(main())
    trio.run(main)


async def test_under_trio_the_queue_itself_is_used(queue: Doubling) -> None:
    portal = Portal(queue)
    with pytest.raises(RuntimeError, match="use the queue itself"):
        await portal.process(1)
    with pytest.raises(RuntimeError, match="use the queue itself"):
        async with portal:
            pass


@pytest.mark.parametrize("wrong", [None, 3, print, BatchedQueue])
def test_what_is_no_queue_is_refused_at_once(wrong: Any) -> None:  # noqa: ANN401 - as a user errs
    with pytest.raises(TypeError, match="takes a queue that is not entered yet"):
        Portal(wrong)
