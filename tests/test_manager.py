"""The manager: which store, when it is opened, and the blocks in which queues work."""

from __future__ import annotations

import asyncio
import re
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from batchq import JobState, OptionError, QueueManager, StoreBroken
from batchq.bridge import LoopThread
from batchq.core.job import Group
from batchq.errors import StoreError
from tests.jobs import Hops, WatchedStore, jobs_in, nothing_is_leased, store_of

# ---- Which store


@pytest.mark.parametrize("given", [None, "sqlite:///given.db"])
@pytest.mark.parametrize("named", [None, "sqlite:///named.db"])
def test_the_store_is_the_one_given_else_the_environments_else_a_file_here(
    given: str | None, named: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BATCHQ_URL", raising=False)
    manager = QueueManager(given)
    assert list(tmp_path.iterdir()) == []  # nothing is opened before it is needed
    if named is not None:
        monkeypatch.setenv("BATCHQ_URL", named)
    url = given or named or "sqlite:///batchq.db"
    assert store_of(manager).info().location.endswith(url.rpartition("/")[2])
    manager.close()


def test_a_store_that_cannot_be_opened_says_so_to_each_who_tries(tmp_path: Path) -> None:
    manager = QueueManager(f"sqlite:///{tmp_path}/missing/jobs.db")

    @manager.handler
    def work() -> None: ...

    for _ in range(2):
        with pytest.raises(StoreError):
            work.enqueue_sync()
        with pytest.raises(StoreError):
            manager.start_workers()
    (tmp_path / "missing").mkdir()
    assert work.enqueue_sync().id == 1
    manager.close()


@pytest.mark.parametrize(
    ("store", "message"),
    [
        ("letters.db", "did you mean 'sqlite:///letters.db'"),
        ("sqlite:/jobs.db", "must be one of"),
        ("redis://here", "not available in this version"),
        (Path("jobs.db"), "must be a URL or an open store"),
    ],
)
def test_what_names_no_store_is_refused_at_once(store: Any, message: str) -> None:  # noqa: ANN401 - anything
    with pytest.raises(OptionError, match=re.escape(message)):
        QueueManager(store)


def test_closing_is_idempotent_and_the_next_use_opens_anew(tmp_path: Path) -> None:
    manager = QueueManager(f"sqlite:///{tmp_path}/jobs.db")

    @manager.handler
    def work() -> int:
        return 7

    manager.close()
    first = work.enqueue_sync()
    manager.close()
    manager.close()
    assert first.refresh_sync() is JobState.PENDING
    manager.start_workers()
    assert first.result_sync(10) == 7
    manager.stop_workers()
    manager.close()


def test_a_store_in_use_is_not_closed(tmp_path: Path) -> None:
    manager = QueueManager(f"sqlite:///{tmp_path}/jobs.db")

    @manager.handler
    def work() -> int:
        return 7

    async def main() -> None:
        async with manager, manager:
            with pytest.raises(RuntimeError, match="leave the blocks"):
                manager.close()
        manager.close()
        async with manager.working():
            with pytest.raises(RuntimeError, match="leave the blocks"):
                manager.close()
            assert await (await work.enqueue()).result(10) == 7

    trio.run(main)
    manager.start_workers()
    with pytest.raises(RuntimeError, match=r"stop_workers\(\), then close\(\)"):
        manager.close()
    manager.stop_workers()
    manager.close()


def test_the_store_is_opened_once_by_many_threads_and_never_in_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = list[str]()
    manager = QueueManager(f"sqlite:///{tmp_path}/jobs.db")
    make = manager._ledgers.make

    def slowly() -> Any:  # noqa: ANN401 - a ledger
        opened.append(threading.current_thread().name)
        threading.Event().wait(0.1)
        return make()

    manager._ledgers.make = slowly

    @manager.handler
    async def work() -> None: ...

    async def main() -> None:
        ticks = 0
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(work.enqueue)
            for _ in range(20):
                await trio.sleep(0.005)
                ticks += 1
        assert ticks == 20

    threads = [threading.Thread(target=work.enqueue_sync) for _ in range(5)]
    for thread in threads:
        thread.start()
    trio.run(main)
    for thread in threads:
        thread.join()
    assert len(opened) == 1
    assert threading.main_thread().name not in opened
    assert len(jobs_in(manager)) == 10
    manager.close()


# ---- Blocks


async def test_only_the_chosen_queues_work_with_the_concurrency_given(
    autojump_clock: MockClock,
) -> None:
    manager, running = QueueManager(WatchedStore()), dict[str, int]()
    most = dict[str, int]()

    def handler(name: str) -> Any:  # noqa: ANN401 - a handler
        @manager.handler(name=name, concurrency=4)
        async def work() -> None:
            running[name] = running.get(name, 0) + 1
            most[name] = max(most.get(name, 0), running[name])
            await trio.sleep(1)
            running[name] -= 1

        return work

    for work in [handler(name) for name in "abc"]:
        for _ in range(6):
            await work.enqueue()
    async with manager.working({"a": 2, "b": None}):
        await trio.sleep(10)
    assert most == {"a": 2, "b": 4}
    async with manager.working("c"):
        await trio.sleep(10)
    assert most == {"a": 2, "b": 4, "c": 4}


async def test_a_handler_that_nothing_would_run_is_refused(autojump_clock: MockClock) -> None:
    manager = QueueManager("memory:")
    manager.queue("shared")

    async def work() -> None: ...

    manager.handler(work)
    manager.handler(queue="shared", name="first")(work)
    async with manager.working():
        with pytest.raises(RuntimeError, match="register it before working"):
            manager.handler(name="late")(work)
    async with manager.working(["shared"]):
        with pytest.raises(RuntimeError, match="would never run this one"):
            manager.handler(queue="shared", name="second")(work)
        manager.handler(name="of_others")(work)  # another process may work on it
    manager.handler(name="late")(work)
    assert set(manager._registry.handlers) == {"work", "first", "of_others", "late"}


def test_annotations_that_mean_nothing_are_refused_when_work_begins() -> None:
    manager = QueueManager("memory:")

    def work(what: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    manager.handler(work)
    said = f"^module '{__name__}': work is annotated with 'Missing', which is not defined"
    for begin in (manager.working, manager.run, manager.start_workers):
        with pytest.raises(OptionError, match=said):
            begin()


def test_run_is_for_the_main_thread_and_says_what_else_to_write(tmp_path: Path) -> None:
    manager = QueueManager(f"sqlite:///{tmp_path}/jobs.db")

    @manager.handler
    def work() -> None: ...

    found = list[Exception]()

    def run() -> None:
        try:
            manager.run()
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    [error] = found
    assert isinstance(error, RuntimeError)
    assert "main thread only; in another one write start_workers()" in str(error)
    manager.start_workers()  # nothing was left half begun
    manager.stop_workers()
    manager.close()


def test_run_is_refused_in_an_event_loop_which_it_would_block(tmp_path: Path) -> None:
    manager = QueueManager(f"sqlite:///{tmp_path}/jobs.db")

    @manager.handler
    def work() -> None: ...

    async def run() -> None:
        manager.run(on_start=lambda _: signal.raise_signal(signal.SIGINT))

    with pytest.raises(RuntimeError, match=r"block the event loop .* manager\.working\(\)"):
        asyncio.run(run())
    manager.close()


def test_one_manager_serves_many_runs_of_trio_and_of_asyncio() -> None:
    manager, seen = QueueManager("memory:"), list[int]()

    @manager.handler
    async def work(number: int) -> int:
        seen.append(number)
        return number

    async def main(number: int) -> None:
        async with manager.working():
            assert await (await work.enqueue(number)).result(5) == number

    for number in range(3):
        trio.run(main, number)
        asyncio.run(main(number + 10))
        manager.start_workers()
        assert work.enqueue_sync(number + 20).result_sync(5) == number + 20
        manager.stop_workers()
    assert sorted(seen) == [0, 1, 2, 10, 11, 12, 20, 21, 22]
    assert nothing_is_leased(manager)
    assert manager._ledgers.get()._queues == {}


def test_blocks_in_two_threads_work_at_once(tmp_path: Path) -> None:
    manager, seen = QueueManager(f"sqlite:///{tmp_path}/jobs.db"), list[int]()

    @manager.batch_handler(batch_size=5, flush_interval=0.01)
    async def work(items: list[int]) -> None:
        seen.extend(items)
        await trio.sleep(0.002)

    async def main(first: int) -> None:
        async with manager.working():
            jobs = [await work.enqueue(number) for number in range(first, first + 50)]
            for job in jobs:
                await job.result(20)

    threads = [threading.Thread(target=trio.run, args=(main, first)) for first in (0, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == [*range(50), *range(100, 150)]
    assert {job.used for job in jobs_in(manager)} == {1}
    assert nothing_is_leased(manager)
    manager.close()


async def test_two_blocks_in_one_loop_may_overlap(autojump_clock: MockClock) -> None:
    manager, seen = QueueManager(WatchedStore()), list[int]()

    @manager.handler
    async def work(number: int) -> None:
        seen.append(number)

    async def block(begin: float, end: float) -> None:
        await trio.sleep(begin)
        async with manager, manager.working():
            await work.enqueue(int(begin))
            await trio.sleep(end - begin)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(block, 0, 5)
        nursery.start_soon(block, 1, 9)
        nursery.start_soon(block, 3, 4)
    assert sorted(seen) == [0, 1, 3]
    assert nothing_is_leased(manager)


async def test_producers_in_several_tasks_may_each_have_a_block(
    autojump_clock: MockClock,
) -> None:
    hops = Hops(takes=1)
    manager = QueueManager(WatchedStore(), run_sync=hops)

    @manager.handler
    async def work(number: int) -> None: ...

    async def produce(number: int) -> None:
        async with manager:
            await work.enqueue(number)
            async with manager:
                await trio.sleep(number % 3)
            await work.enqueue(number)

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(produce, number)
    assert len(jobs_in(manager)) == 12
    assert manager._blocks == {}


def test_workers_are_started_once_and_may_be_stopped_twice() -> None:
    manager = QueueManager("memory:")

    @manager.handler
    def work() -> int:
        return 7

    manager.stop_workers()
    manager.start_workers()
    with pytest.raises(RuntimeError, match=r"started already; stop_workers\(\) ends them"):
        manager.start_workers()
    assert work.enqueue_sync().result_sync(5) == 7
    manager.stop_workers()
    manager.stop_workers()


def test_workers_whose_start_was_interrupted_can_be_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manager = QueueManager("memory:")

    @manager.handler
    def work() -> int:
        return 7

    def interrupted(portal: LoopThread) -> None:
        start(portal)
        raise KeyboardInterrupt  # as Ctrl-C would

    start = LoopThread.start
    with monkeypatch.context() as patch:
        patch.setattr(LoopThread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            manager.start_workers()
    with pytest.raises(RuntimeError, match="started already"):
        manager.start_workers()
    assert work.enqueue_sync().result_sync(5) == 7
    manager.stop_workers()
    manager.start_workers()
    manager.stop_workers()


def test_what_ended_the_workers_comes_out_when_they_are_stopped() -> None:
    store = WatchedStore(clock=None)
    manager, met = QueueManager(store, poll_interval=0.01), threading.Event()

    @manager.handler
    def work() -> None: ...

    def broken(_: object) -> Exception:
        met.set()
        return StoreBroken("failed fsync")

    manager.start_workers()
    store.refuses = broken
    assert met.wait(5)
    with pytest.raises(StoreBroken, match="failed fsync"):
        manager.stop_workers()
    manager.stop_workers()


# ---- Under asyncio


def test_a_cancelled_enqueue_wakes_the_workers_of_what_it_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = WatchedStore(clock=None)
    manager = QueueManager(store, poll_interval=60)
    began, go, ran = threading.Event(), threading.Event(), threading.Event()

    @manager.handler
    def work() -> None:
        ran.set()

    def slow(group: Group) -> None:
        if group.enqueue:
            began.set()
            go.wait(10)

    async def main() -> None:
        store.refuses = slow
        storing = asyncio.ensure_future(work.enqueue())
        await asyncio.to_thread(began.wait, 10)
        storing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await storing
        go.set()
        assert await asyncio.to_thread(ran.wait, 10)

    manager.start_workers()
    asyncio.run(main())
    manager.stop_workers()


def test_a_block_cancelled_under_asyncio_leaves_nothing_at_work(tmp_path: Path) -> None:
    manager = QueueManager(f"sqlite:///{tmp_path}/jobs.db")

    @manager.handler
    async def work(number: int) -> None:
        await trio.sleep(0.3)

    async def block() -> None:
        async with manager.working():
            await work.enqueue(1)
            await asyncio.sleep(60)

    async def main() -> None:
        for moment in (0.0, 0.001, 0.005, 0.02, 0.1):
            task = asyncio.ensure_future(block())
            await asyncio.sleep(moment)
            task.cancel()
            await asyncio.sleep(0.001)
            task.cancel()  # who is in a hurry says it twice
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not [each for each in threading.enumerate() if each.name == "batchq"]

    asyncio.run(main())
    assert nothing_is_leased(manager)
    manager.close()


def test_an_error_of_the_body_comes_out_under_asyncio() -> None:
    manager = QueueManager("memory:")

    @manager.handler
    async def work() -> None: ...

    async def block() -> None:
        async with manager.working():
            raise ValueError("the body's")

    with pytest.raises(ValueError, match="the body's"):
        asyncio.run(block())
