"""Calls under way: early verdicts from any thread, lost jobs, interrupted calls."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from batchq import LeaseLost, Receipt, Result
from batchq.call_context import CancelReason
from batchq.calls import Call, Calls
from batchq.core.batch import Batch, Trigger
from batchq.core.entry import IN_FLIGHT, Entry, Owner
from batchq.core.job import Job
from batchq.core.news import News
from batchq.core.settling import Settling


def batch_of(size: int) -> Batch[Job[Any]]:
    """Make a batch of a work queue whose call is under way."""
    jobs = [make_job(number) for number in range(1, size + 1)]
    settling = Settling(retry=None, news=News(), leave=True)
    entries: list[Entry[Any, Any]] = [
        Entry(job.id, 0, 0.0, Owner(lambda: None), item=job, code=IN_FLIGHT) for job in jobs
    ]

    def settle(batch: Batch[Any], index: int, result: Result[Any]) -> None:
        settling.early(batch, index, result)

    return Batch(1, jobs, entries, Trigger.SIZE, 1, settle=settle)


def make_job(id_: int) -> Job[Any]:
    return Job(
        id=id_,
        attempt=1,
        queue="q",
        handler="q",
        priority=2,
        used=1,
        max_attempts=4,
        enqueued_at=0.0,
        payload=id_,
        settle=lambda _, __: None,
    )


async def test_early_verdicts_are_told_of_once_until_they_are_taken() -> None:
    told = list[Call]()
    calls, batch = Calls(told.append), batch_of(3)
    call = calls.begin(batch)
    for number in (1, 2):
        calls.settle(Receipt(number, 1), Result.ok(number))
    await trio.testing.wait_all_tasks_blocked()
    assert told == [call]
    assert call.take_unwritten() == {0: Result.ok(1), 1: Result.ok(2)}
    assert call.take_unwritten() == {}
    calls.settle(Receipt(3, 1), Result.ok(3))
    calls.settle(Receipt(1, 1), Result.discard("too late"))
    await trio.testing.wait_all_tasks_blocked()
    assert told == [call] * 2
    assert calls.end(batch) is call
    assert call.take_rest([Result.ok("later")] * 3) == {2: Result.ok(3)}
    assert call.take_unwritten() == {}


async def test_threads_may_settle_all_at_once() -> None:
    calls, batch = Calls(lambda _: None), batch_of(50)
    call = calls.begin(batch)
    async with trio.open_nursery() as nursery:
        for job in batch:
            nursery.start_soon(
                trio.to_thread.run_sync, calls.settle, job.receipt, Result.ok(job.id)
            )
    calls.end(batch)
    assert call.take_rest() == {index: Result.ok(index + 1) for index in range(50)}


async def test_a_job_is_found_while_its_call_is_under_way() -> None:
    calls, batch = Calls(lambda _: None), batch_of(2)
    call = calls.begin(batch)
    assert calls.find(Receipt(2, 1)) == (call, 1)
    assert calls.find(Receipt(9, 9)) is None
    calls.end(batch)
    assert calls.find(Receipt(2, 1)) is None


async def test_what_is_done_is_given_out_no_more() -> None:
    calls, batch = Calls(lambda _: None), batch_of(2)
    call = calls.begin(batch)
    call.done.add(0)
    calls.settle(Receipt(1, 1), Result.ok())
    await trio.testing.wait_all_tasks_blocked()
    assert call.take_unwritten() == {}
    calls.end(batch)
    assert call.take_rest([Result.ok(), Result.ok(2)]) == {1: Result.ok(2)}


async def test_a_call_is_stopped_once_nothing_of_it_goes_on() -> None:
    call = Calls(lambda _: None).begin(batch_of(3))
    call.done.add(1)
    assert not call.stop(0, CancelReason.LEASE_LOST)
    assert call.reason is None
    assert call.stop(2, CancelReason.USER)
    assert call.reason is CancelReason.USER


async def test_interrupted_calls_keep_what_was_fixed_and_nothing_else() -> None:
    calls = Calls(lambda _: None)
    call = calls.begin(batch_of(3))
    calls.settle(Receipt(1, 1), Result.ok(1))
    calls.settle(Receipt(2, 1), Result.snooze(9))
    assert calls.end_all() == [call]
    assert call.take_rest() == {0: Result.ok(1), 1: Result.snooze(9)}
    assert calls.end_all() == []


async def test_a_call_that_is_over_refuses_verdicts() -> None:
    calls, batch = Calls(lambda _: None), batch_of(1)
    calls.begin(batch)
    calls.end(batch)
    with pytest.raises(LeaseLost, match="job 1 can't be settled: the call for it is over"):
        calls.settle(Receipt(1, 1), Result.ok())
