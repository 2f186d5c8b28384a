"""Where the items of a batch came from: what was noted when each was enqueued."""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar

import attrs

from batchq.core.batch import Batch

__all__ = ["Origins"]

Origin = TypeVar("Origin")
Known = TypeVar("Known")

# An item that another one replaced (`coalesce_by`) leaves unseen; what is known of it, too.
_MOST: Final = 10_000


@attrs.define(eq=False)
class Origins(Generic[Origin]):
    """Remembers the origin of each item, until it is settled."""

    # Of what has not started, by an item's identity, oldest first; then by an entry's id.
    _waiting: dict[int, list[Origin]] = attrs.field(factory=dict)
    _started: dict[int, Origin] = attrs.field(factory=dict)

    def note(self, item: object, origin: Origin) -> None:
        """Note where an item that was just enqueued came from."""
        self._waiting.setdefault(id(item), []).append(origin)
        _forget_the_oldest(self._waiting)

    def forget(self, item: object) -> Origin | None:
        """Take out the origin of an item; the same object twice has two, first in first out."""
        origins = self._waiting.get(id(item), [])
        origin = origins.pop(0) if origins else None
        if not origins:
            self._waiting.pop(id(item), None)
        return origin

    def of(self, batch: Batch[Any]) -> list[Origin]:
        """Return the origins of a batch that starts, in order, at each attempt."""
        for entry, item in zip(batch.entries, batch, strict=True):
            if entry.id not in self._started:
                origin = self.forget(item)
                if origin is not None:
                    self._started[entry.id] = origin
                    _forget_the_oldest(self._started)
        found = (self._started.get(entry.id) for entry in batch.entries)
        return [origin for origin in found if origin is not None]

    def ended(self, batch: Batch[Any]) -> None:
        """Forget the items of a call that are settled."""
        for entry in batch.entries:
            if entry.settled:
                self._started.pop(entry.id, None)


def _forget_the_oldest(known: dict[int, Known]) -> None:
    if len(known) > _MOST:
        del known[next(iter(known))]
