"""Handlers as callers see them: a function still, and a way in for its jobs, from anywhere."""

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
    JobHooks,
    OptionError,
    PayloadError,
    QueueManager,
    RetryPolicy,
    StoreBusy,
    UnknownHandler,
)
from batchq.core.record import JobRecord
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


# ---- A function still


async def test_a_decorated_function_stays_a_function(manager: QueueManager) -> None:
    @manager.handler
    def double(number: int) -> int:
        return number * 2

    @manager.batch_handler()
    async def lengths(texts: list[str]) -> list[int]:
        return [len(text) for text in texts]

    assert isinstance(double, Handler)
    assert isinstance(lengths, BatchHandler)
    assert double(21) == double(number=21) == 42
    assert await lengths(["a", "bb"]) == [1, 2]
    assert stored(manager) == []


# ---- Payloads


async def test_a_plain_handlers_payload_is_an_object_of_its_arguments(
    manager: QueueManager, resize: Resize
) -> None:
    await resize.enqueue("a", 2)
    await resize.enqueue(width=2, path="a")
    await resize.enqueue("a")  # the default is the function's own when the job runs
    assert stored(manager) == [b'{"path":"a","width":2}'] * 2 + [b'{"path":"a"}']


async def test_a_batch_handlers_payload_is_one_item(manager: QueueManager, send: Send) -> None:
    await send.enqueue(Email("ana", 7))
    assert stored(manager) == [b'{"to":"ana","size":7}']


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda resize, _: resize.enqueue(), "resize cannot be called so"),
        (lambda resize, _: resize.enqueue("a", 1, 2), "resize cannot be called so"),
        (lambda resize, _: resize.enqueue("a", height=2), "resize cannot be called so"),
        (lambda resize, _: resize.enqueue(1), "$.path"),
        (lambda resize, _: resize.enqueue("a", "2"), "$.width"),
        (lambda resize, _: resize.add({"path": "a", "height": 2}), "height"),
        (lambda resize, _: resize.add([1]), "Expected `object`, got `array`"),
        (lambda _, send: send.enqueue({"to": 7}), "$.to"),
        (lambda _, send: send.enqueue(object()), "send cannot take this payload"),
        (lambda _, send: send.enqueue_many([Email("a"), {"size": 1}]), "to"),
        (lambda _, send: send.enqueue(Email("x" * 1_048_577)), "at most 1048576 are stored"),
    ],
)
async def test_a_wrong_payload_is_the_callers_error_before_anything_is_stored(
    manager: QueueManager, resize: Resize, send: Send, call: Callable[[Any, Any], Any], said: str
) -> None:
    with pytest.raises(PayloadError) as caught:
        await call(resize, send)
    assert said in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert stored(manager) == []


# ---- Options of jobs to come


async def test_using_sets_what_a_job_is_stored_with(manager: QueueManager, resize: Resize) -> None:
    await resize.enqueue("a")
    urgent = resize.using(priority="urgent", delay=60)
    await urgent.using(max_retries=0).enqueue("b")
    await urgent.using(priority=7).enqueue("c")
    await resize.enqueue("d")

    def said(job: JobRecord) -> tuple[Any, ...]:
        return job.priority, job.due_at, job.max_attempts

    assert [said(job) for job in jobs_in(manager)] == [
        (3, 4096.0, 6),
        (0, 4156.0, 1),
        (7, 4156.0, 6),
        (3, 4096.0, 6),
    ]


def test_using_keeps_the_kind_and_the_function(resize: Resize, send: Send) -> None:
    assert type(resize.using(delay=1)) is type(resize)
    assert type(send.using(delay=1)) is type(send)
    assert resize.using(delay=1).name == "resize"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"delay": -1},
            "delay must be a number of seconds from 0 to 3155760000 (100 years), got -1",
        ),
        ({"delay": float("inf")}, "delay must be"),
        ({"delay": float("nan")}, "delay must be"),
        ({"delay": 10**400}, "delay must be"),
        ({"delay": "1"}, "delay must be"),
        ({"delay": True}, "delay must be"),
        ({"priority": -1}, "priority must be a whole number from 0 to 9"),
        ({"priority": 1.0}, "priority must be"),
        ({"priority": "HIGH"}, "priority must be"),
        ({"max_retries": -1}, "max_retries must be a whole number from 0, got -1"),
        ({"max_retries": 1.5}, "max_retries must be"),
        ({"max_retries": True}, "max_retries must be"),
    ],
)
def test_what_using_takes_is_checked_at_once(
    resize: Resize, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(OptionError) as caught:
        resize.using(**options)
    assert said in str(caught.value)


def test_on_enqueue_is_told_the_time_of_the_store(store: WatchedStore) -> None:
    told = list[tuple[int, float]]()
    hooks = JobHooks(on_enqueue=lambda job: told.append((job.id, job.enqueued_at)))
    manager = QueueManager(store, hooks=hooks)

    @manager.handler
    def work() -> None: ...

    work.enqueue_sync()
    assert told == [(job.id, job.enqueued_at) for job in jobs_in(store)] == [(1, 4096.0)]


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
    assert caught.value.__notes__ == [
        "it is item number 1200, counted from 0",
        "1000 jobs were stored before this",
    ]


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
    notes = ["it is item number 2200, counted from 0"] if trouble == "payload" else []
    notes.append("2000 jobs were stored before this")
    assert caught.value.__notes__ == notes
    store.groups.clear()
    with pytest.raises(kind) as again:
        await send.store_many(emails)
    assert again.value.stored == 2_000
    assert again.value.__notes__ == notes


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
