"""Producers who gave up are passed over, wherever they stood."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from batchq.core.admission import Admission
from batchq.core.batcher import Batcher
from batchq.core.options import read_settings
from batchq.core.producer import Intake
from batchq.errors import QueueClosed, QueueFull


def full(**options: Any) -> Admission[Any, Any]:  # noqa: ANN401 - as read_settings takes them
    batcher: Batcher[Any, Any] = Batcher(
        read_settings({"batch_size": 1, "max_queue_size": 1} | options)
    )
    batcher.door.enqueue("first", None, 0.0)
    return batcher.door


@pytest.mark.parametrize("gone", [0, 1, 2])
@pytest.mark.parametrize("end", ["close", "let in"])
def test_a_producer_who_gave_up_is_neither_let_in_nor_told(gone: int, end: str) -> None:
    door, woken = full(), list[int]()
    producers = [
        door.park(number, None, delay=0.0, wake=partial(woken.append, number))
        for number in range(3)
    ]
    door.unpark(producers[gone], 0.0)
    if end == "close":
        door.set_intake(Intake.CLOSED)
    else:
        door._limit = 9  # as if many left at once
        door.let_in(0.0)
    assert woken == [number for number in range(3) if number != gone]
    told = [isinstance(producer.error, QueueClosed) for producer in producers]
    assert told == [end == "close" and number != gone for number in range(3)]
    assert not door.producers


def test_a_full_queue_says_how_full_it_is() -> None:
    door = full(drop_policy="reject-new")
    with pytest.raises(QueueFull, match=r"1") as caught:
        door.enqueue("x", None, 0.0)
    assert (caught.value.size, caught.value.limit) == (1, 1)


def test_a_closed_door_stays_closed() -> None:
    door = full()
    door.set_intake(Intake.CLOSED)
    door.set_intake(Intake.OPEN)
    assert door.intake is Intake.CLOSED
    with pytest.raises(QueueClosed):
        door.enqueue_many(["x"], None, 0.0)


@pytest.mark.parametrize(("count", "lots"), [(0, 0), (7, 0), (8, 1)])
def test_only_many_items_wait_as_a_lot_for_few_cost_less_as_entries(count: int, lots: int) -> None:
    batcher: Batcher[Any, Any] = Batcher(read_settings({"batch_size": 2}))
    assert len(batcher.door.enqueue_many(range(count), None, 0.0)) == count
    assert batcher.waiting.bucket.lots == lots
    assert len(list(batcher.waiting)) == batcher.size == count
