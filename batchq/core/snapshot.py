"""What is saved of a queue: unsettled entries as records of bytes, and back.

    {"schema":1,"id":7,"item":{...},"priority":0,...,"enqueued_at":1767225600.5,...}

Rule 1: a record is msgspec JSON, never pickle.
Rule 2: instants are wall clock in a record, the queue's own clock anywhere else.
Rule 3: what cannot be written or read is named and set aside; all the rest is not lost.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, Generic, Protocol, TypeVar

import attrs
import msgspec
from msgspec.structs import replace

from batchq.core.depth import MAX_DEPTH, depth
from batchq.core.finite import not_finite
from batchq.core.retry import said

__all__ = [
    "SCHEMA",
    "Found",
    "Saved",
    "SetAside",
    "Snapshots",
    "Unsaved",
    "Written",
    "read",
    "write",
]

T = TypeVar("T")

SCHEMA: Final = 1  # of the records that are written here

_Count = Annotated[int, msgspec.Meta(ge=0)]
_Label = str | int | None
_Instant = float | None
_INSTANTS: Final = ("due", "starts_by", "ends_by")

_encode: Final = msgspec.json.Encoder().encode
_LONELY: Final = re.compile("[\ud800-\udfff]")


class Saved(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """An entry that is not settled, as plain values.

    Attributes:
        schema: how it is written.
        id: the entry's.
        item: what was enqueued.
        priority: its level.
        partition: its partition, if its caller named one that is a str or an int; None:
            `partition_by` is asked anew.
        key: its coalesce key, likewise.
        weight: what it weighs.
        attempts: attempts made [count].
        solo: whether it runs in batches of one.
        error: what the last attempt's error said; None: there was none.
        enqueued_at: when it was admitted [s].
        due: when its delay ends [s]; None: it has none.
        starts_by: when it expires unless it has started [s]; None: never so.
        ends_by: when it expires unless it has a verdict [s]; None: never so.
    """

    schema: int = SCHEMA
    id: Annotated[int, msgspec.Meta(ge=1)]
    item: T
    priority: _Count = 0
    partition: _Label = None
    key: _Label = None
    weight: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    attempts: _Count = 0
    solo: bool = False
    error: str | None = None
    enqueued_at: float
    due: _Instant = None
    starts_by: _Instant = None
    ends_by: _Instant = None


class _Version(msgspec.Struct):
    schema: int


@attrs.frozen
class Unsaved:
    """An entry that could not be written, and why."""

    id: int
    reason: str


@attrs.frozen
class Written:
    """What became of the entries of a queue.

    Attributes:
        records: one per entry that could be written, in order.
        refused: the others.
    """

    records: list[bytes] = attrs.field(factory=list)
    refused: list[Unsaved] = attrs.field(factory=list)


@attrs.frozen
class SetAside:
    """A record that could not be read, and why."""

    record: bytes
    reason: str


@attrs.frozen
class Found:
    """What the records of a queue hold.

    Attributes:
        entries: by id, each id once.
        set_aside: the records that could not be read.
    """

    entries: list[Saved[Any]] = attrs.field(factory=list)
    set_aside: list[SetAside] = attrs.field(factory=list)


class Snapshots(Protocol):
    """Where a queue's snapshots go: what the queue knows of its `persistence`.

    `name` is the queue's: the key of its snapshot, where the settings name no other.
    """

    @property
    def save_interval(self) -> float | None:
        """Longest time from a change to a save [s]; None: only by hand and at the end."""

    @property
    def item_type(self) -> Any:  # noqa: ANN401  # a type is whatever msgspec takes for one
        """What items are read back as."""

    async def load(self, name: str) -> Sequence[bytes]:
        """Become the owner of the snapshot; return its records.

        Raises:
            StorageInUse: it has another live owner.
            PersistenceError: it could not be read.
        """

    async def save(self, name: str, records: Sequence[bytes]) -> None:
        """Replace the snapshot, whole or not at all.

        Raises:
            PersistenceError: it was not written; the old one is as it was.
        """

    async def set_aside(self, name: str, records: Sequence[bytes]) -> None:
        """Keep records that could not be read, beside those kept before.

        Raises:
            PersistenceError: they could not be written.
        """

    async def release(self, name: str) -> None:
        """Give the snapshot up: others may own it."""


def write(entries: Iterable[Saved[Any]], *, offset: float) -> Written:
    """Turn entries into records.

    Args:
        entries: in order; their partitions and keys may be of any type here, and are left
            out where they are no str or int.
        offset: the wall clock minus the queue's clock, now [s].
    """
    written = Written()
    for entry in entries:
        try:
            written.records.append(_record(entry, offset))
        except Exception as error:  # an item's type may run the user's code
            item = type(entry.item).__name__
            reason = f"entry {entry.id}, an item of type {item}: {said(error)}"
            written.refused.append(Unsaved(entry.id, reason))
    return written


def read(
    records: Iterable[bytes],
    *,
    item_type: Any,  # noqa: ANN401 - a type is whatever msgspec takes for one
    offset: float,
    now: float,
    levels: int,
) -> Found:
    """Turn records into entries.

    Args:
        records: as `write` made them, or anything else.
        item_type: what the items are; Any: what JSON has.
        offset: the wall clock minus the queue's clock, now [s].
        now: by the queue's clock [s]; nothing was enqueued later, whatever the wall clock
            says.
        levels: how many levels of priority the queue has.
    """
    decoder = msgspec.json.Decoder(Saved[item_type])
    entries: dict[int, Saved[Any]] = {}
    found = Found()
    for record in records:
        try:
            entry = _entry(record, decoder, levels)
        except Exception as error:  # an item's type may run the user's code
            found.set_aside.append(SetAside(record, said(error)))
        else:
            entries.setdefault(entry.id, _moved(entry, -offset, latest=now))
    found.entries.extend(entries[id_] for id_ in sorted(entries))
    return found


def _record(entry: Saved[Any], offset: float) -> bytes:
    labels = {name: _label(getattr(entry, name)) for name in ("partition", "key")}
    record = _encode(replace(_moved(entry, offset), **labels))
    if (levels := depth(record)) > MAX_DEPTH:
        raise ValueError(f"its record is nested {levels} deep; at most {MAX_DEPTH} are saved")
    if b"null" in record and (path := not_finite(entry.item)) is not None:
        raise ValueError(f"JSON has no NaN and no infinity - at `{path}`")
    return record


def _entry(record: bytes, decoder: msgspec.json.Decoder[Saved[Any]], levels: int) -> Saved[Any]:
    schema = msgspec.json.decode(record, type=_Version).schema
    if schema != SCHEMA:
        raise ValueError(f"schema {schema} is not known here; this is schema {SCHEMA}")
    entry = decoder.decode(record)
    if entry.priority >= levels:
        raise ValueError(f"priority {entry.priority} is not one of the queue's {levels} levels")
    return entry


def _moved(entry: Saved[Any], offset: float, *, latest: float = math.inf) -> Saved[Any]:
    """Return the entry with its instants by another clock."""
    instants = {
        name: None if at is None or at == math.inf else at + offset
        for name in _INSTANTS
        for at in [getattr(entry, name)]
    }
    enqueued_at = min(entry.enqueued_at + offset, latest)
    return replace(entry, enqueued_at=enqueued_at, **instants)


def _label(value: object) -> str | int | None:
    """Return a partition or key that JSON keeps as it is; None: it does not."""
    if type(value) is str:
        # A half of a surrogate pair has no UTF-8.
        return value if value.isascii() or not _LONELY.search(value) else None
    return value if type(value) is int and -(2**63) <= value < 2**64 else None
