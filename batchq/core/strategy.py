"""The user's `batching_strategy`: asked, checked, and never trusted.

Rule 1: items are matched to entries by identity, first in first out per object: no
`__eq__`, `__hash__` or `__repr__` of theirs is called.
Rule 2: what may start is decided here; the strategy only says what belongs together.
Rule 3: whatever it answers, a due entry starts.

    items ─▶ strategy ─▶ groups ─▶ matched ─▶ cut ─▶ full? due? ─▶ batches, in this order
                │ raises, or no such groups                            ▲
                └──▶ StrategyError, and the default rule: all as one ──┘
"""

from __future__ import annotations

import inspect
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeAlias

import attrs

from batchq.core.entry import PENDING, Entry
from batchq.core.retry import said
from batchq.errors import StrategyError

__all__ = ["Plan", "plan"]

Group: TypeAlias = list[Entry[Any, Any]]

_MOST_EMPTY: Final = 10_000  # groups; an answer with more of them may never end


@attrs.frozen
class Plan:
    """What a strategy's answer comes to.

    Attributes:
        groups: the batches that may start now, in this order, each no longer and no
            heavier than a batch may be; none: there is nothing to start until something
            arrives or becomes due.
        error: what was wrong with the answer, for which the default rule served.
    """

    groups: Sequence[Group]
    error: StrategyError | None = None


def plan(
    strategy: Callable[[list[Any]], object],
    entries: Sequence[Entry[Any, Any]],
    *,
    batch_size: int,
    budget: float = math.inf,
    is_due: Callable[[Entry[Any, Any]], bool],
    anything: bool = False,
) -> Plan:
    """Ask the strategy for groups of what waits, and say which of them may start.

    A group may start if it is full or holds a due entry. One that is too long or too heavy
    is cut into consecutive batches; an incomplete last piece counts as a group of its own.

    Args:
        strategy: the user's function, from items to groups of items.
        entries: what waits in one bucket, in order, those that run alone left out.
        batch_size: most entries of a batch.
        budget: most weight of a batch of two or more (`entry.more.weight`); inf: any.
        is_due: whether an entry may not wait for company any longer.
        anything: whether any group may start, full or not.
    """
    items = [entry.item for entry in entries]
    error = None
    try:
        groups = _matched(strategy(list(items)), entries, items)
    except Exception as raised:  # the strategy is the user's code, and so are its groups
        groups, error = [list(entries)], _told(raised)
    # The strategy may have cancelled something by itself.
    groups = [[entry for entry in group if entry.code == PENDING] for group in groups]
    due = [entry for entry in entries if entry.code == PENDING and is_due(entry)]
    if due and not any(is_due(entry) for group in groups for entry in group):
        groups = [due]
    pieces = [piece for group in groups for piece in _cut(group, batch_size, budget)]
    ready = [piece for piece, full in pieces if anything or full or any(map(is_due, piece))]
    return Plan(ready, error)


def _matched(answer: object, entries: Sequence[Entry[Any, Any]], items: list[Any]) -> list[Group]:
    """Return the entries that each group of the answer claims.

    Raises:
        StrategyError: it is not made of groups of items that wait.
        Exception: what walking it raised.
    """
    waiting: dict[int, deque[Entry[Any, Any]]] = {}
    for item, entry in zip(items, entries, strict=True):
        waiting.setdefault(id(item), deque()).append(entry)
    groups: list[Group] = []
    for count, group in enumerate(_walk(answer, "groups"), start=1):
        if found := [_claimed(item, waiting) for item in _walk(group, "items")]:
            groups.append(found)
        if count - len(groups) > _MOST_EMPTY:
            raise StrategyError(
                f"the batching strategy returned more than {_MOST_EMPTY} empty groups"
            )
    return groups


def _walk(found: object, what: str) -> Iterator[Any]:
    # A text is made of texts, which could even be the items: a flat list of them, too.
    if isinstance(found, Iterable) and not isinstance(found, str | bytes | bytearray):
        return iter(found)
    if inspect.iscoroutine(found):
        found.close()  # or Python warns that nobody awaited it
    raise StrategyError(
        f"the batching strategy must return groups of items, as a list of lists; instead of"
        f" {what} it gave a value of type {type(found).__name__}"
    )


def _claimed(item: object, waiting: dict[int, deque[Entry[Any, Any]]]) -> Entry[Any, Any]:
    entries = waiting.get(id(item))
    if entries is None:
        raise StrategyError(
            f"the batching strategy returned an object (of type {type(item).__name__}) that is"
            " none of the items it was given; return those very objects, no copies"
        )
    if not entries:
        raise StrategyError(
            f"the batching strategy returned an item (of type {type(item).__name__}) more often"
            " than it waits"
        )
    return entries.popleft()


def _cut(group: Group, batch_size: int, budget: float) -> list[tuple[Group, bool]]:
    """Cut a group into batches, and tell of each whether it is full."""
    pieces: list[tuple[Group, bool]] = []
    piece: Group = []
    weight = 0.0
    for entry in group:
        more = 0.0 if budget == math.inf else entry.more.weight
        if piece and (len(piece) >= batch_size or weight + more > budget):
            pieces.append((piece, True))
            piece, weight = [], 0.0
        piece.append(entry)
        weight += more
    if piece:
        pieces.append((piece, len(piece) >= batch_size or weight >= budget))
    return pieces


def _told(raised: Exception) -> StrategyError:
    """Return what to tell of an error; it keeps no item."""
    if isinstance(raised, StrategyError):
        return raised.with_traceback(None)
    trace = raised.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next  # these frames hold the items, and say nothing to the user
    error = StrategyError(
        f"the batching strategy raised {type(raised).__name__}: {said(raised)}; the default"
        " rule serves instead"
    )
    error.__cause__ = raised.with_traceback(trace)
    return error
