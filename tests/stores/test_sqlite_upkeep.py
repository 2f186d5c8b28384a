"""What a database file needs besides its jobs: copies, looks, a SQLite that is sound."""

from __future__ import annotations

import errno
import json
import logging
import os
import sqlite3
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio

from batchq import QueueManager
from batchq.core.lifecycle import JobState
from batchq.core.record import JobFilter
from batchq.errors import StoreError, StoreFull, Unsupported
from batchq.stores.sqlite import SqliteStore, version
from batchq.stores.sqlite import backup as backup_module
from batchq.stores.sqlite.look import schema_of
from batchq.stores.upkeep import Upkeep
from batchq.testing.conformance.kit import claim_ids, enqueue, job


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(path)) as opened:
        yield opened


# ---- Copies


def test_a_copy_is_the_store_as_it_was(store: SqliteStore, path: Path) -> None:
    copy = path.with_name("copy.db")
    enqueue(store, *(job(b'"x"') for _ in range(100)))
    assert claim_ids(store)[:2] == [1, 2]
    before = store.find(JobFilter())
    store.backup(copy)
    enqueue(store, job())
    assert sorted(file.name for file in path.parent.iterdir() if file.name.startswith(".")) == []
    with closing(SqliteStore(copy)) as copied:
        assert copied.find(JobFilter()) == before
        assert list(enqueue(copied, job())) == [101]
    assert store.counts() == {"mail": {JobState.PROCESSING: 100, JobState.PENDING: 1}}


def test_a_copy_is_for_its_owner_only_and_made_while_others_write(
    store: SqliteStore, path: Path
) -> None:
    enqueue(store, job())
    before = os.umask(0)
    try:
        with store._here().writer.transaction():
            store.backup(path.with_name("copy.db"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.with_name("copy.db").stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["jobs.db", "text", "copy.db"])
def test_a_copy_overwrites_nothing(store: SqliteStore, path: Path, name: str) -> None:
    (path.parent / "text").write_text("Dear diary")
    store.backup(path.parent / "copy.db")
    before = {file.name for file in path.parent.iterdir()}
    with pytest.raises(StoreError, match="is there already"):
        store.backup(path.parent / name)
    assert {file.name for file in path.parent.iterdir()} == before
    assert (path.parent / "text").read_text() == "Dear diary"


def test_a_copy_that_fails_leaves_nothing(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = {file.name for file in path.parent.iterdir()}
    with pytest.raises(StoreError, match="No such file or directory"):
        store.backup(path.parent / "no" / "copy.db")
    monkeypatch.setattr(backup_module, "_make_sure", full)
    with pytest.raises(StoreFull, match="No space left"):
        store.backup(path.parent / "copy.db")
    assert {file.name for file in path.parent.iterdir()} == before


def test_a_copy_whose_source_can_not_be_opened_says_so(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: str) -> sqlite3.Connection:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(backup_module, "read_only", fails)
    with pytest.raises(StoreError, match="disk I/O error"):
        store.backup(path.parent / "copy.db")
    assert not (path.parent / "copy.db").exists()


async def test_a_manager_copies_its_store(tmp_path: Path) -> None:
    manager = QueueManager(f"sqlite:///{tmp_path / 'jobs.db'}")

    @manager.handler
    async def greet(name: str) -> None: ...

    await greet.enqueue("Ada")
    await manager.backup(tmp_path / "trio.db")
    await trio.to_thread.run_sync(manager.backup_sync, str(tmp_path / "sync.db"))
    manager.close()
    for name in ("trio.db", "sync.db"):
        with closing(SqliteStore(tmp_path / name)) as copied:
            assert copied.counts() == {"greet": {JobState.PENDING: 1}}


def test_a_store_in_memory_has_no_copies(tmp_path: Path) -> None:
    manager = QueueManager("memory:")
    with pytest.raises(Unsupported, match="memory:"):
        manager.backup_sync(tmp_path / "copy.db")
    manager.close()


# ---- Looks


def test_a_sound_file_is_found_sound(store: SqliteStore) -> None:
    assert isinstance(store, Upkeep)
    enqueue(store, job())
    found = {finding.name: finding for finding in store.examine()}
    assert found.keys() == {"sqlite", "files", "size", "content", "jobs", "schema"}
    assert all(finding.ok or finding.name == "sqlite" for finding in found.values())
    assert found["sqlite"].ok is not version.has_reset_bug()


def test_a_file_that_others_may_read_is_odd(store: SqliteStore, path: Path) -> None:
    path.chmod(0o644)
    [files] = [finding for finding in store.examine() if finding.name == "files"]
    assert (files.ok, files.harmless) == (False, True)
    assert "jobs.db is 0644" in files.text


def test_a_file_that_is_corrupt_is_found_broken(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        enqueue(store, *(job(b"x" * 500) for _ in range(200)))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        root = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'batchq_jobs_due'"
        ).fetchone()[0]
    with path.open("r+b") as file:  # nobody is connected
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 8)
    with closing(SqliteStore(path)) as store:
        [content] = [finding for finding in store.examine() if finding.name == "content"]
    assert (content.ok, content.harmless) == (False, False)
    assert "corrupt" in content.text


def test_a_disk_that_fails_says_nothing_of_whose_file_it_is(store: SqliteStore, path: Path) -> None:
    class Failing(sqlite3.Connection):
        def execute(self, sql: str, *words: object) -> sqlite3.Cursor:
            if "'schema'" in sql:
                raise sqlite3.OperationalError("disk I/O error")
            return super().execute(sql, *words)  # type: ignore[arg-type]

    store.counts()
    with (
        closing(sqlite3.connect(path, factory=Failing)) as connection,
        pytest.raises(sqlite3.OperationalError, match="disk"),
    ):
        schema_of(connection, str(path))


# ---- The SQLite at hand


@pytest.mark.parametrize(
    ("number", "bug"),
    [
        ((3, 38, 0), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 53, 0), False),
        ((4, 0, 0), False),
    ],
)
def test_which_versions_have_the_bug(number: tuple[int, int, int], *, bug: bool) -> None:
    assert version.has_reset_bug(number) is bug


def test_several_processes_that_write_are_warned_of_it_once(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(version, "has_reset_bug", lambda: True)
    with closing(SqliteStore(path)) as store, closing(SqliteStore(path, patience=0.05)) as other:
        enqueue(store, job())
        enqueue(other, job())
        assert caplog.records == []  # alone, each at its time: nothing to say
        for _ in range(2):
            with store._here().writer.transaction(), pytest.raises(StoreError):
                enqueue(other, job())
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "3.51.3" in record.getMessage()


def test_a_sound_sqlite_is_no_cause_for_a_warning(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(version, "has_reset_bug", lambda: False)
    with (
        closing(SqliteStore(path)) as store,
        closing(SqliteStore(path, patience=0.05)) as other,
        store._here().writer.transaction(),
        pytest.raises(StoreError),
    ):
        enqueue(other, job())
    assert caplog.records == []


def test_the_files_are_opened_by_sqlite_only(path: Path) -> None:
    """To close any other descriptor of them would drop the locks of this process."""
    code = """
        import json, sys
        from batchq.stores.sqlite import SqliteStore
        from batchq.testing.conformance.kit import claim, enqueue, job, settle_one, read
        path, opened = sys.argv[1], []
        SqliteStore(path).close()
        sys.addaudithook(lambda event, words: opened.append(words) if event == "open" else None)
        store = SqliteStore(path)
        enqueue(store, job(), job())
        for taken in claim(store).jobs:
            settle_one(store, taken.receipt)
        store.counts(), store.changed(), store.examine(), store.info(), store.workers()
        store.backup(path + "-copy")
        store.close()
        print(json.dumps([str(words[0]) for words in opened]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    ours = [name for name in json.loads(done.stdout) if name.startswith(str(path.parent))]
    assert str(path) + "-lock" in ours
    assert not {str(path) + suffix for suffix in ("", "-wal", "-shm")} & set(ours)
