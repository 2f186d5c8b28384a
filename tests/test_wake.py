"""News of what other processes write: from a real file, by a real thread."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from batchq import QueueManager, StoreError
from batchq.core.job import Group
from batchq.ledger import Ledger
from batchq.stores.sqlite import SqliteStore
from batchq.wake import Wake, _Inotify, _Sign, _signs
from tests.jobs import new_job

LONG = 10.0  # it should not take this long [s]


@pytest.fixture(params=["inotify", "ticks"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "ticks":
        monkeypatch.setattr(sys, "platform", "elsewhere")
    elif sys.platform != "linux":
        pytest.skip("the kernel has no inotify")


@contextmanager
def woken(ledger: Ledger) -> Iterator[threading.Semaphore]:
    """Watch a store; the semaphore is released whenever there is news."""
    news = threading.Semaphore(0)
    wake = Wake(ledger, news.release)
    before = threading.active_count()
    wake.start()
    try:
        yield news
    finally:
        wake.stop()
        wait_until(lambda: threading.active_count() <= before)


def wait_until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + LONG
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.001)


@pytest.mark.usefixtures("way")
def test_what_another_connection_writes_is_told_and_own_writes_are_not(tmp_path: Path) -> None:
    mine, other = (Ledger(SqliteStore(tmp_path / "jobs.db")) for _ in range(2))
    with woken(mine) as news:
        for _ in range(3):
            other.commit_now(Group(enqueue=[new_job()]))
            assert news.acquire(timeout=LONG)
        mine.commit_now(Group(enqueue=[new_job()]))
        assert not news.acquire(timeout=0.2)
    mine.close()
    other.close()


@pytest.mark.usefixtures("way")
def test_files_may_come_and_go(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    first = Ledger(SqliteStore(path))
    with woken(first) as news:
        for _ in range(2):
            other = Ledger(SqliteStore(path))
            other.commit_now(Group(enqueue=[new_job()]))
            assert news.acquire(timeout=LONG)
            other.close()
    first.close()


def test_the_watch_of_files_that_are_not_there_yet_begins_when_they_come(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("the kernel has no inotify")
    path, bystander = tmp_path / "there", tmp_path / "not-ours"
    reader, writer = socket.socketpair()
    signs = _Inotify([str(path)], reader.fileno())
    seen = list[bool]()

    def watch() -> None:
        signs.arm()
        while signs.wait(None) is _Sign.WRITTEN:
            signs.arm()
            seen.append(True)

    thread = threading.Thread(target=watch)
    thread.start()
    bystander.write_text("no news")
    time.sleep(0.02)
    assert not seen
    for count in (1, 2):
        path.write_text("news")
        wait_until(lambda count=count: len(seen) >= count)  # type: ignore[misc]
        path.unlink()
        time.sleep(0.02)
        seen[count:] = []
    writer.close()
    thread.join(LONG)
    signs.close()
    reader.close()


@pytest.mark.usefixtures("way")
def test_a_store_in_trouble_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchq.wake._AFTER_TROUBLE", 0.01)
    mine, other = (Ledger(SqliteStore(tmp_path / "jobs.db")) for _ in range(2))
    trouble = iter([StoreError("away")] * 3)

    def changed(ledger: Ledger) -> bool:
        for error in trouble:
            raise error
        return ledger.call_now(lambda store: store.changed())

    monkeypatch.setattr(Ledger, "changed", changed)
    with woken(mine) as news:
        for _ in range(5):
            other.commit_now(Group(enqueue=[new_job()]))
            time.sleep(0.03)
        assert news.acquire(timeout=LONG)
    mine.close()
    other.close()


def test_a_worker_runs_at_once_what_another_process_stores(tmp_path: Path) -> None:
    """Found by polling alone, it would take a minute."""
    url = f"sqlite:///{tmp_path}/jobs.db"
    worker, producer = QueueManager(url, poll_interval=60), QueueManager(url)

    def work() -> int:
        return 7

    worker.handler(work)
    handler = producer.handler(work)
    worker.start_workers()
    try:
        time.sleep(0.3)  # its first claim has found nothing
        for _ in range(3):
            assert handler.enqueue_sync().result_sync(LONG) == 7
    finally:
        worker.stop_workers()
    worker.close()
    producer.close()


def test_where_the_kernel_cannot_watch_time_goes_by(tmp_path: Path) -> None:
    if sys.platform == "linux":
        reader, writer = socket.socketpair()
        with pytest.raises(OSError, match="No such file"):
            _Inotify([str(tmp_path / "no" / "folder")], reader.fileno())
        reader.close()
        writer.close()
    stop = threading.Event()
    with _signs([str(tmp_path / "no" / "folder")], stop, 0) as signs:
        assert signs.wait(None) is _Sign.WRITTEN
        stop.set()
        assert signs.wait(None) is _Sign.STOPPED
