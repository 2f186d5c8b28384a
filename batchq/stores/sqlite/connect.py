"""Connections to one database file: how they are opened, used and let go of.

Rule 1: one connection of a process writes, another reads for people.
Rule 2: no connection crosses a fork: a child closes what it inherited, first of all, and
opens its own; see `fork.py`.
Rule 3: the database's files are opened by SQLite only. To close any other descriptor of
them would drop this process's locks.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import attrs

from batchq.errors import StoreBroken, StoreBusy, StoreError
from batchq.stores.sqlite.fork import at_work, begin_work, end_work, remember
from batchq.stores.sqlite.lock import FileLock, retry
from batchq.stores.sqlite.look import SCHEMA, look, read_only, schema_of
from batchq.stores.sqlite.trouble import is_busy, os_trouble, store_error, translated
from batchq.stores.sqlite.version import warn_of_reset_bug

__all__ = ["LARGE_WAL", "SYNCHRONOUS", "Reader", "Writer", "open_writer"]

# What is stored survives: a power cut; the death of every process.
SYNCHRONOUS: Final = {"full": "FULL", "process": "NORMAL"}
_OLDEST: Final = (3, 38, 0)
_WAL_LIMIT: Final = 1_024  # pages, of 4 KiB mostly
_CHECKPOINT_EVERY: Final = 60.0
LARGE_WAL: Final = 64 * 2**20  # [bytes]


@attrs.define(eq=False)
class Writer:
    """The one writing connection of a process.

    Attributes:
        path: the file.
        connection: in autocommit mode.
        lock: held while a transaction or a checkpoint runs.
        patience: how long to wait for others [s].
    """

    path: str
    connection: sqlite3.Connection
    lock: FileLock
    patience: float
    _working: bool = attrs.field(default=False, init=False)
    _broken: StoreError | None = attrs.field(default=None, init=False)
    _commits: int = attrs.field(default=0, init=False)
    _next_checkpoint: int = attrs.field(default=64, init=False)
    _checkpointed_at: float = attrs.field(factory=time.monotonic, init=False)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block as one transaction: all of it, or nothing.

        Raises:
            StoreError: as `Store.commit` says.
        """
        if self._broken is not None:
            raise StoreBroken(str(self._broken)) from self._broken
        try:
            with translated(self.path):
                self.lock.wait_for(self._begin, self.patience)
                before = self.connection.total_changes
                yield
                self.connection.execute("COMMIT")
                if self.connection.total_changes != before:
                    self._after_commit()
        except StoreBroken as error:
            self._give_up(error)
            raise
        finally:
            self._end()

    def version(self) -> int:
        """Return a number that changes when another connection has written."""
        with translated(self.path):
            return int(self.connection.execute("PRAGMA data_version").fetchone()[0])

    def checkpoint(self) -> None:
        """Move what is in the WAL to the database; under the lock."""
        _, pages, _ = self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        # The WAL does not tell its fill without a checkpoint, so the next one is foretold.
        per_commit = max(1.0, pages / max(1, self._commits))
        self._next_checkpoint = max(1, int(_WAL_LIMIT / per_commit))
        self._commits = 0
        self._checkpointed_at = time.monotonic()

    def close(self) -> None:
        """Close the connection; the last one to do so empties the WAL. Idempotent."""
        try:
            with translated(self.path), self.lock.held(self.patience), at_work():
                self.connection.close()
        except StoreBusy:  # the lock is a courtesy here; SQLite has its own
            with at_work():
                self.connection.close()
        finally:
            self.lock.close()

    def forget(self) -> None:
        """Close what a child has inherited; nothing is at work."""
        with suppress(sqlite3.Error):
            self.connection.close()
        # It shares the parent's open file, and would keep the lock of one that died.
        self.lock.close()

    def _begin(self) -> bool:
        begin_work()
        self._working = True
        if not self.lock.take():
            warn_of_reset_bug(self.path)
        else:
            try:
                # IMMEDIATE takes the write lock up front: a plain BEGIN that reads first can
                # fail at its first write, and no waiting helps.
                self.connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
            else:
                return True
        self._end()
        return False

    def _end(self) -> None:
        """Leave nothing half-done and nothing held, whatever came between; idempotent."""
        if not self._working:
            return
        try:
            # What broke is closed already. On a full disk SQLite has rolled back already, and
            # a second ROLLBACK would raise.
            if self._broken is None and self.connection.in_transaction:
                with translated(self.path):
                    self.connection.execute("ROLLBACK")
        finally:
            self._working = False
            self.lock.release()
            end_work()

    def _after_commit(self) -> None:
        self._commits += 1
        late = time.monotonic() - self._checkpointed_at >= _CHECKPOINT_EVERY
        if self._commits < self._next_checkpoint and not late:
            return
        try:
            self.checkpoint()
        except sqlite3.Error as error:
            # The commit itself stands, and its answers are worth having: what is wrong
            # with the disk is said at the next one. No space here is no loss.
            reason = store_error(error, self.path)
            if isinstance(reason, StoreBroken):
                self._give_up(reason)

    def _give_up(self, error: StoreError) -> None:
        """Use this connection no more: after a failed fsync nobody knows what is written."""
        self._broken = error
        with suppress(sqlite3.Error):
            if sys.version_info >= (3, 12):
                # To close the last connection is to checkpoint: it would repeat the fsync,
                # and be told that all is well. Earlier Pythons can't say so.
                never = sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE
                self.connection.setconfig(never, True)  # noqa: FBT003 - its only form
            self.connection.close()


@attrs.define(eq=False)
class Reader:
    """The connection of a process that reads for people, made when first asked for.

    Attributes:
        path: the file.
        patience: how long to wait for others [s].
    """

    path: str
    patience: float
    _connection: sqlite3.Connection | None = attrs.field(default=None, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Let the block read, from any thread, the store as it was at one moment."""
        with self._lock, at_work(), translated(self.path):
            connection = self._opened()
            retry(lambda: _begin_reading(connection), patience=self.patience, path=self.path)
            try:
                yield connection
            finally:
                _end_reading(connection)

    def close(self) -> None:
        """Close what is open; idempotent."""
        with self._lock, at_work():
            self.forget()

    def forget(self) -> None:
        """Close what a child has inherited; nothing is at work."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = read_only(self.path)
            remember(self)
        return self._connection


def open_writer(path: str, *, durability: str, patience: float) -> Writer:
    """Open `path` for writing; make the file and its tables if they are missing.

    Raises:
        NotAStore, StoreTooNew: the file was left untouched.
        StoreError: it can't be opened.
    """
    if sqlite3.sqlite_version_info < _OLDEST:
        raise StoreError(f"SQLite must be 3.38 or later, this is {sqlite3.sqlite_version}")
    with translated(path):
        schema = _look_patiently(path, patience)
    _make_file(path)
    with ExitStack() as undo:
        lock = FileLock(path)
        undo.callback(lock.close)
        with translated(path), lock.held(patience):
            connection = _connect(path, durability=durability, patience=patience)
        writer = Writer(path, connection, lock, patience)
        remember(writer)
        undo.callback(writer.close)
        if schema != SCHEMA:
            _migrate(writer)
        undo.pop_all()
    return writer


def _look_patiently(path: str, patience: float) -> int | None:
    """Look at the file; again while another process makes or recovers it."""
    found: list[int | None] = []

    def attempt() -> bool:
        try:
            found.append(look(path))
        except sqlite3.OperationalError as error:
            if is_busy(error):
                return False
            raise
        return True

    retry(attempt, patience=patience, path=path)
    return found[0]


def _connect(path: str, *, durability: str, patience: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=64
    )
    with ExitStack() as undo:
        undo.callback(connection.close)
        retry(lambda: _use_wal(connection, path), patience=patience, path=path)
        for setting in (
            f"synchronous = {SYNCHRONOUS[durability]}",
            "foreign_keys = ON",
            "wal_autocheckpoint = 0",
            f"journal_size_limit = {LARGE_WAL}",  # what one huge commit left is cut off again
            "secure_delete = OFF",
            "cache_size = -64000",
        ):
            connection.execute(f"PRAGMA {setting}")
        undo.pop_all()
    return connection


def _use_wal(connection: sqlite3.Connection, path: str) -> bool:
    try:
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    except sqlite3.OperationalError as error:
        if is_busy(error):
            return False
        raise
    if mode != "wal":
        raise StoreError(
            f"{path} can't be used in WAL mode (it stays {mode}): put it on a local disk"
        )
    return True


def _begin_reading(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("BEGIN")
        connection.execute("SELECT 1 FROM batchq_meta").fetchone()
    except sqlite3.Error as error:
        _end_reading(connection)  # or the next one could not begin
        if is_busy(error):
            return False
        raise
    return True


def _end_reading(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:  # after some errors SQLite has ended it already
        connection.execute("ROLLBACK")


def _migrate(writer: Writer) -> None:
    from batchq.stores.sqlite.schema import migrate  # noqa: PLC0415 - takes 0.3 s

    with writer.transaction():
        # Another starter may have been first, and it may be newer than this code.
        if schema_of(writer.connection, writer.path) != SCHEMA:
            migrate(writer.connection)


def _make_file(path: str) -> None:
    """Make an empty file for its owner only, whatever the umask, if there is none.

    It gets its name when it is closed already: see rule 3.
    """
    if Path(path).exists():
        return
    try:
        descriptor, name = tempfile.mkstemp(prefix=".batchq-", dir=Path(path).parent)
        os.close(descriptor)
        try:
            with suppress(FileExistsError):
                Path(path).hardlink_to(name)
        finally:
            Path(name).unlink()
    except OSError as error:
        raise os_trouble(error, f"make {path}") from error
