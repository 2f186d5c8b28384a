"""Long histories of a busy queue, beside the same model.

Hypothesis takes longer to choose a step than a queue takes to make it. Here it chooses the
options and a seed, and chance the steps: many more of them, and less easily shrunk.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from tests.core.model import Intake, Rules
from tests.core.test_batcher_machine import RULES, SAYS, BatcherMachine

STEPS: Final = 200
WORDS: Final = sorted(SAYS)
NONSENSE: Final[tuple[object, ...]] = ([], "abc", {0: True}, 5)

Step = Callable[[BatcherMachine, random.Random], object]


def enqueue(machine: BatcherMachine, chance: random.Random) -> None:
    machine.enqueue(
        priority=chance.choice([None, None, 0, 1, 2, -1]),
        delay=chance.choice([0.0, 0.0, 0.0, 0.5, 1.3]),
        waits=chance.random() < 0.8,
    )


def enqueue_many(machine: BatcherMachine, chance: random.Random) -> None:
    priority, delay = chance.choice([None, 0, 1]), chance.choice([0.0, 0.0, 0.5])
    machine.enqueue_many(count=chance.randrange(6), priority=priority, delay=delay)


def cancel(machine: BatcherMachine, chance: random.Random) -> None:
    among = chance.choice(["any", "recent", "waits", "in_flight", "in_flight"])
    machine.cancel(index=chance.randrange(30), among=among)


def end_a_call(machine: BatcherMachine, chance: random.Random) -> None:
    draw = chance.random()
    match chance.randrange(7):
        case 0 | 1 | 2:
            said = chance.choices(WORDS, k=3)
            machine.a_call_returns(said=said, keyed=chance.random() < 0.5, draw=draw)
        case 3:
            machine.a_call_returns_nothing(last=chance.random() < 0.5)
        case 4:
            machine.a_call_returns_nonsense(returned=chance.choice(NONSENSE))
        case 5:
            machine.a_call_raises(draw=draw)
        case 6:
            machine.a_call_is_throttled(after=chance.choice([0.0, 0.7, 3.0]))


def settle_early(machine: BatcherMachine, chance: random.Random) -> None:
    machine.a_call_settles_early(
        index=chance.randrange(3), said=chance.choice(WORDS), backwards=chance.random() < 0.5
    )


def pause(machine: BatcherMachine, chance: random.Random) -> None:
    machine.pause(accept=chance.random() < 0.5)


def wait(machine: BatcherMachine, chance: random.Random) -> None:
    machine.time_passes(step=chance.choice([0.1, 0.125, 0.3, 0.5, 1.0, 4.0]))


def give_up(machine: BatcherMachine, chance: random.Random) -> None:
    machine.a_producer_gives_up(index=chance.randrange(6))


def free_a_seat(machine: BatcherMachine, chance: random.Random) -> None:
    machine.a_seat_gets_free_while_nothing_comes_in(index=chance.randrange(30))


# How often, when it may happen, and what.
TABLE: Final[tuple[tuple[int, Callable[[BatcherMachine], object], Step], ...]] = (
    (8, lambda _: True, enqueue),
    (2, lambda _: True, enqueue_many),
    (3, lambda machine: machine.entries, cancel),
    (2, lambda machine: machine.parked, give_up),
    (6, lambda _: True, lambda machine, _: machine.next_batch()),
    (6, lambda machine: machine.calls, end_a_call),
    (3, lambda machine: machine.calls, settle_early),
    (6, lambda machine: machine.to_release, lambda machine, _: machine.a_slot_is_free()),
    (3, lambda _: True, wait),
    (3, lambda _: True, lambda machine, _: machine.time_passes_until_the_deadline()),
    (1, lambda _: True, pause),
    (3, lambda _: True, lambda machine, _: machine.resume()),
    (1, lambda _: True, lambda machine, _: machine.flush()),
    (
        1,
        lambda machine: machine.parked and machine.model.intake is Intake.OPEN,
        free_a_seat,
    ),
)
# And near the end of its life.
LAST: Final[tuple[tuple[int, Callable[[BatcherMachine], object], Step], ...]] = (
    (1, lambda _: True, lambda machine, _: machine.close()),
    (1, lambda _: True, lambda machine, _: machine.drain()),
    (
        2,
        lambda machine: machine.model.draining,
        lambda machine, _: machine.the_time_for_the_drain_is_up(),
    ),
)


@given(
    rules=RULES,
    seed=st.integers(0, 2**32 - 1),
    steps=st.integers(1, STEPS),
    ends_by_drain=st.booleans(),
    eager=st.booleans(),
)
def test_a_long_history_is_that_of_the_model(
    rules: Rules, seed: int, steps: int, *, ends_by_drain: bool, eager: bool
) -> None:
    machine, chance = BatcherMachine(), random.Random(seed)
    machine.build(rules=rules, lifetime=0, ends_by_drain=ends_by_drain, eager=eager)
    for number in range(steps):
        table = TABLE + LAST if number > STEPS * 3 // 4 else TABLE
        legal = [row for row in table if row[1](machine)]
        (row,) = chance.choices(legal, weights=[each[0] for each in legal])
        row[2](machine, chance)
        machine.each_entry_is_where_the_model_has_it()
        machine.the_counts_add_up_and_equal_a_recount()
        machine.the_queue_has_room_for_what_the_model_has()
        machine.a_flush_waits_for_what_the_model_says()
    machine.teardown()
