"""What a worker process does beside work: beats, and cleans."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping

import pytest
import trio
from trio.testing import MockClock

import batchq
from batchq import (
    JobState,
    OptionError,
    QueueManager,
    Retention,
    RetryPolicy,
    StoreBroken,
    StoreBusy,
)
from batchq.core.job import Group, NewJob
from batchq.core.record import Beat, Cleaned
from tests.jobs import Hops, WatchedStore, jobs_in
from tests.test_durable_leases import steal

HOUR = 3600.0


class CleanedStore(WatchedStore):
    """A store that remembers what was cleaned and beaten."""

    def __init__(self) -> None:
        super().__init__()
        self.cleans: list[tuple[float, int]] = []
        self.beats: list[Beat] = []
        self.away = False

    def clean(
        self,
        retention: Mapping[JobState, float],
        *,
        queue: str | None = None,
        after: int = 0,
        limit: int = 1_000,
    ) -> Cleaned:
        if self.away:
            raise StoreBusy("away")
        self.cleans.append((trio.current_time(), after))
        return super().clean(retention, queue=queue, after=after, limit=limit)

    def beat(self, beat: Beat) -> None:
        if self.away:
            raise StoreBusy("away")
        self.beats.append(beat)
        super().beat(beat)


@pytest.fixture
def store() -> CleanedStore:
    random.seed(1)
    return CleanedStore()


async def test_ended_jobs_go_when_their_time_is_over(
    store: CleanedStore, autojump_clock: MockClock
) -> None:
    manager = QueueManager(
        store, retention=Retention(completed=2 * HOUR, failed=None), poll_interval=999
    )

    @manager.handler(retry=RetryPolicy(0))
    async def work(number: int) -> None:
        if number == 1:
            raise ValueError

    async with manager.working():
        for number in range(3):
            await work.enqueue(number)
        await trio.sleep(1.9 * HOUR)
        assert len(jobs_in(store)) == 3
        await trio.sleep(1.2 * HOUR)
        assert [job.state for job in jobs_in(store)] == [JobState.FAILED]
    times = [time for time, _ in store.cleans]
    assert 0 <= times[0] <= 60
    assert times == [pytest.approx(times[0] + n * HOUR) for n in range(4)]


async def test_a_clean_is_many_short_transactions_and_ends_some_time(
    store: CleanedStore, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchq.chores._CHUNK", 10)
    monkeypatch.setattr("batchq.chores._MOST", 100)
    manager = QueueManager(store, retention=Retention(completed=0), cleanup_interval=9_999)

    @manager.handler
    async def work() -> None: ...

    async with manager.working():
        for _ in range(150):
            await work.enqueue()
        await trio.sleep(400)
    assert [after for _, after in store.cleans] == list(range(0, 100, 10))
    assert [job.id for job in jobs_in(store)] == list(range(101, 151))


async def test_one_who_keeps_all_for_ever_never_cleans(
    store: CleanedStore, autojump_clock: MockClock
) -> None:
    keep = Retention(completed=None, failed=None, cancelled=None)
    manager = QueueManager(store, retention=keep, poll_interval=999)
    manager.handler(name="work")(trio.sleep)
    async with manager.working():
        await trio.sleep(3 * HOUR)
    assert store.cleans == []


async def test_a_process_says_how_it_does(store: CleanedStore, autojump_clock: MockClock) -> None:
    manager = QueueManager(store, run_sync=Hops())
    manager.queue("mail", concurrency=3)

    async def work() -> None:
        await trio.sleep(15)

    manager.handler(queue="mail", name="a", aliases=["old"])(work)
    handler = manager.handler(queue="mail", name="b")(work)
    manager.handler(name="elsewhere")(work)
    async with manager.working({"mail": 7}):
        await handler.enqueue()
        await handler.enqueue()
        await trio.sleep(25)
    first, *_, last = store.beats
    assert (first.pid, first.version) == (os.getpid(), batchq.__version__)
    assert first.queues == {"mail": 7}
    assert first.handlers == ("a", "old", "b")
    assert [each.held for each in store.beats] == [0, 2, 0, 0]
    assert [each.lag for each in store.beats] == [0.0] * 4
    [record] = [each for each in store.workers() if each.beat is not None]
    assert record.beat == last
    assert record.worker == first.worker


async def test_a_beat_says_how_late_the_event_loop_was(
    store: CleanedStore, autojump_clock: MockClock
) -> None:
    manager = QueueManager(store)

    @manager.handler
    async def work() -> None:
        await trio.sleep(8)
        autojump_clock.jump(5)  # as code does that blocks the loop

    async with manager.working():
        await work.enqueue()
        await trio.sleep(25)
    assert [each.lag for each in store.beats] == [0.0, 3.0, 0.0, 0.0]


@pytest.mark.parametrize(("after", "found"), [(20, [0, 2, 2, 2]), (4, [0, 2])])
async def test_lost_leases_are_counted_to_the_end(
    after: float, found: list[int], store: CleanedStore, autojump_clock: MockClock
) -> None:
    manager = QueueManager(store)

    @manager.batch_handler(batch_size=3)
    async def work(items: list[int]) -> None:
        await trio.sleep(5)

    async with manager.working():
        await work.enqueue_many(range(3))
        await trio.sleep(2)
        steal(store, [1, 3])
        await trio.sleep(after)
    assert [each.lost for each in store.beats] == found
    [worker] = [each for each in (await manager.stats()).workers if each.beat is not None]
    assert worker.beat is not None
    assert worker.beat.lost == 2


@pytest.mark.parametrize("chosen", [None, ["mail"]], ids=["all", "one queue"])
async def test_jobs_that_wait_in_vain_are_reported(
    store: CleanedStore,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
    chosen: list[str] | None,
) -> None:
    manager = QueueManager(store, poll_interval=999)
    manager.queue("mail")

    async def work() -> None: ...

    manager.handler(queue="mail", name="known", aliases=["renamed"])(work)
    manager.handler(name="others")(work)
    new = [("mail", "known"), ("mail", "renamed"), ("others", "gone"), ("mail", "gone")]
    new += [("moved", "known"), ("mail", "gone")]
    stored = [NewJob(queue=queue, handler=handler, payload=b"{}") for queue, handler in new]
    store.commit(Group(enqueue=stored))
    async with manager.working(chosen):
        await trio.sleep(0.9 * HOUR)
        said = [line.getMessage() for line in caplog.records if "wait, and none" in line.msg]
        found = [("mail", "gone")] if chosen else [*new[2:4][::-1], ("moved", "known")]
        assert len(said) == len(found)
        for queue, handler in found:
            start = f"queue {queue!r}: jobs of handler {handler!r} wait"
            assert any(line.startswith(start) for line in said), start
        await trio.sleep(0.9 * HOUR)
        said = [line.getMessage() for line in caplog.records if "wait, and none" in line.msg]
        assert len(said) == 2 * len(found)  # as long as it is so, it is said each hour
    assert {job.state for job in jobs_in(store)} == {JobState.COMPLETED, JobState.PENDING}


async def test_trouble_is_told_and_does_not_end_it(
    store: CleanedStore, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    errors = list[Exception]()
    manager = QueueManager(
        store, hooks=batchq.JobHooks(on_store_error=errors.append), poll_interval=999
    )
    manager.handler(name="work")(trio.sleep)
    store.away = True
    async with manager.working():
        await trio.sleep(65)
        store.away = False
        assert len(errors) == 8  # seven beats and a clean
        await trio.sleep(2 * HOUR)
        store.away = True
    assert trio.current_time() == 2 * HOUR + 65
    assert len(errors) == 9
    assert store.beats
    assert store.cleans
    assert "the worker: the store could not do it: away" in caplog.text


async def test_a_broken_store_ends_the_block(
    store: CleanedStore, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    error, told = StoreBroken("no fsync"), list[Exception]()

    def broken(_: Beat) -> None:
        raise error

    monkeypatch.setattr(store, "beat", broken)
    hooks = batchq.JobHooks(on_store_error=told.append)
    manager = QueueManager(store, hooks=hooks)
    manager.handler(name="work")(trio.sleep)

    async def block() -> None:
        async with manager.working():
            await trio.sleep_forever()

    with pytest.raises(StoreBroken) as caught:
        await block()
    assert caught.value is error
    assert told == [error]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retention": 5}, "retention must be a Retention"),
        ({"cleanup_interval": 0}, "cleanup_interval must be"),
    ],
)
def test_settings_out_of_their_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        QueueManager("memory:", **options)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="retention: failed must be"):
        Retention(failed=-1)
