"""The look at a file before it is touched: is it ours, and do we know its schema?"""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote

from batchq import __version__
from batchq.core.modes import anybody_may_replace
from batchq.errors import NotAStore, OptionError, StoreError, StoreTooNew
from batchq.stores.sqlite.trouble import os_trouble

__all__ = ["SCHEMA", "any_text", "look", "read_only", "resolved", "schema_of"]

SCHEMA: Final = 1
# By the number of a schema; a file of an earlier one is brought to `SCHEMA` when it is opened.
_TABLES: Final = {
    1: frozenset(
        {
            "batchq_clock",
            "batchq_errors",
            "batchq_jobs",
            "batchq_meta",
            "batchq_migrations",
            "batchq_notes",
            "batchq_queues",
            "batchq_tallies",
            "batchq_workers",
        }
    ),
}
_SMALLEST: Final = 512  # a page, at least [bytes]
_NAMES: Final = "SELECT name FROM sqlite_master WHERE name LIKE 'batchq^_%' ESCAPE '^'"
_MISSING: Final = ("no such column", "no such table")
# Reads a text that somebody has stored, though it be no UTF-8.
any_text: Final = partial(str, encoding="utf-8", errors="replace")
_SCHEMA: Final = "SELECT value FROM batchq_meta WHERE name = 'schema'"


def resolved(path: str | os.PathLike[str]) -> str:
    """Return where a file really is.

    As SQLite names what lies beside it: processes that take another way to the same file
    must meet at the same lock.

    Raises:
        OptionError: it is no path.
        StoreError: it leads nowhere.
    """
    try:
        location = str(Path(path).resolve())
        location.encode()
    except RuntimeError as error:  # a link that leads to itself
        raise StoreError(f"cannot look at {path}: {error}") from error
    except (TypeError, ValueError) as error:  # NUL; half a surrogate pair
        raise OptionError(f"a database needs a path, got {path!r}: {error}") from error
    return location


def look(path: str) -> int | None:
    """Return the number of a file's schema without touching it or what lies beside it.

    Returns:
        None: there is no file, or no table of ours in it.

    Raises:
        NotAStore: no database, or one with tables of our names that are not ours.
        StoreTooNew: its schema is newer than this code.
        StoreError: it can't be read; or anybody may write to its folder.
    """
    try:
        folder = Path(path).parent
        if anybody_may_replace(folder.stat().st_mode):
            raise StoreError(
                f"anybody may write to {folder}, and so put another file in the place of {path}:"
                f" chmod o-w {folder}, or use another folder"
            )
        found = Path(path).stat()
        if not stat.S_ISREG(found.st_mode):
            raise NotAStore(f"{path} is not a file: a database needs one")
        if not found.st_size:
            return None
        if found.st_size < _SMALLEST:  # SQLite takes a file of one byte for an empty one
            raise NotAStore(f"{path} is not a SQLite database: use another file")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise os_trouble(error, f"look at {path}") from error
    try:
        return _look(path)
    except (sqlite3.DatabaseError, NotAStore):
        # Perhaps somebody opened or closed it just then, and half of it was read.
        return _look(path)


def read_only(path: str, *, immutable: bool = False) -> sqlite3.Connection:
    """Open a database that is there, to read."""
    address = f"file:{quote(path)}?mode=ro{'&immutable=1' if immutable else ''}"
    connection = sqlite3.connect(
        address, uri=True, timeout=0, isolation_level=None, check_same_thread=False
    )
    connection.text_factory = any_text
    return connection


def schema_of(connection: sqlite3.Connection, path: str) -> int | None:
    """Return the number of the schema that a connection finds, None if there is none."""
    if connection.execute("PRAGMA encoding").fetchone()[0] != "UTF-8":
        raise NotAStore(f"{path} keeps its texts in UTF-16, jobs are UTF-8: use another file")
    known = frozenset[str]().union(*_TABLES.values())
    tables = known & {name for (name,) in connection.execute(_NAMES)}
    if not tables:
        return None
    number = _number(connection) if "batchq_meta" in tables else None
    if number is not None and number > SCHEMA:
        raise StoreTooNew(
            f"{path} has schema {number}, and batchq {__version__} knows schemas up to "
            f"{SCHEMA}: use the newer batchq, or another file"
        )
    if number is None or tables != _TABLES.get(number):
        raise NotAStore(
            f"{path} has tables of our names that are not ours ({', '.join(sorted(tables))}): "
            "use another file"
        )
    return number


def _look(path: str) -> int | None:
    # A database in WAL mode that nobody has open would get its -wal and -shm from being
    # read; `immutable` leaves it alone. Where a WAL is, it belongs to the contents: after a
    # power cut in a checkpoint the file alone is half old, half new. To read it makes a -shm.
    immutable = not Path(path + "-wal").exists()
    try:
        with closing(read_only(path, immutable=immutable)) as connection:
            return schema_of(connection, path)
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB:
            raise NotAStore(f"{path} is not a SQLite database: use another file") from error
        raise


def _number(connection: sqlite3.Connection) -> int | None:
    try:
        row = connection.execute(_SCHEMA).fetchone()
    except sqlite3.OperationalError as error:
        if not str(error).startswith(_MISSING):
            raise  # others hold it, or the disk fails: that says nothing of whose it is
        return None
    return row[0] if row is not None and isinstance(row[0], int) else None
