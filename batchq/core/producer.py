"""Whether items may come in, and who waits for room with one in hand."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import attrs

from batchq.core.entry import Entry

__all__ = ["Intake", "Producer"]


class Intake(Enum):
    """Whether items may come in."""

    UNOPENED = "unopened"
    OPEN = "open"
    PAUSED = "paused"
    CLOSED = "closed"


@attrs.define(eq=False)
class Producer:
    """A caller who waits for room with one item in hand.

    Attributes:
        entry: the item's entry, once it was admitted.
        error: why it never will be.
        wake: called once, when either is known.
    """

    item: Any
    priority: int
    delay: float
    wake: Callable[[], object]
    entry: Entry[Any, Any] | None = None
    error: Exception | None = None
    withdrawn: bool = False
