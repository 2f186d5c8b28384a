"""The durable tier as a user's type checker sees it: checked by mypy --strict, never run.

`assert_type` says what a call gives. A `type: ignore[...]` marks a mistake that must be
found: when it no longer is, warn_unused_ignores makes that an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_type

import msgspec

from batchq import (
    BatchHandler,
    Handle,
    Handler,
    Job,
    JobHandle,
    JobHooks,
    JobState,
    QueueManager,
    Receipt,
    Result,
    RetryPolicy,
)

manager = QueueManager("sqlite:///jobs.db", lease=30, poll_interval=1, grace=30)
manager.queue("shared", concurrency=2)


class Letter(msgspec.Struct):
    to: str
    text: str = ""


# ---- What a decorator makes of a function


@manager.handler
async def bare(user_id: int, lang: str = "en") -> str:
    return f"{user_id}{lang}"


@manager.handler(queue="shared", retry=RetryPolicy(5), timeout=60, priority="high")
async def welcome(user_id: int, lang: str = "en") -> str:
    return f"{user_id}{lang}"


@manager.handler(queue="shared")
def resize(path: str, width: int) -> Result[int]:
    return Result.ok(len(path) * width)


@manager.batch_handler(batch_size=100, flush_interval=0.5)
async def send(letters: list[Letter]) -> None:
    pass


@manager.batch_handler
async def in_batches(letters: list[Letter]) -> None:
    pass


@manager.batch_handler()
async def remind(jobs: list[Job[Letter]]) -> list[Result[str]] | None:
    assert_type(jobs[0].payload, Letter)
    assert_type(jobs[0].receipt, Receipt)
    jobs[0].settle(Result.ok("early"))
    return [Result.ok(job.payload.to) for job in jobs]


@manager.batch_handler(name="count", tier="memory")
def count(texts: Sequence[str]) -> list[int]:
    return [len(text) for text in texts]


async def what_it_is() -> None:
    assert_type(await bare.enqueue(42), JobHandle[str])
    assert_type(await welcome.enqueue(42), JobHandle[str])
    assert_type(await resize.enqueue("a.png", width=3), JobHandle[int])
    assert_type(send, BatchHandler[Letter, None])
    await in_batches.enqueue(Letter("a@example.org"))
    assert_type(await remind.enqueue(Letter("a@example.org")), JobHandle[str])
    assert_type(await remind.enqueue_many([Letter("a@example.org")]), list[JobHandle[str]])
    assert_type(await send.store_many(Letter(f"{n}") for n in range(9)), int)
    assert_type(await count.enqueue("text"), JobHandle[int])
    assert_type(welcome.enqueue_sync(42, lang="pt"), JobHandle[str])
    assert_type(send.enqueue_many_sync([Letter("a")]), list[JobHandle[None]])
    assert_type(await manager.add_job("welcome", {"user_id": 42}, delay=60), JobHandle[object])  # type: ignore[assert-type]  # of any value
    handler: Handler[..., str] = welcome
    handle: Handle[str] = await handler.enqueue(1)
    assert_type(await handle.result(timeout=5), str)


async def what_a_handle_gives() -> None:
    job = await welcome.using(delay=60, priority=0, max_retries=1).enqueue(42, lang="pt")
    assert_type(job, JobHandle[str])
    assert_type(job.id, int)
    assert_type(job.state, JobState)
    assert_type(job.status, str)
    assert_type(await job.refresh(), JobState)
    assert_type(await job.result(timeout=5), str)
    assert_type(job.result_sync(5), str)


# ---- Mistakes


async def mistakes() -> None:
    await bare.enqueue("42")  # type: ignore[arg-type]
    await welcome.enqueue("42")  # type: ignore[arg-type]
    await welcome.enqueue()  # type: ignore[call-arg]
    await welcome.enqueue(42, language="pt")  # type: ignore[call-arg]
    await send.enqueue("a letter")  # type: ignore[arg-type]
    await send.enqueue_many([1, 2])  # type: ignore[list-item]
    welcome.using(at="tomorrow")  # type: ignore[call-arg]
    manager.handler(retries=5)  # type: ignore[call-overload]
    manager.batch_handler(batch_size="100")  # type: ignore[call-overload]
    QueueManager(5)  # type: ignore[arg-type]


@manager.batch_handler()  # type: ignore[arg-type]
async def no_list(letter: Letter) -> None:
    pass


# ---- Watching, working


def a_hook(job: Job[object]) -> None:
    pass


def watching() -> None:
    QueueManager(hooks=JobHooks(on_lease_lost=a_hook, on_store_error=print))
    JobHooks(on_lease_lost=len)  # type: ignore[arg-type]


async def working() -> None:
    async with manager:
        await send.enqueue(Letter("a"))
    async with manager.working(["shared"]) as it:
        assert_type(it, QueueManager)
    async with manager.working({"shared": 5, "send": None}):
        pass
    manager.start_workers("shared")
    manager.stop_workers()
