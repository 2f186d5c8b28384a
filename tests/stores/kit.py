"""What the conformance suite is made of: the stores it runs on, a clock, short commands.

To run the suite on another store, add it to `STORES`, and a machine to test_machine.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import attrs

from batchq.core.job import (
    Claimed,
    ClaimRequest,
    ErrorLine,
    Extended,
    Extension,
    Group,
    NewJob,
    Receipt,
    Settled,
    Settlement,
    Verdict,
)
from batchq.core.record import JobRecord
from batchq.stores.base import Store
from batchq.stores.memory import MemoryStore
from batchq.stores.sqlite import SqliteStore

LEASE: Final = 30.0
BOOM: Final = ErrorLine("ValueError", "boom", "Traceback ...")


@attrs.define
class HandClock:
    """A clock that stands still until told otherwise [s].

    Its steps are binary fractions, so that sums and differences are exact.
    """

    now: float = 4096.0

    def __call__(self) -> float:
        return self.now


@attrs.frozen
class StoreKind:
    """A kind of store to run the suite on.

    Attributes:
        name: for people.
        open: opens the store that belongs to a folder.
        lasting: whether what is stored is found again by the next one to open it.
    """

    name: str
    open: Callable[[Path, Callable[[], float]], Store]
    lasting: bool


def _memory(_: Path, clock: Callable[[], float]) -> Store:
    return MemoryStore(clock=clock)


def _sqlite(folder: Path, clock: Callable[[], float]) -> Store:
    return SqliteStore(folder / "jobs.db", durability="process", clock=clock)


MEMORY: Final = StoreKind("memory", _memory, lasting=False)
SQLITE: Final = StoreKind("sqlite", _sqlite, lasting=True)
STORES: Final = (MEMORY, SQLITE)


def enqueue(store: Store, *jobs: NewJob) -> list[int]:
    return [answer.id for answer in store.commit(Group(enqueue=jobs)).enqueue]


def job(
    payload: bytes = b"null",
    *,
    queue: str = "mail",
    handler: str = "send",
    priority: int = 2,
    delay: float = 0.0,
    max_attempts: int | None = 4,
) -> NewJob:
    return NewJob(queue, handler, payload, priority, delay, max_attempts)


def request(
    *handlers: str,
    queue: str = "mail",
    limit: int = 100,
    lease: float = LEASE,
    worker: str = "ada",
) -> ClaimRequest:
    return ClaimRequest(queue, handlers or ("send",), limit, lease, worker)


def claim(store: Store, wish: ClaimRequest | None = None) -> Claimed:
    return store.commit(Group(claim=[wish or request()])).claim[0]


def claim_ids(store: Store, wish: ClaimRequest | None = None) -> list[int]:
    return [claimed.receipt.job_id for claimed in claim(store, wish).jobs]


def claim_one(store: Store, wish: ClaimRequest | None = None) -> Receipt:
    [claimed] = claim(store, wish).jobs
    return claimed.receipt


def settle(store: Store, *settlements: Settlement) -> Sequence[Settled]:
    return store.commit(Group(settle=settlements)).settle


def settle_one(
    store: Store,
    receipt: Receipt,
    verdict: Verdict = Verdict.OK,
    *,
    value: bytes | None = None,
    error: ErrorLine | None = None,
    delay: float = 0.0,
    reason: str | None = None,
) -> Settled:
    [answer] = settle(store, Settlement(receipt, verdict, value, error, delay, reason))
    return answer


def extend(store: Store, *receipts: Receipt, lease: float = LEASE) -> Sequence[Extended]:
    return store.commit(Group(extend=[Extension(receipts, lease)])).extend[0]


def read(store: Store, job_id: int) -> JobRecord:
    [record] = store.get([job_id])
    assert record is not None
    return record
