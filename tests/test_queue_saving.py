"""Snapshots of a queue: what is saved, and what comes back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio

from batchq import Hooks, PersistenceError, Result, RetryPolicy
from batchq.core.batch import Batch
from batchq.persistence import Persistence
from tests.calls import Calls, Clock, batched, echo


class Shelf:
    """A storage in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, list[bytes]] = {}

    async def save(self, key: str, records: Sequence[bytes]) -> None:
        self.kept[key] = list(records)

    async def load(self, key: str) -> list[bytes]:
        return self.kept.get(key, [])


async def hang(_: Batch[Any]) -> None:
    await trio.sleep_forever()


async def test_what_was_not_settled_comes_back_with_its_id_level_and_partition(
    autojump_clock: Clock,
) -> None:
    shelf, restored = Shelf(), list[int]()
    options: dict[str, Any] = {"priority_levels": 3, "batch_size": 2, "name": "mail"}
    with trio.move_on_after(5):
        async with batched(hang, persistence=Persistence(storage=shelf), **options) as queue:
            await queue.enqueue_many(["a", "b"], 2)
            await queue.enqueue("c", 0, partition="x")
            await queue.enqueue("d", delay=100)
            await trio.sleep_forever()
    assert len(shelf.kept["mail"]) == 4
    calls = Calls()
    hooks: Hooks[Any, Any] = Hooks(on_state_restored=restored.append)
    options |= {"persistence": Persistence(storage=shelf), "hooks": hooks}
    async with batched(calls, **options) as queue:
        assert queue.stats().restored == 4
        entry = await queue.enqueue("e")
        assert entry.id == 5
        assert queue.stats().enqueued == 1
        await queue.wait_idle()
    assert restored == [4]
    assert sorted(item for items in calls.items for item in items) == list("abcde")
    assert ["c"] in calls.items
    assert calls.times[-1] == pytest.approx(100, abs=0.1)  # by the wall clock, over a restart
    assert not shelf.kept["mail"]


async def test_attempts_survive_and_are_not_given_again(autojump_clock: Clock) -> None:
    shelf = Shelf()
    calls = Calls(lambda _: [Result.retry(after=50)])
    options: dict[str, Any] = {"batch_size": 1, "flush_interval": 0, "retry": RetryPolicy(1)}
    queue = batched(calls, persistence=Persistence(storage=shelf), **options)
    with trio.move_on_after(10):
        async with queue:
            await queue.enqueue("a")
            await trio.sleep_forever()
    async with batched(calls, persistence=Persistence(storage=shelf), **options) as queue:
        await queue.wait_idle()
        assert (queue.stats().failed, queue.stats().restored) == (1, 1)
    assert calls.times == [0, pytest.approx(50, abs=0.1)]


async def test_save_state_saves_now_and_says_how_many(autojump_clock: Clock) -> None:
    shelf, told = Shelf(), list[int]()
    hooks: Hooks[Any, Any] = Hooks(on_state_saved=told.append)
    async with batched(echo, persistence=Persistence(storage=shelf), hooks=hooks) as queue:
        await queue.enqueue_many("abc")
        assert await queue.save_state() == 3
        assert len(shelf.kept["default"]) == 3
    assert told == [3, 0]


async def test_without_persistence_there_is_nothing_to_save_to(autojump_clock: Clock) -> None:
    async with batched(echo) as queue:
        with pytest.raises(PersistenceError, match="no persistence"):
            await queue.save_state()
