"""What happens again and again: the log is told of it once a minute, with its number."""

from __future__ import annotations

import math
from typing import Final

import attrs
import trio

__all__ = ["Repeats"]

_TELL_EVERY: Final = 60.0  # from one time that the log is told of a kind to the next [s]


@attrs.define(eq=False)
class Repeats:
    """How often each kind of thing has happened since the log was last told of it."""

    _told_at: dict[object, float] = attrs.field(factory=dict, init=False)
    _counts: dict[object, int] = attrs.field(factory=dict, init=False)

    def due(self, kind: object, count: int = 1) -> int:
        """Note that it has happened; return the number to tell the log; 0: tell it nothing now."""
        count += self._counts.pop(kind, 0)
        now = trio.current_time()
        if now - self._told_at.get(kind, -math.inf) < _TELL_EVERY:
            self._counts[kind] = count
            return 0
        self._told_at[kind] = now
        return count
