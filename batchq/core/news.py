"""What has happened in the core that the shell tells the hooks of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

__all__ = ["News"]


@attrs.define(eq=False)
class News:
    """Events since the shell last looked, in order.

    Attributes:
        events: (a hook's name, its arguments).
        ring: called when something has changed that the shell did not do, and it is to look
            again; None: nobody listens.
    """

    events: list[tuple[str, tuple[Any, ...]]] = attrs.field(factory=list)
    ring: Callable[[], object] | None = None

    def add(self, event: str, *arguments: object) -> None:
        """Note an event."""
        self.events.append((event, arguments))

    def take(self) -> list[tuple[str, tuple[Any, ...]]]:
        """Give the events out, and forget them."""
        events, self.events = self.events, []
        return events
