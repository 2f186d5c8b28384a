"""Who has waited longest, without a look at all that waits.

Rule 1: an entry stands in line from its admission until it is settled: what is in flight may
come again, and is walked past until then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

import attrs

from batchq.core.entry import IN_FLIGHT, Entry

__all__ = ["Ages"]

_MANY: Final = 64  # settled entries that are not worth a rebuild


@attrs.define(eq=False)
class Ages:
    """The entries of a queue in the order of their admission."""

    _line: deque[Entry[Any, Any]] = attrs.field(factory=deque)

    def add(self, entry: Entry[Any, Any]) -> None:
        """Let an entry stand in line: it is the youngest."""
        self._line.append(entry)

    def oldest(self) -> Entry[Any, Any] | None:
        """Return the entry that has waited longest; None: none waits."""
        return next((entry for entry in self._line if entry.code < IN_FLIGHT), None)

    def tidy(self, outstanding: Callable[[], int]) -> None:
        """Let go of what is settled; `outstanding` counts the entries that are not."""
        line = self._line
        while line and line[0].code > IN_FLIGHT:
            line.popleft()
        if len(line) > _MANY and len(line) > 2 * outstanding() + _MANY:
            alive = [entry for entry in line if not entry.settled]
            line.clear()
            line.extend(alive)
