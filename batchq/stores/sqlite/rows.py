"""What an order reads of a job, and what the core would say of it; deleting, and freeing keys."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import msgspec

from batchq.core.job import KeyScope
from batchq.core.lifecycle import JobState
from batchq.stores.sqlite.look import any_text

__all__ = ["IDS", "READERS", "ROW", "Row", "any_texts", "as_json", "forget", "free_keys"]

ROW: Final = """
    SELECT id, state, queue, handler, enqueued_at, finished_at, key, key_until, holds_key
      FROM batchq_jobs
"""
IDS: Final = "WHERE id IN (SELECT value FROM json_each(:ids))"
# What of a row is not just any number or text; each raises ValueError where it means nothing.
READERS: Final[Mapping[str, Callable[[Any], object]]] = MappingProxyType(
    {
        "state": JobState,
        "tags": msgspec.json.Decoder(tuple[str, ...]).decode,
        "key_scope": KeyScope,
        "payload": msgspec.json.Decoder().decode,
        "value": msgspec.json.Decoder().decode,
    }
)
_FREE_KEYS: Final = f"UPDATE batchq_jobs SET holds_key = NULL {IDS}"  # noqa: S608 - constants
_STATES: Final = frozenset(state.value for state in JobState)
_FORGET: Final = f"DELETE FROM batchq_jobs {IDS}"  # noqa: S608 - constants
_FORGET_ERRORS: Final = "DELETE FROM batchq_errors WHERE job IN (SELECT value FROM json_each(:ids))"
_FORGET_NOTES: Final = "DELETE FROM batchq_notes WHERE job IN (SELECT value FROM json_each(:ids))"


class Row(NamedTuple):
    """A job as an order reads it."""

    id: int
    name: str
    queue: str
    handler: str
    enqueued_at: float
    finished_at: float | None
    key: str | None
    key_until: float | None
    holds_key: int | None

    @property
    def known(self) -> bool:
        """Whether batchq may have written it: no order touches a row in a state of no meaning."""
        return self.name in _STATES

    @property
    def state(self) -> JobState:
        """Its stored state."""
        return JobState(self.name)

    def key_it_needs(self, now: float) -> tuple[str, str] | None:
        """Return which key it takes again, as core/changes.py's `takes_key_again`."""
        if self.key is None or self.holds_key or not self.state.final:
            return None
        over = self.key_until is not None and self.key_until <= now
        return None if over else (self.handler, self.key)

    def ended_before(self, retention: Mapping[JobState, float], now: float) -> bool:
        """Tell whether it was kept long enough after its end."""
        keep = retention.get(self.state)
        return keep is not None and self.finished_at is not None and self.finished_at <= now - keep

    def may_go(self, now: float) -> bool:
        """Tell whether it may be deleted, as core/changes.py's `may_go`."""
        held = self.holds_key and self.key_until is not None and self.key_until > now
        return self.state.final and not held


@contextmanager
def any_texts(connection: sqlite3.Connection) -> Iterator[None]:
    """Let the block read texts that are no UTF-8, for one job's must not keep the others'.

    It takes longer, so what happens to every job does without.
    """
    before, connection.text_factory = connection.text_factory, any_text
    try:
        yield
    finally:
        connection.text_factory = before


def forget(connection: sqlite3.Connection, ids: Sequence[int]) -> None:
    """Delete jobs, and what is kept of them."""
    if ids:
        for statement in (_FORGET_ERRORS, _FORGET_NOTES, _FORGET):
            connection.execute(statement, {"ids": as_json(ids)})


def free_keys(connection: sqlite3.Connection, ids: Sequence[int]) -> None:
    """Let jobs hold their keys no more."""
    if ids:
        connection.execute(_FREE_KEYS, {"ids": as_json(ids)})


def as_json(ids: Sequence[int]) -> str:
    """Return ids as a statement takes them."""
    return msgspec.json.encode(ids).decode()
