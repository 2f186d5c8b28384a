"""Keeps the snapshot of a queue, if it has `persistence`; else does nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from batchq.core.batcher import Batcher
from batchq.core.options import Settings
from batchq.core.snapshot import Snapshots
from batchq.errors import PersistenceError
from batchq.hooks import Watchers
from batchq.nest import Nest
from batchq.saver import Saver

__all__ = ["Keeper"]


class Keeper:
    """Restores a queue when it begins, saves it while it runs and when it ends."""

    def __init__(
        self,
        settings: Settings,
        batcher: Batcher[Any, Any],
        watchers: Watchers[Any, Any],
        *,
        snapshots: Snapshots | None,
    ) -> None:
        """Make one.

        Args:
            settings: the queue's.
            batcher: what is saved.
            watchers: whom to tell.
            snapshots: where snapshots go; None: there are none.
        """
        self._name = settings.name
        self._batcher = batcher
        self._watchers = watchers
        self._timeout = settings.time.save_timeout
        self._saver: Saver | None = None
        if snapshots is not None:
            self._saver = Saver(self._name, snapshots, batcher.unsettled, watchers.tell_of)

    async def begin(self, nest: Nest) -> None:
        """Let entries come back, and begin to save; where that fails, close the nest.

        Raises:
            StorageInUse, PersistenceError: as `Saver.restore`.
        """
        if self._saver is None or nest.nursery is None:
            return
        try:
            entries = await self._saver.restore(self._batcher.levels)
        except BaseException as error:
            self._saver = None  # nothing was read: nothing may be overwritten
            await nest.leave(error)
            raise
        self._batcher.restore(entries, trio.current_time())
        self._watchers.tell_of("on_state_restored", len(entries))
        nest.nursery.start_soon(self._saver.run)

    async def save(self) -> int:
        """Save now; return how many entries were.

        Raises:
            PersistenceError: they were not, or there is no `persistence`.
        """
        if self._saver is None:
            raise PersistenceError(f"queue {self._name!r} has no persistence to save to")
        return await self._saver.save()

    async def end(self) -> None:
        """Save once more, cancelled or not, and give the snapshot up.

        It has `save_timeout`, whatever the drain has left of its own time: without this save
        what has ended would run again, and what waits would be as it was at the last one.
        """
        saver, self._saver = self._saver, None
        if saver is not None:
            await saver.last(self._timeout)

    def see(self, look: Callable[[float], None]) -> Callable[[float], None]:
        """Return what to call at the end of each step of the queue, `look` included."""
        if self._saver is None:
            return look

        def both(now: float) -> None:
            if self._saver is not None:
                self._saver.changed()
            look(now)

        return both
