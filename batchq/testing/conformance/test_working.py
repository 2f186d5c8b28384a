"""Queues that pause, and what workers say of themselves and their jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchq.core.job import Extended, Group, Receipt, Settled, Verdict
from batchq.core.record import Beat, Note, QueueRecord, WorkerRecord
from batchq.stores.base import Store
from batchq.testing.conformance.kit import (
    LEASE,
    HandClock,
    StoreKind,
    claim,
    claim_ids,
    claim_one,
    enqueue,
    extend,
    job,
    read,
    request,
    settle_one,
)

# ---- Pause


def test_nothing_of_a_paused_queue_is_claimed(store: Store, clock: HandClock) -> None:
    """J8: what runs goes on."""
    enqueue(store, job(), job(max_attempts=1), job(queue="other"))
    held = [taken.receipt for taken in claim(store, request()).jobs]
    enqueue(store, job())
    store.set_queue("mail", paused=True)
    assert store.queues() == [QueueRecord("mail", paused=True)]
    clock.now += LEASE
    for _ in range(2):
        claimed = claim(store)
        assert (claimed.jobs, claimed.buried, claimed.wait) == ([], 0, None)
    assert claim_ids(store, request(queue="other")) == [3]
    assert list(extend(store, held[0])) == [Extended.OK]
    assert settle_one(store, held[1]) is Settled.APPLIED
    store.set_queue("mail", paused=False)
    assert store.queues() == [QueueRecord("mail", paused=False)]
    assert claim_ids(store) == [4]


def test_a_pause_outlives_the_store_that_was_told(
    store_kind: StoreKind, tmp_path: Path, clock: HandClock
) -> None:
    """J8."""
    store = store_kind.open(tmp_path, clock)
    if store.info().durability == "memory":
        pytest.skip(f"{store_kind.name} lives as long as its process")
    enqueue(store, job())
    store.set_queue("mail", paused=True)
    store.close()
    store = store_kind.open(tmp_path, clock)
    assert claim(store).jobs == []
    store.close()


# ---- What workers say


def test_a_note_counts_while_its_receipt_is_current(store: Store, clock: HandClock) -> None:
    enqueue(store, job(), job())
    first, second = (taken.receipt for taken in claim(store).jobs)
    notes = [Note(first, 0.25, "page 1"), Note(Receipt(2, 7), 0.5), Note(Receipt(9, 1), 0.5)]
    assert list(store.record(notes)) == [True, False, False]
    assert list(store.record([Note(first, 0.5), Note(second, message="\udcff")])) == [True, True]
    assert (read(store, 1).progress, read(store, 1).note) == (0.5, "page 1")
    assert read(store, 2).progress is None
    settle_one(store, first, Verdict.RETRY)
    assert list(store.record([Note(first, 1.0)])) == [False]
    assert read(store, 1).progress == 0.5
    claim_one(store, request(limit=1))
    assert (read(store, 1).progress, read(store, 1).note) == (None, None)


def test_a_beat_says_who_works_here(store: Store, clock: HandClock) -> None:
    store.commit(Group(enqueue=[job()], worker="ada"))
    clock.now += 1
    beat = Beat(
        worker="ada", host="h", pid=7, version="1", queues={"mail": 5}, handlers=("send",), held=2
    )
    other = Beat(worker="bob", host="h", pid=8, version="1", queues={}, handlers=(), lag=0.5)
    store.beat(other)
    store.beat(beat)
    clock.now += 1
    store.beat(beat)
    assert store.workers() == [
        WorkerRecord("ada", 1, 0, clock.now, beat),
        WorkerRecord("bob", 0, 0, clock.now - 1, other),
    ]
    clock.now += 8 * 86_400
    store.clean({})
    assert store.workers() == []
