"""A copy of the database in a file of its own, made while others write.

Rule 1: the copy has its name when it is whole and fsynced; before, and after a failure,
there is none.
Rule 2: nothing is overwritten: the old copy is worth more than the name.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from batchq.errors import StoreBroken, StoreError
from batchq.stores.sqlite.fork import at_work
from batchq.stores.sqlite.look import read_only
from batchq.stores.sqlite.trouble import os_trouble, store_error

__all__ = ["back_up"]


def back_up(path: str, destination: Path) -> None:
    """Copy the database to a file that is not there yet, readable by its owner only.

    Raises:
        StoreFull: no space.
        StoreError: the file is there already, or can't be made.
    """
    there = StoreError(f"{destination} is there already: name a new file")
    if destination.exists():
        raise there
    try:
        descriptor, name = tempfile.mkstemp(prefix=".batchq-", dir=destination.parent)
        os.close(descriptor)
        try:
            _copy(path, name)
            _make_sure(Path(name))
            destination.hardlink_to(name)
        finally:
            for left in (name, f"{name}-journal"):
                Path(left).unlink(missing_ok=True)
        _make_sure(destination.parent)
    except FileExistsError as error:
        raise there from error
    except OSError as error:
        raise os_trouble(error, f"make {destination}") from error


def _copy(path: str, name: str) -> None:
    # A connection of its own: VACUUM stands in no transaction. It reads the store as it is
    # at one moment, and keeps nobody from writing.
    try:
        with at_work(), closing(read_only(path)) as connection:
            connection.execute("VACUUM INTO ?", (name,))
    except (sqlite3.Error, MemoryError) as error:
        found = store_error(error, path)
        if isinstance(found, StoreBroken):  # perhaps it is only where the copy goes
            found = StoreError(f"cannot copy {path}: {error}")
        raise found from error


def _make_sure(path: Path) -> None:
    """Wait until it is on the disk. Nobody is connected to the copy: it may be opened."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
