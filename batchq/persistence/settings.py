"""Where a queue's snapshots go, and how often.

Rule 1: a storage may be the user's code: whatever it raises is a `PersistenceError`.
Rule 2: a save may be given up, when the time of the queue's end is up; being atomic it
leaves the old snapshot or the new one. What takes ownership is never given up half-way.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Protocol

import attrs
import msgspec
import trio

from batchq.core.checks import seconds
from batchq.errors import OptionError, PersistenceError, StorageInUse

__all__ = ["AsyncStorage", "Persistence", "Storage"]


class Storage(Protocol):
    """Keeps snapshots; its calls run in a thread.

    One that also has `acquire(key)` and `release(key)` is asked for the key before the
    snapshot is read, and refuses a second live owner with `StorageInUse`.
    """

    def save(self, key: str, records: Sequence[bytes]) -> object:
        """Replace the snapshot of `key` by these records, whole or not at all."""

    def load(self, key: str) -> Sequence[bytes]:
        """Return the records of a snapshot, in order; none if there is no snapshot."""


class AsyncStorage(Protocol):
    """Keeps snapshots; its calls are awaited."""

    async def save(self, key: str, records: Sequence[bytes]) -> object:
        """Replace the snapshot of `key` by these records, whole or not at all."""

    async def load(self, key: str) -> Sequence[bytes]:
        """Return the records of a snapshot, in order; none if there is no snapshot."""


def _storage(_: object, field: attrs.Attribute[Any], value: object) -> None:
    for method in ("save", "load"):
        if not callable(getattr(value, method, None)):
            raise OptionError(
                f"{field.name} must have save(key, records) and load(key), as a"
                f" FileStorage(directory) has; got {value!r}"
            )


def _text(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not (isinstance(value, str) and value):
        raise OptionError(f"{field.name} must be a text that is not empty, or None, got {value!r}")


def _type(_: object, field: attrs.Attribute[Any], value: Any) -> None:  # noqa: ANN401 - any type
    try:
        msgspec.json.Decoder(value)
    except TypeError as error:
        raise OptionError(
            f"{field.name} must be a type that msgspec can decode, got {value!r}: {error}"
        ) from error


@attrs.frozen(kw_only=True)
class Persistence:
    """Where a queue's snapshots go, and how often.

    A snapshot holds every item that is not settled. A crash loses what was enqueued since
    the last one, and runs again what has completed since.

    Attributes:
        storage: `FileStorage`, `SqliteStorage`, or any object with `save(key, records)`
            and `load(key)`; plain functions run in a thread, async ones are awaited.
        storage_key: names the snapshot in the storage; None: the queue's name. One live
            queue per key.
        save_interval: longest time from a change to a save [s, above 0]; None: only by
            `save_state()` and at the end.
        item_type: what the items are read back as, by msgspec; Any: what JSON has.

    Raises:
        OptionError: a value that will not do.
    """

    storage: Storage | AsyncStorage = attrs.field(validator=_storage)
    storage_key: str | None = attrs.field(default=None, validator=_text)
    save_interval: float | None = attrs.field(
        default=60.0, validator=seconds(above=True, or_none=True)
    )
    item_type: Any = attrs.field(default=Any, validator=_type)

    async def load(self, name: str) -> list[bytes]:
        """Become the owner of the snapshot; return its records.

        Args:
            name: the queue's, which is the key where `storage_key` is None.

        Raises:
            StorageInUse: it has another live owner.
            PersistenceError: it could not be read; it is as it was.
        """
        key = self.storage_key or name
        await self._ask("acquire", key, may_leave=False)
        try:
            return await self._read(key)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self.release(name)
            raise

    async def save(self, name: str, records: Sequence[bytes]) -> None:
        """Replace the snapshot, whole or not at all.

        Raises:
            PersistenceError: it was not written; the old one is as it was.
        """
        await self._ask("save", self.storage_key or name, records)

    async def set_aside(self, name: str, records: Sequence[bytes]) -> None:
        """Keep records that could not be read, under `<storage_key>.quarantine`.

        They join those kept before; each is kept once.

        Raises:
            PersistenceError: they could not be written.
        """
        key = f"{self.storage_key or name}.quarantine"
        kept = await self._read(key)
        await self._ask("save", key, list(dict.fromkeys([*kept, *records])))

    async def release(self, name: str) -> None:
        """Give up a snapshot that was loaded: others may own it."""
        await self._ask("release", self.storage_key or name, may_leave=False)

    async def _read(self, key: str) -> list[bytes]:
        records = await self._ask("load", key)
        if not isinstance(records, list | tuple) or not all(type(it) is bytes for it in records):
            kind = type(self.storage).__name__
            raise PersistenceError(
                f"load({key!r}) of {kind} must return a list of bytes, got {records!r:.100}"
            )
        return list(records)

    async def _ask(self, method: str, key: str, *more: object, may_leave: bool = True) -> object:
        call = getattr(self.storage, method, None)
        if call is None:  # it keeps no owners
            return None
        try:
            if inspect.iscoroutinefunction(call):
                return await call(key, *more)
            answer = await trio.to_thread.run_sync(call, key, *more, abandon_on_cancel=may_leave)
            return await answer if inspect.isawaitable(answer) else answer
        except StorageInUse:
            raise
        except Exception as error:  # the storage may be the user's code
            kind = type(self.storage).__name__
            raise PersistenceError(f"{method}({key!r}) of {kind} failed: {error!r}") from error
