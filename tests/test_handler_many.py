"""Many jobs at once, by name, from threads and asyncio, and cancelled callers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from batchq import (
    BatchHandler,
    Handler,
    JobHandle,
    OptionError,
    PayloadError,
    QueueManager,
    RetryPolicy,
    StoreBusy,
    UnknownHandler,
)
from tests.jobs import WatchedStore, jobs_in


class Email(msgspec.Struct):
    to: str
    size: int = 0


Resize = Handler[..., str]
Send = BatchHandler[Email, None]


@pytest.fixture
def store() -> WatchedStore:
    return WatchedStore(clock=lambda: 4096.0)


@pytest.fixture
def manager(store: WatchedStore) -> QueueManager:
    return QueueManager(store)


@pytest.fixture
def resize(manager: QueueManager) -> Resize:
    @manager.handler(retry=RetryPolicy(5), priority="low")
    async def resize(path: str, width: int = 3) -> str:
        return path * width

    return resize


@pytest.fixture
def send(manager: QueueManager) -> Send:
    @manager.batch_handler(batch_size=10)
    async def send(emails: list[Email]) -> None: ...

    return send


def stored(manager: QueueManager) -> list[bytes]:
    return [job.payload for job in jobs_in(manager)]


# ---- Many


async def test_many_are_stored_by_thousands_in_order(
    manager: QueueManager, store: WatchedStore, send: Send
) -> None:
    handles = await send.enqueue_many(Email("x", number) for number in range(2_500))
    assert [len(group.enqueue) for group in store.groups] == [1_000, 1_000, 500]
    assert [handle.id for handle in handles] == list(range(1, 2_501))
    assert all(type(handle) is JobHandle for handle in handles)
    sizes = [msgspec.json.decode(job.payload)["size"] for job in jobs_in(manager)]
    assert sizes == list(range(2_500))


async def test_store_many_takes_any_iterable_in_flat_memory(
    store: WatchedStore, send: Send
) -> None:
    most = 0

    def emails() -> Iterator[Email]:
        nonlocal most
        for number in range(5_000):
            most = max(most, number - sum(len(group.enqueue) for group in store.groups))
            yield Email("x", number)

    assert await send.store_many(emails()) == 5_000
    assert most < 1_000
    assert await send.store_many([]) == 0
    assert len(store.groups) == 5


async def test_store_many_takes_an_async_iterable_too(store: WatchedStore, send: Send) -> None:
    async def emails() -> AsyncIterator[Email]:  # noqa: ASYNC900 - as users write it
        for number in range(2_100):
            yield Email("x", number)

    assert await send.store_many(emails()) == 2_100
    assert [len(group.enqueue) for group in store.groups] == [1_000, 1_000, 100]

    async def broken() -> AsyncIterator[Any]:  # noqa: ASYNC900 - as users write it
        for number in range(1_500):
            yield Email("x", number) if number < 1_200 else 7

    with pytest.raises(PayloadError) as caught:
        await send.store_many(broken())
    assert caught.value.stored == 1_000
    assert caught.value.__notes__ == ["it is item number 1200, counted from 0"]


def test_store_many_sync_does_the_same(store: WatchedStore, send: Send) -> None:
    assert send.store_many_sync(Email("x", number) for number in range(1_001)) == 1_001
    assert [len(group.enqueue) for group in store.groups] == [1_000, 1]


async def test_a_list_in_place_of_an_item_is_refused_with_a_hint(send: Send) -> None:
    emails: Any = [Email("a")]
    hint = r"write enqueue_many\(items\)"
    with pytest.raises(PayloadError, match=hint):
        await send.enqueue(emails)
    with pytest.raises(PayloadError, match=hint):
        await trio.to_thread.run_sync(send.enqueue_sync, iter(emails))
    with pytest.raises(PayloadError) as caught:
        await send.enqueue(emails[0].to)
    assert "enqueue_many" not in str(caught.value)


@pytest.mark.parametrize("trouble", ["payload", "store"])
async def test_an_error_half_way_tells_what_was_stored_before(
    store: WatchedStore, send: Send, trouble: str
) -> None:
    emails: list[Any] = [Email("x", number) for number in range(2_500)]
    if trouble == "payload":
        emails[2_200] = {"to": 7}
    else:
        store.refuses = lambda _: StoreBusy("locked") if len(store.groups) >= 2 else None
    kind = PayloadError if trouble == "payload" else StoreBusy
    with pytest.raises(kind) as caught:
        await send.enqueue_many(emails)
    handles: Any = caught.value.stored
    assert [handle.id for handle in handles] == list(range(1, 2_001))
    if trouble == "payload":
        assert caught.value.__notes__ == ["it is item number 2200, counted from 0"]
    store.groups.clear()
    with pytest.raises(kind) as again:
        await send.store_many(emails)
    assert again.value.stored == 2_000


async def test_an_error_of_the_items_tells_how_many_jobs_were_stored_before(send: Send) -> None:
    def emails() -> Iterator[Email]:
        for number in range(2_500):
            if number == 2_200:
                raise OSError("gone")
            yield Email("x", number)

    async def late() -> AsyncIterator[Email]:  # noqa: ASYNC900 - as users write it
        for email in emails():
            yield email

    async def within_a_thread(call: Callable[[Iterator[Email]], object]) -> object:
        return await trio.to_thread.run_sync(call, emails())

    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: send.enqueue_many(emails()),
        lambda: send.store_many(emails()),
        lambda: send.store_many(late()),
        lambda: within_a_thread(send.enqueue_many_sync),
        lambda: within_a_thread(send.store_many_sync),
    ]
    for call in calls:
        with pytest.raises(OSError, match="gone") as caught:
            await call()
        assert caught.value.__notes__ == ["2000 jobs were stored before this"]


# ---- By name


async def test_add_job_stores_by_name_with_the_same_checks(
    manager: QueueManager, resize: Resize, send: Send
) -> None:
    job = await manager.add_job("resize", {"path": "a"}, delay=4, priority="high", max_retries=1)
    await manager.add_job("send", {"to": "ana"})
    record = jobs_in(manager, job.id)[0]
    found = (record.due_at, record.priority, record.max_attempts, record.payload)
    assert found == (4100.0, 1, 2, b'{"path":"a"}')
    with pytest.raises(UnknownHandler, match="there are: resize, send"):
        await manager.add_job("x", {})
    with pytest.raises(PayloadError, match="path"):
        await manager.add_job("resize", {"path": 1})
    with pytest.raises(OptionError, match="delay"):
        await manager.add_job("resize", {"path": "a"}, delay=-1)
    assert len(stored(manager)) == 2


def test_add_job_sync_does_the_same(manager: QueueManager, resize: Resize) -> None:
    job = manager.add_job_sync("resize", {"path": "a"}, priority=0)
    assert (jobs_in(manager, job.id)[0].priority, job.status) == (0, "pending")


# ---- From where there is no trio


@pytest.mark.parametrize("loop", ["trio", "asyncio"])
def test_sync_twins_refuse_to_block_an_event_loop_and_say_what_to_write(
    manager: QueueManager, resize: Resize, send: Send, loop: str
) -> None:
    async def main() -> None:
        for call in (
            lambda: resize.enqueue_sync("a"),
            lambda: send.enqueue_sync(Email("a")),
            lambda: send.enqueue_many_sync([Email("a")]),
            lambda: manager.add_job_sync("resize", {"path": "a"}),
        ):
            with pytest.raises(RuntimeError, match=r"event loop.*write await handler\.enqueue"):
                call()

    trio.run(main) if loop == "trio" else asyncio.run(main())
    assert stored(manager) == []


def test_sync_twins_store_from_any_thread(
    manager: QueueManager, resize: Resize, send: Send
) -> None:
    resize.enqueue_sync("a")
    assert [job.id for job in send.enqueue_many_sync([Email("a"), Email("b")])] == [2, 3]
    thread = threading.Thread(target=send.enqueue_sync, args=(Email("c"),))
    thread.start()
    thread.join()

    async def main() -> None:
        await trio.to_thread.run_sync(resize.enqueue_sync, "d")

    trio.run(main)
    assert len(stored(manager)) == 5


def test_enqueue_works_under_asyncio(manager: QueueManager, resize: Resize, send: Send) -> None:
    async def main() -> None:
        job = await resize.enqueue("a")
        assert (await job.refresh()).value == "pending"
        assert len(await send.enqueue_many([Email("a"), Email("b")])) == 2
        async with manager:
            jobs = await asyncio.gather(*(resize.enqueue(str(number)) for number in range(20)))
        assert len({job.id for job in jobs}) == 20

    asyncio.run(main())
    assert len(stored(manager)) == 23


# ---- Cancelled


@pytest.mark.parametrize("block", [True, False], ids=["in a block", "outside"])
async def test_a_job_is_stored_iff_the_call_returned_wherever_it_is_cancelled(
    manager: QueueManager, store: WatchedStore, resize: Resize, *, block: bool
) -> None:
    async def attempt(ticks: int) -> bool:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_after, ticks, nursery.cancel_scope)
                await resize.enqueue(str(ticks))
                returned.append(ticks)
                nursery.cancel_scope.cancel()
        return scope.cancel_called

    returned = list[int]()
    for ticks in range(12):
        if block:
            async with manager:
                await attempt(ticks)
        else:
            await attempt(ticks)
    paths = [int(msgspec.json.decode(payload)["path"]) for payload in stored(manager)]
    assert paths == returned
    assert 0 < len(returned) <= 12


async def cancel_after(ticks: int, scope: trio.CancelScope) -> None:
    for _ in range(ticks):
        await trio.lowlevel.cancel_shielded_checkpoint()
    scope.cancel()
