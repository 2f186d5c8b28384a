"""The file lock between processes: who gets it next. Two locks stand for two processes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from batchq.errors import StoreBusy
from batchq.stores.sqlite import lock as lock_module
from batchq.stores.sqlite.lock import FileLock

needs_turns = pytest.mark.skipif(lock_module._TURN < 0, reason="this system has no turns")


@pytest.fixture
def locks(tmp_path: Path) -> Iterator[tuple[FileLock, FileLock, FileLock]]:
    path = str(tmp_path / "jobs.db")
    with (
        closing(FileLock(path)) as one,
        closing(FileLock(path)) as two,
        closing(FileLock(path)) as three,
    ):
        yield one, two, three


Locks = tuple[FileLock, FileLock, FileLock]


def waits(lock: FileLock, seconds: float = 60.0) -> bool:
    """Let a lock be waited for as `wait_for` does, with one look; returns whether it got it."""
    lock._polite_until = time.monotonic() + seconds
    return lock.take()


def test_only_one_has_it(locks: Locks) -> None:
    one, two, _ = locks
    assert one.take()
    assert one.take()  # taken again by its holder, it stays one
    assert not two.take()
    one.release()
    assert two.take()


@needs_turns
def test_who_waits_gets_it_next_however_eager_its_last_holder_is(locks: Locks) -> None:
    eager, waiting, other = locks
    assert waits(eager)
    assert not waits(waiting)
    eager.release()
    eager._may_work_until = 0.0  # its moment is over
    assert not waits(eager)
    assert not waits(other)
    assert waits(waiting)


@needs_turns
def test_who_has_just_worked_may_work_on_for_a_moment(locks: Locks) -> None:
    eager, waiting, _ = locks
    assert waits(eager)
    assert not waits(waiting)
    eager.release()
    eager._may_work_until = time.monotonic() + 60
    assert waits(eager)
    eager.release()


@needs_turns
def test_who_is_stopped_while_it_has_the_turn_keeps_nobody_waiting_for_long(locks: Locks) -> None:
    holder, stopped, other = locks
    assert waits(holder)
    assert not waits(stopped)
    holder.release()
    started = time.monotonic()
    other.wait_for(other.take, 10)
    assert time.monotonic() - started < 2


@needs_turns
def test_who_gives_up_waiting_gives_its_turn_back(locks: Locks) -> None:
    holder, gives_up, other = locks
    assert waits(holder)
    with pytest.raises(StoreBusy, match=r"0\.01 s"):
        gives_up.wait_for(gives_up.take, 0.01)
    holder.release()
    assert waits(other)


def test_a_system_without_turns_has_the_lock_all_the_same(
    locks: Locks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_module, "_TURN", -1)
    one, two, _ = locks
    for holder, other in itertools.permutations((one, two)):
        assert waits(holder)
        assert not waits(other)
        holder.release()
