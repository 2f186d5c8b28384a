"""Which calls the current task is part of, so that nobody waits for what waits for him.

Rule 1: the mark of a call follows the tasks that its processor starts, and ends with it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

import attrs
import msgspec
import trio

__all__ = ["MARK", "Mark", "Marks", "in_a_call"]


# A msgspec.Struct, as the core's Entry: one is made for every call.
class Mark(msgspec.Struct, eq=False):
    """Marks the tasks of a call, and those they start, while it runs.

    Attributes:
        owner: the marks of the pump that makes the call.
        outer: the mark of the call that the pump itself is part of, if it is.
        task: makes the call.
        partition: what the items of the call share.
        active: whether the call is under way.
    """

    owner: object
    outer: Mark | None
    task: trio.lowlevel.Task
    partition: Hashable = None
    active: bool = True

    def holds(self) -> bool:
        """Whether the call can't end before the current task does.

        It is one of its own, or what a thread that the call waits for has trio run: that is
        a task of trio's own, beside the program's main task.
        """
        line = _ancestry(trio.lowlevel.current_task())
        return self.task in line or line[-2:-1] != _ancestry(self.task)[-2:-1]


def _ancestry(task: trio.lowlevel.Task) -> list[trio.lowlevel.Task]:
    """Return a task, what it is a child of, and so on, up to trio's own first task."""
    line = [task]
    while (nursery := line[-1].parent_nursery) is not None:
        line.append(nursery.parent_task)
    return line


MARK: Final[ContextVar[Mark | None]] = ContextVar("batchq_mark", default=None)
# Whether the current task, or what it was started by, is part of a call of any queue.
in_a_call: Final = MARK.get


@attrs.define(eq=False)
class Marks:
    """Those of the calls of one pump.

    Attributes:
        concurrency: says how many calls there may be at once.
    """

    concurrency: Callable[[], int]
    # The calls that wait for another call, each as often as it does; and those of them that
    # wait for one of their own partition.
    _held: Counter[Mark] = attrs.field(factory=Counter)
    _inward: Counter[Mark] = attrs.field(factory=Counter)

    def inside(self) -> bool:
        """Whether the current task belongs to a call of this very pump."""
        return self._find() is not None

    def check_outside(self, method: str) -> None:
        """Refuse to wait, as part of a call, for the end of all calls.

        Raises:
            RuntimeError: the current task belongs to a call of this very pump.
        """
        if self.inside():
            raise RuntimeError(
                f"{method}() by the queue's own processor could never end: it would wait for"
                " the call that waits for it"
            )

    @contextmanager
    def holding_up(
        self, method: str, partition: Hashable = None, limit: float = math.inf
    ) -> Iterator[None]:
        """Wait, perhaps as part of a call, for what another call of this pump brings.

        Args:
            method: what the waiting is for, for the message.
            partition: that of the other call.
            limit: how many calls of one partition there may be at once.

        Raises:
            RuntimeError: all slots, or all that the partition may have, are held by calls
                that wait so: none would ever end.
        """
        mark = self._find()
        if mark is None or not mark.holds():
            yield
            return
        inward = limit < math.inf and mark.partition == partition
        with _counted(self._held, mark), _counted(self._inward, mark, inward):
            if len(self._held) >= self.concurrency():
                raise RuntimeError(_NEVER.format(method, "slot", "concurrency"))
            same = [each for each in self._inward if each.partition == partition]
            if inward and len(same) >= limit:
                what = "batch that its partition may have in flight"
                raise RuntimeError(_NEVER.format(method, what, _ALLOWED))
            yield

    def _find(self) -> Mark | None:
        mark = MARK.get()
        while mark is not None and not (mark.owner is self and mark.active):
            mark = mark.outer
        return mark


@contextmanager
def _counted(marks: Counter[Mark], mark: Mark, times: int = 1) -> Iterator[None]:
    """Count a mark while this lasts; one that is not there counts for nothing."""
    if not times:
        yield
        return
    marks[mark] += times
    try:
        yield
    finally:
        marks[mark] -= times
        if not marks[mark]:
            del marks[mark]


_ALLOWED: Final = "partition_concurrency (ordered=True allows one)"
_NEVER: Final = (
    "{}() by the queue's own processor could never end: every {} is held by a call that waits"
    " like this one; let the call end first, or allow more {}"
)
