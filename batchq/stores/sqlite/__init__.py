"""Jobs as rows of one SQLite file."""

from batchq.stores.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
