"""A storage of snapshots that lives in memory and fails on demand."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

import attrs
import trio

from batchq.errors import StorageInUse

__all__ = ["FaultyStorage"]

_METHODS: Final = ("save", "load", "acquire")


@attrs.define(eq=False)
class FaultyStorage:
    """Keeps snapshots in memory; async, so that it works on a virtual clock.

    What it holds outlives queues: end one and start the next to test a restart. A crash is
    a queue whose surrounding scope was cancelled while `fail` makes the last save fail.

    Attributes:
        takes: how long a save or a load takes [s].
        snapshots: the records, by key.
        saves: (when [s, trio's clock], records [count]) of each save that worked, in order.
    """

    takes: float = 0.0
    snapshots: dict[str, list[bytes]] = attrs.field(factory=dict)
    saves: list[tuple[float, int]] = attrs.field(factory=list)
    _faults: dict[str, deque[Exception]] = attrs.field(factory=dict, init=False)
    _owned: set[str] = attrs.field(factory=set, init=False)

    def fail(self, method: str = "save", error: Exception | None = None, *, times: int = 1) -> None:
        """Let the next calls of a method raise.

        Args:
            method: `save`, `load` or `acquire`.
            error: what is raised; None: an OSError.
            times: how often [count].

        Raises:
            ValueError: there is no such method.
            TypeError: `error` is no exception.
        """
        if method not in _METHODS:
            raise ValueError(f"method must be one of {', '.join(_METHODS)}, got {method!r}")
        if error is not None and not isinstance(error, Exception):
            raise TypeError(f"error must be an exception, got {error!r}")
        faults = self._faults.setdefault(method, deque())
        faults.extend([error or OSError(f"{method} was told to fail")] * times)

    def tear(self, key: str, index: int) -> None:
        """Cut record number `index` of a snapshot in half."""
        record = self.snapshots[key][index]
        self.snapshots[key][index] = record[: len(record) // 2]

    async def acquire(self, key: str) -> None:
        """Own a key.

        Raises:
            StorageInUse: somebody does.
        """
        await self._obey("acquire")
        if key in self._owned:
            raise StorageInUse(f"storage_key {key!r} has another live owner")
        self._owned.add(key)

    async def release(self, key: str) -> None:
        """Give a key up."""
        self._owned.discard(key)
        await trio.lowlevel.checkpoint()

    async def load(self, key: str) -> list[bytes]:
        """Return the records of a snapshot; none if there is none."""
        await self._obey("load")
        return list(self.snapshots.get(key, []))

    async def save(self, key: str, records: Sequence[bytes]) -> None:
        """Replace a snapshot."""
        await self._obey("save")
        self.snapshots[key] = list(records)
        self.saves.append((trio.current_time(), len(records)))

    async def _obey(self, method: str) -> None:
        await trio.sleep(self.takes)
        if faults := self._faults.get(method):
            raise faults.popleft()
