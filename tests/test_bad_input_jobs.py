"""What users and disks get wrong with jobs: each has its error, and harms nobody else.

All of it through the public API and on a SQLite file, as in real life.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from batchq import (
    BatchqError,
    JobState,
    NotAStore,
    OptionError,
    PayloadError,
    QueueManager,
    RetryPolicy,
    StoreError,
    UnknownHandler,
)
from batchq.core.depth import MAX_DEPTH
from batchq.core.numbers import LONGEST_WAIT
from batchq.core.record import JobFilter
from tests.jobs import jobs_in, store_of, work_off
from tests.stores.sqlite_kit import NOBODY, forked, succeeded

# A forked child runs nothing of the test but what it is given.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

MIB: Final = 2**20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def manager(path: Path) -> Iterator[QueueManager]:
    opened = QueueManager(f"sqlite:///{path}", poll_interval=0.05, durability="process")
    with closing(opened):
        yield opened


# ---- Payloads


def nested(depth: int) -> Any:  # noqa: ANN401 - as deep as it is
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


def endless() -> Any:  # noqa: ANN401 - no type could name it
    found: list[Any] = []
    found.append(found)
    return found


REFUSED: Final[dict[str, Callable[[], object]]] = {
    "nested 100,000 deep": lambda: nested(100_000),
    "nested deeper than workers are sure to read": lambda: nested(MAX_DEPTH),
    "holds itself": endless,
    "NaN": lambda: float("nan"),
    "an infinity, deep inside": lambda: {"a": [1.0, {"b": float("-inf")}]},
    "half a surrogate pair": lambda: "\ud800",
    "half a surrogate pair as a key": lambda: {"\udfff": 1},
    "one byte more than a MiB": lambda: "x" * (MIB - 1),  # and two quotation marks
    "of no type that JSON has": object,
    "a function": lambda: print,
    "a key that is no text": lambda: {None: 1},
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_payload_that_can_not_be_kept_is_refused_before_anything_is_stored(
    manager: QueueManager, what: str
) -> None:
    @manager.batch_handler
    async def many(items: list[object]) -> None: ...

    @manager.handler
    async def one(item: object) -> None: ...

    payload = REFUSED[what]()
    calls: list[Callable[[], object]] = [
        lambda: many.enqueue_sync(payload),
        lambda: many.using(delay=1, priority="high").enqueue_sync(payload),
        lambda: many.enqueue_many_sync([payload]),
        lambda: manager.add_job_sync("many", payload),
        lambda: one.enqueue_sync(payload),
        lambda: manager.add_job_sync("one", {"item": payload}),
    ]
    for call in calls:
        with pytest.raises(PayloadError, match=r"(many|one) cannot take this payload"):
            call()
    assert jobs_in(manager) == []


KEPT: Final[dict[str, Callable[[], object]]] = {
    "a MiB": lambda: "x" * (MIB - 2),
    "nested as deep as may be": lambda: nested(MAX_DEPTH - 1),
    "10**30": lambda: 10**30,
    "-2**63 - 1": lambda: -(2**63) - 1,
    "a tiny number": lambda: 5e-324,
    "NUL": lambda: "a\0b",
    "NUL as a key": lambda: {"\0": "\0"},
    "what a terminal obeys": lambda: "\x1b[2J\r\n\x07",
    "text that runs both ways": lambda: "\u202e\u2066abc\u2028\u2029\ufeff\ufffe",
    "beyond the first plane": lambda: "\U0010ffff\U0001f4a9",
    "SQL": lambda: "'); DROP TABLE batchq_jobs; --",
    "nothing at all": lambda: None,
    "empty": lambda: {"": ["", {}, []]},
}


async def test_an_odd_payload_arrives_as_it_was(manager: QueueManager) -> None:
    seen = list[object]()

    @manager.batch_handler(batch_size=4)
    async def many(items: list[object]) -> list[object]:
        seen.extend(items)
        return items

    for make in KEPT.values():
        await many.enqueue(make())
    await work_off(manager)
    assert sorted(map(repr, seen)) == sorted(repr(make()) for make in KEPT.values())
    found = jobs_in(manager)
    assert [json.loads(row.value or b"null") for row in found] == [make() for make in KEPT.values()]
    assert {row.state for row in found} == {JobState.COMPLETED}


async def test_what_was_taken_is_read_by_a_worker_that_was_started_deep_in_a_program(
    manager: QueueManager,
) -> None:
    @manager.handler
    async def one(item: object) -> object:
        return item

    def calls_below(calls: int) -> None:
        if calls:
            calls_below(calls - 1)
        else:
            trio.run(work_off, manager)

    job = await one.enqueue(nested(MAX_DEPTH - 2))
    await trio.to_thread.run_sync(calls_below, 300)
    assert await job.result() == nested(MAX_DEPTH - 2)


async def test_one_bad_payload_takes_none_of_its_chunk_along_and_says_what_was_stored(
    manager: QueueManager,
) -> None:
    @manager.batch_handler
    async def many(items: list[int]) -> None: ...

    async def neighbour() -> None:
        await many.enqueue(-1)

    async with manager, trio.open_nursery() as nursery:
        nursery.start_soon(neighbour)
        with pytest.raises(PayloadError) as caught:
            await many.enqueue_many([*range(1_500), float("nan"), 7])  # type: ignore[list-item]
    assert isinstance(caught.value.stored, list)
    assert len(caught.value.stored) == 1_000
    assert sorted(json.loads(row.payload) for row in jobs_in(manager)) == [-1, *range(1_000)]


async def test_a_value_that_can_not_be_kept_fails_its_job_alone(manager: QueueManager) -> None:
    values = [1, float("nan"), "\ud800", endless(), object(), "x" * MIB, 2]

    @manager.batch_handler(batch_size=len(values), retry=RetryPolicy(max_retries=0))
    async def many(items: list[int]) -> list[object]:
        return [values[item] for item in items]

    await many.enqueue_many(range(len(values)))
    await work_off(manager)
    found = jobs_in(manager)
    states = [row.state for row in found]
    assert states == [JobState.COMPLETED, *[JobState.FAILED] * 5, JobState.COMPLETED]
    for row in found[1:-1]:
        [failure] = store_of(manager).errors(row.id)
        assert failure.line.kind == "PayloadError"


async def test_an_error_that_can_not_be_written_down_is_written_down(
    manager: QueueManager,
) -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("says nothing")

    errors = [ValueError("\ud800\0\x1b[2J"), ValueError("x" * 10**6), MuteError(), RecursionError()]

    @manager.handler(retry=RetryPolicy(max_retries=0))
    async def one(number: int) -> None:
        raise errors[number]

    for number in range(len(errors)):
        await one.enqueue(number)
    await work_off(manager)
    found = jobs_in(manager)
    assert {row.state for row in found} == {JobState.FAILED}
    for row in found:
        [failure] = store_of(manager).errors(row.id)
        line = failure.line
        assert line.kind == type(errors[json.loads(row.payload)["number"]]).__name__
        assert len((line.message + line.traceback).encode()) < 20_000


# ---- Names and numbers


NAMES: Final = ["", "a" * 65, "a b", "../x", "x\0", "é", "\ud800", "x;DROP TABLE", "\n", "%s"]


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_name_is_refused_everywhere(manager: QueueManager, name: str) -> None:
    async def one(number: int) -> None: ...

    with pytest.raises(OptionError, match="a handler's name"):
        manager.handler(name=name)(one)
    with pytest.raises(OptionError, match="a queue's name"):
        manager.handler(queue=name)(one)
    with pytest.raises(OptionError, match="a queue's name"):
        manager.queue(name)
    manager.handler(one)
    with pytest.raises(UnknownHandler, match="there are: one"):
        manager.add_job_sync(name, {})
    with pytest.raises(OptionError, match="queue"):
        manager.working([name])
    store = store_of(manager)
    assert store.find(JobFilter(queue=name)) == []
    assert jobs_in(manager) == []


@pytest.mark.parametrize(
    "options",
    [
        {"max_retries": -1},
        {"max_retries": 10**30},
        {"max_retries": 2**31},
        {"max_retries": 1.5},
        {"priority": 10**30},
        {"priority": float("nan")},
        {"delay": float("nan")},
        {"delay": float("inf")},
        {"delay": -1},
        {"delay": 10**400},
        {"delay": 1e308},
        {"delay": 3_155_760_001},
        {"expires": 0},
        {"expires": 1e308},
    ],
    ids=str,
)
def test_a_hostile_number_is_refused_before_anything_is_stored(
    manager: QueueManager, options: dict[str, Any]
) -> None:
    @manager.handler
    async def one(number: int) -> None: ...

    with pytest.raises(OptionError, match=next(iter(options))):
        one.using(**options).enqueue_sync(1)
    with pytest.raises(OptionError, match=next(iter(options))):
        manager.add_job_sync("one", {"number": 1}, **options)
    assert jobs_in(manager) == []


def test_the_largest_numbers_that_are_taken_can_be_stored(manager: QueueManager) -> None:
    @manager.handler(retry=RetryPolicy(max_retries=2**31 - 1))
    async def one(number: int) -> None: ...

    one.enqueue_sync(1)
    one.using(
        delay=LONGEST_WAIT, expires=LONGEST_WAIT, priority=9, max_retries=2**31 - 1
    ).enqueue_sync(2)
    assert [row.max_attempts for row in jobs_in(manager)] == [2**31, 2**31]


# ---- Files and folders


def enqueue_at(path: Path) -> None:
    manager = QueueManager(f"sqlite:///{path}")

    @manager.handler
    async def one(number: int) -> None: ...

    with closing(manager):
        one.enqueue_sync(1)


@pytest.mark.parametrize(
    "content", [b"Dear diary, " * 100, b"x", b"SQLite format 3\0" + b"?" * 5000]
)
def test_a_file_that_is_no_database_is_refused_and_left_as_it_was(
    path: Path, content: bytes
) -> None:
    path.write_bytes(content)
    with pytest.raises(NotAStore, match=r"jobs\.db is not a SQLite database: use another file"):
        enqueue_at(path)
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_a_manager_that_could_not_open_its_store_can_when_it_is_mended(path: Path) -> None:
    manager = QueueManager(f"sqlite:///{path}")

    @manager.handler
    async def one(number: int) -> None: ...

    path.write_text("Dear diary, " * 100)
    for _ in range(2):
        with pytest.raises(NotAStore):
            one.enqueue_sync(1)
    path.unlink()
    assert one.enqueue_sync(1).id == 1
    manager.close()


def test_where_nobody_may_write_that_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (empty := tmp_path / "empty").mkdir()
    (full := tmp_path / "full").mkdir()
    enqueue_at(full / "jobs.db")
    os.chmod(full / "jobs.db", 0o644)  # noqa: PTH101 - others may read it
    for folder in (empty, full):
        folder.chmod(0o555)

    def child() -> None:
        if os.getuid() == 0:
            os.setuid(NOBODY)  # root may write anywhere
        for folder in (empty, full):
            with pytest.raises(StoreError, match="Permission denied") as caught:
                enqueue_at(folder / "jobs.db")
            assert str(folder) in str(caught.value)
            assert isinstance(caught.value, BatchqError)

    assert succeeded(forked(child))
    assert list(empty.iterdir()) == []


def test_a_folder_that_is_gone_meanwhile_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file or directory"):
        enqueue_at(tmp_path / "no" / "jobs.db")
