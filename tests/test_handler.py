"""Handlers as callers see them: a function still, and a way in for its jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from batchq import (
    BatchHandler,
    Handler,
    JobHooks,
    OptionError,
    PayloadError,
    QueueManager,
    RetryPolicy,
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
