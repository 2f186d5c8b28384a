"""A batch whose call raised, taken apart until what spoiled it is found.

Rule 1: an entry fails alone, or not at all; one that was called in company is tried again.
Rule 2: parts go one after another, the left one first, order kept.
Rule 3: an outage is no poison: where nothing but transient errors came, it stops early.

    first ─▶ part ─▶ begin ─▶ returned ──────────────────────┐
              ▲        │ ├──▶ raised ─▶ Split ───────────────┤
              │      again     │  └────▶ Alone ─▶ judged ────┤
              └────────┘       └───────▶ Outage: done        │
              ▲──────────────────────────────────────────────┘ done when no part is left
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from enum import Enum
from typing import Any, TypeAlias

import attrs

from batchq.core.checks import choice
from batchq.core.entry import IN_FLIGHT, Entry

__all__ = ["Alone", "Bisect", "BisectMode", "Outage", "Split", "bisect_mode", "is_transient"]

Part: TypeAlias = list[Entry[Any, Any]]


class BisectMode(Enum):
    """When a batch whose call raised is taken apart."""

    OFF = "off"
    EXHAUSTED = "exhausted"
    IMMEDIATE = "immediate"

    def splits(
        self, unsettled: Sequence[Entry[Any, Any]], may_retry: Callable[[Entry[Any, Any]], bool]
    ) -> bool:
        """Tell whether a call that raised is taken apart now.

        Args:
            unsettled: its entries without a verdict; a single one is never taken apart.
            may_retry: whether an entry may be tried again with the error that was raised,
                and has attempts left.
        """
        if len(unsettled) < 2 or self is BisectMode.OFF:  # noqa: PLR2004  # one is no company
            return False
        return self is BisectMode.IMMEDIATE or not all(map(may_retry, unsettled))


def bisect_mode(value: object) -> BisectMode:
    """Read the option `bisect`.

    Raises:
        OptionError: it is none of its words.
    """
    return choice("bisect", BisectMode, value)


def is_transient(error: BaseException, *kinds: type[BaseException]) -> bool:
    """Tell whether an error is one of an outage, where no `RetryPolicy` says so.

    It is an `OSError` (`TimeoutError` and `BatchTimeout` are) or one of `kinds`, or a
    group of nothing else.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(is_transient(each, *kinds) for each in error.exceptions)
    return isinstance(error, (OSError, *kinds))


@attrs.frozen
class Split:
    """A part raised: these two come next.

    Attributes:
        left: the first half, rounded up.
        right: the rest; empty where one entry was left of several.
    """

    left: Part
    right: Part


@attrs.frozen
class Alone:
    """An entry failed alone: it is to be marked solo, and judged by its error."""

    entry: Entry[Any, Any]
    error: Exception


@attrs.frozen
class Outage:
    """Everything raised: these entries fail with the error of the whole batch."""

    entries: Part
    error: Exception


@attrs.define(eq=False)
class Bisect:
    """What is left of a batch whose call raised. Make one with `of`.

    Attributes:
        error: what the call of the whole batch raised.
        first: how it was split.
        ordered: the first entry that has to come again ends it.
    """

    error: Exception
    first: Split
    ordered: bool
    _transient: Callable[[Exception], bool]
    _most: int  # so many transient errors in a row, from the start, are an outage
    _parts: list[Part]  # still to be called, the next one last
    _running: Part | None = None
    _calls: int = 0
    _outage: bool = True  # nothing that was called speaks against one

    @classmethod
    def of(
        cls,
        entries: Iterable[Entry[Any, Any]],
        error: Exception,
        *,
        transient: Callable[[Exception], bool],
        ordered: bool = False,
    ) -> Bisect:
        """Split the entries that a call left without a verdict.

        Args:
            entries: in order; those settled are passed over, two or more are not.
            error: what the call raised.
            transient: whether an error is one that all entries would get in an outage.
            ordered: whether entries may not overtake one that comes again.
        """
        left = _unsettled(entries)
        first = _split(left)
        most = 2 * ((len(left) - 1).bit_length() + 1)
        outage = transient(error)
        parts = [first.right, first.left]
        return cls(error, first, ordered, transient, most, parts, outage=outage)

    @property
    def done(self) -> bool:
        """Whether no part runs and none is left."""
        return self._running is None and not self.part()

    def part(self) -> Part:
        """Return the entries to call next, those settled meanwhile left out.

        Empty: there are none, or a part is running.
        """
        while self._running is None and self._parts:
            if part := _unsettled(self._parts.pop()):
                self._parts.append(part)
                return part
        return []

    def begin(self) -> Part:
        """Take what `part` returns: its call starts now."""
        self._running = self.part()
        self._parts.pop()
        return self._running

    def again(self) -> None:
        """End a call that came to nothing (throttled): the same part is called again."""
        self._parts.append(self._take())

    def returned(self) -> None:
        """End a call that returned: its entries are judged by its results."""
        self._take()
        self._outage = False

    def raised(
        self, error: Exception, *, spared: Container[Entry[Any, Any]] = ()
    ) -> Split | Alone | Outage:
        """End a call that raised; return what follows from it.

        Where nobody is left to blame, it is a `Split` into two empty parts. Entries that
        are `spared` had their verdict before, though they come again.
        """
        part = self._take()
        left = [entry for entry in _unsettled(part) if entry not in spared]
        self._calls += 1
        self._outage = self._outage and self._transient(error)
        if self._outage and self._calls >= self._most:
            return Outage([*left, *self.give_up()], self.error)
        if len(part) == 1 and left:
            return Alone(left[0], error)
        split = _split(left)
        self._parts += [split.right, split.left]
        return split

    def judged(self, *, comes_again: bool) -> Part:
        """Note that the entries of the last call were judged.

        Args:
            comes_again: whether one of them is to be retried or snoozed.

        Returns:
            The entries that return to their place, for the bisect has ended: only where
            the queue is ordered and one comes again that they may not overtake.
        """
        return self.give_up() if self.ordered and comes_again else []

    def give_up(self) -> Part:
        """End it; return the entries without a verdict, in order."""
        parts = [*self._parts, self._running or []]
        self._parts, self._running = [], None
        return _unsettled(entry for part in reversed(parts) for entry in part)

    def _take(self) -> Part:
        part, self._running = self._running, None
        return part or []


def _unsettled(entries: Iterable[Entry[Any, Any]]) -> Part:
    return [entry for entry in entries if entry.code == IN_FLIGHT]


def _split(part: Part) -> Split:
    middle = (len(part) + 1) // 2
    return Split(part[:middle], part[middle:])
