"""`max_pending`: how many jobs may wait in a queue, as its producers keep it."""

from __future__ import annotations

import random
import threading
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from batchq import OptionError, QueueFull, QueueManager, StoreBusy
from batchq.pending import Pending
from tests.jobs import Hops, WatchedStore, jobs_in


@pytest.fixture
def store() -> WatchedStore:
    return WatchedStore(clock=None)


def test_one_more_than_may_wait_is_refused_and_nothing_is_dropped(store: WatchedStore) -> None:
    manager = QueueManager(store)

    @manager.handler(max_pending=3)
    async def work(number: int) -> None: ...

    for number in range(3):
        work.enqueue_sync(number)
    for _ in range(2):
        with pytest.raises(
            QueueFull, match="takes no more than max_pending=3 jobs that wait; 3 do"
        ):
            work.enqueue_sync(9)
    assert [job.payload for job in jobs_in(store)] == [b'{"number":%d}' % n for n in range(3)]


async def test_there_is_room_again_when_jobs_were_claimed(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchq.pending._FULL", 0.0)
    store = WatchedStore()
    manager = QueueManager(store, poll_interval=0.5)

    @manager.batch_handler(max_pending=10, batch_size=5, concurrency=1, flush_interval=0)
    async def work(items: list[int]) -> None:
        await trio.sleep(1)

    await work.enqueue_many(range(10))
    with pytest.raises(QueueFull):
        await work.enqueue(10)
    async with manager.working():
        await trio.sleep(0.25)  # five of them run
        await work.enqueue_many(range(10, 15))
        with pytest.raises(QueueFull) as caught:
            await work.enqueue(15)
        assert (caught.value.size, caught.value.limit) == (10, 10)
        await trio.sleep(10)
    assert len(jobs_in(store)) == 15


def test_what_came_in_before_is_said(store: WatchedStore) -> None:
    manager = QueueManager(store)

    @manager.batch_handler(max_pending=2_500)
    async def work(items: list[int]) -> None: ...

    with pytest.raises(QueueFull) as caught:
        work.enqueue_many_sync(range(5_000))
    assert isinstance(caught.value.stored, list)
    assert len(caught.value.stored) == 2_000
    assert len(jobs_in(store)) == 2_000


async def test_a_shared_queue_has_one_limit(store: WatchedStore) -> None:
    manager = QueueManager(store)
    manager.queue("both", max_pending=2)

    async def work() -> None: ...

    first = manager.handler(queue="both", name="first")(work)
    second = manager.handler(queue="both", name="second")(work)
    await first.enqueue()
    await second.enqueue()
    with pytest.raises(QueueFull):
        await first.enqueue()
    with pytest.raises(OptionError, match="max_pending"):
        manager.queue("other", max_pending=0)


def test_the_store_is_not_asked_for_each_job(
    store: WatchedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[int]()
    counts = store.counts

    def counted() -> Any:  # noqa: ANN401 - as counts
        asked.append(1)
        return counts()

    monkeypatch.setattr(store, "counts", counted)
    manager = QueueManager(store)

    @manager.handler(max_pending=1_000)
    async def work(number: int) -> None: ...

    for number in range(1_000):
        work.enqueue_sync(number)
    assert len(asked) <= 80
    with pytest.raises(QueueFull):
        work.enqueue_sync(0)


@attrs.define
class Producer:
    """A process that stores jobs of one queue; the store is a count of those that wait.

    Attributes:
        waiting: how many wait, for all.
        asked: what it was told when it last asked the store, and what it is to say.
        under_way: how many it is storing.
    """

    waiting: list[int]
    pending: Pending
    asked: tuple[int, int] | None = None
    under_way: int = 0

    def step(self) -> None:
        """Let one more in, or ask the store first."""
        with suppress(QueueFull):
            if self.asked is not None:
                (count, since), self.asked = self.asked, None
                taken = self.pending.renew("q", 1, waiting=count, since=since)
            elif (since_now := self.pending.take("q", 1)) is not None:
                self.asked = self.waiting[0], since_now
                return
            else:
                taken = True
            self.under_way += taken

    def store(self) -> None:
        self.waiting[0] += self.under_way
        self.pending.end("q", self.under_way)
        self.under_way = 0


@pytest.mark.parametrize("processes", [1, 4])
@pytest.mark.parametrize("limit", [7, 80])
def test_each_process_but_one_may_go_past_the_limit_by_an_eighth_and_no_more(
    processes: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchq.pending._FULL", 0.0)
    share = max(limit // 8, 1)
    most = 0
    for seed in range(60):
        draw, waiting = random.Random(seed), [0]
        company = [Producer(waiting, Pending(lambda _: limit)) for _ in range(processes)]
        eager = draw.choice([2, 20, 200])
        for _ in range(40 * limit):
            producer = draw.choice(company)
            if draw.randrange(eager):
                producer.step()
            else:
                producer.store()
        for producer in company * (2 * limit):
            producer.store()
            producer.step()
        assert waiting[0] >= limit
        most = max(most, waiting[0])
    assert most <= limit + (processes - 1) * share
    assert (most > limit) == (processes > 1)  # the others' part is real


def test_a_call_for_many_comes_in_beside_those_for_one() -> None:
    """Or it would wait until nobody stores anything, which may be never."""
    pending = Pending(lambda _: 100)
    assert pending.take("q", 1) == 0
    assert pending.renew("q", 1, waiting=0, since=0)
    assert pending.take("q", 90) == 0
    assert pending.renew("q", 90, waiting=0, since=0)
    pending.end("q", 90)
    assert pending.take("q", 5) == 90
    assert not pending.renew("q", 5, waiting=90, since=90)  # the eighth is under way


def test_a_call_for_many_does_not_go_past_the_limit_for_those_beside_it() -> None:
    pending = Pending(lambda _: 100)
    assert pending.take("q", 1) == 0
    assert pending.renew("q", 1, waiting=0, since=0)
    assert pending.take("q", 100) == 0
    assert not pending.renew("q", 100, waiting=0, since=0)  # the store may not have seen it
    pending.end("q", 1)
    assert pending.take("q", 100) == 1
    with pytest.raises(QueueFull):
        pending.renew("q", 100, waiting=1, since=1)


def test_what_a_parent_has_under_way_is_not_its_childs(monkeypatch: pytest.MonkeyPatch) -> None:
    pending = Pending(lambda _: 8)
    assert pending.take("q", 1) == 0
    assert pending.renew("q", 1, waiting=0, since=0)
    assert pending.take("q", 1) == 0
    assert not pending.renew("q", 1, waiting=0, since=0)  # one is under way
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert pending.take("q", 1) == 0
    assert pending.renew("q", 1, waiting=0, since=0)


def test_several_processes_overshoot_by_little(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    managers = [QueueManager(url) for _ in range(4)]

    async def work(number: int) -> None: ...

    handlers = [manager.handler(name="work", max_pending=200)(work) for manager in managers]

    def fill(handler: Any) -> None:  # noqa: ANN401 - a handler
        with suppress(QueueFull):
            for number in range(300):
                handler.enqueue_sync(number)
            raise AssertionError("nothing was refused")

    threads = [threading.Thread(target=fill, args=(handler,)) for handler in handlers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 200 <= len(jobs_in(managers[0])) <= 200 + 3 * (200 // 8)
    for manager in managers:
        manager.close()


def test_the_threads_of_one_process_keep_to_the_limit(tmp_path: Path) -> None:
    manager = QueueManager(f"sqlite:///{tmp_path}/jobs.db")

    @manager.handler(max_pending=100)
    async def work(number: int) -> None: ...

    def fill() -> None:
        with suppress(QueueFull):
            for number in range(50):
                work.enqueue_sync(number)

    threads = [threading.Thread(target=fill) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(jobs_in(manager)) == 100
    manager.close()


@pytest.mark.parametrize("gathers", [True, False])
async def test_the_tasks_of_one_process_keep_to_the_limit_and_use_it_up(
    autojump_clock: MockClock, *, gathers: bool
) -> None:
    manager = QueueManager(WatchedStore(), run_sync=Hops(takes=0.02))
    refused = list[int]()

    @manager.handler(max_pending=30)
    async def work(number: int) -> None: ...

    async def enqueue(number: int) -> None:
        try:
            await work.enqueue(number)
        except QueueFull:
            refused.append(number)

    async with manager if gathers else nullcontext(), trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(enqueue, number)
    assert len(jobs_in(manager)) == 30
    assert len(refused) == 70


async def test_what_could_not_be_stored_takes_no_room(store: WatchedStore) -> None:
    manager = QueueManager(store)

    @manager.handler(max_pending=1)
    async def work() -> None: ...

    for _ in range(3):
        store.trouble = [StoreBusy("locked")]
        with pytest.raises(StoreBusy):
            await work.enqueue()
    await work.enqueue()


async def test_in_the_memory_tier_it_refuses_too(autojump_clock: MockClock) -> None:
    manager = QueueManager("memory:")

    @manager.handler(tier="memory", max_pending=2, concurrency=1)
    async def work(number: int) -> None:
        await trio.sleep(1)

    async with manager.working():
        await work.enqueue(0)
        await trio.sleep(0.5)
        await work.enqueue(1)
        await work.enqueue(2)
        with pytest.raises(QueueFull):
            await work.enqueue(3)
