"""A simulated machine: its clocks, its boots, and the store that its processes share.

Rule 1: the product's own clocks are used, wherever it asks for the time: `time` is replaced
in its modules. The wall clock steps, the steady one does not; a boot starts the latter anew.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import attrs

import batchq.stores.sqlite.clock
from batchq.stores.base import Store
from batchq.stores.memory import MemoryStore
from batchq.stores.sqlite import SqliteStore
from tests.simulation.host import Host

__all__ = ["Machine"]

_EPOCH: Final = 1_700_000_000.0
_UP_FOR: Final = 1_000.0  # at the start of a boot's first process [s]


@attrs.define(eq=False)
class Machine:
    """Clocks and a store.

    Attributes:
        host: has the time.
        folder: where files go, an empty store to copy among them; None: the store is in memory.
        wall_ahead: how far the wall clock was stepped [s].
        boot: which boot this is [count].
    """

    host: Host
    folder: Path | None
    wall_ahead: float = 0.0
    boot: int = 0
    _booted_at: float = 0.0
    _memory: MemoryStore | None = None
    _open: list[Store] = attrs.field(factory=list)

    def steady(self) -> float:
        """Tell the time since the boot, as CLOCK_BOOTTIME [s]."""
        return _UP_FOR + self.host.now - self._booted_at

    def wall(self) -> float:
        """Tell the time of day, as set [s]."""
        return _EPOCH + self.host.now + self.wall_ahead

    def reboot(self) -> None:
        """Start the steady clock anew; whoever ran is dead."""
        self.boot += 1
        self._booted_at = self.host.now

    def open_store(self) -> Store:
        """Open the store, as a process does when it starts."""
        if self.folder is None:
            if self._memory is None:
                self._memory = MemoryStore()
            return self._memory
        path = self.folder / "jobs.db"
        if not path.exists():
            self._make(path, self.folder / "empty.db")
        store = SqliteStore(path, durability="process")
        self._open.append(store)
        return store

    def close(self) -> None:
        """Let go of all that was opened."""
        for store in self._open:
            store.close()
        if self.folder is not None:
            for file in self.folder.glob("jobs.db*"):
                file.unlink()

    def _make(self, path: Path, empty: Path) -> None:
        """Make a store; to make its tables anew would take as long as a whole history."""
        if not empty.exists():
            first = Machine(Host(self.host.draw), self.folder)
            with first.clocks(), closing(SqliteStore(empty, durability="process")):
                pass
        shutil.copyfile(empty, path)

    @contextmanager
    def clocks(self) -> Iterator[None]:
        """Let the product ask this machine for the time."""
        with _replaced(_Time(self), lambda: f"boot {self.boot}"):
            yield


class _Time:
    """Stands in for the module `time`."""

    CLOCK_BOOTTIME = CLOCK_MONOTONIC = 0

    def __init__(self, machine: Machine) -> None:
        self.time = machine.wall
        self.monotonic = self.perf_counter = machine.steady

    def clock_gettime(self, _: int) -> float:
        return self.monotonic()

    def sleep(self, seconds: float) -> None:
        raise AssertionError(f"a simulated process sleeps in earnest, for {seconds} s")


@contextmanager
def _replaced(stand_in: Any, boot_id: Callable[[], str]) -> Iterator[None]:  # noqa: ANN401 - for a module
    clock: Any = batchq.stores.sqlite.clock
    told_boot_id = clock._boot_id
    modules: list[Any] = [
        module
        for name, module in sys.modules.items()
        if name.partition(".")[0] == "batchq" and getattr(module, "time", None) is time
    ]
    for module in modules:
        module.time = stand_in
    clock._boot_id = boot_id
    try:
        yield
    finally:
        clock._boot_id = told_boot_id
        for module in modules:
            module.time = time
