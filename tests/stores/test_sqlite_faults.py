"""The SQLite store among other processes, on failing disks, after a new boot."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from batchq.core.job import Group, JobKey, Receipt, Settled, Settlement, Verdict
from batchq.core.lifecycle import JobState
from batchq.core.record import JobFilter
from batchq.errors import StoreBroken, StoreBusy, StoreFull
from batchq.stores.sqlite import SqliteStore
from batchq.testing.conformance.kit import (
    BOOM,
    HandClock,
    claim,
    claim_ids,
    enqueue,
    job,
    request,
    settle_one,
)
from tests.stores.sqlite_kit import forked, raw, succeeded

# A forked child runs nothing of the test but what it is given.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(path)) as opened:
        yield opened


# ---- Several processes


def test_a_forked_child_opens_its_own_connections(store: SqliteStore, path: Path) -> None:
    enqueue(store, job(), job())
    store.counts()
    parents = store._here()

    def child() -> None:
        assert claim_ids(store, request(limit=1, worker="child")) == [1]
        assert store.counts() == {"mail": {JobState.PENDING: 1, JobState.PROCESSING: 1}}
        assert store._here().writer.connection is not parents.writer.connection
        store.close()

    assert succeeded(forked(child))
    assert path.with_name("jobs.db-wal").stat().st_size > 0  # the child's close took nothing away
    assert claim_ids(store, request(worker="parent")) == [2]
    assert store._here() is parents


def test_what_a_forked_child_stores_outlives_the_end_of_its_parents_connections(
    store: SqliteStore, path: Path
) -> None:
    enqueue(store, job())
    store.counts()
    ours, theirs = socket.socketpair()

    def child() -> None:
        enqueue(store, job())
        theirs.send(b"stored")
        theirs.recv(1)
        enqueue(store, job())

    pid = forked(child)
    ours.recv(6)
    store.close()  # the last one to close takes the WAL away: this must not be the last
    ours.send(b"!")
    assert succeeded(pid)
    with closing(SqliteStore(path)) as reopened:
        assert reopened.counts() == {"mail": {JobState.PENDING: 3}}
    ours.close()
    theirs.close()


def test_a_fork_waits_until_no_other_thread_is_in_a_transaction(store: SqliteStore) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def work() -> None:
        with store._here().writer.transaction():
            inside.set()
            go_on.wait(5)

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait(5)
    threading.Timer(0.2, go_on.set).start()
    assert succeeded(forked(lambda: enqueue(store, job())))
    thread.join()
    assert store.counts() == {"mail": {JobState.PENDING: 1}}


def test_a_forked_child_does_not_keep_the_lock_of_a_parent_that_died(path: Path) -> None:
    store = SqliteStore(path, patience=5)
    reading, writing = os.pipe()

    def parent() -> None:
        with store._here().writer.transaction():
            orphan = forked(lambda: time.sleep(20))
            os.write(writing, b"%d" % orphan)
            os.kill(os.getpid(), signal.SIGKILL)

    store.close()
    store = SqliteStore(path, patience=5)
    os.waitpid(forked(parent), 0)
    orphan = int(os.read(reading, 20))
    try:
        assert list(enqueue(store, job())) == [1]
    finally:
        os.kill(orphan, signal.SIGKILL)
        store.close()
        os.close(reading)
        os.close(writing)


def test_a_locked_database_is_waited_for_and_then_said_to_be_busy(path: Path) -> None:
    with closing(SqliteStore(path, patience=0.1)) as store:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            started = time.monotonic()
            with pytest.raises(StoreBusy, match=r"0\.1 s"):
                enqueue(store, job())
            assert 0.1 <= time.monotonic() - started < 2
            assert store.counts() == {}  # who reads does not wait
        assert list(enqueue(store, job())) == [1]


def test_processes_that_write_at_once_take_turns(path: Path) -> None:
    SqliteStore(path).close()
    until = time.time() + 1.2

    def child(name: str) -> None:
        with closing(SqliteStore(path, durability="process")) as store:
            while time.time() < until:
                store.commit(Group(enqueue=[job()], worker=name))

    assert succeeded(*(forked(lambda name=name: child(name)) for name in "abcd"))  # type: ignore[misc]
    with closing(SqliteStore(path)) as store:
        commits = [worker.commits for worker in store.workers()]
        assert sum(commits) == store.counts()["mail"][JobState.PENDING]
    assert len(commits) == 4
    # Not starved is what counts: with SQLite's own waiting it is thousands to one.
    assert max(commits) < 20 * min(commits)


def test_of_eight_processes_that_store_one_key_one_succeeds(path: Path) -> None:
    """J9: again and again, as jobs of that key end."""
    SqliteStore(path).close()
    until = time.time() + 1.0

    def produce() -> None:
        with closing(SqliteStore(path, durability="process")) as store:
            while time.time() < until:
                store.commit(Group(enqueue=[job(key=JobKey("same")), job()]))
                for taken in claim(store, request(limit=1)).jobs:
                    settle_one(store, taken.receipt)

    assert succeeded(*(forked(produce) for _ in range(8)))
    with closing(sqlite3.connect(path)) as connection:
        held = connection.execute("SELECT count(*) FROM batchq_jobs WHERE holds_key = 1")
        assert held.fetchone()[0] <= 1
        rows = connection.execute(
            "SELECT enqueued_at, finished_at FROM batchq_jobs WHERE key IS NOT NULL ORDER BY id"
        ).fetchall()
    assert len(rows) > 1
    ends = [row[1] for row in rows]
    assert all(end <= begin for end, (begin, _) in zip(ends, rows[1:], strict=False))


def test_a_writer_that_is_killed_leaves_whole_groups(path: Path) -> None:
    """J1: what was answered is there; of what was not, all or nothing."""
    group = 50
    for pause in (0.02, 0.05, 0.09):
        SqliteStore(path).close()
        reading, writing = os.pipe()

        def child(writing: int = writing) -> None:
            store = SqliteStore(path)
            while True:
                ids = enqueue(store, *(job(b"x" * 2_000) for _ in range(group)))
                os.write(writing, b"%d\n" % ids[-1])

        pid = forked(child)
        answered = os.read(reading, 20)
        time.sleep(pause)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(writing)
        while more := os.read(reading, 65_536):
            answered += more
        os.close(reading)
        last = int(answered.split()[-1])
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        with closing(SqliteStore(path)) as store:
            stored = store.counts()["mail"][JobState.PENDING]
            assert last <= stored <= last + group
            assert stored % group == 0


def test_changed_says_that_another_process_has_written(store: SqliteStore, path: Path) -> None:
    assert not store.changed()
    with closing(SqliteStore(path)) as other:
        enqueue(other, job())
        assert store.changed()
        assert not store.changed()
        claim(other, request("nobody"))
        assert not store.changed()


# ---- What a commit costs


def test_an_idle_commit_writes_nothing(store: SqliteStore, path: Path) -> None:
    enqueue(store, job(delay=60))
    receipt = Receipt(1, 1)
    wal = path.with_name("jobs.db-wal")
    before = wal.stat().st_mtime_ns, wal.read_bytes()
    for _ in range(3):
        store.commit(Group(claim=[request()], settle=[Settlement(receipt, Verdict.OK)], worker="w"))
    assert (wal.stat().st_mtime_ns, wal.read_bytes()) == before
    assert store.workers() == []


def test_the_wal_is_emptied_now_and_then(path: Path) -> None:
    with closing(SqliteStore(path, durability="process")) as store:
        for _ in range(200):
            enqueue(store, *(job(b"x" * 1_000) for _ in range(100)))
        assert path.stat().st_size > 16 * 2**20
        assert path.with_name("jobs.db-wal").stat().st_size < 16 * 2**20


def test_the_wal_of_one_huge_commit_does_not_stay(path: Path) -> None:
    wal = path.with_name("jobs.db-wal")
    with closing(SqliteStore(path, durability="process")) as store:
        enqueue(store, *(job(b"x" * 2**20) for _ in range(100)))
        assert wal.stat().st_size > 100 * 2**20
        for _ in range(80):
            enqueue(store, job())
        assert wal.stat().st_size <= 64 * 2**20


# ---- The clock


def test_processes_share_one_clock(store: SqliteStore, path: Path) -> None:
    with closing(SqliteStore(path)) as other:
        first, second, third = store.now(), other.now(), store.now()
    assert first <= second <= third


def test_a_new_boot_goes_on_in_time_and_voids_every_lease(path: Path) -> None:
    ahead = time.time() + 10_000
    clock = HandClock(ahead)
    with closing(SqliteStore(path, clock=clock)) as store:
        enqueue(store, job(), job(), job(delay=60))
        claim(store, request(limit=1, lease=3600))
    raw(path, "DELETE FROM batchq_clock")
    raw(path, "INSERT INTO batchq_clock VALUES ('another boot', 12345)")
    with closing(SqliteStore(path)) as store:
        assert ahead <= store.now() < ahead + 60  # not the wall clock: it is behind
        [stalled] = store.find(JobFilter(status="stalled"))
        [scheduled] = store.find(JobFilter(status="scheduled"))
        assert (stalled.id, scheduled.id) == (1, 3)
        assert scheduled.due_at == ahead + 60
        receipts = [taken.receipt for taken in claim(store).jobs]
        assert set(receipts) == {Receipt(1, 2), Receipt(2, 1)}
        assert settle_one(store, Receipt(1, 1)) is Settled.STALE
    with closing(SqliteStore(path)) as store:  # the same boot
        assert store.find(JobFilter(status="stalled")) == []
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM batchq_clock").fetchone() == (1,)


def test_of_several_that_open_first_in_a_new_boot_one_sets_the_clock(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        enqueue(store, *(job() for _ in range(20)))
        claim(store, request(limit=10, lease=3600))
    raw(path, "UPDATE batchq_clock SET boot_id = 'another boot', offset = offset + 1e6")
    reading, writing = os.pipe()
    go = time.monotonic() + 0.2

    def child() -> None:
        time.sleep(max(0.0, go - time.monotonic()))
        with closing(SqliteStore(path)) as store:
            offset = store.now() - time.clock_gettime(time.CLOCK_BOOTTIME)
            os.write(writing, b"%.3f\n" % offset)
            assert len(claim_ids(store, request(limit=5, lease=3600))) == 5  # none twice

    assert succeeded(*(forked(child) for _ in range(4)))
    os.close(writing)
    offsets = [float(line) for line in os.read(reading, 1_000).split()]
    os.close(reading)
    assert len(offsets) == 4
    assert max(offsets) - min(offsets) < 0.01
    with closing(SqliteStore(path)) as store:
        assert {row.attempt for row in store.find(JobFilter())} == {1, 2}
        assert sum(row.attempt for row in store.find(JobFilter())) == 30


# ---- The disk


def test_a_full_disk_refuses_whole_groups_and_recovers(store: SqliteStore) -> None:
    enqueue(store, job())
    [taken] = claim(store).jobs
    connection = store._here().writer.connection
    connection.execute("PRAGMA max_page_count = 40")
    with pytest.raises(StoreFull, match="no space"):
        store.commit(
            Group(
                settle=[Settlement(taken.receipt, Verdict.FAIL, error=BOOM)],
                enqueue=[job(b"x" * 10_000) for _ in range(100)],
                worker="w",
            )
        )
    assert store.counts() == {"mail": {JobState.PROCESSING: 1}}
    assert (store.errors(), store.workers()) == ([], [])
    assert settle_one(store, taken.receipt) is Settled.APPLIED
    connection.execute("PRAGMA max_page_count = 1000000")
    assert len(enqueue(store, *(job(b"x" * 10_000) for _ in range(100)))) == 100


def test_a_disk_that_fails_breaks_the_store_for_good(path: Path) -> None:
    def child() -> None:
        store = SqliteStore(path)
        enqueue(store, job())
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limit = path.with_name("jobs.db-wal").stat().st_size + 20_000
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        for _ in range(2):
            with pytest.raises(StoreBroken):
                enqueue(store, *(job(b"x" * 1_000) for _ in range(1_000)))
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        store.close()

    assert succeeded(forked(child))
    with closing(SqliteStore(path)) as store:
        assert store.counts() == {"mail": {JobState.PENDING: 1}}
