"""Durable jobs from end to end, through `QueueManager`, beside SQLite by hand and beside peers.

Run:    python -m benchmarks.run --only jobs
Shows:  what promises cost over hand-written SQL on the same tables, and how many commits
        and thread hops a job takes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial
from typing import Final

import attrs
import msgspec
import trio

from batchq import QueueManager
from batchq.core.job import Answers, Group
from batchq.core.lifecycle import JobState
from batchq.handler import BatchHandler
from batchq.stores.sqlite import SqliteStore
from benchmarks.harness import Case, Goal, Reading, Stopwatch
from benchmarks.job_peers import PEERS, Item, Peer, letter, measure
from benchmarks.raw import RawStore, a_file, a_raw_store

__all__ = ["CASES"]

CHUNK: Final = 1_000  # jobs stored by one transaction
CALLERS: Final = 64  # tasks that enqueue one job after the other

# ---- Ours.


@attrs.define
class Bench:
    """A manager with one batch handler that does nothing, and what was counted.

    Attributes:
        store: where its jobs are.
        batch_size: of the handler.
    """

    store: SqliteStore
    batch_size: int
    hops: int = 0
    left: int = 0
    done: trio.Event = attrs.field(factory=trio.Event)
    manager: QueueManager = attrs.field(init=False)
    letters: BatchHandler[Item, None] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.manager = QueueManager(self.store, run_sync=self._hop)

        @self.manager.batch_handler(batch_size=self.batch_size, concurrency=1)
        async def letters(items: list[Item]) -> None:
            self.left -= len(items)
            if self.left <= 0:
                self.done.set()

        self.letters = letters

    @property
    def commits(self) -> int:
        """Transactions, as the store has counted them."""
        return sum(worker.commits for worker in self.store.workers())

    def reading(self, watch: Stopwatch, size: int) -> Reading:
        """Read the watch, and what was counted while it ran."""
        facts = {"commits per job": self.commits / size, "hops per job": self.hops / size}
        return watch.rate(size, **facts)

    async def _hop(self, call: Callable[[Group], Answers], group: Group) -> Answers:
        self.hops += 1
        return await trio.to_thread.run_sync(call, group)


Main = Callable[[Bench, int, Stopwatch], Awaitable[None]]


def ours(main: Main, batch_size: int, size: int) -> Reading:
    """Measure what `main` does with a manager over an empty SQLite file."""
    with a_file() as path, closing(SqliteStore(path)) as store:
        bench, watch = Bench(store, batch_size), Stopwatch()
        trio.run(main, bench, size, watch)
        return bench.reading(watch, size)


async def store_one_by_one(bench: Bench, size: int, watch: Stopwatch) -> None:
    """Let many tasks enqueue one job after the other."""

    async def caller(numbers: range) -> None:
        for number in numbers:
            await bench.letters.enqueue(letter(number))

    async with bench.manager:
        with watch:
            async with trio.open_nursery() as callers:
                for first in range(CALLERS):
                    callers.start_soon(caller, range(first, size, CALLERS))


async def store_many(bench: Bench, size: int, watch: Stopwatch) -> None:
    """Enqueue all jobs at once."""
    async with bench.manager:
        with watch:
            await bench.letters.enqueue_many(letter(number) for number in range(size))


async def store_and_run(bench: Bench, size: int, watch: Stopwatch) -> None:
    """Enqueue all jobs, let the workers run them, and end when all are settled."""
    bench.left = size
    with watch:
        async with bench.manager:
            await bench.letters.enqueue_many(letter(number) for number in range(size))
            async with bench.manager.working():
                await bench.done.wait()
    assert bench.store.counts()["letters"] == {JobState.COMPLETED: size}


# ---- By hand.


def by_hand(work: Callable[[RawStore, int], None], size: int) -> Reading:
    """Measure the same on the same tables, without promises."""
    with a_raw_store() as store:
        with Stopwatch() as watch:
            work(store, size)
        return watch.rate(size)


def insert_one_by_one(store: RawStore, size: int) -> None:
    """Store jobs, each in a transaction of its own."""
    for number in range(size):
        store.enqueue([msgspec.json.encode(letter(number)).decode()])


def insert_together(size: int) -> Reading:
    """Let many trio tasks store one job after the other, a commit for all that wait."""
    watch = Stopwatch()
    with a_raw_store() as store:
        trio.run(_insert_together, store, size, watch)
    return watch.rate(size)


async def _insert_together(store: RawStore, size: int, watch: Stopwatch) -> None:
    waiting: list[tuple[str, trio.lowlevel.Task]] = []
    comes, left = trio.Event(), size

    async def caller(numbers: range) -> None:
        for number in numbers:
            content = msgspec.json.encode(letter(number)).decode()
            waiting.append((content, trio.lowlevel.current_task()))
            comes.set()
            await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)

    with watch:
        async with trio.open_nursery() as callers:
            for first in range(CALLERS):
                callers.start_soon(caller, range(first, size, CALLERS))
            while left:
                await comes.wait()
                comes, group = trio.Event(), waiting.copy()
                waiting.clear()
                await trio.to_thread.run_sync(store.enqueue, [content for content, _ in group])
                for _, task in group:
                    trio.lowlevel.reschedule(task)
                left -= len(group)


def insert_in_thousands(store: RawStore, size: int) -> None:
    """Store jobs, a thousand per transaction."""
    for start in range(0, size, CHUNK):
        numbers = range(start, min(start + CHUNK, size))
        store.enqueue([msgspec.json.encode(letter(number)).decode() for number in numbers])


def insert_and_run(batch_size: int, store: RawStore, size: int) -> None:
    """Store jobs; take, decode and complete them, one transaction per batch."""
    insert_in_thousands(store, size)
    decode = msgspec.json.Decoder(Item).decode
    handled = 0
    held = store.claim(batch_size)
    while held:
        handled += len([decode(row[2]) for row in held])
        held = store.cycle(held, batch_size)
    assert handled == size


# ---- Cases.


def _beside_peer(peer: Peer) -> Case:
    return Case(
        name=f"jobs/peer_{peer.module}",
        ours=partial(ours, store_and_run, 100),
        floor=partial(measure, peer.work),
        beside=peer.beside,
        unit="jobs/s",
        size=2_000,
        smoke=100,
        reach=Goal(*peer.reach),
        needs=peer.module,
    )


def _cycle(batch_size: int, reach: Goal) -> Case:
    return Case(
        name=f"jobs/cycle_{batch_size}",
        ours=partial(ours, store_and_run, batch_size),
        floor=partial(by_hand, partial(insert_and_run, batch_size)),
        beside="sqlite3 by hand: the same tables, pragmas and transactions",
        unit="jobs/s",
        size=20_000,
        smoke=2 * batch_size,
        reach=reach,
        facts={"commits per job": Goal(0.02, 0.011)} if batch_size == 100 else {},  # noqa: PLR2004
    )


CASES: Final = (
    Case(
        name="jobs/enqueue_64",
        ours=partial(ours, store_one_by_one, 100),
        floor=partial(by_hand, insert_one_by_one),
        beside="sqlite3 by hand, a commit per job; ours: 64 tasks, each awaits its own",
        unit="jobs/s",
        size=6_400,
        smoke=128,
        reach=Goal(10.0, 20.0),
    ),
    Case(
        name="jobs/enqueue_64_together",
        ours=partial(ours, store_one_by_one, 100),
        floor=insert_together,
        beside="64 trio tasks by hand, a commit for all that wait, in a thread",
        unit="jobs/s",
        size=6_400,
        smoke=128,
    ),
    Case(
        name="jobs/enqueue_many",
        ours=partial(ours, store_many, 100),
        floor=partial(by_hand, insert_in_thousands),
        beside="executemany by hand, a commit per thousand",
        unit="jobs/s",
        size=10_000,
        smoke=2_000,
    ),
    _cycle(100, Goal(0.4, 0.7)),
    _cycle(1_000, Goal(0.5, 0.8)),
    *map(_beside_peer, PEERS),
)
