"""A queue with snapshots: what is saved, what comes back, and what a crash costs."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from batchq import (
    Backoff,
    BatchedQueue,
    DrainTimeout,
    EntryStatus,
    FileStorage,
    Hooks,
    Persistence,
    PersistenceError,
    Result,
    RetryPolicy,
    StorageInUse,
)
from batchq.testing import FaultyStorage, ScriptedProcessor

Clock = trio.testing.MockClock


class Watch:
    """Remembers what hooks were told."""

    def __init__(self) -> None:
        self.saved: list[int] = []
        self.restored: list[int] = []
        self.errors: list[Exception] = []
        self.enqueued: list[object] = []
        self.hooks = Hooks[Any, Any](
            on_state_saved=self.saved.append,
            on_state_restored=self.restored.append,
            on_error=self.errors.append,
            on_enqueue=self.enqueued.append,
        )


@pytest.fixture
def storage() -> FaultyStorage:
    return FaultyStorage()


@pytest.fixture
def watch() -> Watch:
    return Watch()


def kept(
    storage: object,
    processor: ScriptedProcessor | None = None,
    *,
    item_type: Any = Any,  # noqa: ANN401 - a type
    **options: Any,  # noqa: ANN401 - as each test says
) -> BatchedQueue[Any, Any]:
    """Make a queue that is saved, in batches of two, never by time."""
    persistence = Persistence(
        storage=storage,  # type: ignore[arg-type]
        save_interval=options.pop("save_interval", 60.0),
        item_type=item_type,
    )
    settings = {"name": "q", "batch_size": 2, "flush_interval": None, **options}
    return BatchedQueue(processor or ScriptedProcessor(), persistence=persistence, **settings)


async def crash(queue: BatchedQueue[Any, Any], storage: FaultyStorage) -> None:
    """End a queue without its last save."""
    await queue.save_state()
    storage.fail("save", times=1)


async def test_what_a_drain_leaves_is_saved_and_comes_back_in_order(
    autojump_clock: Clock, storage: FaultyStorage, watch: Watch
) -> None:
    """I25; the work in flight is in the snapshot, neither lost nor settled."""
    stuck = ScriptedProcessor(takes=1e6)

    async def live() -> None:
        async with kept(storage, stuck, shutdown_timeout=5, priority_levels=2) as queue:
            for item, priority in (("a", 1), ("b", 1), ("c", 1), ("d", 0)):
                await queue.enqueue(item, priority)
            await trio.sleep(1)
            assert queue.stats().in_flight == 2

    with pytest.raises(DrainTimeout):
        await live()
    assert len(storage.snapshots["q"]) == 4
    done = ScriptedProcessor()
    async with kept(storage, done, priority_levels=2, hooks=watch.hooks) as queue:
        assert queue.stats().restored == 4
        entry = await queue.enqueue("e", 1)
        assert entry.id == 5
    assert [call.items for call in done.calls] == [["d", "a"], ["b", "c"], ["e"]]
    assert watch.restored == [4]
    assert watch.enqueued == ["e"]
    assert storage.snapshots["q"] == []


async def test_a_queue_is_saved_within_its_interval_if_something_changed(
    autojump_clock: Clock, storage: FaultyStorage, watch: Watch
) -> None:
    async with kept(storage, hooks=watch.hooks) as queue:
        began = trio.current_time()
        await trio.sleep(100)
        await queue.enqueue("a")
        await trio.sleep(1000)
        assert storage.saves == [(began + 160, 1)]
        assert watch.saved == [1]


async def test_save_state_returns_what_was_saved(
    autojump_clock: Clock, storage: FaultyStorage
) -> None:
    async with kept(storage, save_interval=None) as queue:
        assert await queue.save_state() == 0
        await queue.enqueue("a")
        assert await queue.save_state() == 1


async def test_a_failing_save_is_its_caller_s_and_processing_goes_on(
    autojump_clock: Clock, storage: FaultyStorage, watch: Watch
) -> None:
    async with kept(storage, hooks=watch.hooks, flush_interval=0) as queue:
        storage.fail(times=2)
        with pytest.raises(PersistenceError, match="save was told to fail"):
            await queue.save_state()
        assert await queue.process("a") is None
        await trio.sleep(100)
    assert [type(error) for error in watch.errors] == [PersistenceError]


async def test_an_item_that_json_has_not_is_named_and_the_others_are_saved(
    autojump_clock: Clock, storage: FaultyStorage
) -> None:
    async with kept(storage, save_interval=None, batch_size=10) as queue:
        await queue.enqueue_many(["a", object()])
        with pytest.raises(PersistenceError, match="an item of type object"):
            await queue.save_state()
        assert len(storage.snapshots["q"]) == 1


async def test_a_crash_loses_what_came_since_the_last_save(
    autojump_clock: Clock, storage: FaultyStorage, watch: Watch
) -> None:
    with trio.CancelScope() as life:
        async with kept(storage, hooks=watch.hooks) as queue:
            entry = await queue.enqueue("a")
            await crash(queue, storage)
            await queue.enqueue("b", delay=1)
            life.cancel()
            await trio.sleep_forever()
    assert entry.status is EntryStatus.CLOSED
    async with kept(storage) as queue:
        assert queue.stats().restored == 1


async def test_a_cancelled_queue_is_saved_under_a_shield_for_at_most_its_save_timeout(
    autojump_clock: Clock, storage: FaultyStorage
) -> None:
    """C7."""
    for takes, saved in ((1.0, 1), (1e6, 0)):
        storage.takes, storage.snapshots = 0.0, {}
        with trio.CancelScope() as life:
            async with kept(storage, save_timeout=5.0) as queue:
                await queue.enqueue("a")
                storage.takes = takes
                began = trio.current_time()
                life.cancel()
                await trio.sleep_forever()
        assert trio.current_time() - began == min(takes, 5.0)
        assert len(storage.snapshots.get("q", [])) == saved


@pytest.mark.parametrize(
    ("shutdown_timeout", "drain_takes", "save_takes", "ends", "error"),
    [
        (30, 28, 1.0, 29, None),
        (30, 29.5, 1.0, 30.5, None),  # however little the drain has left
        (30, 28, 1e6, 33, None),
        (None, 28, 1e6, 33, None),
        (0, 0, 1.0, 1, None),
        (20, 28, 1.0, 21, DrainTimeout),
        (20, 28, 1e6, 25, DrainTimeout),
    ],
)
async def test_the_last_save_has_its_time_however_long_the_drain_took(
    autojump_clock: Clock,
    storage: FaultyStorage,
    watch: Watch,
    shutdown_timeout: float | None,
    drain_takes: float,
    save_takes: float,
    ends: float,
    error: type[Exception] | None,
) -> None:
    left: list[Any] = []

    async def live() -> None:
        limits: Any = {"shutdown_timeout": shutdown_timeout, "save_timeout": 5.0}
        processor = ScriptedProcessor(takes=drain_takes)
        async with kept(storage, processor, hooks=watch.hooks, **limits) as queue:
            if drain_takes:
                left.append(await queue.enqueue("a"))
            storage.takes = save_takes

    with nullcontext() if error is None else pytest.raises(error):
        await live()
    assert trio.current_time() == ends
    in_time = save_takes == 1.0
    assert watch.saved == ([len(left) if error else 0] if in_time else [])
    # A save that was given up is told of.
    assert [type(each) for each in watch.errors] == ([] if in_time else [PersistenceError])
    assert all(entry.settled for entry in left)


async def test_attempts_and_delays_survive_a_restart(
    autojump_clock: Clock, storage: FaultyStorage
) -> None:
    retry = RetryPolicy(max_retries=1, backoff=Backoff(initial_delay=10, jitter="none"))
    fails = ScriptedProcessor(then=lambda batch: [Result.fail("no")] * len(batch))

    async def live() -> None:
        async with kept(storage, fails, retry=retry, shutdown_timeout=0, flush_interval=0) as queue:
            await queue.enqueue("a")
            await trio.sleep(1)
            assert queue.stats().delayed == 1

    with pytest.raises(DrainTimeout):
        await live()
    async with kept(storage, fails, retry=retry, flush_interval=0) as queue:
        await queue.wait_idle()
        assert queue.stats().failed == 1
    assert [call.batch.attempt for call in fails.calls] == [1, 2]


async def test_items_come_back_as_their_type(autojump_clock: Clock, storage: FaultyStorage) -> None:
    class Mail(msgspec.Struct):
        to: str

    async with kept(storage, save_interval=None, item_type=Mail) as queue:
        await queue.enqueue(Mail("ana"))
        await queue.save_state()
        storage.fail()  # the last one, of an empty queue
    done = ScriptedProcessor()
    async with kept(storage, done, item_type=Mail):
        pass
    assert done.calls[0].items == [Mail("ana")]


async def test_a_torn_record_is_set_aside_and_the_rest_comes_back(
    autojump_clock: Clock, storage: FaultyStorage, watch: Watch
) -> None:
    with trio.CancelScope() as life:
        async with kept(storage, batch_size=10) as queue:
            await queue.enqueue_many("abc")
            life.cancel()
            await trio.sleep_forever()
    storage.tear("q", 1)
    done = ScriptedProcessor()
    async with kept(storage, done, hooks=watch.hooks):
        pass
    assert [call.items for call in done.calls] == [["a", "c"]]
    assert [type(error) for error in watch.errors] == [PersistenceError]
    assert len(storage.snapshots["q.quarantine"]) == 1


async def test_two_live_queues_of_one_key_are_refused(
    autojump_clock: Clock, storage: FaultyStorage
) -> None:
    async with kept(storage):
        second = kept(storage)
        with pytest.raises(StorageInUse):
            await second.__aenter__()
    async with kept(storage):
        pass


async def test_a_full_snapshot_comes_back_though_the_queue_is_smaller_now(
    autojump_clock: Clock, storage: FaultyStorage
) -> None:
    with trio.CancelScope() as life:
        async with kept(storage, batch_size=10) as queue:
            await queue.enqueue_many(range(9))
            life.cancel()
            await trio.sleep_forever()
    async with kept(storage, max_queue_size=2) as queue:
        assert queue.stats().restored == 9


async def test_a_deadline_that_passed_meanwhile_expires(
    autojump_clock: Clock, storage: FaultyStorage
) -> None:
    with trio.CancelScope() as life:
        async with kept(storage, batch_size=10) as queue:
            await queue.enqueue("a", delivery_timeout=1e-9)
            await queue.enqueue("b")
            life.cancel()
            await trio.sleep_forever()
    async with kept(storage) as queue:
        await trio.sleep(1)
        assert (queue.stats().expired, queue.stats().pending) == (1, 1)


def test_a_killed_process_s_queue_comes_back_from_its_file(tmp_path: Path) -> None:
    """I26, with a real process."""
    script = f"""
        import os, signal, trio
        from batchq import BatchedQueue, FileStorage, Persistence

        async def never(batch): await trio.sleep_forever()

        async def main():
            persistence = Persistence(storage=FileStorage({str(tmp_path)!r}))
            async with BatchedQueue(never, name="q", persistence=persistence) as queue:
                await queue.enqueue_many(range(1000))
                await queue.save_state()
                os.kill(os.getpid(), signal.SIGKILL)

        trio.run(main)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False, timeout=60)
    assert done.returncode == -9
    processor = ScriptedProcessor()

    async def main() -> None:
        async with kept(FileStorage(tmp_path), processor, batch_size=100):
            pass

    trio.run(main)
    assert [item for call in processor.calls for item in call.items] == list(range(1000))
