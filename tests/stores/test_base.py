"""What a store says of itself, and how its address is read."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import pytest

from batchq.errors import OptionError
from batchq.stores.base import Store
from batchq.stores.memory import MemoryStore
from batchq.stores.sqlite import SqliteStore
from batchq.stores.url import open_store


def test_memory_needs_no_thread_and_sqlite_does(tmp_path: Path) -> None:
    memory: Store = MemoryStore()
    with closing(SqliteStore(tmp_path / "jobs.db")) as sqlite:
        assert (memory.info().kind, memory.info().inline) == ("memory", True)
        assert (sqlite.info().kind, sqlite.info().inline) == ("sqlite", False)
        assert (sqlite.info().durability, sqlite.info().schema) == ("full", 1)
        assert sqlite.info().location == str(tmp_path / "jobs.db")
    assert not memory.changed()


def test_the_clock_is_near_the_epoch_and_never_goes_back(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "jobs.db")) as sqlite:
        for store in (MemoryStore(), sqlite):
            times = [store.now() for _ in range(1_000)]
            assert times == sorted(times)
            assert abs(times[0] - time.time()) < 60


def test_a_url_names_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url, path in (
        ("sqlite:///a%20b.db", "a b.db"),
        (f"sqlite:///{tmp_path}/absolute.db", "absolute.db"),
    ):
        open_store(url).close()
        assert (tmp_path / path).is_file()
    assert open_store("memory:", clock=lambda: 7.0).now() == 7.0
    with closing(open_store("sqlite:///c.db", durability="process")) as store:
        assert store.info().durability == "process"


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:",
        "sqlite:///",
        "sqlite:///a.db?mode=ro",
        "redis://h",
        "jobs.db",
        "sqlite:///:memory:",
    ],
)
def test_another_address_is_refused_with_those_that_are_allowed(url: str) -> None:
    with pytest.raises(OptionError, match=r"memory:|no parameters"):
        open_store(url)


def test_another_durability_is_refused(tmp_path: Path) -> None:
    for url in ("memory:", f"sqlite:///{tmp_path}/jobs.db"):
        with pytest.raises(OptionError, match="durability"):
            open_store(url, durability="none")
    assert not list(tmp_path.iterdir())
