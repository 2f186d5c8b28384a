"""When may the next batch start, whatever waits? Throttle, and processors that said so."""

from __future__ import annotations

import math

import attrs

__all__ = ["Pace"]


@attrs.define
class Pace:
    """Keeps starts apart.

    Attributes:
        throttle: least time from one start to the next [s]; idle time earns no credit.
        next_start: the earliest instant of the next start [s]; -inf: now.
    """

    throttle: float
    next_start: float = -math.inf

    def started(self, now: float) -> None:
        """Note a start at `now`."""
        if self.throttle:
            self.next_start = max(self.next_start, now + self.throttle)

    def hold(self, until: float) -> None:
        """Start nothing before `until`; never brings a start forward."""
        self.next_start = max(self.next_start, until)
