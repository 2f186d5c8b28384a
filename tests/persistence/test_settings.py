"""Persistence: its settings, and any object with load and save as a storage."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from batchq.core.snapshot import Snapshots
from batchq.errors import OptionError, PersistenceError, StorageInUse
from batchq.persistence import FileStorage, Persistence
from batchq.testing import FaultyStorage


def snapshots(storage: Any, **settings: Any) -> Snapshots:  # noqa: ANN401 - as the test says
    return Persistence(storage=storage, **settings)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("storage", None),
        ("storage", "folder"),
        ("storage_key", ""),
        ("storage_key", 7),
        ("save_interval", 0),
        ("save_interval", -1),
        ("save_interval", math.nan),
        ("save_interval", True),
        ("save_interval", "60"),
        ("item_type", 7),
    ],
)
def test_a_setting_that_will_not_do_is_named(setting: str, value: object) -> None:
    given: dict[str, Any] = {"storage": FaultyStorage(), setting: value}
    with pytest.raises(OptionError, match=f"^{setting} must .*{value!r}"):
        Persistence(**given)


def test_a_key_is_the_queue_s_name_unless_it_is_given() -> None:
    async def main() -> list[str]:
        storage = FaultyStorage()
        await snapshots(storage).save("mail", [])
        await snapshots(storage, storage_key="other").save("mail", [])
        return list(storage.snapshots)

    assert trio.run(main) == ["mail", "other"]


@attrs.define
class Plain:
    """A storage of plain functions, without owners."""

    records: dict[str, Any] = attrs.field(factory=dict)
    threads: set[int] = attrs.field(factory=set)

    def save(self, key: str, records: Sequence[bytes]) -> None:
        self.threads.add(threading.get_ident())
        self.records[key] = records

    def load(self, key: str) -> Any:  # noqa: ANN401 - some return nonsense
        self.threads.add(threading.get_ident())
        return self.records.get(key, [])


async def test_plain_functions_run_in_a_thread() -> None:
    storage = Plain()
    kept = snapshots(storage)
    assert await kept.load("q") == []
    await kept.save("q", [b"1"])
    assert await kept.load("q") == [b"1"]
    await kept.release("q")
    assert threading.get_ident() not in storage.threads


@pytest.mark.parametrize("nonsense", [None, b"12", "12", ["1"], {b"1": 2}])
async def test_a_load_of_something_else_is_a_persistence_error(nonsense: object) -> None:
    with pytest.raises(PersistenceError, match="must return a list of bytes"):
        await snapshots(Plain({"q": nonsense})).load("q")


async def test_a_storage_s_error_is_the_cause_of_a_persistence_error() -> None:
    storage = FaultyStorage()
    kept = snapshots(storage)
    storage.fail("save", KeyError("disk"))
    with pytest.raises(PersistenceError, match=r"save\('q'\) of FaultyStorage failed") as caught:
        await kept.save("q", [])
    assert isinstance(caught.value.__cause__, KeyError)


async def test_a_second_owner_is_refused_and_a_failed_load_gives_the_key_up() -> None:
    storage = FaultyStorage()
    kept = snapshots(storage)
    storage.fail("load")
    with pytest.raises(PersistenceError):
        await kept.load("q")
    await kept.load("q")
    with pytest.raises(StorageInUse):
        await kept.load("q")
    await kept.release("q")
    await kept.load("q")


async def test_records_set_aside_join_those_kept_before_each_once() -> None:
    storage = FaultyStorage()
    kept = snapshots(storage)
    await kept.set_aside("q", [b"a", b"b"])
    await kept.set_aside("q", [b"b", b"c"])
    assert storage.snapshots == {"q.quarantine": [b"a", b"b", b"c"]}


async def test_a_save_that_hangs_can_be_given_up_and_keeps_the_key_until_it_ends(
    tmp_path: Path,
) -> None:
    class Hanging(FileStorage):
        def _replace(self, path: Path, content: bytes) -> None:
            hangs.wait()
            super()._replace(path, content)

    hangs = threading.Event()
    kept, other = snapshots(Hanging(tmp_path)), snapshots(FileStorage(tmp_path))
    await kept.load("q")
    with trio.move_on_after(0.05) as scope:
        await kept.save("q", [b"1"])
    assert scope.cancelled_caught
    await kept.release("q")
    with pytest.raises(StorageInUse):
        await other.load("q")
    hangs.set()
    with trio.fail_after(10):
        while True:
            try:
                assert await other.load("q") == [b"1"]
                break
            except StorageInUse:
                await trio.sleep(0.01)
    await other.release("q")
