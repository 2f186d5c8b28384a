"""The machine passes what is right, and finds what is wrong: with users' processors too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import trio
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from batchq import (
    AdaptiveBatchSize,
    AdaptiveConcurrency,
    Backoff,
    Batch,
    BatchedQueue,
    Entry,
    Result,
    RetryPolicy,
    SlidingWindow,
    Throttled,
    TokenBucket,
)
from batchq.core.batcher import Batcher
from batchq.core.options import Options
from batchq.testing.machine import QueueMachine

SOON = Backoff(initial_delay=0.5, jitter="none")


class EchoMachine(QueueMachine):
    """A slow processor, two slots, three levels."""

    options: ClassVar[Options] = {"batch_size": 3, "concurrency": 2, "priority_levels": 3}

    async def process_batch(self, batch: Batch[int]) -> list[int]:
        await trio.sleep(0.5)
        return [2 * item for item in batch]

    def expected(self, item: int) -> int:
        return 2 * item


class MoodyMachine(QueueMachine):
    """A processor that fails in every way, and retries."""

    items: ClassVar[st.SearchStrategy[str]] = st.sampled_from(
        ["ok", "fail", "retry", "snooze", "raise", "throttle"]
    )
    options: ClassVar[Options] = {
        "batch_size": 4,
        "flush_interval": 0,
        "retry": RetryPolicy(max_retries=2, backoff=SOON),
    }

    async def process_batch(self, batch: Batch[str]) -> list[Result[str]]:
        if "raise" in batch:
            raise OSError("down")
        if "throttle" in batch and batch.attempt == 1 and not getattr(self, "told", False):
            self.told = True
            raise Throttled(2)
        answers = {"fail": Result[str].discard("no"), "retry": Result[str].retry("again")}
        if batch.attempt == 1 and not getattr(self, "snoozed", False):
            self.snoozed = True
            answers["snooze"] = Result[str].snooze(1)
        return [answers.get(item, Result.ok(item)) for item in batch]

    def expected(self, item: str) -> str:
        return item


class GroupingMachine(QueueMachine):
    """A strategy that pairs odd with odd, and leaves some for later."""

    options: ClassVar[Options] = {
        "batch_size": 2,
        "flush_interval": 5,
        "batching_strategy": lambda items: [
            [item for item in items if item % 2],
            [item for item in items if not item % 2][:1],
        ],
    }


class LearningMachine(QueueMachine):
    """Sizes that the queue finds out, levels that age, partitions and weights."""

    options: ClassVar[Options] = {
        "batch_size": AdaptiveBatchSize(max_size=5),
        "concurrency": AdaptiveConcurrency(max_limit=3),
        "priority_levels": 2,
        "priority_aging": 1.0,
        "partition_by": lambda item: item % 2,
        "weigh": lambda item: abs(item) % 5,
        "max_batch_weight": 10,
        "flush_interval": 0.5,
    }


TestEcho = EchoMachine.TestCase
TestLearning = LearningMachine.TestCase
TestGrouping = GroupingMachine.TestCase
TestMoody = MoodyMachine.TestCase
# The engine has a model of its own; here it is the machine that is tried.
for case in (TestEcho, TestLearning, TestGrouping, TestMoody):
    case.settings = settings(max_examples=100, deadline=None)
del case  # pytest would run it


# Short histories, found and not made shorter: that they are found is what matters here.
SHORT = settings(
    max_examples=300,
    stateful_step_count=12,
    phases=[Phase.generate],
    database=None,
    deadline=None,
    derandomize=True,
    report_multiple_bugs=False,
)


def faults_of(machine: type[QueueMachine]) -> str:
    with pytest.raises(AssertionError) as caught:
        run_state_machine_as_test(machine, settings=SHORT)
    return str(caught.value)


def machine_with(process: Callable[[Any], Any], **options: Any) -> type[QueueMachine]:  # noqa: ANN401
    class Wrong(QueueMachine):
        items: ClassVar[st.SearchStrategy[int]] = st.integers(0, 3)

        async def process_batch(self, batch: Batch[int]) -> Any:  # noqa: ANN401 - wrong ones
            return await process(batch)

        def expected(self, item: int) -> int:
            return item

    Wrong.options = {"batch_size": 3, **options}  # type: ignore[typeddict-item]
    return Wrong


async def mixed_up(batch: Batch[int]) -> list[int]:
    return sorted(batch)


async def too_few(batch: Batch[int]) -> list[int]:
    return list(batch)[:2]


async def hangs(batch: Batch[int]) -> list[int]:
    if 3 in batch:
        await trio.sleep_forever()
    return list(batch)


async def asserts(batch: Batch[int]) -> list[int]:
    assert 3 not in batch, "no threes here"
    return list(batch)


async def throttles_for_ever(batch: Batch[int]) -> list[int]:
    if 3 in batch:
        raise Throttled(0.5)
    return list(batch)


@pytest.mark.parametrize(
    ("process", "fault"),
    [
        (mixed_up, "I32: "),
        (too_few, "ContractError: "),
        (hangs, "never settle"),
        (throttles_for_ever, "never settle"),
        (asserts, "no threes here"),
    ],
)
def test_a_wrong_processor_is_found(process: Callable[[Any], Any], fault: str) -> None:
    assert fault in faults_of(machine_with(process))


@pytest.mark.parametrize("option", ["hooks", "persistence", "batch_sise"])
def test_an_option_that_is_not_for_histories_is_refused(option: str) -> None:
    with pytest.raises(TypeError, match=option):
        run_state_machine_as_test(machine_with(echo, **{option: None}), settings=SHORT)


def test_a_processor_that_is_not_async_is_refused() -> None:
    class Plain(QueueMachine):
        def process_batch(self, batch: Batch[int]) -> list[int]:  # type: ignore[override]
            return list(batch)

    with pytest.raises(TypeError, match="async"):
        run_state_machine_as_test(Plain, settings=SHORT)


async def echo(batch: Batch[int]) -> list[int]:
    return list(batch)


@pytest.mark.parametrize(
    "strategy",
    [lambda items: [[object()]], lambda items: [items, items], lambda items: items[9]],
)
def test_a_wrong_strategy_is_found(strategy: Callable[[Any], Any]) -> None:
    wrong = machine_with(echo, batching_strategy=strategy, flush_interval=0)
    assert "StrategyError: " in faults_of(wrong)


def test_cancelled_items_that_are_processed_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """I19."""
    monkeypatch.setattr(BatchedQueue, "cancel_entry", lambda *_: True)
    assert "I19: " in faults_of(machine_with(echo))


def test_counts_that_do_not_add_up_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """I1."""
    real = BatchedQueue.stats

    def wrong(self: BatchedQueue[Any, Any], *, recount: bool = False) -> object:
        stats = real(self, recount=recount)
        # As if one of those that succeeded had been counted twice.
        object.__setattr__(stats, "succeeded", stats.succeeded + bool(stats.succeeded))
        return stats

    monkeypatch.setattr(BatchedQueue, "stats", wrong)
    assert "I1: " in faults_of(machine_with(echo))


def test_items_that_wait_too_long_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """I7: as if the pump overslept by two seconds."""
    real = Batcher.next_deadline
    monkeypatch.setattr(Batcher, "next_deadline", lambda batcher: real(batcher) + 2)
    assert "I7: " in faults_of(machine_with(echo, flush_interval=0.5))


def test_batches_too_long_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """I3."""
    real = BatchedQueue.__init__

    def wrong(self: BatchedQueue[Any, Any], *arguments: Any, **options: Any) -> None:  # noqa: ANN401
        real(self, *arguments, **{**options, "batch_size": 4})

    monkeypatch.setattr(BatchedQueue, "__init__", wrong)
    assert "I3: a batch of 4 items" in faults_of(machine_with(echo))


def test_results_that_change_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """I2."""
    monkeypatch.setattr(Entry, "verdict", property(lambda _: Result[int].ok(1)))
    assert "I2: " in faults_of(machine_with(echo))


PACED: dict[str, Options] = {
    "throttle": {"throttle": 1.0},
    "window": {"rate_limit": SlidingWindow(4, 2.0)},
    "bucket": {"rate_limit": TokenBucket(0.5, 3.0, "batch")},
    "by weight": {
        "rate_limit": [SlidingWindow(9, 1.0, "weight"), TokenBucket(2.0, 5.0)],
        "weigh": lambda item: item,
    },
    "partitions": {"partition_by": lambda item: item % 2, "partition_concurrency": 1},
    "ordered": {
        "partition_by": lambda item: item % 2,
        "ordered": True,
        "retry": RetryPolicy(2, backoff=SOON),
    },
    "deadline": {"delivery_timeout": 2.0, "flush_interval": None},
}


async def slow_and_moody(batch: Batch[int]) -> list[object]:
    await trio.sleep(0.25)
    if batch.id % 3 == 0:
        raise Throttled(0.75)
    if batch[0] == 2:
        raise OSError("down")
    return [ValueError("no") if item == 3 and batch.attempt < 3 else item for item in batch]


@pytest.mark.parametrize("name", PACED)
def test_what_holds_queues_back_is_no_fault(name: str) -> None:
    options: Options = {"concurrency": 3, "flush_interval": 0.5, **PACED[name]}
    right = machine_with(slow_and_moody, **options)
    how = settings(SHORT, max_examples=50, stateful_step_count=30, derandomize=False)
    run_state_machine_as_test(right, settings=how)


def test_an_item_that_somebody_waits_for_holds_its_partition_back_too() -> None:
    """Its retry is delayed when the item behind it has waited for the interval."""
    machine = machine_with(slow_and_moody, flush_interval=0.5, **PACED["ordered"])()
    machine.somebody_waits(item=2, patience=1e9)
    machine.flush()
    machine.items_come(items=[0], priority=0)
    machine.time_passes(seconds=0.5)
    machine.teardown()


@pytest.mark.parametrize("name", PACED)
def test_items_that_wait_too_long_are_found_whatever_holds_them_back(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I7, I29: as if the pump overslept by a minute."""
    real = Batcher.next_deadline
    monkeypatch.setattr(Batcher, "next_deadline", lambda batcher: real(batcher) + 60)
    options: Options = {"flush_interval": 0.5, **PACED[name]}
    fault = "I29: " if name == "deadline" else "I7: "
    assert fault in faults_of(machine_with(echo, **options))
