"""Snapshots of a queue in memory: periodic, and honest about what a crash loses.

A crash loses what was enqueued since the last save, and runs again what completed since.
Work that must survive belongs to the durable tier.
"""

from __future__ import annotations

from batchq.persistence.file import FileStorage
from batchq.persistence.settings import AsyncStorage, Persistence, Storage
from batchq.persistence.sqlite import SqliteStorage

__all__ = ["AsyncStorage", "FileStorage", "Persistence", "SqliteStorage", "Storage"]
