"""What people say of the jobs they ask for, checked: a store takes it as it is.

So a word that is misspelt is an error, and not a list without jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import MappingProxyType
from typing import Final

from batchq.core.lifecycle import JobState
from batchq.core.numbers import is_number
from batchq.core.record import JobFilter
from batchq.errors import OptionError

__all__ = ["STATUSES", "check_filter", "check_page", "ends"]

# A stored state, or a reading of it as JobRecord.status has them.
STATUSES: Final = (*(state.value for state in JobState), "scheduled", "retrying", "stalled")
_ENDS: Final = tuple(state for state in JobState if state.final)


def _is_status(value: object) -> bool:
    return value in STATUSES


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_time(value: object) -> bool:
    return is_number(value) and value == value  # noqa: PLR0124 - NaN is no time


_STATUS: Final = (f"one of {', '.join(STATUSES)}", _is_status)
_TEXT: Final = ("a text", _is_text)
_ID: Final = ("a whole number", _is_whole)
_TIME: Final = ("a number of seconds", _is_time)
_FIELDS: Final = MappingProxyType[str, tuple[str, Callable[[object], bool]]](
    {
        "status": _STATUS,
        "queue": _TEXT,
        "handler": _TEXT,
        "tag": _TEXT,
        "key": _TEXT,
        "first_id": _ID,
        "last_id": _ID,
        "stored_since": _TIME,
        "stored_before": _TIME,
        "ended_since": _TIME,
        "ended_before": _TIME,
    }
)


def check_filter(where: object) -> None:
    """Refuse a filter that could mean no job, whatever there is.

    Raises:
        OptionError: it names what was said, and what may be.
    """
    if not isinstance(where, JobFilter):
        raise OptionError(f"which jobs are meant is said by a JobFilter, got {where!r}")
    for name, (words, fits) in _FIELDS.items():
        value = getattr(where, name)
        if value is not None and not fits(value):
            raise OptionError(f"{name} must be {words}, or None, got {value!r}")


def check_page(after: object, limit: object) -> None:
    """Refuse what says no page of a listing.

    Raises:
        OptionError: it names what was said, and what may be.
    """
    if after is not None and not _is_whole(after):
        raise OptionError(f"after must be the id of a job, or None, got {after!r}")
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
        raise OptionError(f"limit must be a whole number from 0, got {limit!r}")


def ends(states: Iterable[JobState]) -> list[JobState]:
    """Return final states, as they were given.

    Raises:
        OptionError: one is none; it says which there are.
    """
    found = list(states)
    for state in found:
        if state not in _ENDS:
            words = ", ".join(str(end) for end in _ENDS)
            raise OptionError(f"states must be of {words}, got {state!r}")
    return found
