"""What waits for a time of its own: delays, due times, deadlines; one heap each."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

import attrs

from batchq.core.batch import Trigger
from batchq.core.entry import DELAYED, PENDING, Entry
from batchq.core.option_groups import DropPolicy
from batchq.core.victims import Victims

__all__ = ["Agenda", "Deadlines", "Delays", "Slack"]

_MANY: Final = 64  # dead heap entries that are not worth a rebuild
_WEIGHT_OF_NEWEST: Final = 0.2  # of the newest call in the running mean of durations


@attrs.define(eq=False)
class Delays:
    """The entries whose time has not come.

    Attributes:
        count: entries that wait here [entries].
        next_end: when the first of them is over [s]; inf: none waits.
        victims: those that the drop policy may give up; None: it gives up none.
    """

    victims: Victims | None = None
    count: int = 0
    next_end: float = math.inf
    _heap: list[tuple[float, int, Entry[Any, Any]]] = attrs.field(factory=list)

    @classmethod
    def of(cls, policy: DropPolicy) -> Delays:
        """Make an empty one, of which the drop policy may give entries up."""
        return cls(Victims.of(DELAYED, policy))

    def __iter__(self) -> Iterator[Entry[Any, Any]]:
        """Walk the entries, in no order."""
        return (entry for _, _, entry in self._heap if entry.code == DELAYED)

    def add(self, entry: Entry[Any, Any], due: float) -> None:
        """Keep `entry` until `due` [s]."""
        entry.code = DELAYED
        entry.due = due
        heapq.heappush(self._heap, (due, entry.id, entry))
        self.count += 1
        self.next_end = self._heap[0][0]
        if self.victims is not None:
            self.victims.add(entry)

    def pop(self, now: float) -> Entry[Any, Any] | None:
        """Give out the next entry whose delay is over at `now`, earliest first."""
        if self.next_end > now:
            return None
        entry = heapq.heappop(self._heap)[2]
        self.count -= 1
        self._tidy()
        return entry

    def forget(self, entry: Entry[Any, Any]) -> None:
        """Count out an entry that has just been settled; it leaves the heap later."""
        del entry  # its status says so already
        self.count -= 1
        if len(self._heap) > 2 * self.count + _MANY:
            self._heap = [cell for cell in self._heap if cell[2].code == DELAYED]
            heapq.heapify(self._heap)
        self._tidy()

    def _tidy(self) -> None:
        while self._heap and self._heap[0][2].code != DELAYED:
            heapq.heappop(self._heap)
        self.next_end = self._heap[0][0] if self._heap else math.inf
        if self.victims is not None:
            self.victims.tidy(self.count)


@attrs.define(eq=False)
class Agenda:
    """Entries by an instant of each, earliest first; one that is out of date is skipped.

    Attributes:
        alive: whether a cell is up to date: (entry, instant, seat).
    """

    alive: Callable[[Entry[Any, Any], float, int], bool]
    _heap: list[tuple[float, int, int, int, Entry[Any, Any]]] = attrs.field(factory=list)
    _serial: Iterator[int] = attrs.field(factory=itertools.count)  # entries are not compared

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, at: float, entry: Entry[Any, Any]) -> None:
        """Note an entry for `at` [s]."""
        cell = (at, entry.id, next(self._serial), entry.more.seat, entry)
        heapq.heappush(self._heap, cell)

    def next(self) -> float:
        """Return the earliest instant [s]; inf: there is none."""
        heap = self._heap
        while heap:
            at, _, _, seat, entry = heap[0]
            if self.alive(entry, at, seat):
                return at
            heapq.heappop(heap)
        return math.inf

    def pop(self, now: float) -> Entry[Any, Any] | None:
        """Give out the next entry whose instant is at `now` [s] or before; None: there is none."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            at, _, _, seat, entry = heapq.heappop(heap)
            if self.alive(entry, at, seat):
                return entry
        return None

    def tidy(self, left: int) -> None:
        """Let go of what is out of date, where no more than `left` entries may be noted."""
        if not left:
            self._heap.clear()
        elif len(self._heap) > 2 * left + _MANY:
            self._heap = [cell for cell in self._heap if self.alive(cell[4], cell[0], cell[3])]
            heapq.heapify(self._heap)


@attrs.define(eq=False)
class Slack:
    """How long calls take, so that what has a deadline starts early enough.

    Attributes:
        value: the running mean of recent calls [s].
    """

    value: float = 0.0

    def took(self, duration: float) -> None:
        """Note how long a call took [s]."""
        share = _WEIGHT_OF_NEWEST if self.value else 1.0
        self.value += share * (duration - self.value)


def _in_its_seat(entry: Entry[Any, Any], at: float, seat: int) -> bool:
    """Tell whether an entry still waits where it did when its cell was made."""
    del at
    return entry.code == PENDING and entry.more.seat == seat and entry.more.due is None


def _may_wait(entry: Entry[Any, Any]) -> bool:
    """Tell whether an entry waits, and may do so for company."""
    return entry.code == PENDING and entry.more.due is None


def _before_its_deadline(entry: Entry[Any, Any], at: float, seat: int) -> bool:
    """Tell whether a cell still names the deadline of an entry that is not settled."""
    del seat
    return not entry.settled and entry.more.deadline == at


@attrs.define(eq=False)
class Deadlines:
    """When entries become due, and when they expire.

    Attributes:
        interval: longest wait of a fresh entry [s].
        slack: how long calls take.
        any_ends: whether anything that was noted may expire.
    """

    interval: float
    slack: Slack
    any_ends: bool = False
    # Those that become due by their age, the oldest first: nearly all. What has been due once
    # is so whenever it comes again, so an entry counts while it is PENDING and not due.
    _by_age: deque[Entry[Any, Any]] = attrs.field(factory=deque)
    _dues: Agenda = attrs.field(factory=lambda: Agenda(_in_its_seat))
    _urgent: Agenda = attrs.field(factory=lambda: Agenda(_in_its_seat))
    _ends: Agenda = attrs.field(factory=lambda: Agenda(_before_its_deadline))

    def run(self, entry: Entry[Any, Any]) -> None:
        """Let the deadline that an entry has by now run."""
        more = entry.more
        more.deadline = min(more.starts_by, more.ends_by)
        if more.deadline < math.inf:
            self._ends.add(more.deadline, entry)
            self.any_ends = True

    def started(self, entry: Entry[Any, Any]) -> None:
        """Note a first start: its deadline has been met."""
        entry.more.starts_by = math.inf
        self.run(entry)

    def watch(self, entry: Entry[Any, Any], now: float) -> Trigger | None:
        """Note when an entry that is PENDING becomes due; say why, if it is now."""
        old = entry.enqueued_at + self.interval
        at = min(old, entry.more.early)
        if at <= now:
            return self._why(entry, now)
        if at == old < math.inf and self._is_youngest(entry):
            self._by_age.append(entry)
        elif at < math.inf:
            self._dues.add(at, entry)
        if entry.more.deadline < math.inf:
            self._urgent.add(entry.more.deadline, entry)
        return None

    def next_due(self) -> float:
        """Return when the next entry becomes due [s]; inf: none will."""
        self._drop_start()
        by_age = self._by_age[0].enqueued_at + self.interval if self._by_age else math.inf
        return min(by_age, self._dues.next(), self._urgent.next() - self.slack.value)

    def pop_due(self, now: float) -> tuple[Entry[Any, Any], Trigger] | None:
        """Give out an entry that has become due at `now` [s], and why; None: none has."""
        line = self._by_age
        while line and line[0].enqueued_at + self.interval <= now:
            entry = line.popleft()
            if _may_wait(entry):
                return entry, Trigger.INTERVAL
        if (due := self._dues.pop(now)) is not None:
            return due, self._why(due, now)
        # The sum of `next_due`, or rounding could keep back what the alarm has rung for.
        if self._urgent.next() - self.slack.value <= now:
            due = self._urgent.pop(math.inf)
        return None if due is None else (due, Trigger.DEADLINE)

    def next_end(self) -> float:
        """Return when the next entry expires [s]; inf: none will."""
        return self._ends.next()

    def pop_end(self, now: float, *, late: bool) -> Entry[Any, Any] | None:
        """Give out an entry whose deadline is at `now` [s] or before; `late`: before."""
        at = self._ends.next()
        return self._ends.pop(now) if at < now or (at == now and not late) else None

    def tidy(self, pending: int) -> None:
        """Let go of what is out of date, where so many entries are PENDING."""
        self._drop_start()
        if len(self._by_age) > 2 * pending + _MANY:
            self._by_age = deque(filter(_may_wait, self._by_age))
        self._dues.tidy(pending)
        self._urgent.tidy(pending)

    def tidy_ends(self, outstanding: Callable[[], int]) -> None:
        """Let go of the deadlines of what is settled; `outstanding` counts what is not."""
        if len(self._ends) > _MANY:  # the first ones go when they are looked at
            self._ends.tidy(outstanding())

    def _is_youngest(self, entry: Entry[Any, Any]) -> bool:
        return not self._by_age or self._by_age[-1].enqueued_at <= entry.enqueued_at

    def _drop_start(self) -> None:
        line = self._by_age
        while line and not _may_wait(line[0]):
            line.popleft()

    def _why(self, entry: Entry[Any, Any], now: float) -> Trigger:
        by_age = entry.enqueued_at + self.interval <= now
        return Trigger.INTERVAL if by_age else Trigger.DEADLINE
