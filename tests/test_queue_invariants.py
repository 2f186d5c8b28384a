"""Where each invariant of a `BatchedQueue` is proven, and those that need a whole queue.

`PROOFS` is the map: what holds, and the tests that fail where it does not. The histories
beside a model (`MODEL`, `PLAIN`) predict each start, its order and its time, and each
entry's end, so they prove most of them at once; where they are named the others are closer
looks. What no model predicts: adaptive sizes (their bounds are checked, and their values
taken), what a strategy would answer if it were asked earlier than it is, and which of two
triggers of one instant is named.
"""

from __future__ import annotations

import logging
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from unittest import mock

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from batchq import Backoff, Hooks, Result, RetryPolicy, SlidingWindow
from batchq.core.batch import Batch
from batchq.core.entry import EntryStatus
from batchq.core.options import Options
from batchq.hooks import EVENTS
from tests.calls import batched

HERE: Final = Path(__file__).parent

PLAIN: Final = "core/test_busy_histories.py::test_a_long_history_is_that_of_the_model"
MODEL: Final = "core/test_rich_histories.py::test_a_history_is_that_of_the_model"
ALWAYS: Final = (PLAIN, MODEL)
MACHINE: Final = "testing/test_machine.py::"
MODELS: Final = "core/test_rich_models.py::"
RULES: Final = "test_queue_rules.py::"
HERE_TOO: Final = "test_queue_invariants.py::"
CANCELLATION: Final = "test_queue_cancellation.py::"
CANCEL: Final = "test_queue_cancel_everywhere.py::"

PROOFS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "I1": (
        "what came in is somewhere, once",
        (*ALWAYS, CANCEL + "test_a_call_cancelled_at_any_checkpoint_breaks_nothing"),
    ),
    "I2": (
        "an entry settles once, for good",
        (*ALWAYS, CANCEL + "test_it_breaks_nothing_where_more_is_asked"),
    ),
    "I3": ("no batch is empty or too long", (*ALWAYS, MACHINE + "test_batches_too_long_are_found")),
    "I4": (
        "nor too heavy, unless alone",
        (MODEL, RULES + "test_s7_a_batch_never_weighs_too_much"),
    ),
    "I5": (
        "it is of one partition, of one level if they do not mix",
        (MODEL, RULES + "test_levels_that_do_not_mix_go_in_batches_of_their_own"),
    ),
    "I6": (
        "no more run at once than may, in the queue and in a partition",
        (*ALWAYS, RULES + "test_partition_concurrency_holds_and_others_go_on"),
    ),
    "I7": (
        "while there is capacity nothing is late",
        (*ALWAYS, MACHINE + "test_what_holds_queues_back_is_no_fault"),
    ),
    "I8": ("nor is a bucket full", (*ALWAYS, "test_queue_lessons.py::test_full_and_due")),
    "I9": ("starts are `throttle` apart", (*ALWAYS, "test_queue.py::test_s10_resume_starts")),
    "I10": (
        "no window and no bucket of tokens gives more than it has",
        (MODEL, MODELS + "test_whatever_runs_no_span_of_time_holds_more_than_each_limit_allows"),
    ),
    "I11": (
        "first attempts go in the order of arrival",
        (*ALWAYS, MODELS + "test_a_bucket_goes_by_its_order_key"),
    ),
    "I12": ("no better entry is left behind", (*ALWAYS, MODELS + "test_a_bucket_goes_by_its")),
    "I13": ("the bound of ageing", (MODEL, MODELS + "test_a_bucket_goes_by_its_order_key")),
    "I14": ("a full queue takes nothing but by its policy", ALWAYS),
    "I15": ("its victim is the one that is named", (*ALWAYS, "test_queue.py::test_s8_a_full")),
    "I16": ("no more attempts than there may be", ALWAYS),
    "I17": (
        "a retry comes at its time",
        (*ALWAYS, "test_queue.py::test_s11_retries_come_at_the_delays_of_the_policy_and_end"),
    ),
    "I18": (
        "exactly the poison fails, in few calls",
        (MODELS + "test_exactly_the_poison_fails_in_few_calls", MODEL),
    ),
    "I19": (
        "what was settled before its start is never processed",
        (*ALWAYS, MACHINE + "test_cancelled_items_that_are_processed_are_found"),
    ),
    "I20": (
        "starts and completions are equal, verdicts are told of once",
        (HERE_TOO + "test_neither_hooks_that_raise", "test_hooks.py::test_starts_and_completions"),
    ),
    "I21": ("hooks that raise change nothing", (HERE_TOO + "test_neither_hooks_that_raise",)),
    "I22": (
        "after its block every entry is settled",
        (CANCEL + "test_it_breaks_nothing_where_more_is_asked", CANCELLATION + "test_c7"),
    ),
    "I23": (
        "a drain leaves nothing and nothing starts after it",
        (*ALWAYS, "test_queue_lifetime.py::test_drain_runs_retries_and_delays_at_their_time"),
    ),
    "I24": ("nothing starts while it is paused", (*ALWAYS, "test_queue_lifetime.py::test_pause")),
    "I25": (
        "what was saved comes back as it was",
        (MODEL, "core/test_snapshot.py::test_entries_come_back_as_they_were_saved",
         "test_queue_saving.py::test_what_was_not_settled_comes_back"),
    ),
    "I26": (
        "a crash leaves the old snapshot or the new one",
        ("persistence/test_storages.py::test_a_crash_at_any_line_of_a_save",
         "persistence/test_storages.py::test_a_kill_in_the_middle_of_saving"),
    ),
    "I27": ("counters equal a recount", (*ALWAYS, MACHINE + "test_counts_that_do_not_add_up")),
    "I28": (
        "at idle nothing is kept",
        (*ALWAYS, "test_queue_leaks.py::test_partitions_used_once_leave_nothing",
         "test_queue_enqueue.py::test_at_idle_nothing_keeps_an_item_nor_a_task"),
    ),
    "I29": (
        "what waits expires exactly at its deadline",
        (MODEL, RULES + "test_an_entry_expires_exactly_at_its_queue_timeout"),
    ),
    "I30": (
        "those who share an entry get its one result",
        (MODEL, RULES + "test_s13_the_newest_item_of_a_key_goes_and_all_callers_get_its_result",
         RULES + "test_a_retry_keeps_its_seat_beside_a_newer_item_of_its_key"),
    ),
    "I31": (
        "no answer of a strategy breaks anything",
        (MODEL, "core/test_strategy.py::test_any_answer_loses_doubles_and_holds_up_nothing",
         RULES + "test_no_answer_of_a_strategy_loses_or_doubles_an_item"),
    ),
    "I32": ("everybody gets the answer to their own item", (HERE_TOO + "test_neither_hooks",)),
    "I33": ("the wall clock means nothing", (HERE_TOO + "test_neither_hooks_that_raise",)),
    "I34": (
        "nothing wakes it but events",
        (MODEL, "test_queue_enqueue.py::test_an_idle_queue_makes_no_wake_up",
         "test_queue_enqueue.py::test_items_of_one_moment_cost_one_wake_up"),
    ),
    "I35": (
        "producers who wait come in in turn",
        (*ALWAYS, "test_queue_enqueue.py::test_blocked_producers_enter_in_the_order"),
    ),
    "I36": (
        "flush and drain end under a producer that never stops",
        ("test_queue_lifetime.py::test_a_drain_ends_under_a_producer_that_never_stops",
         "test_queue_lifetime.py::test_flush_waits_for_what_is_there_and_not_for_what_comes"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PROOFS)
def test_each_invariant_has_tests_that_exist(name: str) -> None:
    what, tests = PROOFS[name]
    assert what
    for test in tests:
        file, _, function = test.partition("::")
        assert re.search(rf"^(async )?def {function}", (HERE / file).read_text(), re.MULTILINE), (
            test
        )


def test_no_invariant_is_left_out() -> None:
    assert list(PROOFS) == [f"I{number}" for number in range(1, 37)]


# I20, I21, I32, I33: what a model of the core can't show.

OPTIONS: Final[list[Options]] = [
    {"batch_size": 3, "flush_interval": 0.5},
    {"batch_size": 4, "flush_interval": 0, "bisect": "immediate"},
    {"batch_size": 4, "concurrency": 3, "priority_levels": 3, "priority_aging": 1.0},
    {"batch_size": 2, "partition_by": lambda item: item % 3, "ordered": True},
    {"batch_size": 3, "rate_limit": SlidingWindow(4, 1.0), "delivery_timeout": 2.0},
    {"batch_size": 3, "max_queue_size": 3, "drop_policy": "drop-oldest", "flush_interval": 1},
    {"batch_size": 2, "coalesce_by": lambda item: item % 5, "queue_timeout": 1.0},
]
SOON: Final = RetryPolicy(2, backoff=Backoff(schedule=(0.5,), jitter="none"))


@attrs.define(eq=False)
class Told:
    """What the hooks were told; they may raise after that."""

    raises: bool
    counts: Counter[str] = attrs.field(factory=Counter)
    processed: list[int] = attrs.field(factory=list)

    def hooks(self) -> Hooks[int, int]:
        return Hooks(**{event: self.hook(event) for event in EVENTS})

    def hook(self, event: str) -> Callable[..., None]:
        def told(*arguments: Any) -> None:  # noqa: ANN401 - each hook has its own
            self.counts[event] += 1
            if event == "on_processed":
                self.processed.append(arguments[0])
            if self.raises:
                raise RuntimeError("a hook")

        return told


@attrs.define(eq=False)
class History:
    """A queue that lives through what a seed says.

    Attributes:
        calls: when each began [s], and its items.
        ends: of each entry, its status and its value or error.
    """

    seed: int
    options: Options
    told: Told
    calls: list[tuple[float, list[int]]] = attrs.field(factory=list)
    ends: list[tuple[EntryStatus, object]] = attrs.field(factory=list)

    async def process(self, batch: Batch[int]) -> list[object]:
        self.calls.append((trio.current_time(), list(batch)))
        # No two things at one instant: their order would be trio's dice.
        await trio.sleep(0.2531 + batch[0] / 1009)
        if any(item % 11 == 5 for item in batch):
            raise ValueError("poison")
        fails = {3: Result[int].retry("again"), 4: Result[int].discard("no")}
        return [fails.get(item % 11, Result.ok(item)) for item in batch]

    async def live(self) -> None:
        chance = random.Random(self.seed)
        how: Any = {**self.options, "hooks": self.told.hooks(), "retry": SOON}
        queue = batched(self.process, **how)
        entries = []
        async with queue:
            for item in range(chance.randrange(1, 40)):
                entries.append(
                    (item, await queue.enqueue(item, delay=chance.choice([0, 0, 0.7177])))
                )
                if chance.random() < 0.3:
                    await trio.sleep(chance.choice([0.0625, 0.5, 1.0]) + chance.random() / 100)
                if chance.random() < 0.1:
                    chance.choice(entries)[1].cancel()
            await queue.wait_idle()
        for item, entry in entries:
            self.ends.append((entry.status, str(entry.verdict.error)))
            if entry.status is EntryStatus.SUCCEEDED and "coalesce_by" not in self.options:
                assert entry.value() == item
        self.check(queue.stats().succeeded + queue.stats().failed)

    def check(self, verdicts: int) -> None:
        counts = self.told.counts
        assert counts["on_batch_start"] == counts["on_batch_complete"] == len(self.calls)
        assert counts["on_processed"] == len(set(self.told.processed)) == verdicts


def lived(seed: int, options: Options, *, raises: bool) -> History:
    history = History(seed, options, Told(raises))
    logging.disable(logging.CRITICAL)  # a traceback for each hook
    try:
        trio.run(history.live, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        logging.disable(logging.NOTSET)
    return history


@settings(max_examples=100)  # of three lives each
@given(seed=st.integers(0, 2**32 - 1), options=st.sampled_from(OPTIONS))
def test_neither_hooks_that_raise_nor_the_wall_clock_change_anything(
    seed: int, options: Options
) -> None:
    """I20, I21, I32, I33."""
    quiet, loud = (lived(seed, options, raises=raises) for raises in (False, True))
    jumps = random.Random(seed)
    with mock.patch.object(time, "time", side_effect=lambda: jumps.uniform(-1e9, 1e10)):
        later = lived(seed, options, raises=False)
    for other in (loud, later):
        assert sorted(other.calls) == sorted(quiet.calls)
        assert other.ends == quiet.ends
