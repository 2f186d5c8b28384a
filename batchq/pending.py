"""How many jobs may wait in a queue: `max_pending`, as producers keep it.

Rule 1: it refuses, and drops nothing.
Rule 2: the store is not asked for each job. Of the room that it told, an eighth is given
out, within a moment, before it is asked again: so several processes overshoot a limit by
little, and the nearer it is, the less.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

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
        left: how many may come in before it is asked again.
        left_until: until when [s, steady].
        full_until: it was full, and is taken for full [s, steady].
    """

    limit: int
    waiting: int = 0
    left: int = 0
    left_until: float = 0.0
    full_until: float = 0.0

    def take(self, wanted: int) -> bool:
        if self.left < wanted or time.monotonic() > self.left_until:
            return False
        self.left -= wanted
        return True

    def renew(self, waiting: int, wanted: int) -> None:
        self.waiting, now = waiting, time.monotonic()
        room = self.limit - waiting
        fits = wanted <= room
        self.left = max(room // _SHARE, wanted) if fits else 0
        self.left_until = now + _MOMENT
        self.full_until = 0.0 if fits else now + _FULL


@attrs.define(eq=False)
class Pending:
    """Keeps the limits of all queues that have one; from any thread.

    Attributes:
        limit_of: the limit of a queue, by name; None: it has none.
    """

    limit_of: Callable[[str], int | None]
    _rooms: dict[str, _Room] = attrs.field(factory=dict, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)

    def take(self, queue: str, wanted: int) -> bool:
        """Take room for jobs of one queue; False: the store is to be asked, see `renew`.

        Raises:
            QueueFull: a moment ago there was too little.
        """
        limit = self.limit_of(queue)
        if limit is None:
            return True
        with self._lock:
            room = self._rooms.setdefault(queue, _Room(limit))
            if room.take(wanted):
                return True
            if room.waiting + wanted <= limit or time.monotonic() >= room.full_until:
                return False
        raise _full(queue, room)

    def renew(self, queue: str, wanted: int, *, waiting: int) -> None:
        """Take room for jobs of one queue, in which so many wait.

        Raises:
            QueueFull: it has no room for all of them.
        """
        with self._lock:
            room = self._rooms[queue]
            room.renew(waiting, wanted)
            if room.take(wanted):
                return
        raise _full(queue, room)


def _full(queue: str, room: _Room) -> QueueFull:
    return QueueFull(
        f"queue {queue!r} takes no more than max_pending={room.limit} jobs that wait;"
        f" {room.waiting} do",
        size=room.waiting,
        limit=room.limit,
    )
