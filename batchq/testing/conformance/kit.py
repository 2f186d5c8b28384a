"""The stores under test, a clock that the tests move, and short commands.

enqueue, claim, extend, settle      one command as a group of its own
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final, TypeVar, cast

import attrs

from batchq.core.job import (
    Answers,
    Claimed,
    ClaimRequest,
    ErrorLine,
    Extended,
    Extension,
    Group,
    JobKey,
    NewJob,
    Receipt,
    Settled,
    Settlement,
    Verdict,
)
from batchq.core.record import JobRecord
from batchq.errors import StoreUnavailable
from batchq.stores.base import Store
from batchq.stores.url import open_store
from batchq.testing.faults import FaultyStore, seeded

__all__ = [
    "BOOM",
    "LEASE",
    "HandClock",
    "StoreKind",
    "claim",
    "claim_ids",
    "claim_one",
    "enqueue",
    "extend",
    "finish",
    "job",
    "read",
    "request",
    "settle",
    "settle_one",
]

T = TypeVar("T")

LEASE: Final = 30.0
BOOM: Final = ErrorLine("ValueError", "boom", "Traceback ...")


@attrs.define
class HandClock:
    """A clock that stands still until told otherwise [s].

    Its steps are binary fractions, so that sums and differences are exact.
    """

    now: float = 4096.0

    def __call__(self) -> float:
        """Tell the time [s]."""
        return self.now


@attrs.frozen
class StoreKind:
    """A kind of store to run the suite on.

    Attributes:
        url: a store's address with {folder} in it, or `package.module:function`.
        faults: whether calls fail now and then, and are repeated.
    """

    url: str
    faults: bool = attrs.field(default=False, kw_only=True)

    @property
    def name(self) -> str:
        """What people call it."""
        plain = self.url.replace("{folder}/", "")
        return f"{plain} with faults" if self.faults else plain

    def open(self, folder: Path, clock: Callable[[], float]) -> Store:
        """Open the store that belongs to a folder."""
        module, colon, function = self.url.partition(":")
        if colon and function.isidentifier():
            store = cast("Store", getattr(import_module(module), function)(folder, clock=clock))
        else:
            store = open_store(self.url.replace("{folder}", str(folder)), clock=clock)
        return _Repeating(store) if self.faults else store


class _Repeating(FaultyStore):
    """A store whose calls fail now and then, and who calls it does what is to be done then.

    What was not carried out is repeated. After a lost reply, settlements and extensions are
    repeated: none may apply twice. The answers given are those that were lost, as if they
    had been asked for by what the store keeps of them.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store, seeded(0, before=0.2, after=0.2))
        self._beneath = store

    def commit(self, group: Group) -> Answers:
        calls = self.calls
        answers = super().commit(group)
        if self.lost is answers and self.calls > calls:
            repeated = self._beneath.commit(Group(settle=group.settle, extend=group.extend))
            for before, after in zip(answers.settle, repeated.settle, strict=True):
                assert after is not Settled.APPLIED
                assert before is not Settled.STALE or after is Settled.STALE
        return answers

    def _write(self, call: Callable[[], T]) -> T:
        while True:
            try:
                return super()._write(call)
            except StoreUnavailable as error:
                if error.outcome == "unknown":
                    return cast("T", self.lost)

    def _read(self, call: Callable[[], T]) -> T:
        while True:
            try:
                return super()._read(call)
            except StoreUnavailable:
                continue


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
    key: JobKey | None = None,
    expires: float | None = None,
    tags: tuple[str, ...] = (),
) -> NewJob:
    return NewJob(queue, handler, payload, priority, delay, max_attempts, key, expires, tags)


def request(
    *handlers: str,
    queue: str = "mail",
    limit: int = 100,
    lease: float = LEASE,
    worker: str = "ada",
    suspect: bool = True,
) -> ClaimRequest:
    return ClaimRequest(queue, handlers or ("send",), limit, lease, worker, suspect)


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


def finish(store: Store, verdict: Verdict = Verdict.OK, *, wish: ClaimRequest | None = None) -> int:
    """Claim one job and settle it; return its id."""
    receipt = claim_one(store, wish or request(limit=1))
    settle_one(store, receipt, verdict)
    return receipt.job_id
