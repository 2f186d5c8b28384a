"""When a queue is saved, and what callers of a save see: virtual time, storage in memory."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from batchq.core.snapshot import Saved
from batchq.errors import PersistenceError, StorageInUse
from batchq.persistence import Persistence
from batchq.saver import Saver
from batchq.testing import FaultyStorage

Clock = trio.testing.MockClock


class Queue:
    """What a saver knows of a queue."""

    def __init__(self, storage: FaultyStorage, **settings: Any) -> None:  # noqa: ANN401
        self.entries: list[Saved[Any]] = []
        self.told: list[tuple[float, str, object]] = []
        persistence = Persistence(storage=storage, **{"save_interval": 60.0, **settings})
        self.saver = Saver("q", persistence, lambda: self.entries, self.tell, lambda: 1e9)

    def tell(self, hook: str, *arguments: object) -> None:
        self.told.append((trio.current_time(), hook, arguments[0]))

    def put(self, item: object) -> None:
        self.entries.append(
            Saved(id=len(self.entries) + 1, item=item, enqueued_at=trio.current_time())
        )
        self.saver.changed()


@pytest.fixture
def storage() -> FaultyStorage:
    return FaultyStorage(takes=1.0)


@pytest.fixture
def queue(storage: FaultyStorage) -> Queue:
    return Queue(storage)


async def test_time_runs_from_the_first_change_to_its_save(
    autojump_clock: Clock, queue: Queue, storage: FaultyStorage, nursery: trio.Nursery
) -> None:
    nursery.start_soon(queue.saver.run)
    await trio.sleep(100)
    queue.put("a")
    await trio.sleep(30)
    queue.put("b")
    await trio.sleep(1000)
    queue.put("c")
    await trio.sleep(1000)
    assert storage.saves == [(161.0, 2), (1130.0 + 60 + 1, 3)]
    assert [hook for _, hook, _ in queue.told] == ["on_state_saved"] * 2
    nursery.cancel_scope.cancel()


async def test_what_is_in_the_snapshot_already_is_not_saved_again(
    autojump_clock: Clock, queue: Queue, storage: FaultyStorage, nursery: trio.Nursery
) -> None:
    await queue.saver.restore(1)
    nursery.start_soon(queue.saver.run)
    queue.saver.changed()
    await trio.sleep(100)
    assert storage.saves == []
    queue.put("a")
    await trio.sleep(100)
    queue.saver.changed()
    await trio.sleep(100)
    assert [count for _, count in storage.saves] == [1]
    nursery.cancel_scope.cancel()


async def test_a_change_during_a_save_is_in_the_next_one(
    autojump_clock: Clock, queue: Queue, storage: FaultyStorage, nursery: trio.Nursery
) -> None:
    nursery.start_soon(queue.saver.run)
    queue.put("a")
    await trio.sleep(60.5)  # in the middle of the save
    queue.put("b")
    await trio.sleep(1000)
    assert storage.saves == [(61.0, 1), (60.5 + 60 + 1, 2)]
    nursery.cancel_scope.cancel()


async def test_without_an_interval_only_those_who_ask_are_served(
    autojump_clock: Clock, storage: FaultyStorage, nursery: trio.Nursery
) -> None:
    queue = Queue(storage, save_interval=None)
    nursery.start_soon(queue.saver.run)
    queue.put("a")
    await trio.sleep(1000)
    assert storage.saves == []
    assert await queue.saver.save() == 1
    assert storage.saves == [(1001.0, 1)]
    nursery.cancel_scope.cancel()


async def test_callers_that_come_during_a_save_share_the_next_one(
    autojump_clock: Clock, queue: Queue, storage: FaultyStorage, nursery: trio.Nursery
) -> None:
    counts: list[int] = []

    async def ask() -> None:
        counts.append(await queue.saver.save())

    nursery.start_soon(queue.saver.run)
    queue.put("a")
    nursery.start_soon(ask)
    await trio.sleep(0.5)
    queue.put("b")
    for _ in range(3):
        nursery.start_soon(ask)
    await trio.sleep(10)
    assert counts == [1, 2, 2, 2]
    assert storage.saves == [(1.0, 1), (2.0, 2)]
    nursery.cancel_scope.cancel()


async def test_a_caller_that_gives_up_ends_its_own_waiting_only(
    autojump_clock: Clock, queue: Queue, storage: FaultyStorage, nursery: trio.Nursery
) -> None:
    nursery.start_soon(queue.saver.run)
    with trio.move_on_after(0.5):
        await queue.saver.save()
    await trio.sleep(10)
    assert storage.saves == [(1.0, 0)]
    nursery.cancel_scope.cancel()


async def test_a_failing_save_is_told_to_its_callers_or_else_to_on_error(
    autojump_clock: Clock, queue: Queue, storage: FaultyStorage, nursery: trio.Nursery
) -> None:
    nursery.start_soon(queue.saver.run)
    storage.fail(error=OSError("disk full"), times=2)
    with pytest.raises(PersistenceError, match="disk full") as caught:
        await queue.saver.save()
    assert isinstance(caught.value.__cause__, OSError)
    assert queue.told == []
    queue.put("a")
    await trio.sleep(62)
    ((at, hook, error),) = queue.told
    assert (at, hook, type(error)) == (62.0, "on_error", PersistenceError)
    await trio.sleep(100)  # it is tried again
    assert storage.saves == [(62.0 + 60 + 1, 1)]
    nursery.cancel_scope.cancel()


async def test_an_item_that_can_t_be_saved_is_named_and_the_others_are_saved(
    autojump_clock: Clock, queue: Queue, storage: FaultyStorage, nursery: trio.Nursery
) -> None:
    nursery.start_soon(queue.saver.run)
    queue.put("good")
    queue.put(object())
    with pytest.raises(PersistenceError, match=r"1 items .* entry 2, an item of type object"):
        await queue.saver.save()
    assert storage.saves == [(1.0, 1)]
    nursery.cancel_scope.cancel()


async def test_the_last_save_is_made_though_cancelled_but_not_for_ever(
    autojump_clock: Clock, queue: Queue, storage: FaultyStorage
) -> None:
    await queue.saver.restore(1)
    queue.put("a")
    with trio.CancelScope() as scope:
        scope.cancel()
        await queue.saver.last(5.0)
    assert storage.saves == [(3.0, 1)]
    storage.takes = 100.0
    with trio.CancelScope() as scope:
        scope.cancel()
        await queue.saver.last(5.0)
    assert trio.current_time() == 8.0
    assert len(storage.saves) == 1
    storage.takes = 0.0
    await storage.acquire("q")  # it was given up


async def test_those_who_wait_when_the_queue_ends_get_the_last_save(
    autojump_clock: Clock, queue: Queue, storage: FaultyStorage, nursery: trio.Nursery
) -> None:
    counts: list[int] = []

    async def ask() -> None:
        counts.append(await queue.saver.save())

    nursery.start_soon(ask)
    await trio.testing.wait_all_tasks_blocked()
    await queue.saver.last(5.0)
    await trio.testing.wait_all_tasks_blocked()
    assert counts == [0]


async def test_a_restart_finds_what_was_saved(
    autojump_clock: Clock, storage: FaultyStorage
) -> None:
    """I25."""
    first = Queue(storage)
    assert await first.saver.restore(1) == []
    first.put("a")
    first.put({"b": 1})
    await first.saver.last(5.0)
    found = await Queue(storage).saver.restore(1)
    assert [(entry.id, entry.item) for entry in found] == [(1, "a"), (2, {"b": 1})]


async def test_what_can_t_be_read_is_set_aside_and_told(
    autojump_clock: Clock, storage: FaultyStorage
) -> None:
    first = Queue(storage)
    await first.saver.restore(1)
    for item in ("a", "b", "c"):
        first.put(item)
    await first.saver.last(5.0)
    storage.tear("q", 1)
    torn = storage.snapshots["q"][1]
    second = Queue(storage)
    assert [entry.item for entry in await second.saver.restore(1)] == ["a", "c"]
    ((_, hook, error),) = second.told
    assert hook == "on_error"
    assert "1 records" in str(error)
    assert storage.snapshots["q.quarantine"] == [torn]


async def test_a_quarantine_that_fails_leaves_the_snapshot_and_its_key(
    autojump_clock: Clock, storage: FaultyStorage
) -> None:
    storage.snapshots["q"] = [b"torn", msgspec.json.encode({"schema": 9})]
    storage.fail("save")
    with pytest.raises(PersistenceError):
        await Queue(storage).saver.restore(1)
    assert len(storage.snapshots["q"]) == 2
    await Queue(storage).saver.restore(1)
    with pytest.raises(StorageInUse):
        await Queue(storage).saver.restore(1)


async def test_an_idle_queue_wakes_nobody(
    autojump_clock: Clock, queue: Queue, nursery: trio.Nursery
) -> None:
    """I34."""
    nursery.start_soon(queue.saver.run)
    await trio.testing.wait_all_tasks_blocked()
    statistics = trio.lowlevel.current_statistics()
    assert statistics.seconds_to_next_deadline == float("inf")
    nursery.cancel_scope.cancel()
