"""Leases of jobs that run: kept while they run, and what happens when they are lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import trio
from trio.testing import MockClock

from batchq import CancelReason, Job, JobHooks, JobState, QueueManager, Receipt, Result, context
from batchq.core.job import Answers, Extended, Extension, Group, Settled, Settlement, Verdict
from batchq.errors import StoreBusy
from tests.jobs import Hops, WatchedStore, claim, jobs_in, no_trouble, nothing_is_leased, store_of


@pytest.fixture
def store() -> WatchedStore:
    return WatchedStore()


def steal(store: WatchedStore, ids: Iterable[int] | None = None) -> list[Receipt]:
    """Claim these jobs, or all, as another worker does after their leases ran out."""
    stolen = list[Receipt]()
    for job in jobs_in(store):
        if ids is None or job.id in ids:
            used_up = Settlement(Receipt(job.id, job.attempt), Verdict.RELEASE)
            taken = claim(1, queue=job.queue, lease=1000)
            answers = WatchedStore.commit(store, Group(settle=[used_up], claim=[taken]))
            stolen += [job.receipt for job in answers.claim[0].jobs]
    return stolen


async def test_a_lease_is_extended_three_times_as_long_as_the_handler_runs(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    manager = QueueManager(store, lease=3)
    runs = list[int]()

    @manager.batch_handler(batch_size=1, concurrency=2, flush_interval=0)
    async def work(jobs: list[Job[int]]) -> None:
        runs.append(jobs[0].attempt)
        await trio.sleep(30)

    other = QueueManager(store, lease=3)
    other.batch_handler(batch_size=1, name="work")(work.function)

    async with manager.working(), other.working():
        await work.enqueue(1)
        for _ in range(29):
            await trio.sleep(1)
            [job] = jobs_in(store)
            assert job.due_at is not None
            assert 2 <= job.due_at - trio.current_time() <= 3
        await trio.sleep(2)
    assert runs == [1]
    assert jobs_in(store)[0].state is JobState.COMPLETED
    extensions = [group for group in store.groups if group.extend]
    assert len(extensions) in {29, 30}  # the last one is due as the call ends


async def test_a_lease_outlasts_two_extensions_that_fail(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    manager = QueueManager(store, lease=30, poll_interval=999)  # nothing else in their commits
    errors, runs = list[Exception](), list[int]()

    @manager.batch_handler(batch_size=1, hooks=JobHooks(on_store_error=errors.append))
    async def work(jobs: list[Job[int]]) -> None:
        runs.append(jobs[0].attempt)
        await trio.sleep(60)

    refuse = iter([True, True, False, True, True] + [False] * 99)

    def refuses(group: Group) -> Exception | None:
        return StoreBusy("locked") if bool(group.extend) and next(refuse) else None

    store.refuses = refuses
    async with manager.working():
        await work.enqueue(1)
        await trio.sleep(70)
    assert runs == [1]
    assert [str(error) for error in errors] == ["locked"] * 4
    assert jobs_in(store)[0].attempt == 1


async def test_a_call_whose_jobs_are_all_lost_is_not_made_again(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    manager, runs = QueueManager(store, lease=30), list[int]()

    @manager.batch_handler(batch_size=2)
    async def work(items: list[int]) -> None:
        runs.extend(items)
        await trio.sleep(100)

    async with manager.working():
        await work.enqueue_many([1, 2])
        await trio.sleep(15)
        steal(store)
        await trio.sleep(50)
    assert runs == [1, 2]


async def test_what_a_handler_gives_back_runs_again_by_another_claim_only(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    manager, attempts = QueueManager(store), list[int]()

    @manager.batch_handler(batch_size=1, concurrency=1)
    async def work(jobs: list[Job[int]]) -> list[Result[None]]:
        attempts.append(jobs[0].attempt)
        await trio.sleep(1)
        return [Result.ok() if len(attempts) == 3 else Result(success=None)]

    async with manager.working():
        await work.enqueue(1)
        await trio.sleep(10)
    assert attempts == [1, 2, 3]
    assert [job.state for job in jobs_in(store)] == [JobState.COMPLETED]


async def test_what_has_not_started_when_its_lease_is_unsure_is_given_back_unspent(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    manager, attempts = QueueManager(store, lease=6, poll_interval=99), list[tuple[int, int]]()

    @manager.batch_handler(batch_size=1, concurrency=1, prefetch=1, flush_interval=0)
    async def work(jobs: list[Job[int]]) -> None:
        attempts.append((jobs[0].id, jobs[0].attempt))
        await trio.sleep(20 if len(attempts) == 1 else 0)

    await work.enqueue_many([1, 2])
    async with manager.working():
        await trio.sleep(0.5)
        store.refuses = lambda _: StoreBusy("locked")
        await trio.sleep(4.6)  # beyond 5/6 of the lease; it has not run out yet
        store.refuses = lambda _: None
        await trio.sleep(30)
    ran, waited = jobs_in(store)
    assert attempts[0] == (ran.id, 1)
    assert (waited.attempt, waited.refunds, waited.state) == (2, 1, JobState.COMPLETED)


async def test_the_call_is_cancelled_when_all_its_jobs_are_lost_and_the_thieves_keep_them(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    lost, ended = list[tuple[int, int]](), list[float]()
    manager = QueueManager(store, lease=30)

    @manager.batch_handler(
        batch_size=2, hooks=JobHooks(on_lease_lost=lambda job: lost.append((job.id, job.attempt)))
    )
    async def work(items: list[int]) -> None:
        try:
            await trio.sleep(100)
        finally:
            ended.append(trio.current_time())

    async with manager.working():
        await work.enqueue_many([1, 2])
        await trio.sleep(15)
        stolen = steal(store)
        await trio.sleep(50)
        assert ended == [20.0]  # the next extension tells
        assert lost == [(1, 1), (2, 1)]
    assert [job.attempt for job in jobs_in(store)] == [2, 2]
    again = [Settlement(receipt, Verdict.OK) for receipt in stolen]
    assert store.commit(Group(settle=again)).settle == [Settled.APPLIED] * 2


async def test_what_all_was_lost_is_not_called_again(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    runs = list[int]()
    manager = QueueManager(store)

    @manager.batch_handler(batch_size=2)
    async def work(items: list[int]) -> None:
        runs.extend(items)
        await trio.sleep(100)

    async with manager.working():
        await work.enqueue_many([1, 2])
        await trio.sleep(15)
        steal(store)
        await trio.sleep(200)
        assert runs == [1, 2]
    assert [job.attempt for job in jobs_in(store)] == [2, 2]


async def test_a_lease_is_given_up_before_the_store_would(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    """It counts from when the last extension was sent, not from when it was answered."""
    ended, lost = list[tuple[float, object]](), list[float]()
    hooks = JobHooks(on_lease_lost=lambda _: lost.append(trio.current_time()))
    hops = Hops(takes=2.0)
    manager = QueueManager(store, lease=30, run_sync=hops, poll_interval=999, hooks=hooks)

    @manager.handler(concurrency=1)
    async def work() -> None:
        try:
            await trio.sleep(1_000)
        finally:
            ended.append((trio.current_time(), context().cancel_reason))

    async with manager.working():
        await work.enqueue()
        await trio.sleep(5)
        [job] = jobs_in(store)
        assert job.started_at is not None
        claimed = job.started_at - 2.0
        store.refuses = lambda group: StoreBusy("locked") if group.extend else None
        await trio.sleep(claimed + 29 - trio.current_time())
        assert ended == [(claimed + 25, CancelReason.LEASE_LOST)]
        assert lost == [claimed + 25]
        store.refuses = no_trouble
        await trio.sleep(100)
    [job] = jobs_in(store)
    # Nothing was written: its lease ran out, and the attempt counts.
    assert job.attempt >= 2
    assert job.used == job.attempt - job.refunds >= 1


async def test_an_extension_counts_from_when_it_was_sent_too(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    ended = list[float]()
    manager = QueueManager(store, lease=30, run_sync=Hops(takes=2.0), poll_interval=999)

    @manager.handler(concurrency=1)
    async def work() -> None:
        try:
            await trio.sleep(1_000)
        finally:
            ended.append(trio.current_time())

    extended = list[float]()

    def refuses(group: Group) -> Exception | None:
        if not group.extend:
            return None
        extended.append(trio.current_time())
        return StoreBusy("locked") if len(extended) > 1 else None

    store.refuses = refuses
    async with manager.working():
        await work.enqueue()
        await trio.sleep(60)
    assert ended[0] == extended[0] - 2.0 + 25


async def test_what_a_handler_gives_after_its_lease_was_given_up_counts_if_nobody_has_it(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    manager, lost = QueueManager(store, lease=30, poll_interval=999), list[int]()

    @manager.handler(hooks=JobHooks(on_lease_lost=lambda job: lost.append(job.id)), concurrency=1)
    async def work() -> int:
        with trio.CancelScope(shield=True):  # as a thread does
            await trio.sleep(27)
        return 7

    async with manager.working():
        await work.enqueue()
        store.refuses = lambda group: StoreBusy("locked") if group.extend else None
        await trio.sleep(40)
    [job] = jobs_in(store)
    assert (job.state, job.value, job.attempt) == (JobState.COMPLETED, b"7", 1)
    assert lost == []


async def test_a_claim_whose_answer_takes_a_lease_is_not_run(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    runs, waits = list[float](), [28.0]

    async def late(call: Callable[[Group], Answers], group: Group) -> Answers:
        answers = call(group)
        claims = getattr(answers, "claim", ())  # it is also asked for what is no group
        await trio.sleep(waits.pop() if claims and claims[0].jobs and waits else 0)
        return answers

    manager = QueueManager(store, lease=30, run_sync=late, poll_interval=1)

    @manager.batch_handler(batch_size=2, flush_interval=1)
    async def work(items: list[int]) -> None:
        runs.append(trio.current_time())

    await work.enqueue_many([1])
    async with manager.working():
        await trio.sleep(27.5)
        assert runs == []
        await trio.sleep(60)
    assert len(runs) == 1
    [job] = jobs_in(store)
    assert (job.state, job.attempt, job.refunds) == (JobState.COMPLETED, 2, 1)


async def test_no_call_begins_whose_claim_took_too_long(autojump_clock: MockClock) -> None:
    """Or it runs beside others for whom its lease has run out, or is stopped and spent."""
    for _ in range(20):  # whether the pump or the watch looks first is trio's to choose
        store, waits = WatchedStore(), [21.0]

        async def late(
            call: Callable[[Group], Answers],
            group: Group,
            waits: list[float] = waits,
        ) -> Answers:
            answers = call(group)
            claims = getattr(answers, "claim", ())
            await trio.sleep(waits.pop() if claims and claims[0].jobs and waits else 0)
            return answers

        manager, attempts = QueueManager(store, lease=30, run_sync=late), list[int]()

        @manager.batch_handler(batch_size=3, flush_interval=4)  # due as it is given up
        async def work(jobs: list[Job[int]], attempts: list[int] = attempts) -> None:
            attempts.extend(job.attempt for job in jobs)

        await work.enqueue_many([1, 2])
        async with manager.working():
            await trio.sleep(50)
        assert attempts == [2, 2]
        assert [(job.attempt, job.refunds) for job in jobs_in(store)] == [(2, 1)] * 2


async def test_the_others_of_the_batch_go_on_when_one_is_lost(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    lost = list[int]()
    manager = QueueManager(store, hooks=JobHooks(on_lease_lost=lambda job: lost.append(job.id)))

    @manager.batch_handler(batch_size=3)
    async def work(items: list[int]) -> list[int]:
        await trio.sleep(25)
        return items

    async with manager.working():
        await work.enqueue_many([1, 2, 3])
        await trio.sleep(5)
        [stolen] = steal(store, [2])
        await trio.sleep(30)
    assert lost == [2]
    assert [job.state.value for job in jobs_in(store)] == ["completed", "processing", "completed"]
    assert store.commit(Group(extend=[Extension([stolen], 9)])).extend == [[Extended.OK]]


async def test_a_settlement_that_comes_too_late_changes_nothing_and_is_told(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    lost, processed = list[int](), list[int]()
    hooks = JobHooks(
        on_lease_lost=lambda job: lost.append(job.id),
        on_processed=lambda job, _: processed.append(job.id),
    )
    manager = QueueManager(store, hooks=hooks)

    @manager.batch_handler(batch_size=2)
    async def work(items: list[int]) -> list[int]:
        await trio.sleep(5)
        return items

    async with manager.working():
        await work.enqueue_many([1, 2])
        await trio.sleep(2)
        steal(store, [1])
        await trio.sleep(4)
        assert (lost, processed) == ([1], [2])
    first, second = jobs_in(store)
    assert (first.state, first.value, first.attempt) == (JobState.PROCESSING, None, 2)
    assert second.state is JobState.COMPLETED


async def test_what_is_lost_before_it_started_is_never_run(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    runs, lost = list[int](), list[int]()
    manager = QueueManager(store, hooks=JobHooks(on_lease_lost=lambda job: lost.append(job.id)))

    @manager.batch_handler(batch_size=1, concurrency=1, prefetch=2)
    async def work(items: list[int]) -> None:
        runs.extend(items)
        await trio.sleep(25)

    async with manager.working():
        await work.enqueue_many([1, 2, 3])
        await trio.sleep(5)
        steal(store, [2])
        await trio.sleep(80)
    assert (runs, lost) == ([1, 3], [2])


async def test_an_early_verdict_of_a_lost_job_is_dropped(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    manager = QueueManager(store)

    @manager.batch_handler(batch_size=2)
    async def work(jobs: list[Job[int]]) -> None:
        await trio.sleep(15)
        jobs[0].settle(Result.ok("mine"))
        await trio.sleep(5)

    async with manager.working():
        await work.enqueue_many([1, 2])
        await trio.sleep(5)
        steal(store, [1])
        await trio.sleep(25)
    first, second = jobs_in(store)
    assert (first.state, first.value) == (JobState.PROCESSING, None)
    assert second.state is JobState.COMPLETED


async def test_two_managers_on_one_store_never_run_the_same_attempt_twice(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    runs = list[tuple[int, int]]()

    def worker(seed: int) -> QueueManager:
        manager = QueueManager(store, lease=2, poll_interval=0.25)

        @manager.batch_handler(batch_size=3, flush_interval=0.125, concurrency=2)
        async def work(jobs: list[Job[int]]) -> list[Result[int]]:
            runs.extend((job.id, job.attempt) for job in jobs)
            await trio.sleep((jobs[0].id * seed) % 5)
            return [
                Result.snooze(0.5) if (job.id + job.attempt) % 3 == 0 else Result.ok(job.payload)
                for job in jobs
            ]

        return manager

    managers = [worker(seed) for seed in (3, 7, 11)]
    async with managers[0].working(), managers[1].working(), managers[2].working():
        handler = managers[0]._registry.handlers["work"]
        for number in range(60):
            await handler.add(number)
            await trio.sleep(0.0625)
        await trio.sleep(100)
    assert len(runs) == len(set(runs)) >= 60
    assert {job.state for job in jobs_in(store)} == {JobState.COMPLETED}


async def test_a_dead_workers_job_comes_back_within_its_lease_and_a_poll(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    manager = QueueManager(store, lease=30, poll_interval=1)
    runs = list[float]()

    @manager.handler
    async def work() -> None:
        runs.append(trio.current_time())

    await work.enqueue()
    store.commit(Group(claim=[claim(1, queue="work", lease=30)]))  # and nothing more of it
    async with manager.working():
        await trio.sleep(40)
    assert len(runs) == 1
    assert 30 <= runs[0] <= 31
    assert [failure.line.message for failure in store_of(manager).errors()] == ["lease ran out"]
    assert nothing_is_leased(store)
