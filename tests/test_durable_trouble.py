"""Stores in trouble, and hooks that watch it: a worker outlives all but a broken store."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from batchq import Backoff, JobHooks, JobState, QueueManager, RetryPolicy
from batchq.core.job import ClaimedJob
from batchq.durable import DurableQueue
from batchq.errors import StoreBroken, StoreBusy, StoreFull
from tests.jobs import WatchedStore, jobs_in, nothing_is_leased


@pytest.fixture
def store() -> WatchedStore:
    return WatchedStore()


@pytest.mark.parametrize("kind", [StoreBusy, StoreFull])
async def test_a_worker_outlives_a_store_that_fails_for_a_while(
    kind: type[Exception], store: WatchedStore, autojump_clock: MockClock
) -> None:
    errors, done = list[Exception](), list[int]()
    manager = QueueManager(store, hooks=JobHooks(on_store_error=errors.append))

    @manager.batch_handler(batch_size=2, flush_interval=0, concurrency=2)
    async def work(items: list[int]) -> None:
        await trio.sleep(1)
        done.extend(items)

    await work.enqueue_many(range(10))
    async with manager.working():
        for _ in range(4):
            await trio.sleep(1.25)
            store.trouble = [kind("not now")] * 3
        await trio.sleep(60)
    assert len(errors) >= 12
    assert {type(error) for error in errors} == {kind}
    assert sorted(done) == list(range(10))
    assert {job.state for job in jobs_in(store)} == {JobState.COMPLETED}


async def test_a_worker_outlives_what_is_no_store_error_too(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    store_errors, errors = list[Exception](), list[Exception]()
    hooks = JobHooks(on_store_error=store_errors.append, on_error=errors.append)
    manager = QueueManager(store, hooks=hooks)

    @manager.handler
    async def work(number: int) -> int:
        await trio.sleep(15)
        return number

    async with manager.working():
        job = await work.enqueue(7)
        for _ in range(7):
            store.trouble = [ZeroDivisionError("a bug")] * 2  # one for all, one for each
            await trio.sleep(2.5)
        assert await job.result(30) == 7
    assert {type(error) for error in errors} == {ZeroDivisionError}
    assert store_errors == []


async def test_a_worker_outlives_an_error_of_its_own(
    store: WatchedStore, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in what takes claimed jobs in: told of, and the next ones run."""
    errors, trouble = list[Exception](), [ZeroDivisionError("a bug")] * 3
    accept = DurableQueue._accept

    def failing(queue: DurableQueue, claimed: Sequence[ClaimedJob]) -> None:
        if trouble:
            raise trouble.pop()
        accept(queue, claimed)

    monkeypatch.setattr(DurableQueue, "_accept", failing)
    manager = QueueManager(store, hooks=JobHooks(on_error=errors.append))

    @manager.handler(concurrency=9)
    async def work(number: int) -> int:
        return number

    async with manager.working():
        for number in range(3):
            await work.enqueue(number)
            await trio.sleep(10)
        assert await (await work.enqueue(7)).result(30) == 7
        await trio.sleep(60)
    assert [type(error) for error in errors] == [ZeroDivisionError] * 3
    assert nothing_is_leased(store)


async def test_a_store_that_fails_is_asked_less_and_less_often(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    errors = list[float]()
    hooks = JobHooks(on_store_error=lambda _: errors.append(trio.current_time()))
    manager = QueueManager(store, hooks=hooks)

    @manager.handler
    async def work() -> None: ...

    store.refuses = lambda _: StoreBusy("locked")
    async with manager.working():
        await trio.sleep(60)
        assert 12 <= len(errors) <= 60
        assert errors[-1] - errors[-2] <= 5.0 * 1.5
        store.refuses = lambda _: None
        await trio.sleep(8)
        await work.enqueue()
        await trio.sleep(1)
    assert jobs_in(store)[0].state is JobState.COMPLETED


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (StoreFull("no space"), "queue 'work': the store could not do it{}: no space"),
        (ZeroDivisionError("a bug"), "queue 'work' goes on after an error{}"),
    ],
    ids=["store", "bug"],
)
async def test_the_log_is_told_of_an_error_once_a_minute_and_how_often_it_was(
    error: Exception,
    line: str,
    store: WatchedStore,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    told = list[Exception]()
    manager = QueueManager(store, hooks=JobHooks(on_store_error=told.append, on_error=told.append))

    @manager.handler
    async def work() -> None: ...

    store.refuses = lambda _: error
    async with manager.working():
        await trio.sleep(50)
        first = [record.getMessage() for record in caplog.records if record.name == "batchq"]
        assert first == [line.format("")]
        await trio.sleep(20)
        caplog.clear()
        await trio.sleep(60)
        [again] = [record.getMessage() for record in caplog.records if record.name == "batchq"]
    found = re.fullmatch(line.format(r" \((\d+) times since the last such line\)"), again)
    assert found is not None
    assert len(told) > int(found[1]) >= 60 / (5.0 * 1.5)  # the hooks are told of each


async def test_a_broken_store_ends_the_block_with_that_very_error(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    broken, cleaned = StoreBroken("failed fsync"), list[str]()
    manager = QueueManager(store)

    @manager.handler
    async def work() -> None:
        try:
            await trio.sleep(100)
        finally:
            cleaned.append("work")

    async def block() -> None:
        async with manager.working():
            await work.enqueue()
            await trio.sleep(1)
            store.refuses = lambda _: broken
            await trio.sleep_forever()

    with pytest.raises(StoreBroken) as caught:
        await block()
    assert caught.value is broken
    assert cleaned == ["work"]


@pytest.mark.parametrize("part", ["settle", "extend", "claim"])
async def test_whoever_meets_the_broken_store_first_its_error_comes_out_alone(
    part: str, store: WatchedStore, autojump_clock: MockClock
) -> None:
    broken = StoreBroken("failed fsync")
    manager = QueueManager(store, lease=3, poll_interval=5)

    @manager.handler
    async def work() -> None:
        await trio.sleep(4)

    async def block() -> None:
        async with manager.working():
            await work.enqueue()
            await trio.sleep(0.5)
            store.refuses = lambda group: broken if getattr(group, part) else None
            await trio.sleep_forever()

    with pytest.raises(StoreBroken) as caught:
        await block()
    assert caught.value is broken


async def test_verdicts_that_cannot_be_written_for_a_whole_lease_are_given_up(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    runs = list[float]()
    manager = QueueManager(store, lease=6, poll_interval=1)

    @manager.handler
    async def work() -> None:
        runs.append(trio.current_time())

    async with manager.working():
        job = await work.enqueue()
        store.refuses = lambda group: StoreBusy("locked") if group.settle else None
        await trio.sleep(14)
        store.refuses = lambda _: None
        await job.result(60)
    assert 2 <= len(runs) <= 4
    assert jobs_in(store)[0].attempt == len(runs)


# ---- Hooks


class Notes(list[tuple[str, str]]):
    """Writes down who was told of what."""

    def hooks(self, who: str) -> JobHooks:
        def note(event: str) -> Any:  # noqa: ANN401 - any hook
            return lambda *_: self.append((who, event))

        return JobHooks(
            on_enqueue=note("enqueue"),
            on_batch_start=note("start"),
            on_processed=note("processed"),
            on_batch_complete=note("complete"),
            on_retry=note("retry"),
            on_dead_letter=note("dead"),
        )


async def test_hooks_are_told_in_order_the_managers_the_queues_the_handlers(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    notes = Notes()
    manager = QueueManager(store, hooks=notes.hooks("manager"))
    manager.queue("shared", hooks=notes.hooks("queue"))
    policy = RetryPolicy(1, backoff=Backoff(schedule=(1,), jitter="none"))

    @manager.handler(queue="shared", hooks=notes.hooks("handler"), retry=policy)
    async def work(fail: bool) -> None:  # noqa: FBT001 - a payload
        if fail:
            raise ValueError("no")

    @manager.handler(queue="shared", hooks=notes.hooks("other handler"))
    async def other() -> None: ...

    async with manager.working():
        await work.enqueue(fail=False)
        await trio.sleep(1)
        levels = ["manager", "queue", "handler"]
        events = ["enqueue", "start", "processed", "complete"]
        assert notes == [(who, event) for event in events for who in levels]
        notes.clear()
        await work.enqueue(fail=True)
        await trio.sleep(5)
    told = [event for who, event in notes if who == "handler"]
    again = ["start", "processed", "dead", "complete"]
    assert told == ["enqueue", "start", "retry", "complete", *again]
    assert "other handler" not in {who for who, _ in notes}


async def test_hooks_get_the_job_its_result_and_its_delay(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    told = list[Any]()
    hooks = JobHooks(
        on_enqueue=lambda job: told.append(("enqueue", job.id, job.attempt, job.payload)),
        on_retry=lambda job, error, attempt, delay: told.append(
            ("retry", job.id, str(error), attempt, delay)
        ),
        on_processed=lambda job, result: told.append(
            ("processed", job.id, job.attempt, result.success)
        ),
        on_dead_letter=lambda job, error: told.append(("dead", job.id, repr(error))),
    )
    manager = QueueManager(store, hooks=hooks)
    policy = RetryPolicy(1, backoff=Backoff(schedule=(4,), jitter="none"))

    @manager.batch_handler(batch_size=2, retry=policy)
    async def work(items: list[str]) -> None:
        raise ValueError("no")

    async with manager.working():
        await work.enqueue("ana")
        await trio.sleep(20)
    assert told == [
        ("enqueue", 1, 0, "ana"),
        ("retry", 1, "no", 1, 4.0),
        ("processed", 1, 2, False),
        ("dead", 1, "ValueError('no')"),
    ]


async def test_hooks_that_raise_change_nothing(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    def boom(*_: object) -> None:
        raise RuntimeError("a dashboard is down")

    hooks = JobHooks(
        on_enqueue=boom,
        on_batch_start=boom,
        on_processed=boom,
        on_batch_complete=boom,
        on_retry=boom,
        on_dead_letter=boom,
        on_error=boom,
        on_store_error=boom,
        on_lease_lost=boom,
        on_queue_size_change=boom,
    )
    manager = QueueManager(store, hooks=hooks)
    policy = RetryPolicy(1, backoff=Backoff(schedule=(1,), jitter="none"))

    @manager.handler(hooks=hooks, retry=policy)
    async def work(number: int) -> int:
        if number % 2:
            raise ValueError("odd")
        return number

    async with manager.working():
        jobs = [await work.enqueue(number) for number in range(4)]
        store.trouble = [StoreBusy("locked")] * 2
        await trio.sleep(20)
        assert await jobs[2].result() == 2
    assert nothing_is_leased(store)
    states = [job.state.value for job in jobs_in(store)]
    assert states == ["completed", "failed"] * 2


async def test_what_the_policys_check_raises_is_told_to_on_error(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    errors = list[str]()
    manager = QueueManager(store, hooks=JobHooks(on_error=lambda error: errors.append(str(error))))

    def check(error: Exception) -> bool:
        raise RuntimeError("a bad check")

    @manager.handler(retry=RetryPolicy(retryable=check))
    async def work() -> None:
        raise ValueError("no")

    async with manager.working():
        await work.enqueue()
        await trio.sleep(1)
    assert errors == ["no", "a bad check"]
    assert jobs_in(store)[0].state is JobState.FAILED
