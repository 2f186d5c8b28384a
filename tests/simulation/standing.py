"""Processes whose event loop stands still, and the guards' threads that keep their leases.

A thread would run in earnest, beside simulated time. Here the host calls what the thread
would call, as often as the thread would: while the process stands still, and only then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import batchq.guard
from batchq.ledger import Ledger
from tests.simulation.host import Host, Process

__all__ = ["guarded", "stand_still"]

_LOOKS: Final = 12  # per lease, as the guard's thread

_guards: dict[Process, Any] = {}


class _Threads:
    """Stands in for the module `threading`, where a guard starts its thread."""

    Event = threading.Event
    get_ident = staticmethod(threading.get_ident)

    def __init__(self, host: Host) -> None:
        self._host = host

    def Thread(self, *, target: Callable[..., object], **_: object) -> _Threads:
        guard: Any = target
        assert self._host.current is not None
        _guards[self._host.current] = guard.__self__
        return self

    def start(self) -> None: ...


@contextmanager
def guarded(host: Host, *, guards: bool) -> Iterator[None]:
    """Let workers have guards for their leases, or none."""
    module: Any = batchq.guard
    ledger: Any = Ledger
    threaded = ledger.threaded
    module.threading = _Threads(host)
    ledger.threaded = property(lambda _: guards)
    try:
        yield
    finally:
        module.threading = threading
        ledger.threaded = threaded
        _guards.clear()


def stand_still(host: Host, process: Process, seconds: float, lease: float) -> None:
    """Let a process's event loop stand still for so long [s], and its guard look."""
    process.freeze(seconds)
    for number in range(1, int(seconds / lease * _LOOKS) + 1):
        host.at(host.now + number * lease / _LOOKS, lambda: _look(process))


def _look(process: Process) -> None:
    guard = _guards.get(process)
    if guard is not None and process.alive and process.frozen:
        guard.look()
