"""What the rich rules promise, each by a small model of its own.

The core is driven on a clock of the test's: items arrive, calls take a while. The models
read what was started, and when; they never ask the code that they judge.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

import attrs
import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from batchq.core.backoff import Backoff
from batchq.core.batch import Batch
from batchq.core.batcher import Batcher
from batchq.core.entry import Entry, EntryStatus
from batchq.core.limits import Per, RateLimit, SlidingWindow, TokenBucket
from batchq.core.options import read_settings
from batchq.core.result import Result
from batchq.core.retry import RetryPolicy

Place = tuple[Any, int]

STEPS: Final = st.sampled_from([0.0, 0.0, 0.125, 0.5, 1.0])
RETRY: Final = RetryPolicy(2, backoff=Backoff(schedule=(0.5,), jitter="none"))


@attrs.frozen
class Arrival:
    """An item to come, so long after the one before it."""

    after: float = 0.0
    partition: str = "a"
    priority: int = 0
    weight: float = 1.0
    fails: int = 0


@attrs.define(eq=False)
class Start:
    """A call: when it started, with whom, and who was left waiting."""

    at: float
    batch: Batch[Any]
    left: list[Entry[Any, Any]]
    unsettled: list[Entry[Any, Any]]


class Run:
    """Lets items arrive and calls end, until nothing is left.

    Attributes:
        starts: the calls, in order.
        entries: what was admitted, by id.
    """

    def __init__(
        self,
        arrivals: Iterable[Arrival],
        *,
        takes: float = 0.0,
        raises: bool = False,
        **options: Any,  # noqa: ANN401 - any option of a queue
    ) -> None:
        self.arrivals = list(arrivals)
        self.fails: dict[int, int] = {}
        self.takes, self.raises = takes, raises
        self.batcher: Batcher[Any, Any] = Batcher(read_settings(options))
        self.batcher.enrich()
        self.starts: list[Start] = []
        self.entries: list[Entry[Any, Any]] = []
        self.running: list[tuple[float, Batch[Any]]] = []
        self.next_arrival = self.arrivals[0].after
        self.live()

    def live(self) -> None:
        for _ in range(200 + 40 * len(self.arrivals)):
            ends = self.running[0][0] if self.running else math.inf
            now = min(self.next_arrival, ends, self.batcher.next_deadline())
            if now == math.inf:
                break
            now = max(now, self.starts[-1].at if self.starts else 0.0)
            self.step(now)
        assert self.batcher.idle
        assert all(entry.settled for entry in self.entries)
        assert not self.arrivals

    def step(self, now: float) -> None:
        while self.running and self.running[0][0] <= now:
            self.end(self.running.pop(0)[1], now)
        while self.next_arrival <= now:
            self.admit(self.arrivals.pop(0), now)
        while (batch := self.batcher.next_batch(now)) is not None:
            left = [each for each in self.entries if each.status is EntryStatus.PENDING]
            unsettled = [each for each in self.entries if not each.settled]
            self.starts.append(Start(now, batch, left, unsettled))
            self.running.append((now + self.takes, batch))

    def admit(self, item: Arrival, now: float) -> None:
        door: Any = self.batcher.door
        how = {"partition": item.partition, "weight": item.weight}
        entry = door.enqueue(item, item.priority, now, **how)
        self.entries.append(entry)
        self.fails[entry.id] = item.fails
        self.next_arrival += self.arrivals[0].after if self.arrivals else math.inf

    def end(self, batch: Batch[Any], now: float) -> None:
        bad = [entry.attempts < self.fails[entry.id] for entry in batch.entries]
        if self.raises and any(bad):
            judged = self.batcher.splitting.raised(batch, ValueError("poison"))
            results, concerns = judged.results, judged.batch
        else:
            self.batcher.splitting.returned(batch)
            results = [Result.fail(ValueError("bad")) if each else None for each in bad]
            concerns = batch
        self.batcher.settle(batch, results, now=now, draw=0.5, concerns=concerns)
        self.batcher.release(batch)
        self.batcher.news.take()

    def status(self, status: EntryStatus) -> list[int]:
        return [entry.id for entry in self.entries if entry.status is status]


def arrivals(
    most: int = 24, *, least: int = 1, **fields: st.SearchStrategy[Any]
) -> st.SearchStrategy[list[Arrival]]:
    return st.lists(st.builds(Arrival, **fields), min_size=least, max_size=most)


# ---- I10: rate limits.

BUCKETS: Final = st.builds(
    TokenBucket,
    rate=st.sampled_from([0.5, 1.0, 3.0]),
    burst=st.sampled_from([3, 4, 7.5]),
    per=st.sampled_from(Per),
)
WINDOWS: Final = st.builds(
    SlidingWindow,
    limit=st.sampled_from([3, 5]),
    window=st.sampled_from([0.5, 1.0, 3.0]),
    per=st.sampled_from(Per),
)


def units(start: Start, per: Per) -> float:
    """Return what a call costs."""
    if per is Per.BATCH:
        return 1
    items: Sequence[Arrival] = start.batch
    return len(items) if per is Per.ITEM else math.fsum(item.weight for item in items)


def spans(starts: Sequence[Start], per: Per) -> Iterable[tuple[float, float, float]]:
    """Yield each closed interval from start to start: its ends, and what it holds."""
    for first, begin in enumerate(starts):
        total = 0.0
        for start in starts[first:]:
            total += units(start, per)
            yield begin.at, start.at, total


@given(
    coming=arrivals(
        after=STEPS,
        partition=st.sampled_from("ab"),
        weight=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
        fails=st.sampled_from([0, 0, 0, 1, 9]),
    ),
    rates=st.lists(st.one_of(BUCKETS, WINDOWS), min_size=1, max_size=3),
    takes=st.sampled_from([0.0, 0.25]),
    raises=st.booleans(),
    size=st.integers(1, 8),
    concurrency=st.integers(1, 3),
)
def test_whatever_runs_no_span_of_time_holds_more_than_each_limit_allows(
    coming: list[Arrival],
    rates: list[RateLimit],
    **how: Any,  # noqa: ANN401 - as drawn
) -> None:
    """I10: retries, bisects and partitions included."""
    run = Run(
        coming,
        takes=how["takes"],
        raises=how["raises"],
        rate_limit=rates,
        batch_size=how["size"],
        concurrency=how["concurrency"],
        flush_interval=0.5,
        retry=RETRY,
    )
    for limit in rates:
        for first, last, held in spans(run.starts, limit.per):
            if isinstance(limit, TokenBucket):
                assert held <= limit.burst + limit.rate * (last - first) + 1e-9
            elif last < first + limit.window:  # a difference may round to just below the window
                assert held <= limit.limit


# ---- I11, I12, I13: order inside a bucket, ageing.


@given(
    coming=arrivals(
        after=STEPS,
        partition=st.sampled_from("ab"),
        priority=st.integers(0, 2),
        weight=st.sampled_from([1.0, 2.0, 5.0]),
    ),
    takes=st.sampled_from([0.0, 0.5, 2.0]),
    aging=st.sampled_from([math.inf, 0.25, 1.0]),
    mix=st.booleans(),
    budget=st.sampled_from([None, 4.0]),
    size=st.integers(1, 4),
)
def test_a_bucket_goes_by_its_order_key_and_waiting_makes_up_for_a_level(
    coming: list[Arrival],
    **how: Any,  # noqa: ANN401 - as drawn
) -> None:
    aging = how["aging"]
    run = Run(
        coming,
        takes=how["takes"],
        batch_size=how["size"],
        priority_levels=3,
        priority_aging=aging,
        mix_priorities=how["mix"],
        max_batch_weight=how["budget"],
        flush_interval=1.0,
    )

    def place(entry: Entry[Any, Any]) -> Place:
        return entry.more.partition, 0 if how["mix"] else entry.priority

    def key(entry: Entry[Any, Any]) -> tuple[float, int]:
        if aging == math.inf:
            return entry.priority, entry.id
        return entry.enqueued_at + entry.priority * aging, entry.id

    for start in run.starts:
        chosen = list(map(key, start.batch.entries))
        assert chosen == sorted(chosen)
        here = [key(each) for each in start.left if place(each) == place(start.batch.entries[0])]
        assert not here or chosen[-1] < min(here)
    order = [entry for start in run.starts for entry in start.batch.entries]
    if how["mix"] and aging < math.inf:
        assert_the_bound_of_ageing(order, aging)
    lines: dict[Any, list[int]] = defaultdict(list)
    for entry in order:
        lines[entry.more.partition, entry.priority].append(entry.id)
    assert all(line == sorted(line) for line in lines.values())


def assert_the_bound_of_ageing(order: Sequence[Entry[Any, Any]], aging: float) -> None:
    for index, late in enumerate(order):
        for early in order[:index]:
            better = late.priority - early.priority
            if early.more.partition == late.more.partition and better > 0:
                assert early.enqueued_at <= late.enqueued_at + better * aging


# ---- Fair turns.


@given(
    coming=arrivals(40, least=6, after=STEPS, partition=st.sampled_from("aaabc")),
    takes=st.sampled_from([0.25, 1.0]),
    size=st.integers(1, 3),
    interval=st.sampled_from([0.0, 1.0]),
    concurrency=st.integers(1, 2),
)
def test_no_partition_goes_twice_while_another_is_ready(
    coming: list[Arrival],
    **how: Any,  # noqa: ANN401 - as drawn
) -> None:
    run = Run(
        coming,
        takes=how["takes"],
        batch_size=how["size"],
        flush_interval=how["interval"],
        concurrency=how["concurrency"],
    )
    served: dict[Any, set[Any]] = {}  # by who is ready: who went since
    for start in run.starts:
        ready = ready_partitions(start, how["size"], how["interval"])
        served = {name: served.get(name, set()) for name in ready}
        served.pop(start.batch.partition, None)
        for others in served.values():
            assert start.batch.partition not in others
            others.add(start.batch.partition)


def ready_partitions(start: Start, size: int, interval: float) -> set[Any]:
    """Name the partitions that could have gone in the place of one, and have not."""
    waits: dict[Any, list[float]] = defaultdict(list)
    for entry in start.left:
        waits[entry.more.partition].append(entry.enqueued_at)
    return {
        name
        for name, since in waits.items()
        if len(since) >= size or min(since) + interval <= start.at
    }


# ---- I18: bisect.


@example(count=16, size=16, poison={5}, retry=None, mode="immediate")
@given(
    count=st.integers(1, 70),
    size=st.integers(1, 40),
    poison=st.sets(st.integers(0, 69), max_size=6),
    retry=st.sampled_from([None, RETRY]),
    mode=st.sampled_from(["immediate", "exhausted"]),
)
def test_exactly_the_poison_fails_in_few_calls(
    count: int, size: int, poison: set[int], retry: RetryPolicy | None, mode: str
) -> None:
    run = Run(
        [Arrival(fails=99 if index in poison else 0) for index in range(count)],
        raises=True,
        batch_size=size,
        bisect=mode,
        retry=retry,
        flush_interval=0.0,
    )
    bad = sorted(index + 1 for index in poison if index < count)
    assert run.status(EntryStatus.FAILED) == bad
    assert len(run.status(EntryStatus.SUCCEEDED)) == count - len(bad)
    attempts = 1 if retry is None else 1 + retry.max_retries
    assert all(run.entries[id_ - 1].attempts == attempts for id_ in bad)
    assert all(1 <= entry.attempts <= attempts for entry in run.entries)
    assert_what_failed_alone_stays_alone(run, set(bad))
    if retry is None:
        assert_few_calls(run, set(bad))


def assert_what_failed_alone_stays_alone(run: Run, bad: set[int]) -> None:
    alone: set[int] = set()
    for start in run.starts:
        ids = {entry.id for entry in start.batch.entries}
        assert len(ids) == 1 or not ids & alone
        if len(ids) == 1 and start.batch.parent_id is not None:
            alone |= ids & bad


def assert_few_calls(run: Run, bad: set[int]) -> None:
    calls = [start.batch for start in run.starts]
    for root in (batch for batch in calls if batch.parent_id is None):
        parts = sum(batch.parent_id == root.id for batch in calls)
        n, k = len(root), len(bad & {entry.id for entry in root.entries})
        assert 1 + parts <= min(1 + 2 * k * math.ceil(math.log2(n)), 2 * n - 1)


# ---- Ordered.


@pytest.mark.parametrize("raises", [False, True])
@given(
    coming=arrivals(
        after=STEPS,
        partition=st.sampled_from("ab"),
        fails=st.sampled_from([0, 0, 0, 1, 2, 9]),
    ),
    takes=st.sampled_from([0.0, 0.25, 1.0]),
    size=st.integers(1, 5),
    mode=st.sampled_from(["off", "immediate", "exhausted"]),
)
def test_nothing_of_an_ordered_partition_overtakes(
    coming: list[Arrival],
    *,
    raises: bool,
    **how: Any,  # noqa: ANN401 - as drawn
) -> None:
    run = Run(
        coming,
        takes=how["takes"],
        raises=raises,
        batch_size=how["size"],
        bisect=how["mode"],
        ordered=True,
        concurrency=3,
        retry=RETRY,
        flush_interval=0.5,
    )
    for start in run.starts:
        goes = {entry.id for entry in start.batch.entries}
        before = {
            entry.id
            for entry in start.unsettled
            if entry.more.partition == start.batch.partition and entry.id < max(goes)
        }
        assert before <= goes
    failed = [id_ for id_, times in run.fails.items() if times > RETRY.max_retries]
    assert set(run.status(EntryStatus.FAILED)) >= set(failed)
    if not raises:
        assert run.status(EntryStatus.FAILED) == failed
        assert all(each.attempts == 1 for each in run.entries if not run.fails[each.id])
