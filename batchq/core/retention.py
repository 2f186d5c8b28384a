"""How long ended jobs are kept."""

from __future__ import annotations

from typing import Any, Final

import attrs

from batchq.core.checks import checked_wait
from batchq.core.lifecycle import JobState

__all__ = ["Retention"]

_DAY: Final = 86_400.0


def _seconds(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if value is not None:
        checked_wait(f"retention: {field.name}", value, or_none=True)


@attrs.frozen(kw_only=True)
class Retention:
    """How long jobs are kept after their end, and their failures with them.

    Attributes:
        completed: those that succeeded [s]; None: for ever.
        failed: those that gave up [s]; None: for ever.
        cancelled: those that were stopped on purpose [s]; None: for ever.

    Raises:
        OptionError: a value is out of its range.
    """

    completed: float | None = attrs.field(default=_DAY, validator=_seconds)
    failed: float | None = attrs.field(default=7 * _DAY, validator=_seconds)
    cancelled: float | None = attrs.field(default=7 * _DAY, validator=_seconds)

    def by_state(self) -> dict[JobState, float]:
        """Return the times by final state [s], those that are for ever left out."""
        times = {
            JobState.COMPLETED: self.completed,
            JobState.FAILED: self.failed,
            JobState.CANCELLED: self.cancelled,
        }
        return {state: time for state, time in times.items() if time is not None}
