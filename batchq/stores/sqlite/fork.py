"""What a fork must not meet: a connection at work. What a child must not keep: a connection.

SQLite remembers which locks its process holds. A child inherits that memory without the
locks: it would wait for a lock that nobody holds, or believe that it holds one when another
process empties the WAL under its feet. So a fork waits until no connection is at work, and
the child closes what it inherited before it does anything else: then SQLite's memory is
clean, and what it opens takes locks of its own.

Rule 1: whatever touches a connection is `at_work`, opening and closing included.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol
from weakref import WeakSet

__all__ = ["Inherited", "at_work", "begin_work", "end_work", "remember"]


class Inherited(Protocol):
    """Something that a child must not keep."""

    def forget(self) -> None:
        """Close what the parent had open; called in the child, before all else."""


class _Gate:
    """Counts who is at work, by thread; a fork passes when no other thread is."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.Lock())
        self.working: Counter[int] = Counter()

    def close(self) -> None:
        """Wait until no other thread is at work, and let nobody begin."""
        self.changed.acquire()
        while self.working.keys() - {threading.get_ident()}:
            self.changed.wait()

    def open(self) -> None:
        """Let others begin again."""
        self.changed.release()


_gate: Final = _Gate()
_remembered: Final[WeakSet[Inherited]] = WeakSet()


def remember(inherited: Inherited) -> None:
    """Have a child forget this."""
    _remembered.add(inherited)


def begin_work() -> None:
    """Keep forks away until `end_work`."""
    with _gate.changed:
        _gate.working[threading.get_ident()] += 1


def end_work() -> None:
    """Let forks happen again."""
    me = threading.get_ident()
    with _gate.changed:
        _gate.working[me] -= 1
        if _gate.working[me] <= 0:
            del _gate.working[me]
            _gate.changed.notify()


@contextmanager
def at_work() -> Iterator[None]:
    """Keep forks away for the block."""
    begin_work()
    try:
        yield
    finally:
        end_work()


def _forget_all() -> None:
    for inherited in list(_remembered):
        inherited.forget()
    _gate.working.clear()
    _gate.open()


os.register_at_fork(before=_gate.close, after_in_parent=_gate.open, after_in_child=_forget_all)
