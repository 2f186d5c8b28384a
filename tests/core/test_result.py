"""Results: how each answer is read, and what a processor may return."""

from __future__ import annotations

from collections import UserList
from types import MappingProxyType
from typing import Any

import pytest

from batchq.core.answers import read_answer, read_answers
from batchq.core.batch import Batch, Trigger
from batchq.core.entry import SUCCEEDED, Entry, Owner
from batchq.core.result import Result
from batchq.errors import ContractError, OptionError

NO = ValueError("no")


@pytest.mark.parametrize(
    ("made", "fields"),
    [
        (Result.ok(), (True, None, None, None, None)),
        (Result.ok(5), (True, 5, None, None, None)),
        (Result.fail("no"), (False, None, "no", None, None)),
        (Result.retry(), (False, None, None, True, None)),
        (Result.retry("no", after=2), (False, None, "no", True, 2)),
        (Result.discard("no"), (False, None, "no", False, None)),
        (Result.snooze(3), (None, None, None, None, 3)),
    ],
)
def test_a_result_says_what_it_was_made_for(made: Result[Any], fields: tuple[object, ...]) -> None:
    assert (made.success, made.value, made.error, made.retryable, made.retry_after) == fields


@pytest.mark.parametrize(
    "seconds", [-1, float("nan"), float("inf"), 10**400, 1e308, 3_155_760_001, True, "5"]
)
def test_a_wait_that_is_none_is_refused(seconds: Any) -> None:  # noqa: ANN401
    with pytest.raises(OptionError, match="after must be a number of seconds from 0 to 3155760000"):
        Result.retry(after=seconds)
    with pytest.raises(OptionError, match="delay must be a number of seconds from 0 to 3155760000"):
        Result.snooze(seconds)


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (Result.discard("x"), Result.discard("x")),
        (NO, Result.fail(NO)),
        ({"success": True, "value": 5}, Result.ok(5)),
        ({"success": False, "error": "x", "retryable": False}, Result.discard("x")),
        ({"success": 0}, Result.fail(None)),
        ({"success": 1}, Result.ok()),
        ({"success": None, "retry_after": 2}, Result.snooze(2)),
        ({"success": True, "other": 1}, Result.ok({"success": True, "other": 1})),
        ({"value": 1}, Result.ok({"value": 1})),
        (None, Result.ok()),
        (False, Result.ok(False)),  # noqa: FBT003 - a value like any other
        ("text", Result.ok("text")),
    ],
)
def test_an_answer_is_read_as_one_result(answer: object, result: Result[Any]) -> None:
    assert read_answer(answer) == result


def test_a_result_has_no_subclass_that_would_pass_for_a_value() -> None:
    with pytest.raises(TypeError, match="Result has no subclasses"):
        type("Own", (Result,), {})


def batch_of(*items: str) -> Batch[str]:
    owner = Owner(lambda: None)
    entries = [Entry[str, Any](id_, 0, 0.0, owner, item) for id_, item in enumerate(items, 5)]
    return Batch(1, items, entries, Trigger.SIZE, 1, lambda *_: None)


@pytest.mark.parametrize(
    "answers",
    [["a", "b"], ("a", "b"), UserList("ab"), {5: "a", 6: "b"}, MappingProxyType({6: "b", 5: "a"})],
)
def test_one_answer_per_item_in_order_or_by_id(answers: object) -> None:
    found = read_answers(batch_of("x", "y"), answers)
    assert found is not None
    assert list(found) == ["a", "b"]


def test_none_says_that_all_succeeded() -> None:
    assert read_answers(batch_of("x"), None) is None


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([], "got 2 items and returned 0 answers"),
        (["a", "b", "c"], "got 2 items and returned 3 answers"),
        ({5: "a"}, r"missing \[6\], unknown \[\]"),
        ({5: "a", 6: "b", 7: "c"}, r"missing \[\], unknown \[7\]"),
        ("ab", "it returned str"),
        (b"ab", "it returned bytes"),
        ({"a", "b"}, "it returned set"),
        ((each for each in "ab"), "it returned a generator"),
        (memoryview(b"ab"), "it returned memoryview"),
        (2, "it returned int"),
    ],
)
def test_any_other_shape_breaks_the_contract(answers: object, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        read_answers(batch_of("x", "y"), answers)


def test_a_mapping_need_not_name_what_is_settled_already() -> None:
    batch = batch_of("x", "y")
    batch.entries[0].settle(SUCCEEDED, "early")
    assert read_answers(batch, {6: "b"}) == [None, "b"]
