"""What the commands share that look into a store: its URL, and opening it untouched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import click

from batchq.cli.refusal import Refusal
from batchq.stores.url import DEFAULT_URL, open_store, path_of

if TYPE_CHECKING:
    from batchq.stores.base import Store

__all__ = ["existing_store", "store_options"]

F = TypeVar("F", bound=Callable[..., Any])


def store_options(command: F) -> F:
    """Give a command --url and --json."""
    command = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(
        command
    )
    return click.option(
        "--url",
        envvar="BATCHQ_URL",
        default=DEFAULT_URL,
        show_default=True,
        show_envvar=True,
        metavar="URL",
        help="The store.",
    )(command)


@contextmanager
def existing_store(url: str) -> Iterator[Store]:
    """Open a store that is there already.

    Raises:
        Refusal: there is none, or none that this user may look at; looking for jobs must
            not make a database, nor tables in somebody else's.
    """
    path = path_of(url)
    if path is None:
        raise Refusal("a memory: store lives inside one process; there is nothing to look at")
    _check_sqlite(url, Path(path))
    with closing(open_store(url)) as store:
        yield store


def _check_sqlite(url: str, path: Path) -> None:
    import sqlite3

    if not _is_file(path):
        raise Refusal(
            f"there is no database {path} (--url {url}); name yours by --url, as"
            " --url sqlite:///batchq-demo.db after `batchq demo`"
        )
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            found = connection.execute(
                "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'batchq_jobs'"
            ).fetchone()
    except sqlite3.Error as error:
        from batchq.stores.sqlite.trouble import RESCUE, store_error

        if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_NOTADB:
            raise store_error(error, str(path)) from error
        raise Refusal(
            f"{path} is not a SQLite database: name yours by --url; if it was one, {RESCUE}"
        ) from error
    if found is None:
        raise Refusal(f"{path} is a database without jobs of batchq")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:  # a folder that must not be entered
        raise Refusal(f"cannot look at {path}: {error.strerror}", exit_code=1) from error
