"""The tables, made by sqlite-utils' migrations.

Rule 1: every table is named batchq_...: this may be somebody else's database.
Rule 2: `import sqlite_utils` takes a third of a second, so this module is imported only
when tables must be made or changed.
Rule 3: migrations run inside the caller's immediate transaction. Each is a savepoint in
it; of several starters one migrates, the others find it done.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from sqlite_utils import Database, Migrations

from batchq.stores.sqlite.look import SCHEMA

__all__ = ["migrate"]

_TABLES: Final = (
    """
    CREATE TABLE batchq_jobs (
        id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used twice: receipts name it
        queue TEXT NOT NULL,
        handler TEXT NOT NULL,
        state TEXT NOT NULL,
        priority INTEGER NOT NULL,
        due_at REAL,
        attempt INTEGER NOT NULL,
        refunds INTEGER NOT NULL,
        max_attempts INTEGER,
        crashes INTEGER NOT NULL,
        worker TEXT,
        enqueued_at REAL NOT NULL,
        started_at REAL,
        finished_at REAL,
        expires_at REAL,
        cancel TEXT,
        key TEXT,
        key_scope TEXT,
        key_until REAL,
        holds_key INTEGER,  -- 1, or NULL
        reason TEXT,
        tags TEXT,
        value TEXT,
        payload TEXT NOT NULL
    ) STRICT
    """,
    # Only what may be claimed is in it: a million final jobs do not slow a claim.
    """
    CREATE INDEX batchq_jobs_due
        ON batchq_jobs (queue, handler, priority, due_at, id)
     WHERE state IN ('pending', 'processing')
    """,
    # To find the few that failed among millions that did not.
    """
    CREATE INDEX batchq_jobs_lost
        ON batchq_jobs (state, id)
     WHERE state IN ('failed', 'cancelled')
    """,
    # A job is the lock on its key: no row outlives it. Jobs without a key are in neither.
    """
    CREATE UNIQUE INDEX batchq_jobs_held_key
        ON batchq_jobs (handler, key)
     WHERE holds_key = 1
    """,
    """
    CREATE INDEX batchq_jobs_key
        ON batchq_jobs (key, id)
     WHERE key IS NOT NULL
    """,
    # Beside the job: what is said of it every second must not write its payload anew.
    """
    CREATE TABLE batchq_notes (
        job INTEGER PRIMARY KEY,
        attempt INTEGER NOT NULL,
        progress REAL,
        note TEXT
    ) STRICT
    """,
    # One row, so one page, for all that a commit counts; see counting.py.
    """
    CREATE TABLE batchq_queues (
        queue TEXT PRIMARY KEY,
        paused INTEGER,  -- NULL: nobody has ordered anything
        minute REAL,  -- the one that the next columns are of
        enqueued INTEGER NOT NULL DEFAULT 0,
        claimed INTEGER NOT NULL DEFAULT 0,
        settled INTEGER NOT NULL DEFAULT 0,
        completed INTEGER NOT NULL DEFAULT 0,
        failed INTEGER NOT NULL DEFAULT 0,
        cancelled INTEGER NOT NULL DEFAULT 0,
        retried INTEGER NOT NULL DEFAULT 0,
        crashed INTEGER NOT NULL DEFAULT 0,
        waited REAL NOT NULL DEFAULT 0,
        ran REAL NOT NULL DEFAULT 0,
        all_completed INTEGER NOT NULL DEFAULT 0,  -- what is there now, of every minute
        all_failed INTEGER NOT NULL DEFAULT 0,
        all_cancelled INTEGER NOT NULL DEFAULT 0
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE batchq_tallies (
        minute REAL NOT NULL,
        queue TEXT NOT NULL,
        enqueued INTEGER NOT NULL,
        claimed INTEGER NOT NULL,
        settled INTEGER NOT NULL,
        completed INTEGER NOT NULL,
        failed INTEGER NOT NULL,
        cancelled INTEGER NOT NULL,
        retried INTEGER NOT NULL,
        crashed INTEGER NOT NULL,
        waited REAL NOT NULL,
        ran REAL NOT NULL,
        PRIMARY KEY (minute, queue)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE batchq_errors (
        id INTEGER PRIMARY KEY,
        job INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        at REAL NOT NULL,
        kind TEXT NOT NULL,
        message TEXT NOT NULL,
        traceback TEXT NOT NULL,
        worker TEXT
    ) STRICT
    """,
    "CREATE INDEX batchq_errors_job ON batchq_errors (job, id)",
    """
    CREATE TABLE batchq_workers (
        worker TEXT PRIMARY KEY,
        commits INTEGER NOT NULL,
        batches INTEGER NOT NULL,
        seen_at REAL NOT NULL,
        beat TEXT
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE batchq_clock (
        boot_id TEXT PRIMARY KEY,
        offset REAL NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE batchq_meta (
        name TEXT PRIMARY KEY,
        value INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
)


class _Migrations(Migrations):
    migrations_table = "batchq_migrations"


_migrations: Final = _Migrations("batchq")


@_migrations()
def m001_tables(database: Database) -> None:
    """Make the first tables."""
    for statement in _TABLES:
        database.execute(statement)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the tables to `SCHEMA`, inside the transaction that is open."""
    # Without plugins and pragmas: a library's store is no place for either.
    database = Database(connection, recursive_triggers=False, execute_plugins=False)
    _migrations.apply(database)
    connection.execute(
        """
        INSERT INTO batchq_meta (name, value) VALUES ('schema', :schema)
            ON CONFLICT (name) DO UPDATE SET value = excluded.value
        """,
        {"schema": SCHEMA},
    )
