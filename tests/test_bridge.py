"""Ways in for threads and asyncio."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from batchq.bridge import (
    Bell,
    LoopThread,
    forbid_event_loop,
    in_trio,
    run_blocking,
    run_to_its_end,
)


def test_it_tells_which_event_loop_runs() -> None:
    async def here() -> bool:
        return in_trio()

    assert trio.run(here)
    assert not asyncio.run(here())
    with pytest.raises(RuntimeError):
        in_trio()


def test_blocking_is_forbidden_where_a_loop_runs_and_only_there() -> None:
    async def here() -> None:
        with pytest.raises(RuntimeError, match=r"f would block .* write await g"):
            forbid_event_loop("f", "await g")

    forbid_event_loop("f", "await g")
    trio.run(here)
    asyncio.run(here())


def test_a_blocking_call_runs_in_a_thread() -> None:
    async def main() -> None:
        assert await run_blocking(threading.get_ident) != threading.get_ident()

    trio.run(main)
    asyncio.run(main())


def test_under_asyncio_a_call_may_be_run_to_its_end_whoever_cancels() -> None:
    ended, go_on = list[str](), threading.Event()

    def call() -> None:
        go_on.wait(5)
        ended.append("call")

    async def main() -> None:
        task = asyncio.ensure_future(run_to_its_end(call))
        for _ in range(3):
            await asyncio.sleep(0.01)
            task.cancel()
        assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == ["call"]
        with pytest.raises(ZeroDivisionError):
            await run_to_its_end(lambda: 1 / 0)

    asyncio.run(main())


# ---- Bells


@pytest.mark.parametrize("loop", ["trio", "asyncio", "none"])
def test_a_bell_ends_the_wait_under_way_or_the_next_one(loop: str) -> None:
    bell = Bell()

    async def main() -> None:
        timer = threading.Timer(0.05, bell.ring)
        timer.start()
        assert await bell.wait(5)
        assert not await bell.wait(0.01)
        bell.ring()
        assert await bell.wait(0)
        timer.join()

    def blocking() -> None:
        timer = threading.Timer(0.05, bell.ring)
        timer.start()
        assert bell.wait_sync(5)
        assert not bell.wait_sync(0.01)
        bell.ring()
        assert bell.wait_sync(0)
        timer.join()

    if loop == "none":
        blocking()
    else:
        trio.run(main) if loop == "trio" else asyncio.run(main())
        bell.ring()  # nobody is there any more


# ---- Blocks in a thread of their own


class Block:
    """An async block that says when it was entered and left."""

    def __init__(
        self, *, entering: Exception | None = None, leaving: Exception | None = None
    ) -> None:
        self.entering, self.leaving = entering, leaving
        self.events = list[str]()

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[None]:
        await trio.lowlevel.checkpoint()
        if self.entering is not None:
            raise self.entering
        self.events.append("entered")
        try:
            yield
        finally:
            self.events.append("left")
        if self.leaving is not None:
            raise self.leaving


def test_a_thread_keeps_a_block_open_between_start_and_stop() -> None:
    block = Block()
    loop_thread = LoopThread(block)
    loop_thread.stop()  # not started: nothing to do
    loop_thread.start()
    assert block.events == ["entered"]
    with pytest.raises(RuntimeError, match="started before"):
        loop_thread.start()
    loop_thread.stop()
    assert block.events == ["entered", "left"]
    loop_thread.stop()


def test_what_entering_raises_is_raised_by_start_and_only_there() -> None:
    error = ValueError("no entry")
    loop_thread = LoopThread(Block(entering=error))
    with pytest.raises(ValueError, match="no entry") as caught:
        loop_thread.start()
    assert caught.value is error
    loop_thread.stop()


def test_what_leaving_raises_is_raised_by_stop_and_only_once() -> None:
    loop_thread = LoopThread(Block(leaving=ValueError("no exit")))
    loop_thread.start()
    with pytest.raises(ValueError, match="no exit"):
        loop_thread.stop()
    loop_thread.stop()


def test_a_block_that_cannot_be_made_is_raised_by_start() -> None:
    def make() -> Block:
        raise KeyboardInterrupt

    loop_thread = LoopThread(make)  # type: ignore[arg-type]  # it never makes one
    with pytest.raises(KeyboardInterrupt):
        loop_thread.start()


def test_what_ends_a_block_by_itself_is_logged_at_once(caplog: pytest.LogCaptureFixture) -> None:
    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as scope:  # noqa: ASYNC100
            end.append(partial(token.run_sync_soon, scope.cancel))
            yield
        raise ValueError("broken")

    end = list[Callable[[], None]]()
    loop_thread = LoopThread(broken, name="mine")
    loop_thread.start()
    end[0]()
    deadline = time.monotonic() + 10
    while not caplog.records:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    [record] = caplog.records
    assert (record.levelname, record.exc_info is not None) == ("CRITICAL", True)
    assert "'mine'" in record.getMessage()
    assert loop_thread.unfinished
    with pytest.raises(ValueError, match="broken"):
        loop_thread.stop()
    assert not loop_thread.unfinished


def test_a_portal_whose_start_was_interrupted_can_be_stopped() -> None:
    block, go = Block(), threading.Event()

    class Interrupted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if not go.is_set():
                raise KeyboardInterrupt  # as Ctrl-C would
            return super().wait(timeout)

    loop_thread = LoopThread(block)
    loop_thread._entered = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        loop_thread.start()
    assert loop_thread.unfinished
    go.set()
    loop_thread.stop()
    assert (loop_thread.unfinished, block.events) == (False, ["entered", "left"])
