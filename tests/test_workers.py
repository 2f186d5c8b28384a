"""Queues at work in one event loop: their order of start and stop, whatever ends them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import outcome
import pytest
import trio
from trio.testing import MockClock

from batchq.workers import Workers, Works


class Queue:
    """A queue that says what happens to it.

    `fails` says when it ends by itself: never, before it has started, or later.
    """

    def __init__(self, name: str, log: list[str], *, fails: str = "", takes: float = 1.0) -> None:
        self.name, self.log, self.fails, self.takes = name, log, fails, takes
        self.stopping = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        if self.fails == "at once":
            raise ValueError(self.name)
        await trio.lowlevel.checkpoint()
        task_status.started()
        self.log.append(f"{self.name} works")
        if self.fails == "later":
            await trio.sleep(2)
            raise ValueError(self.name)
        await self.stopping.wait()
        await trio.sleep(self.takes)
        self.log.append(f"{self.name} ends")

    def stop(self, grace: float) -> None:
        self.log.append(f"{self.name} is stopped within {grace:g}")
        self.stopping.set()


def workers(log: list[str], queues: Sequence[Works]) -> Workers:
    return Workers(lambda: queues, None, 3, partial(forget, log))


async def forget(log: list[str], takes: float = 0.0) -> None:
    try:
        await trio.sleep(takes)
    finally:
        log.append("forgotten")


async def test_all_are_started_in_turn_and_stopped_together(autojump_clock: MockClock) -> None:
    log = list[str]()
    async with workers(log, [Queue("a", log), Queue("b", log, takes=2)]):
        assert log == ["a works", "b works"]
        log.clear()
    assert trio.current_time() == 2.0
    assert log == [
        "a is stopped within 3",
        "b is stopped within 3",
        "a ends",
        "b ends",
        "forgotten",
    ]


@pytest.mark.parametrize("how", ["raises", "is cancelled", "was cancelled before"])
async def test_no_queue_is_cut_off_when_the_block_ends_badly(
    how: str, autojump_clock: MockClock
) -> None:
    log = list[str]()

    async def block() -> None:
        with trio.CancelScope() as scope:
            if how == "was cancelled before":
                scope.cancel()
            async with workers(log, [Queue("a", log), Queue("b", log)]):
                scope.cancel()
                if how == "raises":
                    raise OSError("the body's")
                await trio.sleep_forever()

    if how == "raises":
        with pytest.raises(OSError, match="the body's"):
            await block()
    else:
        await block()
    assert log[-3:] == ["a ends", "b ends", "forgotten"] or log[-3:] == [
        "b ends",
        "a ends",
        "forgotten",
    ]


async def test_a_queue_that_ends_by_itself_ends_the_block_and_the_others_in_order(
    autojump_clock: MockClock,
) -> None:
    log = list[str]()

    async def block() -> None:
        async with workers(log, [Queue("a", log), Queue("b", log, fails="later")]):
            await trio.sleep_forever()

    with pytest.raises(ValueError, match="b"):
        await block()
    assert trio.current_time() == 3.0
    assert log[-2:] == ["a ends", "forgotten"]


async def test_when_one_cannot_start_those_that_have_are_stopped(
    autojump_clock: MockClock,
) -> None:
    log = list[str]()

    async def block() -> None:
        async with workers(log, [Queue("a", log), Queue("b", log, fails="at once")]):
            raise AssertionError("entered")

    with pytest.raises(ValueError, match="b"):
        await block()
    assert log[-2:] == ["a ends", "forgotten"]


async def test_when_they_cannot_be_made_nothing_is_left(autojump_clock: MockClock) -> None:
    log = list[str]()

    def make() -> Sequence[Works]:
        raise ValueError("no queues")

    async def block() -> None:
        async with Workers(make, None, 3, partial(forget, log)):
            raise AssertionError("entered")

    with pytest.raises(ValueError, match="no queues"):
        await block()
    assert log == ["forgotten"]


@pytest.mark.parametrize(("takes", "ends"), [(2.0, 3.0), (3.75, 4.0)])
async def test_what_is_done_at_the_end_keeps_nobody_longer_than_the_grace_and_a_second(
    takes: float, ends: float, autojump_clock: MockClock
) -> None:
    log = list[str]()
    queues = [Queue("a", log, takes=takes)]
    async with Workers(lambda: queues, None, 3, partial(forget, log, 100)):
        pass
    assert trio.current_time() == ends
    assert log[-2:] == ["a ends", "forgotten"]


async def test_a_ctrl_c_while_it_stops_ends_the_grace_and_comes_out_by_itself(
    autojump_clock: MockClock,
) -> None:
    log = list[str]()
    block = workers(log, [Queue("a", log, takes=100)])
    interrupt = outcome.Error(KeyboardInterrupt())

    async def press(task: trio.lowlevel.Task) -> None:
        await trio.sleep(1)
        trio.lowlevel.reschedule(task, interrupt)  # as a Ctrl-C, where the main task waits
        block._ended = trio.Event()

    async with trio.open_nursery() as nursery:
        with pytest.raises(KeyboardInterrupt):
            async with block:
                nursery.start_soon(press, trio.lowlevel.current_task())
    assert log[1:] == ["a is stopped within 3", "a is stopped within 0", "a ends", "forgotten"]
