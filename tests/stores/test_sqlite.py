"""What only the SQLite store promises of its file: how it is opened, read and refused."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from batchq.core.job import Group
from batchq.core.lifecycle import JobState
from batchq.core.record import JobFilter
from batchq.errors import (
    NotAStore,
    OptionError,
    StoreError,
    StoreTooNew,
)
from batchq.stores.sqlite import SqliteStore, admin, claiming
from batchq.testing.conformance.kit import claim_ids, enqueue, job
from tests.stores.sqlite_kit import NOBODY, forked, raw, succeeded

# Children of these tests run no test code after the fork but what is given to them.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

READINGS: Final = ("scheduled", "retrying", "stalled")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(path)) as opened:
        yield opened


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def plan(connection: sqlite3.Connection, sql: str, **parameters: object) -> str:
    rows = connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()
    return "\n".join(row[3] for row in rows)


# ---- Plans


def test_a_claim_seeks_through_the_partial_index_and_sorts_nothing(path: Path) -> None:
    SqliteStore(path).close()
    with closing(sqlite3.connect(path)) as connection:
        found = plan(connection, claiming._IN_ORDER, queue="q", handler="h", priority=2, now=0)
        level = plan(connection, claiming._NEXT_LEVEL, queue="q", handler="h", priority=2)
    index = "batchq_jobs_due (queue=? AND handler=? AND priority=? AND due_at>?)"
    assert found == f"SEARCH batchq_jobs USING INDEX {index}"
    index = "batchq_jobs_due (queue=? AND handler=? AND priority>?)"
    assert level == f"SEARCH batchq_jobs USING INDEX {index}"


def test_jobs_that_come_together_take_few_statements(store: SqliteStore) -> None:
    sent: list[str] = []
    store._here().writer.connection.set_trace_callback(sent.append)
    enqueue(store, *(job(handler=("send", "fetch")[number % 2]) for number in range(64)))
    assert sum("INTO batchq_jobs" in statement for statement in sent) == 2


def test_a_row_that_sqlite_refuses_takes_its_group_with_it(store: SqliteStore) -> None:
    high: Any = "high"
    with pytest.raises(StoreError, match="INTEGER"):
        enqueue(store, job(), job(priority=high))
    assert store.counts() == {}
    assert enqueue(store, job()) == [1]


def test_listings_and_counts_read_no_completed_job_they_do_not_show(path: Path) -> None:
    SqliteStore(path).close()
    plans: dict[str | None, str] = {}
    with closing(sqlite3.connect(path)) as connection:
        for status in (None, *(state.value for state in JobState), *READINGS):
            where = JobFilter(status=status, queue="q", handler="h", tag="t")
            query = admin.listing("SELECT id", where, now=0, after=0)
            assert query is not None
            plans[status] = plan(connection, query[0], **query[1])
        counts = plan(connection, admin._COUNTS)
    for status in ("pending", "processing", "scheduled", "retrying", "stalled"):
        assert "USING INDEX batchq_jobs_due" in plans[status]
    for status in ("failed", "cancelled"):
        assert "SEARCH batchq_jobs USING INDEX batchq_jobs_lost" in plans[status]
        assert "TEMP B-TREE" not in plans[status]
    for any_other in (None, "completed"):
        assert "SEARCH batchq_jobs USING INTEGER PRIMARY KEY" in plans[any_other]
    assert "SCAN batchq_jobs USING INDEX batchq_jobs_due" in counts


def test_whose_jobs_wait_takes_one_seek_for_each_of_them(path: Path) -> None:
    SqliteStore(path).close()
    with closing(sqlite3.connect(path)) as connection:
        sql = admin._NEXT_KIND.replace("?", "x''")
        found = plan(connection, sql)
    index = "batchq_jobs_due ((queue,handler)>(?,?))"
    assert found == f"SEARCH batchq_jobs USING INDEX {index}"


# ---- Files that are not ours


def _text(path: Path) -> None:
    path.write_text("Dear diary, " * 100)


def _one_byte(path: Path) -> None:
    path.write_text("x")  # for SQLite that is an empty file


def _foreign(path: Path) -> None:
    raw(path, "CREATE TABLE batchq_jobs (mine)", "INSERT INTO batchq_jobs VALUES (1)")


def _foreign_in_wal_mode(path: Path) -> None:
    raw(path, "PRAGMA journal_mode = WAL", "CREATE TABLE batchq_meta (mine)")


def _foreign_that_crashed(path: Path) -> None:
    """Leave a WAL behind, as after a power cut: the memory beside it is gone."""
    other = path.with_name("other.db")
    with closing(sqlite3.connect(other, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE batchq_jobs (mine)")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("INSERT INTO batchq_jobs VALUES (1)")
        for suffix in ("", "-wal"):
            content = Path(f"{other}{suffix}").read_bytes()
            Path(f"{path}{suffix}").write_bytes(content)
    other.unlink()


def _without_a_table(path: Path) -> None:
    SqliteStore(path).close()
    raw(path, "DROP TABLE batchq_errors")


def _utf16(path: Path) -> None:
    raw(path, "PRAGMA encoding = 'UTF-16'", "CREATE TABLE diary (mine)")


def _newer(path: Path) -> None:
    SqliteStore(path).close()
    raw(path, "UPDATE batchq_meta SET value = 42 WHERE name = 'schema'")


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (_text, NotAStore, "not a SQLite database"),
        (_one_byte, NotAStore, "not a SQLite database"),
        (_foreign, NotAStore, "not ours"),
        (_foreign_in_wal_mode, NotAStore, "not ours"),
        (_foreign_that_crashed, NotAStore, "not ours"),
        (_without_a_table, NotAStore, "not ours"),
        (_utf16, NotAStore, "UTF-16"),
        (_newer, StoreTooNew, r"schema 42.* up to 1"),
    ],
)
def test_a_file_that_is_not_ours_is_refused_and_left_as_it_was(
    path: Path, make: Callable[[Path], None], error: type[StoreError], said: str
) -> None:
    make(path)
    path.with_name("jobs.db-lock").unlink(missing_ok=True)
    before = contents(path.parent)
    with pytest.raises(error, match=said):
        SqliteStore(path)
    after = contents(path.parent)
    if make is _foreign_that_crashed:
        del after["jobs.db-shm"]  # there is no other way to read what is in its WAL
    assert after == before


@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
def test_what_is_not_a_file_is_refused_and_nothing_is_made_beside_it(path: Path, kind: str) -> None:
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case _:
            path = Path("/dev/null")
    before = sorted(path.parent.iterdir())
    with pytest.raises(NotAStore, match="is not a file"):
        SqliteStore(path)
    assert sorted(path.parent.iterdir()) == before


def test_a_link_that_leads_to_itself_is_refused(path: Path) -> None:
    path.symlink_to(path)
    with pytest.raises(StoreError, match=str(path)):
        SqliteStore(path)


@pytest.mark.parametrize("name", ["jobs\0.db", "\ud800.db", 5])
def test_what_is_no_path_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match="a database needs a path"):
        SqliteStore(name)


def test_a_database_of_somebody_else_takes_our_tables_beside_its_own(path: Path) -> None:
    raw(path, "CREATE TABLE diary (text)", "INSERT INTO diary VALUES ('dear')")
    with closing(SqliteStore(path)) as store:
        enqueue(store, job())
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT text FROM diary").fetchall() == [("dear",)]
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        names = {name for (name,) in tables} - {"diary", "sqlite_sequence"}
        assert all(name.startswith("batchq_") for name in names)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no/jobs\.db"):
        SqliteStore(tmp_path / "no" / "jobs.db")


def test_a_folder_that_may_only_be_read_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(0o755)
    (full := folder / "full").mkdir(0o755)
    SqliteStore(full / "jobs.db").close()
    for inner in (full, folder):
        inner.chmod(0o555)
    tmp_path.chmod(0o755)
    before = contents(full)

    def child() -> None:
        if os.getuid() == 0:
            os.setuid(NOBODY)  # root may write anywhere
        for path in (folder / "jobs.db", full / "jobs.db"):
            with pytest.raises(StoreError):
                SqliteStore(path)

    assert succeeded(forked(child))
    assert contents(full) == before


# ---- Opening


def test_files_are_for_their_owner_only(path: Path) -> None:
    before = os.umask(0)
    try:
        with closing(SqliteStore(path)) as store:
            enqueue(store, job())
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    names = ("jobs.db", "jobs.db-lock", "jobs.db-shm", "jobs.db-wal")
    assert modes == dict.fromkeys(names, 0o600)


def test_a_folder_in_which_anybody_may_replace_the_file_is_refused(path: Path) -> None:
    path.parent.chmod(0o777)
    with pytest.raises(StoreError, match=r"anybody may write to .*: chmod o-w .*, or use another"):
        SqliteStore(path)
    assert list(path.parent.iterdir()) == []
    for mode in (0o1777, 0o775, 0o700):
        path.parent.chmod(mode)
        SqliteStore(path).close()
    path.parent.chmod(0o702)
    before = contents(path.parent)
    with pytest.raises(StoreError, match="anybody may write"):
        SqliteStore(path)
    assert contents(path.parent) == before


@pytest.mark.parametrize(("durability", "synchronous"), [("full", 2), ("process", 1)])
def test_durability_decides_whether_a_commit_is_fsynced(
    path: Path, durability: str, synchronous: int
) -> None:
    with closing(SqliteStore(path, durability=durability)) as store:
        connection = store._here().writer.connection
        settings = ("journal_mode", "synchronous", "wal_autocheckpoint", "secure_delete")
        found = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in settings]
    assert found == ["wal", synchronous, 0, 0]


def test_to_open_a_store_that_is_there_writes_nothing_and_is_quick(path: Path) -> None:
    SqliteStore(path).close()
    before = contents(path.parent)
    code = (
        "import sys; from batchq.stores.sqlite import SqliteStore;"
        f"SqliteStore({str(path)!r}).close(); sys.exit('sqlite_utils' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert contents(path.parent) == before


def test_of_two_processes_that_start_at_once_one_makes_the_tables(path: Path) -> None:
    """J20."""
    for _ in range(5):
        go = time.time() + 0.05

        def child(go: float = go) -> None:
            time.sleep(max(0.0, go - time.time()))
            with closing(SqliteStore(path)) as store:
                enqueue(store, job())

        assert succeeded(*(forked(child) for _ in range(4)))
        with closing(SqliteStore(path)) as store:
            assert [found.id for found in store.find(JobFilter())] == [1, 2, 3, 4]
        for file in path.parent.iterdir():
            file.unlink()


def test_two_ways_to_one_file_meet_at_one_lock(path: Path) -> None:
    (path.parent / "link.db").symlink_to(path)
    with closing(SqliteStore(path)) as one, closing(SqliteStore(path.parent / "link.db")) as two:
        assert list(enqueue(one, job())) == [1]
        assert claim_ids(two) == [1]
    assert not (path.parent / "link.db-lock").exists()


def test_a_closed_store_says_so(path: Path) -> None:
    store = SqliteStore(path)
    store.close()
    store.close()
    for call in (store.now, store.counts, lambda: store.commit(Group())):
        with pytest.raises(StoreError, match="closed"):
            call()
    assert {file.name for file in path.parent.iterdir()} == {"jobs.db", "jobs.db-lock"}
