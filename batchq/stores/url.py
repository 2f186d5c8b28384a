"""From a store's address to the store.

sqlite:///jobs.db            a file, seen from the folder the process runs in
sqlite:////srv/app/jobs.db   a file, by its absolute path
memory:                      this process only, and only as long as it lives
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from batchq.errors import OptionError

if TYPE_CHECKING:
    from batchq.stores.base import Store

__all__ = ["DEFAULT_URL", "check_url", "open_store", "path_of"]

DEFAULT_URL: Final = "sqlite:///batchq.db"

_ALLOWED: Final = "sqlite:///relative.db, sqlite:////absolute.db and memory:"
_LATER: Final = frozenset({"redis", "rediss", "postgres", "postgresql"})


def open_store(
    url: str,
    *,
    durability: str | None = None,
    clock: Callable[[], float] | None = None,
) -> Store:
    """Open the store that `url` names.

    Args:
        url: where the jobs are; `%20` and its like are read as in any URL.
        durability: `full`: what is stored survives a power cut (SQLite's default);
            `process`: it survives the death of every process, at less cost; None: the
            store's default.
        clock: tells the time in place of the host's clock [s]; for tests, in virtual
            time.

    Raises:
        OptionError: no such scheme, path or durability.
        StoreError: the store can't be opened; NotAStore and StoreTooNew leave its file
            as it was.
    """
    path = path_of(url)
    if path is None:
        return _memory(durability, clock)
    return _sqlite(path, durability, clock)


def path_of(url: str) -> str | None:
    """Return the path of the file that `url` names; None: the store lives in memory.

    Raises:
        OptionError: no such scheme or path.
    """
    if check_url(url) == "memory":
        return None
    return unquote(url.partition(":")[2].removeprefix("///"))


def check_url(url: str) -> str:
    """Return the kind of store that `url` names, without opening it.

    Raises:
        OptionError: no such scheme or path.
    """
    scheme, colon, rest = url.partition(":")
    scheme = scheme.lower()
    if scheme == "memory" and colon and not rest.strip("/"):
        return scheme
    if scheme == "sqlite" and rest.startswith("///") and rest != "///":
        if "?" in rest or "#" in rest:
            raise OptionError(
                f"sqlite:/// takes no parameters (write ? as %3F, # as %23), got {url!r}"
            )
        return scheme
    if scheme in _LATER and colon:
        raise OptionError(
            f"{scheme} is not available in this version; {_ALLOWED} are: {_hide(url)}"
        )
    hint = f"; did you mean 'sqlite:///{url}'?" if url and not colon else ""
    raise OptionError(f"a store's URL must be one of {_ALLOWED}, got {_hide(url)}{hint}")


def _memory(durability: str | None, clock: Callable[[], float] | None) -> Store:
    from batchq.stores.memory import MemoryStore

    if durability not in {None, "memory"}:
        raise OptionError(f"a memory: store's durability is 'memory', got {durability!r}")
    return MemoryStore() if clock is None else MemoryStore(clock=clock)


def _sqlite(path: str, durability: str | None, clock: Callable[[], float] | None) -> Store:
    from batchq.stores.sqlite import SqliteStore

    return SqliteStore(path, durability=durability or "full", clock=clock)


def _hide(url: str) -> str:
    """Return the URL as a message may show it: without a password."""
    head, at, tail = url.rpartition("@")
    scheme, slashes, _ = head.partition("//")
    return repr(f"{scheme}{slashes}***@{tail}" if at and slashes else url)
