"""Commits of every kind, drawn from a seed, and the book of what the store answered to them.

The power cut and the failing calls happen under this: `Workload` makes the commits, `Book`
knows what was acknowledged and says what a store has not kept of it.
"""

from __future__ import annotations

import json
import random
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import attrs

from batchq.core.job import (
    Answers,
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
from batchq.core.lifecycle import JobState
from batchq.core.record import JobFilter, JobRecord
from batchq.errors import StoreBroken, StoreError
from batchq.stores.base import Store
from batchq.stores.sqlite import SqliteStore, connect
from tests.crash.evidence import miscounted

__all__ = ["Book", "Workload", "busy"]

_CHECKPOINT: Final = 6  # after so many commits, and then so many pages
_PAGES: Final = 48
_LARGEST: Final = 6_000
_VERDICTS: Final = (Verdict.OK, Verdict.OK, Verdict.RETRY, Verdict.FAIL, Verdict.RELEASE)
_STATES: Final = {Verdict.OK: JobState.COMPLETED, Verdict.FAIL: JobState.FAILED}
_BOOM: Final = ErrorLine("ValueError", "boom, as planned", "Traceback ...\n" * 20)


@attrs.define
class Book:
    """What was acknowledged, as lines that can be added in one write.

    Attributes:
        stored: jobs whose `enqueue` returned: id -> checksum of the payload.
        held: attempts that were handed out: id -> the highest.
        ended: jobs whose settlement was answered: id -> final state.
        refused: numbers of jobs of which the store said that nothing was done.
        complaints: answers that should not have been given.
    """

    stored: dict[int, int] = attrs.field(factory=dict)
    held: dict[int, int] = attrs.field(factory=dict)
    ended: dict[int, str] = attrs.field(factory=dict)
    refused: set[int] = attrs.field(factory=set)
    complaints: list[str] = attrs.field(factory=list)

    def add(self, lines: str) -> None:
        """Take in lines of `what id value`."""
        for line in lines.splitlines():
            what, id_, value = line.split()
            match what:
                case "stored":
                    self.stored[int(id_)] = int(value)
                case "held":
                    self.held[int(id_)] = int(value)
                case _:
                    self.ended[int(id_)] = value

    @property
    def facts(self) -> int:
        """How much was acknowledged."""
        return len(self.stored) + len(self.held) + len(self.ended)

    def broken(self, store: Store) -> dict[str, list[str]]:
        """Compare with a store; returns each promise with what breaks it."""
        rows = {row.id: row for row in _rows(store)}
        return {
            "lost": [*self._lost(rows)],
            "corrupt": [*self._corrupt(rows)],
            "not_refused": [*self._not_refused(rows.values())],
            "miscounted": [*miscounted(store.counts(), rows.values())],
        }

    def _lost(self, rows: dict[int, JobRecord]) -> Iterator[str]:
        for id_ in self.stored.keys() - rows.keys():
            yield f"job {id_} was acknowledged and is gone"
        for id_, attempt in self.held.items():
            if id_ in rows and rows[id_].attempt < attempt:
                yield f"job {id_}: attempt {attempt} was handed out, it has {rows[id_].attempt}"
        for id_, state in self.ended.items():
            if id_ in rows and rows[id_].state.value != state:
                yield f"job {id_} was settled as {state}, it is {rows[id_].state.value}"

    def _corrupt(self, rows: dict[int, JobRecord]) -> Iterator[str]:
        for id_, checksum in self.stored.items():
            if id_ in rows and zlib.crc32(rows[id_].payload) != checksum:
                yield f"job {id_} has another payload"

    def _not_refused(self, rows: Iterable[JobRecord]) -> Iterator[str]:
        numbers = Counter(json.loads(row.payload)["n"] for row in rows)
        for number, count in numbers.items():
            if number in self.refused or count > 1:
                yield f"payload {number} is stored {count} times"


@attrs.define
class Workload:
    """Draws commits of every kind, and writes down what they answered.

    Attributes:
        draw: whence all draws come.
        book: what was acknowledged.
        number: the number of the last job; no two are to have the same.
    """

    draw: random.Random
    book: Book = attrs.field(factory=Book)
    number: int = 0
    _holding: list[Receipt] = attrs.field(factory=list, init=False)

    def step(self, store: Store) -> str:
        """Make one commit; returns the lines that the book took in.

        Raises:
            StoreError: the store could not do it.
        """
        group = self._group()
        try:
            answers = store.commit(group)
        except StoreError as error:
            if isinstance(error, StoreBroken):
                # Done or not: the receipts may be used up.
                self._holding.clear()
            else:
                self.book.refused |= {json.loads(job.payload)["n"] for job in group.enqueue}
            raise
        lines = "".join(f"{line}\n" for line in self._lines(group, answers))
        self.book.add(lines)
        return lines

    def _group(self) -> Group:
        draw, held = self.draw, self._holding
        ending = draw.sample(held, draw.randrange(len(held) + 1))
        return Group(
            settle=[self._settlement(receipt) for receipt in ending],
            extend=[Extension([each for each in held if each not in ending], 60.0)],
            enqueue=[self._job() for _ in range(draw.choice((0, 1, 1, 2, 9)))],
            claim=[ClaimRequest("mail", ("send",), draw.randint(1, 6), 60.0, "ada")],
            worker="ada",
            batches=draw.randrange(2),
        )

    def _settlement(self, receipt: Receipt) -> Settlement:
        verdict = self.draw.choice(_VERDICTS)
        return Settlement(
            receipt,
            verdict,
            value=b'"done"' if verdict is Verdict.OK else None,
            error=_BOOM if verdict in {Verdict.RETRY, Verdict.FAIL} else None,
            reason="discarded" if verdict is Verdict.FAIL else None,
        )

    def _job(self) -> NewJob:
        self.number += 1
        pad = "x" * int(_LARGEST ** self.draw.random())
        payload = json.dumps({"n": self.number, "pad": pad}).encode()
        return NewJob("mail", "send", payload, priority=self.draw.randrange(4), max_attempts=50)

    def _lines(self, group: Group, answers: Answers) -> Iterator[str]:
        for job, said in zip(group.enqueue, answers.enqueue, strict=True):
            yield f"stored {said.id} {zlib.crc32(job.payload)}"
        for settlement, settled in zip(group.settle, answers.settle, strict=True):
            self._holding.remove(settlement.receipt)
            if settled is not Settled.APPLIED:
                self.book.complaints.append(f"{settlement.receipt} was answered {settled.value}")
            elif settlement.verdict in _STATES:
                yield f"ended {settlement.receipt.job_id} {_STATES[settlement.verdict].value}"
        if any(each is Extended.STALE for extended in answers.extend for each in extended):
            self.book.complaints.append("a lease that was held was answered stale")
        for claimed in answers.claim[0].jobs:
            self._holding.append(claimed.receipt)
            yield f"held {claimed.receipt.job_id} {claimed.receipt.attempt}"


def busy(path: Path, durability: str = "full") -> SqliteStore:
    """Open a store that is checkpointed every few commits, so that many faults meet one."""
    store = SqliteStore(path, durability=durability)
    connect._WAL_LIMIT = _PAGES  # type: ignore[misc]
    store._here().writer._next_checkpoint = _CHECKPOINT
    return store


def _rows(store: Store) -> Iterator[JobRecord]:
    after = 0
    while page := store.find(JobFilter(), after=after, limit=1_000):
        yield from page
        after = page[-1].id
