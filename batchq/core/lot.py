"""Items that came in together, whose entries are made when somebody asks for one.

    enqueue_many ─▶ Lot, waits in one cell of a line ─▶ Cut: the entries of a batch
                     └─▶ Entries: what the caller gets

To make, take, settle and free an entry costs more than all else that a queue does for an
item, and of items handed over in bulk mostly nobody looks at one.

Rule 1: nobody can tell: an entry that is made late is as it would have been.
Rule 2: there is one entry per item: while the caller holds `Entries`, caller and batch share
it, whoever asks first.
Rule 3: an item without an entry waits, is in flight or has succeeded. Before anything else
becomes of it, its entry is made.
Rule 4: a caller in another thread may ask, too, as of a list: a lock is held while entries are
made, and while it is noted what became of items without one.
"""

from __future__ import annotations

import threading
import weakref
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, repeat
from typing import Any, Generic, TypeVar, overload

import msgspec
from msgspec.structs import force_setattr

from batchq.core.entry import IN_FLIGHT, PENDING, SUCCEEDED, Entry, Owner

__all__ = ["Cut", "Entries", "Joined", "Lot", "Piece", "there"]

E = TypeVar("E", bound=Entry[Any, Any])


# A msgspec.Struct, as Entry: one is made for every call that brings many.
class Lot(msgspec.Struct, eq=False):
    """Items of one level that came in together.

    In a line it stands for those that wait, and looks like the first of them.

    Attributes:
        id: of the first that waits.
        priority: their level.
        enqueued_at: when they were admitted [s, the queue's clock].
        owner: the queue that they are in.
        make: makes an entry.
        items: one per entry, in order; None where it has succeeded or its entry has it.
        code: where those are that wait.
        made: the entries, in order, once made; None where nobody can ask for one.
    """

    id: int
    priority: int
    enqueued_at: float
    owner: Owner
    make: Callable[..., Entry[Any, Any]]
    items: list[Any]
    code: int = PENDING
    made: list[Any] | None = None
    _lock: Any = msgspec.field(default_factory=threading.Lock)
    _gone: int = 0  # how many wait no more: the first ones
    _holder: Callable[[], Entries[Any] | None] | None = None
    # Where items succeeded that had no entry, and with which values, for the holder.
    _done: list[tuple[slice, Sequence[object] | None]] = msgspec.field(default_factory=list)

    def hand_out(self) -> Entries[Any]:
        """Return what the caller gets; once."""
        entries: Entries[Any] = Entries(self)
        self._holder = weakref.ref(entries)
        return entries

    def cut(self, limit: int) -> Piece | None:
        """Take the first items out, at most `limit`; None: their entries have been made."""
        with self._lock:
            if self.made is not None:
                return None
            start = self._gone
            size = min(limit, len(self.items) - start)
            self._gone += size
            self.id += size
        return Piece(self, start, size)

    def items_of(self, piece: Piece) -> list[Any]:
        """Return the items of a piece that was just cut."""
        part = slice(piece.start, piece.start + piece.size)
        with self._lock:
            if self.made is None:
                return self.items[part]
            return [entry.item for entry in self.made[part]]

    @property
    def size(self) -> int:
        """How many wait [entries]."""
        with self._lock:
            return len(self.made or self.items) - self._gone

    @property
    def held(self) -> bool:
        """Whether the caller can still ask for an entry."""
        return self._holder is not None and self._holder() is not None

    def waiting(self) -> list[Entry[Any, Any]]:
        """Return the entries of those that wait."""
        with self._lock:
            if self.made is None and not self.held:
                waiting = self.new(self._gone, len(self.items))
                self.made = [*repeat(None, self._gone), *waiting]
                del self.items[self._gone :]  # the entries have them, and let go of them
        return self.all()[self._gone :]

    def all(self) -> list[Entry[Any, Any]]:
        """Return the entries, for all who may share one."""
        with self._lock:
            if self.made is None:
                made = self.new(0, len(self.items))
                for entry in made[: self._gone]:
                    entry.code = IN_FLIGHT
                for part, answers in self._done:
                    _let_succeed(made[part], answers)
                self.made = made  # first: an interrupt may come between, and lose nothing
                self._done.clear()
                self.items.clear()  # as above
        return self.made

    def ids(self, start: int, stop: int) -> range:
        """Return the ids of neighbours."""
        first = self.id - self._gone
        return range(first + start, first + stop)

    def new(self, start: int, stop: int) -> list[Any]:
        """Make entries that wait."""
        ids = self.ids(start, stop)
        # The loops of `map` are the fastest that there are.
        entries = list(
            map(self.make, ids, repeat(self.priority), repeat(self.enqueued_at), repeat(self.owner))
        )
        # An assignment would show them to the garbage collector: too early, see Entry.
        deque(map(force_setattr, entries, repeat("item"), self.items[start:stop]), maxlen=0)
        return entries

    def succeed(self, piece: Piece) -> bool:
        """Let a piece succeed and go of its items; False: entries have been made."""
        with self._lock:
            if self.made is not None:
                return False
            part = slice(piece.start, piece.start + piece.size)
            self.items[part] = repeat(None, piece.size)
            if self.held:
                self._done.append((part, piece.answers))
            else:
                self._done.clear()  # nobody can ask for those values any more
        return True


class Piece(msgspec.Struct, eq=False):
    """Neighbours in a lot that are in one batch.

    Attributes:
        lot: what they came in with.
        start: where they begin there.
        size: how many they are [entries].
        done: whether they have succeeded without entries.
        answers: with which values, in order; None: without any.
    """

    lot: Lot
    start: int
    size: int
    done: bool = False
    answers: Sequence[object] | None = None

    def __len__(self) -> int:
        return self.size

    @property
    def items(self) -> list[Any]:
        """Return the items, in order."""
        return self.lot.items_of(self)

    @property
    def ids(self) -> range:
        """Return the ids, in order."""
        return self.lot.ids(self.start, self.start + self.size)

    def entries(self) -> list[Entry[Any, Any]]:
        """Return the entries; once."""
        lot = self.lot
        start, stop = self.start, self.start + self.size
        made = lot.all() if lot.held else lot.made
        if made is not None and made[start] is not None:
            return made[start:stop]
        entries = lot.new(start, stop)
        lot.items[start:stop] = repeat(None, self.size)  # the entries have them, as above
        for entry in entries:
            entry.code = IN_FLIGHT
        if self.done:
            _let_succeed(entries, self.answers)
        return entries

    def succeed(self, answers: Sequence[object] | None) -> int:
        """Let all succeed, with one value each or without; 0: there are entries."""
        self.answers = answers
        self.done = self.lot.succeed(self)
        return self.size if self.done else 0


def _let_succeed(entries: Sequence[Entry[Any, Any]], answers: Sequence[object] | None) -> None:
    """Let new entries be as if they had been there when they succeeded."""
    for entry, answer in zip(entries, answers or repeat(None), strict=False):
        entry.code, entry.attempts, entry.answer = SUCCEEDED, 1, answer


class _Made(Sequence[E], Generic[E]):
    """Entries that are made when one is asked for."""

    __slots__ = ("_size",)
    _size: int

    def __len__(self) -> int:
        return self._size

    @abstractmethod
    def all(self) -> list[E]:
        """Return the entries."""

    @overload
    def __getitem__(self, index: int) -> E: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[E]: ...
    def __getitem__(self, index: int | slice) -> E | Sequence[E]:
        return self.all()[index]

    def __iter__(self) -> Iterator[E]:
        return iter(self.all())


class Entries(_Made[E]):
    """The entries of items that came in together, one per item, in order."""

    __slots__ = ("__weakref__", "_entries", "_lot")

    def __init__(self, lot: Lot) -> None:
        self._lot: Lot | None = lot
        self._size = len(lot.items)
        self._entries: list[Any] = []

    def __repr__(self) -> str:
        return f"<Entries of {self._size} items>"

    def all(self) -> list[E]:
        """Return the entries."""
        lot = self._lot
        if lot is not None:
            self._entries, self._lot = lot.all(), None
        return self._entries


class Joined(_Made[E]):
    """The entries of several parts, in order."""

    __slots__ = ("_entries", "_parts")

    def __init__(self, parts: Sequence[Sequence[E]]) -> None:
        self._parts = parts
        self._size = sum(map(len, parts))
        self._entries: list[E] = []

    def all(self) -> list[E]:
        """Return the entries."""
        parts = self._parts
        if parts:
            self._entries, self._parts = [*chain.from_iterable(parts)], ()
        return self._entries


class Cut(_Made[Entry[Any, Any]]):
    """The entries of one batch, one per item, in order.

    Attributes:
        parts: pieces of lots, and lists of entries that are there; one list of all of
            them once somebody has asked.
        lock: held while entries are made, or succeed without being made.
    """

    __slots__ = ("lock", "parts")

    def __init__(self, parts: Sequence[Piece | list[Entry[Any, Any]]], size: int) -> None:
        self.parts = parts
        self.lock = threading.Lock()
        self._size = size

    @property
    def made(self) -> bool:
        """Whether all of them have been made."""
        return len(self.parts) == 1 and not isinstance(self.parts[0], Piece)

    def look(self) -> tuple[list[Entry[Any, Any]], list[range]]:
        """Return those that are there, and the ids of others, of neighbours together."""
        parts = self.parts  # others, once another thread has asked
        there = [part for part in parts if not isinstance(part, Piece)]
        missing = [part.ids for part in parts if isinstance(part, Piece)]
        return [*chain.from_iterable(there)], missing

    def items(self) -> list[Any]:
        """Return the items, in order."""
        items = [
            part.items if isinstance(part, Piece) else [entry.item for entry in part]
            for part in self.parts
        ]
        return items[0] if len(items) == 1 else [*chain.from_iterable(items)]

    def all(self) -> list[Entry[Any, Any]]:
        """Return the entries."""
        with self.lock:
            if not self.made:
                parts = [part.entries() if isinstance(part, Piece) else part for part in self.parts]
                self.parts = [[*chain.from_iterable(parts)]]
        return self.parts[0]  # type: ignore[return-value]  # a list


def there(entries: Sequence[Entry[Any, Any]]) -> Sequence[Entry[Any, Any]]:
    """Return those of a batch's entries that are there, without making any."""
    return entries.look()[0] if type(entries) is Cut else entries
