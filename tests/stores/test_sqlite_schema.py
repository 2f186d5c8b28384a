"""A newer batchq meets an older file: its tables are changed once, wholly, or not at all."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
from sqlite_utils import Database

from batchq.errors import NotAStore, StoreTooNew
from batchq.stores.sqlite import SqliteStore, connect, look, schema, store
from batchq.testing.conformance.kit import claim_ids, enqueue, job
from tests.stores.sqlite_kit import forked, raw, succeeded

# A forked child runs nothing of the test but what it is given.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

_ROWS = 2_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "jobs.db"
    with closing(SqliteStore(path)) as opened:
        enqueue(opened, *(job(b"x" * 100) for _ in range(_ROWS)))
    return path


def newer(pause: Callable[[], object] = lambda: None) -> None:
    """Make this process one of the next schema: a column, an index and a table more."""
    number = look.SCHEMA + 1
    for module in (connect, look, schema, store):
        vars(module)["SCHEMA"] = number
    look._TABLES[number] = look._TABLES[number - 1] | {"batchq_colours"}

    @schema._migrations()
    def m002_colours(database: Database) -> None:
        database.execute("ALTER TABLE batchq_jobs ADD COLUMN colour TEXT")
        pause()
        database.execute("UPDATE batchq_jobs SET colour = 'red'")
        pause()
        database.execute("CREATE INDEX batchq_jobs_colour ON batchq_jobs (colour)")
        database.execute("CREATE TABLE batchq_colours (colour TEXT) STRICT")


def facts(path: Path) -> tuple[int, list[str], int]:
    """Return a file's schema, our additions to it, and how many jobs it has."""
    with closing(sqlite3.connect(path)) as connection:
        [number] = connection.execute("SELECT value FROM batchq_meta").fetchone()
        names = "SELECT name FROM sqlite_master WHERE name LIKE '%colour%' ORDER BY name"
        added = [name for (name,) in connection.execute(names)]
        columns = [row[1] for row in connection.execute("PRAGMA table_info(batchq_jobs)")]
        [rows] = connection.execute("SELECT count(*) FROM batchq_jobs").fetchone()
    return number, added + ["colour"] * ("colour" in columns), rows


OLD: Final[tuple[int, list[str], int]] = (1, [], _ROWS)
NEW: Final = (2, ["batchq_colours", "batchq_jobs_colour", "colour"], _ROWS)


def test_of_several_newer_processes_that_start_at_once_one_changes_the_tables(path: Path) -> None:
    """J20."""
    go = time.time() + 0.1

    def child() -> None:
        newer()
        time.sleep(max(0.0, go - time.time()))
        with closing(SqliteStore(path)) as opened:
            assert len(claim_ids(opened)) == 100

    assert facts(path) == OLD
    assert succeeded(*(forked(child) for _ in range(4)))
    assert facts(path) == NEW
    with pytest.raises(StoreTooNew, match="schema 2"):
        SqliteStore(path)
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT count(*) FROM batchq_jobs WHERE attempt = 1"
        assert connection.execute(query).fetchone() == (400,)


@pytest.mark.parametrize("moment", range(3))
def test_a_change_of_tables_that_is_killed_has_not_begun(path: Path, moment: int) -> None:
    """J20."""
    pauses = iter(range(3))

    def kill() -> None:
        if next(pauses) == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    def child() -> None:
        newer(kill)
        if moment == 2:  # after all statements, before the commit
            schema_migrate = schema.migrate

            def migrate(connection: sqlite3.Connection) -> None:
                schema_migrate(connection)
                os.kill(os.getpid(), signal.SIGKILL)

            schema.migrate = migrate
        SqliteStore(path).close()

    assert not succeeded(forked(child))
    assert facts(path) == OLD
    with closing(SqliteStore(path)) as opened:  # the older one goes on
        assert claim_ids(opened)[0] == 1

    def again() -> None:
        newer()
        SqliteStore(path).close()

    assert succeeded(forked(again))
    assert facts(path) == NEW


def test_a_file_that_lacks_a_table_of_its_schema_is_nobodys(path: Path) -> None:
    raw(path, "DROP TABLE batchq_queues")
    with pytest.raises(NotAStore, match="not ours"):
        SqliteStore(path)
