"""The stores alone, without event loop and threads, beside code that does the same by hand.

Run:    python -m benchmarks.run --only stores
Shows:  what claims, settlements and both in one transaction cost by size of batch, and how
        many transactions a job takes.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from typing import Any, Final, Protocol

from batchq.core.job import (
    ClaimedJob,
    ClaimRequest,
    Group,
    NewJob,
    Settlement,
    Verdict,
)
from batchq.stores.base import Store
from batchq.stores.memory import MemoryStore
from batchq.stores.sqlite import SqliteStore
from benchmarks.harness import Case, Goal, Reading, Stopwatch
from benchmarks.raw import HANDLER, LEASE, QUEUE, WORKER, RawStore, a_file, a_raw_store, payload

__all__ = ["CASES", "Ours", "a_sqlite_store", "drain"]

CHUNK: Final = 1_000  # jobs stored by one transaction


class Target(Protocol):
    """What is measured: a store, driven by code that knows what it holds."""

    @property
    def commits(self) -> int:
        """The transactions that it has counted itself."""

    def enqueue(self, numbers: range) -> None:
        """Store one job per number, in one transaction."""

    def claim(self, limit: int) -> Sequence[Any]:
        """Take jobs, in one transaction."""

    def settle(self, held: Sequence[Any]) -> None:
        """Complete jobs, in one transaction."""

    def cycle(self, held: Sequence[Any], limit: int) -> Sequence[Any]:
        """Complete jobs and take the next, in one transaction."""


class Ours:
    """A store of ours."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @property
    def commits(self) -> int:
        """The transactions that it has counted itself."""
        return sum(worker.commits for worker in self.store.workers())

    def enqueue(self, numbers: range) -> None:
        """Store one job per number."""
        jobs = [NewJob(QUEUE, HANDLER, payload(number)) for number in numbers]
        self.store.commit(Group(enqueue=jobs, worker=WORKER))

    def claim(self, limit: int) -> Sequence[ClaimedJob]:
        """Take jobs."""
        return self.store.commit(Group(claim=[_request(limit)], worker=WORKER)).claim[0].jobs

    def settle(self, held: Sequence[ClaimedJob]) -> None:
        """Complete jobs."""
        self.store.commit(Group(settle=_settlements(held), worker=WORKER, batches=1))

    def cycle(self, held: Sequence[ClaimedJob], limit: int) -> Sequence[ClaimedJob]:
        """Complete jobs and take the next."""
        group = Group(settle=_settlements(held), claim=[_request(limit)], worker=WORKER, batches=1)
        return self.store.commit(group).claim[0].jobs


def _request(limit: int) -> ClaimRequest:
    return ClaimRequest(QUEUE, (HANDLER,), limit, LEASE, WORKER)


def _settlements(held: Sequence[ClaimedJob]) -> list[Settlement]:
    return [Settlement(job.receipt, Verdict.OK) for job in held]


class ByHand:
    """The store made by hand."""

    commits = 0

    def __init__(self, store: RawStore) -> None:
        self.claim = store.claim
        self.settle = store.settle
        self.cycle = store.cycle
        self._store = store

    def enqueue(self, numbers: range) -> None:
        """Store one job per number."""
        self._store.enqueue([payload(number).decode() for number in numbers])


class _Bare:
    """The least that a job in memory could be."""

    __slots__ = ("attempt", "due_at", "payload", "state")

    def __init__(self, content: bytes, due_at: float) -> None:
        self.payload = content
        self.due_at = due_at
        self.attempt = 0
        self.state = "pending"


class BareShelf:
    """A dict of bare slotted objects, and a heap of what is due."""

    commits = 0

    def __init__(self) -> None:
        self._jobs: dict[int, _Bare] = {}
        self._heap: list[tuple[float, int]] = []

    def enqueue(self, numbers: range) -> None:
        """Keep one job per number."""
        now = time.monotonic()
        for content in map(payload, numbers):
            id_ = len(self._jobs) + 1
            self._jobs[id_] = _Bare(content, now)
            heapq.heappush(self._heap, (now, id_))

    def claim(self, limit: int) -> list[tuple[int, int]]:
        """Take jobs."""
        now = time.monotonic()
        held: list[tuple[int, int]] = []
        while self._heap and len(held) < limit and self._heap[0][0] <= now:
            due_at, id_ = heapq.heappop(self._heap)
            job = self._jobs[id_]
            if job.due_at == due_at:
                job.attempt, job.state, job.due_at = job.attempt + 1, "processing", now + LEASE
                held.append((id_, job.attempt))
        for id_, _ in held:
            heapq.heappush(self._heap, (now + LEASE, id_))
        return held

    def settle(self, held: Sequence[tuple[int, int]]) -> None:
        """Complete jobs."""
        for id_, attempt in held:
            job = self._jobs[id_]
            if job.attempt == attempt:
                job.state, job.due_at = "completed", -1.0

    def cycle(self, held: Sequence[tuple[int, int]], limit: int) -> list[tuple[int, int]]:
        """Complete jobs and take the next."""
        self.settle(held)
        return self.claim(limit)


# ---- Targets.

Make = Callable[[], AbstractContextManager[Target]]


@contextmanager
def a_sqlite_store() -> Iterator[Ours]:
    """Give a SQLite store of ours, empty, as durable as it can be."""
    with a_file() as path, closing(SqliteStore(path)) as store:
        yield Ours(store)


@contextmanager
def a_memory_store() -> Iterator[Ours]:
    """Give a memory store of ours, empty."""
    yield Ours(MemoryStore())


@contextmanager
def by_hand() -> Iterator[ByHand]:
    """Give a store made by hand, empty."""
    with a_raw_store() as store:
        yield ByHand(store)


@contextmanager
def a_bare_shelf() -> Iterator[BareShelf]:
    """Give a bare shelf, empty."""
    yield BareShelf()


# ---- What is measured.


def fill(target: Target, size: int) -> None:
    """Store jobs in thousands."""
    for start in range(0, size, CHUNK):
        target.enqueue(range(start, min(start + CHUNK, size)))


def drain(target: Target, batch: int, size: int) -> None:
    """Claim a batch; then settle it and claim the next, until `size` jobs are settled."""
    held = target.claim(batch)
    for _ in range(batch, size, batch):
        held = target.cycle(held, batch)
        assert len(held) == batch
    target.settle(held)


def enqueue(make: Make, size: int) -> Reading:
    """Store jobs in thousands."""
    with make() as target:
        return _timed(target, size, partial(fill, target, size))


def claim(make: Make, batch: int, size: int) -> Reading:
    """Take what waits, batch by batch."""

    def take() -> None:
        for _ in range(0, size, batch):
            assert len(target.claim(batch)) == batch

    with make() as target:
        fill(target, size)
        return _timed(target, size, take)


def settle(make: Make, batch: int, size: int) -> Reading:
    """Complete what is held, batch by batch."""

    def complete() -> None:
        for start in range(0, size, batch):
            target.settle(held[start : start + batch])

    with make() as target:
        fill(target, size)
        held = target.claim(size)
        assert len(held) == size
        return _timed(target, size, complete)


def cycle(make: Make, batch: int, size: int) -> Reading:
    """Take and complete what waits, one transaction per batch."""
    with make() as target:
        fill(target, size)
        return _timed(target, size, partial(drain, target, batch, size))


def _timed(target: Target, size: int, work: Callable[[], object]) -> Reading:
    before = target.commits
    with Stopwatch() as watch:
        work()
    return watch.rate(size, **{"commits per job": (target.commits - before) / size})


# ---- Cases.

# Jobs per run: a batch of one is a commit per job, of some 5,000 a second.
_SIZES: Final = {1: 2_000, 10: 10_000, 100: 20_000, 1_000: 40_000}
_WHOLE: Final = {"claim": claim, "settle": settle, "cycle": cycle}


def _by_batch(what: str, batch: int) -> Case:
    return Case(
        name=f"stores/{what}_{batch}",
        ours=partial(_WHOLE[what], a_sqlite_store, batch),
        floor=partial(_WHOLE[what], by_hand, batch),
        beside="sqlite3 by hand: the same tables, pragmas and transactions",
        unit="jobs/s",
        size=_SIZES[batch],
        smoke=2 * batch if batch > 1 else 20,
    )


CASES: Final = (
    Case(
        name="stores/enqueue",
        ours=partial(enqueue, a_sqlite_store),
        floor=partial(enqueue, by_hand),
        beside="executemany by hand, a commit per thousand: the same tables and pragmas",
        unit="jobs/s",
        size=50_000,
        smoke=2_000,
        reach=Goal(0.5, 0.8),
    ),
    *(_by_batch(what, batch) for what in _WHOLE for batch in _SIZES),
    Case(
        name="stores/memory_enqueue",
        ours=partial(enqueue, a_memory_store),
        floor=partial(enqueue, a_bare_shelf),
        beside="a dict of bare slotted objects, and a heap",
        unit="jobs/s",
        size=50_000,
        smoke=2_000,
    ),
    Case(
        name="stores/memory_cycle_100",
        ours=partial(cycle, a_memory_store, 100),
        floor=partial(cycle, a_bare_shelf, 100),
        beside="a dict of bare slotted objects, and a heap",
        unit="jobs/s",
        size=50_000,
        smoke=2_000,
    ),
)
