"""Jobs as objects of this process: the model of every other store, and every test's fake."""

from batchq.stores.memory.store import MemoryStore

__all__ = ["MemoryStore"]
