"""How many jobs may wait in a queue: `max_pending`, as producers keep it.

Rule 1: it refuses, and drops nothing.
Rule 2: the store is not asked for each job. Of the room that it told, an eighth is given
out, within a moment, before it is asked again.
Rule 3: the store may or may not have counted what is being stored meanwhile. No more than an
eighth of the room, and one call's jobs beside it, is under way at a time, and never more than
the room: so one process keeps to a limit, and of several each but one may go past it, by so
much. The nearer it is, the less.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import attrs

from batchq.errors import QueueFull

__all__ = ["Pending"]

_SHARE: Final = 8
_MOMENT: Final = 0.25  # so long room may be given out [s]
_FULL: Final = 0.05  # so long nobody asks again whether there is room [s]


@attrs.define(eq=False)
class _Room:
    """What may still come into one queue.

    Attributes:
        limit: most jobs that wait.
        waiting: how many did when the store was last asked.
        taken: jobs that have been let in [count].
        ended: those of them that have been stored since, or could not be [count].
        left: how many may come in before it is asked again.
        left_until: until when [s, steady].
        full_until: it was full, and is taken for full [s, steady].
    """

    limit: int
    waiting: int = 0
    taken: int = 0
    ended: int = 0
    left: int = 0
    left_until: float = 0.0
    full_until: float = 0.0

    def take(self, wanted: int) -> bool:
        if self.left < wanted or time.monotonic() > self.left_until:
            return False
        self.left -= wanted
        self.taken += wanted
        return True

    def renew(self, waiting: int, wanted: int, not_counted: int) -> None:
        self.waiting, now = waiting, time.monotonic()
        room = self.limit - waiting
        fits = wanted <= room
        share = max(room // _SHARE, 1)
        # Or a call for many would wait for as long as others come one by one.
        beside = not_counted < share and not_counted + wanted <= room
        self.left = max(0, share - not_counted, wanted * beside) if fits else 0
        self.left_until = now + _MOMENT
        self.full_until = 0.0 if fits else now + _FULL


@attrs.define(eq=False)
class _Rooms:
    """The rooms of all queues that have a limit, in one process."""

    lock: Any = attrs.field(factory=threading.Lock, init=False)
    by_queue: dict[str, _Room] = attrs.field(factory=dict, init=False)


@attrs.define(eq=False)
class Pending:
    """Keeps the limits of all queues that have one; from any thread.

    Attributes:
        limit_of: the limit of a queue, by name; None: it has none.
    """

    limit_of: Callable[[str], int | None]
    # By process id: what a parent had under way, or a lock that it held, is not its child's.
    _processes: dict[int, _Rooms] = attrs.field(factory=dict, init=False)

    def keeps(self, queue: str) -> bool:
        """Tell whether a queue has a limit."""
        return self.limit_of(queue) is not None

    def take(self, queue: str, wanted: int) -> int | None:
        """Take room for jobs of one queue that has a limit; `end` must follow.

        Returns:
            None: it is taken. Else the store is to be asked, and `renew` to be told this.

        Raises:
            QueueFull: a moment ago there was too little.
        """
        with self._room(queue) as room:
            if room.take(wanted):
                return None
            if room.waiting + wanted <= room.limit or time.monotonic() >= room.full_until:
                return room.ended
            raise _full(queue, room)

    def renew(self, queue: str, wanted: int, *, waiting: int, since: int) -> bool:
        """Take room for jobs of one queue, in which so many wait.

        Args:
            queue: its name.
            wanted: how many jobs.
            waiting: how many the store has counted.
            since: what `take` said before.

        Returns:
            Whether it is taken; if not, what is under way has to end first.

        Raises:
            QueueFull: it has no room for all of them.
        """
        with self._room(queue) as room:
            room.renew(waiting, wanted, room.taken - since)
            if room.take(wanted):
                return True
            if waiting + wanted <= room.limit:
                return False
            raise _full(queue, room)

    def end(self, queue: str, taken: int) -> None:
        """Note that jobs for which room was taken are stored now, or will not be."""
        with self._room(queue) as room:
            room.ended += taken

    @contextmanager
    def _room(self, queue: str) -> Iterator[_Room]:
        pid = os.getpid()
        here = self._processes.get(pid) or self._processes.setdefault(pid, _Rooms())
        with here.lock:
            room = here.by_queue.get(queue)
            if room is None:
                room = here.by_queue[queue] = _Room(self.limit_of(queue) or sys.maxsize)
            yield room


def _full(queue: str, room: _Room) -> QueueFull:
    return QueueFull(
        f"queue {queue!r} takes no more than max_pending={room.limit} jobs that wait;"
        f" {room.waiting} do",
        size=room.waiting,
        limit=room.limit,
    )
