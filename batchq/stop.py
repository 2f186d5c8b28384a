"""When a queue has to end, for all of its parts."""

from __future__ import annotations

import math
from typing import Final

import attrs
import trio

__all__ = ["AFTER_GRACE", "NOTICE", "Stop"]

AFTER_GRACE: Final = 1.0  # for what is written down then [s]
NOTICE: Final = 0.5  # of that, for threads, which have to ask whether they are to stop [s]


@attrs.define(eq=False)
class Stop:
    """When a queue has to end.

    Attributes:
        asked: set once it has to.
        at: when its calls under way are cancelled [s, trio's clock]; inf until then.
        within: ends at that time, however often it is moved; for one block.
    """

    asked: trio.Event = attrs.field(factory=trio.Event, init=False)
    at: float = attrs.field(default=math.inf, init=False)
    within: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)

    @property
    def last(self) -> float:
        """Until when something may still be written down [s, trio's clock]."""
        return self.at + AFTER_GRACE

    def ask(self, grace: float) -> None:
        """Stop; calls under way have `grace` [s]."""
        self.at = self.within.deadline = min(self.at, trio.current_time() + grace)
        self.asked.set()

    async def sleep_until(self, when: float) -> None:
        """Sleep, until a stop is asked for at the latest if there was none before."""
        if self.asked.is_set():
            await trio.sleep_until(when)
        else:
            with trio.move_on_at(when):
                await self.asked.wait()
