"""What threads of simulated processes would do: guards of leases, and watchers of the store.

A thread would run in earnest, beside simulated time. Here the host calls what the thread
would call, when it would: a guard looks while its process stands still, and only then; a
watcher tells of other processes' commits a little after they were made.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import attrs

import batchq.at_work
import batchq.guard
from batchq.ledger import Ledger
from tests.simulation.host import Host, Process

__all__ = ["Threads"]

_LOOKS: Final = 12  # per lease, as the guard's thread
_LATEST: Final = 0.02  # after a commit, watchers have told of it [s]


@attrs.define(eq=False)
class Threads:
    """The threads of all processes of a history.

    Attributes:
        host: has the time and the processes.
        guards: whether processes have guards.
        watchers: whether they have watchers.
    """

    host: Host
    guards: bool
    watchers: bool
    _guards: dict[Process, Any] = attrs.field(factory=dict, init=False)
    _tells: dict[Process, Callable[[], object]] = attrs.field(factory=dict, init=False)

    @contextmanager
    def simulated(self) -> Iterator[None]:
        """Let no thread of the product's start; its work is done here."""
        guard: Any = batchq.guard
        at_work: Any = batchq.at_work
        ledger: Any = Ledger
        before = guard.threading, at_work.Wake, ledger.threaded
        guard.threading = _Threading(self._guard)
        at_work.Wake = self._watcher
        ledger.threaded = property(lambda _: self.guards)
        try:
            yield
        finally:
            guard.threading, at_work.Wake, ledger.threaded = before

    def stand_still(self, process: Process, seconds: float, lease: float) -> None:
        """Let a process's event loop stand still for so long [s], and its guard look."""
        process.freeze(seconds)
        for number in range(1, int(seconds / lease * _LOOKS) + 1):
            self.host.at(self.host.now + number * lease / _LOOKS, lambda: self._look(process))

    def written(self) -> None:
        """Let watchers tell of what the present process has written."""
        for process, tell in self._tells.items():
            if process is not self.host.current and process.alive:
                self.host.at(self.host.now + self.host.draw.uniform(0, _LATEST), tell)

    def _look(self, process: Process) -> None:
        guard = self._guards.get(process)
        if guard is not None and process.alive and process.frozen:
            guard.look()

    def _guard(self, guard: object) -> None:
        assert self.host.current is not None
        self._guards[self.host.current] = guard

    def _watcher(self, _: Ledger, tell: Callable[[], object]) -> _Watcher:
        process = self.host.current
        assert process is not None
        return _Watcher(
            lambda: self._tells.update({process: tell}), lambda: self._tells.pop(process)
        )


@attrs.frozen
class _Watcher:
    """Stands in for a `Wake`."""

    start: Callable[[], object]
    stop: Callable[[], object]


@attrs.frozen
class _Threading:
    """Stands in for the module `threading`, where a guard starts its thread."""

    begin: Callable[[object], None]
    Event = threading.Event
    get_ident = staticmethod(threading.get_ident)

    def Thread(self, *, target: Any, **_: object) -> _Started:  # noqa: ANN401 - a bound method
        """Do not make a thread; let its guard look from now on."""
        self.begin(target.__self__)
        return _Started()


class _Started:
    """Stands in for a thread."""

    def start(self) -> None: ...
