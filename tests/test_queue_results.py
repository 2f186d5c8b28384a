"""What becomes of items: results, retries, time limits, throttling, early verdicts."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trio

from batchq import Backoff, Hooks, Result, RetryPolicy
from batchq.core.batch import Batch
from batchq.core.entry import EntryStatus
from batchq.core.numbers import A_WAIT
from batchq.errors import BatchTimeout, ContractError, ItemError, OptionError, Throttled
from tests.calls import Calls, Clock, batched

ONCE = RetryPolicy(1, backoff=Backoff(initial_delay=1, jitter="none"))


async def test_each_caller_gets_its_own_value_or_error(autojump_clock: Clock) -> None:
    no = ValueError("no")
    calls = Calls(lambda _: ["plain", Result.ok("ok"), no, Result.fail("text"), None])
    async with batched(calls, batch_size=5) as queue:
        entries = await queue.enqueue_many(range(5))
        assert [await entries[index].result() for index in (0, 1, 4)] == ["plain", "ok", None]
        with pytest.raises(ValueError, match="no") as caught:
            await entries[2].result()
        assert caught.value is no
        with pytest.raises(ItemError, match="attempt 1 failed: text") as told:
            await entries[3].result()
        assert (told.value.cause, told.value.attempt) == ("text", 1)
        assert (await entries[3].wait()).error == "text"


async def test_many_waiters_do_not_grow_an_errors_traceback(autojump_clock: Clock) -> None:
    def length(error: BaseException) -> int:
        trace, count = error.__traceback__, 0
        while trace is not None:
            trace, count = trace.tb_next, count + 1
        return count

    lengths = []
    async with batched(Calls(fails), batch_size=1) as queue:
        entry = await queue.enqueue("a")
        for _ in range(3):
            with pytest.raises(ValueError, match="no") as caught:
                await entry.result()
            lengths.append(length(caught.value))
    assert len(set(lengths)) == 1


def fails(_: Batch[Any]) -> None:
    raise ValueError("no")


async def test_a_foreign_cancellation_as_an_error_does_not_cancel_the_caller(
    autojump_clock: Clock,
) -> None:
    async with batched(Calls(lambda _: [Result.fail(KeyboardInterrupt())])) as queue:
        entry = await queue.enqueue("a")
        await queue.flush()
        with pytest.raises(ItemError):
            await entry.result()


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: [],
        lambda _: [1, 2, 3],
        lambda _: "ab",
        lambda _: (each for each in (1, 2)),
        lambda _: {1: True},
        lambda _: {1: True, 2: True, 99: True},
        lambda _: 5,
    ],
    ids=["short", "long", "text", "generator", "missing", "stranger", "number"],
)
async def test_an_answer_that_breaks_the_contract_fails_all_and_is_not_retried(
    answer: Callable[[Batch[Any]], object], autojump_clock: Clock
) -> None:
    calls, errors = Calls(answer), list[Exception]()
    hooks: Hooks[Any, Any] = Hooks(on_error=errors.append)
    async with batched(calls, batch_size=2, retry=ONCE, hooks=hooks) as queue:
        entries = await queue.enqueue_many("ab")
        for entry in entries:
            with pytest.raises(ContractError):
                await entry.result()
    assert len(calls.seen) == 1
    assert [type(error) for error in errors] == [ContractError]


async def test_answers_may_be_named_by_entry_id_in_any_order(autojump_clock: Clock) -> None:
    def answer(batch: Batch[Any]) -> dict[int, str]:
        return {entry.id: entry.item * 2 for entry in reversed(batch.entries)}

    async with batched(Calls(answer), batch_size=2) as queue:
        first, second = await queue.enqueue_many("ab")
        assert [await first.result(), await second.result()] == ["aa", "bb"]


async def test_an_answer_whose_own_code_raises_is_a_failed_call(autojump_clock: Clock) -> None:
    class Broken(Sequence[int]):
        def __len__(self) -> int:
            raise OSError("gone")

        def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - as Sequence has it
            raise OSError("gone")

    async with batched(Calls(lambda _: Broken())) as queue:
        entry = await queue.enqueue("a")
        await queue.flush()
        with pytest.raises(OSError, match="gone"):
            await entry.result()


@pytest.mark.parametrize("wait", [float("nan"), float("inf"), -1, "5", True, 1e308])
@pytest.mark.parametrize("success", [False, None])
async def test_a_wait_that_is_none_fails_its_item_and_nothing_else(
    wait: Any,  # noqa: ANN401 - of a user without a type checker
    success: bool | None,  # noqa: FBT001 - a parameter of the test
    autojump_clock: Clock,
) -> None:
    calls = Calls(lambda _: [{"success": success, "retry_after": wait}, "fine"])
    async with batched(calls, batch_size=2, retry=ONCE) as queue:
        bad, good = await queue.enqueue_many("ab")
        assert await good.result() == "fine"
        with pytest.raises(ContractError, match=r"retry_after must be a number of seconds"):
            await bad.result()


async def test_a_failed_call_is_retried_whole_with_one_draw_for_all(autojump_clock: Clock) -> None:
    calls = Calls(lambda batch: fails(batch) if batch.attempt == 1 else None)
    policy = RetryPolicy(1, backoff=Backoff(initial_delay=8))
    async with batched(calls, batch_size=3, flush_interval=60, retry=policy) as queue:
        await queue.enqueue_many("abc")
        await trio.sleep(10)
    assert calls.items == [["a", "b", "c"]] * 2  # they came back together
    assert 0 < calls.times[1] < 8
    assert [batch.trigger.value for batch in calls.batches] == ["size", "size"]


async def test_only_the_failed_items_of_a_batch_come_again(autojump_clock: Clock) -> None:
    # fluent-bit#4630
    calls = Calls(lambda batch: [ValueError() if item == "b" else None for item in batch])
    async with batched(calls, batch_size=3, retry=ONCE) as queue:
        await queue.enqueue_many("abc")
        await trio.sleep(5)
    assert calls.seen == [(0, ["a", "b", "c"]), (1, ["b"])]


async def test_retry_after_can_only_lengthen_the_delay(autojump_clock: Clock) -> None:
    waits = {"a": 0.5, "b": 4.0}
    calls = Calls(lambda batch: [Result.retry(after=waits[item]) for item in batch])
    async with batched(calls, batch_size=2, flush_interval=0, retry=ONCE) as queue:
        await queue.enqueue_many("ab")
        await trio.sleep(10)
    assert calls.seen == [(0, ["a", "b"]), (1, ["a"]), (4, ["b"])]


async def test_a_snooze_spends_no_attempt(autojump_clock: Clock) -> None:
    calls = Calls(lambda batch: [Result.snooze(2)] if trio.current_time() < 5 else list(batch))
    async with batched(calls, flush_interval=0) as queue:
        entry = await queue.enqueue("a")
        assert await entry.result() == "a"
        assert entry.attempts == 1
    assert calls.times == [0, 2, 4, 6]
    assert {batch.attempt for batch in calls.batches} == {1}


@pytest.mark.parametrize("success", [0, 1])
async def test_a_ported_dict_may_say_success_in_its_own_way(
    success: int, autojump_clock: Clock
) -> None:
    calls = Calls(lambda _: [{"success": success}])
    async with batched(calls, flush_interval=0, retry=ONCE) as queue:
        entry = await queue.enqueue("a")
        await entry.wait()
    assert len(calls.seen) == (1 if success else 2)
    assert (entry.status is EntryStatus.SUCCEEDED) == bool(success)


async def test_a_ported_dict_that_says_success_in_words_has_failed(autojump_clock: Clock) -> None:
    calls = Calls(lambda _: [{"success": "false"}, {"success": True, "value": 1}])
    async with batched(calls, flush_interval=0, batch_size=2) as queue:
        wrong, right = await queue.enqueue_many(["a", "b"])
        with pytest.raises(ContractError, match="not text, got 'false'"):
            await wrong.result()
        assert await right.result() == 1
    assert len(calls.seen) == 1


async def test_a_check_that_raises_means_no_and_is_told(autojump_clock: Clock) -> None:
    def check(_: Exception) -> bool:
        raise RuntimeError("the check is broken")

    calls, errors = Calls(lambda _: [Result.fail("no")]), list[str]()
    hooks: Hooks[Any, Any] = Hooks(on_error=lambda error: errors.append(str(error)))
    policy = RetryPolicy(retryable=check)
    async with batched(calls, flush_interval=0, retry=policy, hooks=hooks) as queue:
        assert not (await (await queue.enqueue("a")).wait()).success
    assert len(calls.seen) == 1
    assert errors == ["the check is broken"]


async def test_the_check_gets_an_item_error_where_the_failure_was_no_exception(
    autojump_clock: Clock,
) -> None:
    asked: list[Any] = []

    def check(error: Exception) -> bool:
        asked.append(error)
        return False

    policy = RetryPolicy(retryable=check)
    async with batched(Calls(lambda _: [Result.fail("no")]), retry=policy) as queue:
        await queue.enqueue({"id": 7})
    (error,) = asked
    assert isinstance(error, ItemError)
    assert (error.item, error.attempt, error.retryable, error.cause) == ({"id": 7}, 1, None, "no")


async def test_a_call_that_takes_too_long_is_cancelled_and_may_be_retried(
    autojump_clock: Clock,
) -> None:
    calls, errors = Calls(takes=9), list[Exception]()
    hooks: Hooks[Any, Any] = Hooks(on_error=errors.append)
    queue = batched(calls, flush_interval=0, processor_timeout=2, retry=ONCE, hooks=hooks)
    async with queue:
        entry = await queue.enqueue("a")
        with pytest.raises(BatchTimeout, match=r"processor_timeout=2 s") as caught:
            await entry.result()
        assert isinstance(caught.value, TimeoutError)
        assert trio.current_time() == 5
    assert calls.times == [0, 3]
    assert calls.running == 0
    assert [type(error) for error in errors] == [BatchTimeout] * 2


async def test_an_error_beside_the_time_limit_fails_the_call_and_not_the_queue(
    autojump_clock: Clock,
) -> None:
    async def processor(_: Batch[Any]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise OSError("while it was cancelled")

    async with batched(processor, flush_interval=0, processor_timeout=1) as queue:
        entry = await queue.enqueue("a")
        with pytest.raises(ExceptionGroup):  # noqa: ASYNC401
            await entry.result()


async def test_throttled_puts_the_call_back_and_holds_the_whole_queue(
    autojump_clock: Clock,
) -> None:
    def answer(batch: Batch[Any]) -> list[str]:
        if trio.current_time() < 3:
            raise Throttled(3)
        return list(batch)

    calls = Calls(answer)
    async with batched(calls, batch_size=2, flush_interval=0, retry=RetryPolicy(0)) as queue:
        entries = list(await queue.enqueue_many("ab"))
        await trio.sleep(1)
        entries += await queue.enqueue_many("cd")
        assert [await entry.result() for entry in entries] == list("abcd")
        assert {entry.attempts for entry in entries} == {1}
    assert calls.seen == [(0, ["a", "b"]), (3, ["a", "b"]), (3, ["c", "d"])]


async def test_early_verdicts_settle_at_once_and_stand_when_the_call_raises(
    autojump_clock: Clock,
) -> None:
    at: dict[str, float] = {}

    async def processor(batch: Batch[str]) -> None:
        if len(batch) == 4:
            batch.succeed(0, "done")
            batch.fail(-1, ValueError("for good"))
            batch.settle(1, Result.retry())
            batch.settle(0, Result.discard())  # too late, and ignored
            await trio.sleep(1)
            raise OSError("gone")
        seen.append(list(batch))

    seen: list[list[str]] = []
    policy = RetryPolicy(1, lambda error: isinstance(error, OSError), Backoff(schedule=[1]))
    async with batched(processor, batch_size=4, flush_interval=0, retry=policy) as queue:
        entries = await queue.enqueue_many("abcd")

        async def note(index: int) -> None:
            result = await entries[index].wait()
            at["abcd"[index]] = trio.current_time()
            assert result.success == (index != 3)

        async with trio.open_nursery() as waiters:
            for index in range(4):
                waiters.start_soon(note, index)
        assert await entries[0].result() == "done"
    assert (at["a"], at["d"]) == (0, 0)
    assert at["b"] == at["c"] > 1
    assert seen == [["b", "c"]]  # neither the done nor the failed one, and no one twice


async def test_a_verdict_after_the_call_is_ignored(autojump_clock: Clock) -> None:
    calls = Calls(list)
    async with batched(calls, batch_size=1) as queue:
        entry = await queue.enqueue("a")
        assert await entry.result() == "a"
        calls.batches[0].fail(0, "late")
        assert await entry.result() == "a"


async def test_a_settled_entry_lets_go_of_its_item(autojump_clock: Clock) -> None:
    async with batched(Calls(lambda _: [None, "no"]), batch_size=2) as queue:
        entries = await queue.enqueue_many([object(), object()])
        await queue.wait_idle()
        assert [entry.item for entry in entries] == [None, None]


@pytest.mark.parametrize("retry_after", ["7", None, True, -1, math.inf, math.nan, 1e308])
def test_a_throttle_is_a_wait_that_ends(retry_after: Any) -> None:  # noqa: ANN401 - as a user errs
    with pytest.raises(OptionError, match=f"retry_after must be {re.escape(A_WAIT)}, got "):
        Throttled(retry_after)
