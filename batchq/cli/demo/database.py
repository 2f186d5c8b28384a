"""Where the demo keeps its jobs: always in a database of its own, made afresh.

Only what an earlier demo made, and nobody has used since, is replaced; it knows that by a
table of its own, `batchq_demo`. Any other file stays as it is.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from batchq.cli.demo.campaign import QUEUE
from batchq.cli.refusal import Refusal

__all__ = ["fresh_database", "mark_as_demo", "mark_as_finished", "url_of"]

_NAME: Final = "batchq-demo"
_TRIES: Final = 1_000


def url_of(path: Path) -> str:
    """Return the store's URL for a file."""
    return f"sqlite:///{quote(str(path))}"


def fresh_database(asked: Path | None) -> Path:
    """Return a path where no file is; what an earlier demo left there is deleted.

    Raises:
        Refusal: the file asked for is there and not to be replaced, or cannot be made.
    """
    if asked is not None:
        if asked.exists() and not _replaceable(asked):
            raise Refusal(
                f"{asked} is there, and no finished demo made it; --database wants a new file"
            )
        return _made_free(asked)
    for number in range(1, _TRIES):
        path = Path(f"{_NAME}.db" if number == 1 else f"{_NAME}-{number}.db")
        if not path.exists() or _replaceable(path):
            return _made_free(path)
    raise Refusal(f"{_TRIES} demo databases are here already; name another by --database")


def mark_as_demo(path: Path) -> None:
    """Write down that a running demo made this database."""
    with closing(sqlite3.connect(path, timeout=5.0, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE batchq_demo (pid INTEGER, finished INTEGER)")
        connection.execute("INSERT INTO batchq_demo VALUES (?, 0)", (os.getpid(),))


def mark_as_finished(path: Path) -> None:
    """Write down that the demo has ended, so that the next one may replace its file."""
    with closing(sqlite3.connect(path, timeout=5.0, isolation_level=None)) as connection:
        connection.execute("UPDATE batchq_demo SET finished = 1")


def _replaceable(path: Path) -> bool:
    """Say whether a demo made this file, has ended, and nobody else's jobs are in it."""
    if not path.is_file() or not path.stat().st_size:
        return False
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            marks = connection.execute("SELECT pid, finished FROM batchq_demo").fetchall()
            others = connection.execute(
                "SELECT count(*) FROM batchq_jobs WHERE queue != ?", (QUEUE,)
            ).fetchone()[0]
            strange = connection.execute(
                "SELECT count(*) FROM sqlite_master WHERE type = 'table'"
                " AND name NOT LIKE 'batchq^_%' ESCAPE '^' AND name NOT LIKE 'sqlite^_%' ESCAPE '^'"
                " AND name NOT LIKE '^_sqlite%' ESCAPE '^'"
            ).fetchone()[0]
    except sqlite3.Error:
        return False
    ended = all(finished or not _alive(pid) for pid, finished in marks)
    return bool(marks) and ended and not others and not strange


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _made_free(path: Path) -> Path:
    """Delete what is at `path`, and check that a file can be made there."""
    if not path.parent.is_dir():
        raise Refusal(f"there is no directory {path.parent} for the database {path.name}")
    for suffix in ("", "-wal", "-shm", "-lock"):
        with suppress(FileNotFoundError):
            Path(f"{path}{suffix}").unlink()
    try:
        path.touch(exist_ok=False)
        path.unlink()
    except OSError as error:
        raise Refusal(f"cannot write the database {path}: {error.strerror}") from None
    return path.resolve()
