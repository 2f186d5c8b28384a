"""A store that fails when it is told to: for the tests of stores, and of what stands on them.

    FaultyStore(store, script({3: Fault.BEFORE}))      the third call is not carried out
    FaultyStore(store, seeded(7, before=0.05, after=0.05))

Rule 1: the plan is a function of the call's number alone: a history that was made shorter
keeps its faults.
Rule 2: what fails is a whole unit: inside it a failure rolls back, and only its end can lose
a reply.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from enum import Enum
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from batchq.core.job import Answers, Group
from batchq.errors import StoreUnavailable
from batchq.stores.base import Store, StoreInfo

__all__ = ["Fault", "FaultyStore", "Plan", "script", "seeded"]

P = ParamSpec("P")
T = TypeVar("T")


class Fault(Enum):
    """What becomes of a call.

    NONE: nothing. BEFORE: it is not carried out. AFTER: it is, and its reply is lost.
    """

    NONE = "none"
    BEFORE = "before"
    AFTER = "after"


Plan = Callable[[int], Fault]


def script(faults: Mapping[int, Fault]) -> Plan:
    """Plan faults by the number of the call, counted from 1; the others go well."""
    return lambda number: faults.get(number, Fault.NONE)


def seeded(seed: int, *, before: float, after: float) -> Plan:
    """Plan faults by chance; the same ones for the same seed.

    Args:
        seed: which history of faults.
        before: how likely a call is not carried out [0 .. 1].
        after: how likely its reply is lost [0 .. 1].
    """

    def plan(number: int) -> Fault:
        draw = random.Random(f"{seed}:{number}").random()  # noqa: S311 - no secret
        if draw < before:
            return Fault.BEFORE
        return Fault.AFTER if draw < before + after else Fault.NONE

    return plan


def _reading(
    method: Callable[Concatenate[Store, P], T],
) -> Callable[Concatenate[FaultyStore, P], T]:
    """Make of a store's method one that may fail before it reads."""

    @wraps(method)
    def call(self: FaultyStore, /, *args: P.args, **kwargs: P.kwargs) -> T:
        beneath: Callable[P, T] = getattr(self._store, method.__name__)
        return self._read(lambda: beneath(*args, **kwargs))

    return call


def _writing(
    method: Callable[Concatenate[Store, P], T],
) -> Callable[Concatenate[FaultyStore, P], T]:
    """Make of a store's method one that may fail before it writes, or when it has."""

    @wraps(method)
    def call(self: FaultyStore, /, *args: P.args, **kwargs: P.kwargs) -> T:
        beneath: Callable[P, T] = getattr(self._store, method.__name__)
        return self._write(lambda: beneath(*args, **kwargs))

    return call


class FaultyStore:
    """A store whose calls fail as planned, with `StoreUnavailable`.

    A call that only reads is never half done: where its reply is lost, it fails before.

    Args:
        store: carries out what does not fail.
        plan: what becomes of each call; `now`, `info`, `changed` and `close` never fail.

    Attributes:
        calls: how many calls there were.
        lost: what the last call said whose reply was lost.
    """

    def __init__(self, store: Store, plan: Plan) -> None:
        self.calls = 0
        self.lost: object = None
        self._store = store
        self._plan = plan

    def now(self) -> float:
        """Tell the time [s, store clock]."""
        return self._store.now()

    def commit(self, group: Group) -> Answers:
        """Carry out the whole group, or fail."""
        return self._write(lambda: self._store.commit(group))

    get = _reading(Store.get)
    find = _reading(Store.find)
    counts = _reading(Store.counts)
    kinds = _reading(Store.kinds)
    tally = _reading(Store.tally)
    errors = _reading(Store.errors)
    queues = _reading(Store.queues)
    workers = _reading(Store.workers)
    record = _writing(Store.record)
    cancel = _writing(Store.cancel)
    retry = _writing(Store.retry)
    delete = _writing(Store.delete)
    clean = _writing(Store.clean)
    set_queue = _writing(Store.set_queue)
    beat = _writing(Store.beat)

    def changed(self) -> bool:
        """Hint that somebody has written."""
        return self._store.changed()

    def info(self) -> StoreInfo:
        """Say what the store is."""
        return self._store.info()

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def _write(self, call: Callable[[], T]) -> T:
        self.calls += 1
        fault = self._plan(self.calls)
        if fault is Fault.BEFORE:
            raise StoreUnavailable(f"call {self.calls} failed as planned", outcome="not sent")
        answer = call()
        if fault is Fault.AFTER:
            self.lost = answer
            raise StoreUnavailable(f"the reply to call {self.calls} is lost", outcome="unknown")
        return answer

    def _read(self, call: Callable[[], T]) -> T:
        self.calls += 1
        if self._plan(self.calls) is not Fault.NONE:
            raise StoreUnavailable(f"call {self.calls} failed as planned", outcome="not sent")
        return call()
