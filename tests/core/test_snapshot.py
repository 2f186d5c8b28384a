"""What is saved of a queue comes back as it was; what can't be is named."""

from __future__ import annotations

import math
from typing import Any

import attrs
import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import example, given

from batchq.core.depth import MAX_DEPTH
from batchq.core.snapshot import SCHEMA, Saved, read, write

WALL = 1_767_225_600.0  # binary holds it, and eighths of seconds beside it
INSTANTS = st.integers(0, 2**20).map(lambda eighths: eighths / 8)
MAYBE = st.none() | INSTANTS
LABELS = st.none() | st.text(st.characters(codec="utf-8")) | st.integers(-(2**63), 2**64 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text() | st.floats(-9, 9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ENTRIES = st.builds(
    Saved,
    id=st.integers(1, 2**40),
    item=JSON,
    priority=st.integers(0, 2),
    partition=LABELS,
    key=LABELS,
    weight=st.floats(0, 1e9),
    attempts=st.integers(0, 50),
    solo=st.booleans(),
    error=st.none() | st.text(st.characters(codec="utf-8")),
    enqueued_at=INSTANTS,
    due=MAYBE,
    starts_by=MAYBE,
    ends_by=MAYBE,
)


def saved(id_: int = 1, item: object = "item", **fields: Any) -> Saved[Any]:  # noqa: ANN401
    return Saved(id=id_, item=item, **{"enqueued_at": 0.0} | fields)


def back(records: list[bytes], **changes: Any) -> Any:  # noqa: ANN401
    settings: dict[str, Any] = {"item_type": Any, "offset": WALL, "now": 2.0**20, "levels": 3}
    return read(records, **settings | changes)


@example([saved(1, {"a": [None, 1.5]}, due=3.0), saved(2, "ü", partition=7, key="k")])
@given(st.lists(ENTRIES, unique_by=lambda entry: entry.id, max_size=3))
def test_entries_come_back_as_they_were_saved(entries: list[Saved[Any]]) -> None:
    """I25."""
    written = write(entries, offset=WALL)
    assert len(written.records) + len(written.refused) == len(entries)
    gone = {refused.id for refused in written.refused}
    found = back(written.records)
    assert not found.set_aside
    kept = [entry for entry in entries if entry.id not in gone]
    assert found.entries == sorted(kept, key=lambda entry: entry.id)


@given(st.lists(st.binary(max_size=40) | st.just(b'{"schema":1,"id":3}'), max_size=5), st.data())
def test_what_does_not_decode_costs_the_others_nothing(junk: list[bytes], data: Any) -> None:  # noqa: ANN401
    good = write([saved(1), saved(2)], offset=WALL).records
    found = back(data.draw(st.permutations([*good, *junk])))
    assert [entry.id for entry in found.entries] == [1, 2]
    assert sorted(aside.record for aside in found.set_aside) == sorted(junk)
    assert all(aside.reason for aside in found.set_aside)


def test_a_torn_record_is_set_aside_whole() -> None:
    (record,) = write([saved(1, "a long enough item")], offset=WALL).records
    for length in range(len(record)):
        found = back([record[:length]])
        assert found.entries == []
        assert found.set_aside[0].record == record[:length]


def test_an_item_that_json_has_not_is_named_and_the_others_are_saved() -> None:
    loop: list[Any] = []
    loop.append(loop)
    items = [1, object(), math.nan, {"a": [math.inf]}, loop, "\ud800", "good"]
    written = write([saved(id_, item) for id_, item in enumerate(items, 1)], offset=WALL)
    assert [refused.id for refused in written.refused] == [2, 3, 4, 5, 6]
    assert [entry.item for entry in back(written.records).entries] == [1, "good"]
    reasons = [refused.reason for refused in written.refused]
    assert reasons[0].startswith("entry 2, an item of type object: ")
    assert reasons[1] == "entry 3, an item of type float: JSON has no NaN and no infinity - at `$`"
    assert reasons[2].endswith("at `$.a[0]`")


def test_an_item_that_is_too_deep_to_be_sure_to_come_back_is_refused() -> None:
    deepest: list[Any] = []
    for _ in range(MAX_DEPTH - 2):  # and its entry is one level
        deepest = [deepest]
    written = write([saved(1, deepest), saved(2, [deepest])], offset=WALL)
    assert [entry.item for entry in back(written.records).entries] == [deepest]
    assert written.refused[0].reason.endswith("is nested 501 deep; at most 500 are saved")


def test_items_come_back_as_their_type() -> None:
    @attrs.frozen
    class Mail:
        to: str
        age: int | None = None

        def __attrs_post_init__(self) -> None:
            if self.to == "bomb":
                raise ZeroDivisionError("boom")

    mails = write([saved(1, Mail("ana")), saved(2, {"to": "bomb"}), saved(3, 7)], offset=WALL)
    found = back(mails.records, item_type=Mail)
    assert [entry.item for entry in found.entries] == [Mail("ana")]
    reasons = [aside.reason for aside in found.set_aside]
    assert "boom" in reasons[0]
    assert "$.item" in reasons[1], "the reason says where"


def test_instants_mean_the_same_moment_after_a_restart() -> None:
    entry = saved(enqueued_at=100.0, due=108.0, starts_by=116.0, ends_by=math.inf)
    (record,) = write([entry], offset=WALL).records
    plain = msgspec.json.decode(record)
    assert plain["enqueued_at"] == WALL + 100
    assert plain["ends_by"] is None
    # Ten seconds later, in a process whose clock began anew.
    found = back([record], offset=WALL + 110, now=0.0).entries[0]
    assert (found.enqueued_at, found.due, found.starts_by) == (-10.0, -2.0, 6.0)


def test_a_wall_clock_set_back_makes_nothing_younger_than_now() -> None:
    records = write([saved(enqueued_at=100.0)], offset=WALL).records
    assert back(records, offset=WALL - 3600, now=200.0).entries[0].enqueued_at == 200.0


def test_a_partition_or_key_is_saved_if_it_is_a_text_or_a_whole_number() -> None:
    for label in ("x", "", "ü", 0, -7, 2**64 - 1):
        records = write([saved(partition=label, key=label)], offset=WALL).records
        (entry,) = back(records).entries
        assert (entry.partition, entry.key) == (label, label)
    others: list[Any] = [None, 1.5, True, ("a", 1), b"x", 2**64, -(2**63) - 1, "\udc80"]
    for other in others:
        written = write([saved(partition=other, key=other)], offset=WALL)
        assert not written.refused
        (entry,) = back(written.records).entries
        assert (entry.partition, entry.key) == (None, None)


def test_an_id_found_twice_is_one_entry() -> None:
    first, second = (write([saved(5, item)], offset=WALL).records for item in ("a", "b"))
    assert [entry.item for entry in back([*first, *first, *second]).entries] == ["a"]


def test_a_record_of_another_schema_is_set_aside_with_the_reason() -> None:
    (record,) = write([saved()], offset=WALL).records
    newer = record.replace(b'"schema":1', b'"schema":2')
    assert newer != record
    (aside,) = back([newer]).set_aside
    assert aside.reason == f"schema 2 is not known here; this is schema {SCHEMA}"
    assert aside.record == newer


def test_a_record_of_a_level_that_the_queue_has_no_more_is_set_aside() -> None:
    records = write([saved(1, priority=2), saved(2, priority=1)], offset=WALL).records
    found = back(records, levels=2)
    assert [entry.id for entry in found.entries] == [2]
    assert found.set_aside[0].reason == "priority 2 is not one of the queue's 2 levels"


@pytest.mark.parametrize(
    "field",
    ['"id":0', '"id":true', '"priority":-1', '"attempts":-1', '"weight":-1', '"weight":1e999'],
)
def test_a_record_out_of_range_is_set_aside(field: str) -> None:
    name = field.partition(":")[0]
    plain = msgspec.json.decode(write([saved()], offset=WALL).records[0])
    plain.pop(name.strip('"'))
    record = msgspec.json.encode(plain)[:-1] + f",{field}}}".encode()
    assert len(back([record]).set_aside) == 1


def test_a_record_is_one_line_of_json() -> None:
    (record,) = write([saved(item={"text": "two\nlines"})], offset=WALL).records
    assert b"\n" not in record
    assert msgspec.json.decode(record)["item"] == {"text": "two\nlines"}
