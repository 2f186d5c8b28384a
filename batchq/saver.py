"""Saves a queue now and then: its snapshot is young, and one save runs at a time.

Rule 1: an idle queue wakes nobody: time runs from a change to its save, not from save to
save.
Rule 2: what is saved is taken in one synchronous step; callers who come while a save runs
share the next one, which begins after their call.
Rule 3: saves belong to the queue, not to their callers: cancelling one ends its waiting.

    changed() ──▶ run: wait save_interval, or until somebody asks ──▶ take ──▶ write ──▶ told
    save() ── asks ─────────┘                                                     │
       ◀── count, or PersistenceError ────────────────────────────────────────────┘
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import attrs
import trio

from batchq.core.snapshot import Saved, SetAside, Snapshots, Unsaved, read, write
from batchq.errors import PersistenceError

__all__ = ["Saver"]

_NAMED: Final = 5  # items or records that a message names


@attrs.define(eq=False)
class _Save:
    """One save that callers wait for together."""

    done: trio.Event = attrs.field(factory=trio.Event)
    count: int = 0
    failure: str | None = None
    cause: BaseException | None = None


@attrs.define(eq=False)
class Saver:
    """Keeps the snapshot of one queue.

    Attributes:
        name: the queue's.
        snapshots: where it goes: the queue's `persistence`.
        take: returns the entries that are not settled, in order.
        tell: tells the hooks: their name, then their arguments.
        wall: the wall clock [s].
    """

    name: str
    snapshots: Snapshots
    take: Callable[[], Iterable[Saved[Any]]]
    tell: Callable[..., object]
    wall: Callable[[], float] = time.time
    _next: _Save | None = attrs.field(default=None, init=False)
    _dirty: bool = attrs.field(default=False, init=False)
    _due: float = attrs.field(default=math.inf, init=False)
    _wake: trio.Event = attrs.field(factory=trio.Event, init=False)
    # Of the entries that the snapshot has; None: unknown. No entry is kept for it.
    _print: int | None = attrs.field(default=None, init=False)

    async def restore(self, levels: int) -> list[Saved[Any]]:
        """Become the owner of the snapshot, and read it.

        Records that can't be read are set aside and told to `on_error`.

        Args:
            levels: how many levels of priority the queue has.

        Returns:
            The entries, by id; instants are by trio's clock.

        Raises:
            StorageInUse: it has another live owner.
            PersistenceError: it could not be read, or what can't be read could not be kept:
                then the snapshot is as it was, and nobody owns it.
        """
        records = await self.snapshots.load(self.name)
        if not records:
            self._print = _print_of([])
        now = trio.current_time()
        offset, item_type = self.wall() - now, self.snapshots.item_type
        found = read(records, item_type=item_type, offset=offset, now=now, levels=levels)
        if found.set_aside:
            try:
                await self.snapshots.set_aside(self.name, [it.record for it in found.set_aside])
            except BaseException:
                with trio.CancelScope(shield=True):
                    await self.release()
                raise
            self.tell("on_error", PersistenceError(_unread(self.name, found.set_aside)))
        return found.entries

    def changed(self) -> None:
        """Note that something may have changed: if so it is saved within `save_interval`."""
        if not self._dirty:
            self._dirty = True
            interval = self.snapshots.save_interval
            if interval is not None:
                self._due = trio.current_time() + interval
                self._wake.set()

    async def run(self) -> None:
        """Save whenever it is time, or somebody asks, until cancelled."""
        while True:
            await self._wait()
            if self._next is not None:
                await self._carry_out()
            elif self._print != _print_of(self.take()):
                self._complain(await self._carry_out())
            else:
                self._dirty, self._due = False, math.inf

    async def save(self) -> int:
        """Save, while `run` runs; those who ask while a save runs share the next one.

        Returns:
            Entries saved [count].

        Raises:
            PersistenceError: the snapshot was not written, or some items could not be.
        """
        if self._next is None:
            self._next = _Save()
            self._wake.set()
        save = self._next
        await save.done.wait()
        if save.failure is not None:
            # Each caller's own: one for all would grow a tangled traceback.
            raise PersistenceError(save.failure) from save.cause
        return save.count

    async def last(self, timeout: float) -> None:  # noqa: ASYNC109
        """Save once more, when `run` has ended, and give the snapshot up; cancelled or not.

        What goes wrong is told to `on_error`: nobody asked.

        Args:
            timeout: longest save [s]; inf is no limit.
        """
        save = self._next = self._next or _Save()
        with trio.move_on_after(timeout, shield=True):
            await self._carry_out()
        self._complain(save)  # of one that took too long, too
        with trio.CancelScope(shield=True):
            await self.release()

    async def release(self) -> None:
        """Give the snapshot up: others may own it."""
        await self.snapshots.release(self.name)

    async def _wait(self) -> None:
        while self._next is None:
            # Made before looking again, or a wake-up in between would be lost.
            self._wake = trio.Event()
            due = self._due if self._dirty else math.inf
            if due == math.inf:
                await self._wake.wait()
                continue
            with trio.move_on_at(due) as waiting:
                await self._wake.wait()
            if waiting.cancelled_caught:
                return

    async def _carry_out(self) -> _Save:
        save, self._next = self._next or _Save(), None
        self._dirty, self._due = False, math.inf
        entries = list(self.take())
        written = write(entries, offset=self.wall() - trio.current_time())
        taken = _print_of(entries)
        save.failure = f"the save of queue {self.name!r} was interrupted; the old one is there"
        try:
            await self.snapshots.save(self.name, written.records)
            save.failure = _unsaved(self.name, written.refused) if written.refused else None
            save.count, self._print = len(written.records), taken
            self.tell("on_state_saved", save.count)
        except PersistenceError as error:
            save.failure, save.cause = str(error), error.__cause__
            self.changed()  # it is tried again after the interval
        finally:
            save.done.set()
        return save

    def _complain(self, save: _Save) -> None:
        if save.failure is not None:
            error = PersistenceError(save.failure)
            error.__cause__ = save.cause
            self.tell("on_error", error)


def _print_of(entries: Iterable[Saved[Any]]) -> int:
    """Return a number that changes with what would be saved of these entries."""
    return hash(
        tuple((it.id, id(it.item), it.priority, it.attempts, it.due, it.solo) for it in entries)
    )


def _unsaved(name: str, refused: list[Unsaved]) -> str:
    reasons = "; ".join(each.reason for each in refused[:_NAMED])
    return f"{len(refused)} items of queue {name!r} are not in its snapshot: {reasons}"


def _unread(name: str, found: list[SetAside]) -> str:
    reasons = "; ".join(f"{each.record!r:.60}: {each.reason}" for each in found[:_NAMED])
    return (
        f"{len(found)} records of the snapshot of queue {name!r} could not be read and are kept"
        f" in its quarantine: {reasons}"
    )
