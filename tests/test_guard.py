"""The guard: leases are kept while a handler blocks the event loop. Real time, threads, files."""

from __future__ import annotations

import functools
import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from batchq import Job, JobHooks, JobState, QueueManager, StoreBusy
from batchq.core.job import Answers, Group
from batchq.guard import Guard, _code_of
from batchq.ledger import Ledger
from tests.jobs import jobs_in

LEASE = 0.6


def blocking(tmp_path: Path, **options: Any) -> tuple[QueueManager, Any, list[int]]:  # noqa: ANN401 - of a handler
    """Make a manager, and a handler that blocks its event loop for so long [s]."""
    runs = list[int]()
    manager = QueueManager(f"sqlite:///{tmp_path}/jobs.db", lease=LEASE, poll_interval=0.1)

    @manager.batch_handler(name="crunch", batch_size=1, flush_interval=0, **options)
    async def crunch(jobs: list[Job[float]]) -> None:
        runs.append(jobs[0].attempt)
        time.sleep(jobs[0].payload)  # noqa: ASYNC251 - blocks on purpose

    return manager, crunch, runs


def work_beside(tmp_path: Path, handler: Any, seconds: float, *, rival: float) -> list[int]:  # noqa: ANN401
    """Let a rival work for so long in another loop; return the attempts that it ran."""
    stolen = list[int]()
    other = QueueManager(f"sqlite:///{tmp_path}/jobs.db", lease=LEASE, poll_interval=0.05)

    @other.batch_handler(name="crunch", batch_size=1, flush_interval=0)
    async def take(jobs: list[Job[float]]) -> None:
        stolen.append(jobs[0].attempt)

    handler.enqueue_sync(seconds)
    time.sleep(0.3)  # the blocking one has it
    other.start_workers()
    time.sleep(rival)
    other.stop_workers()
    other.close()
    return stolen


def test_a_blocked_event_loop_keeps_its_leases(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager, crunch, runs = blocking(tmp_path)
    manager.start_workers()
    try:
        stolen = work_beside(tmp_path, crunch, 4 * LEASE, rival=4 * LEASE)
    finally:
        manager.stop_workers()
    assert (stolen, runs) == ([], [1])
    [job] = jobs_in(manager)
    assert (job.state, job.attempt) == (JobState.COMPLETED, 1)
    said = [line.getMessage() for line in caplog.records if "from turning" in line.getMessage()]
    assert len(said) == 1
    assert "handler 'crunch' keeps the event loop from turning" in said[0]
    assert "test_guard.py:" in said[0]
    manager.close()


def test_for_no_longer_than_the_handlers_timeout(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lost = list[int]()
    hooks = JobHooks(on_lease_lost=lambda job: lost.append(job.attempt))
    manager, crunch, _ = blocking(tmp_path, timeout=1.5 * LEASE, hooks=hooks)
    manager.start_workers()
    try:
        stolen = work_beside(tmp_path, crunch, 5 * LEASE, rival=5 * LEASE)
    finally:
        manager.stop_workers()
    assert stolen == [2]
    assert lost == [1]
    assert "its leases are kept no longer" in caplog.text
    [job] = jobs_in(manager)
    assert (job.state, job.attempt) == (JobState.COMPLETED, 2)  # the rival's
    manager.close()


def test_what_was_done_after_the_lease_ran_out_counts_if_nobody_else_has_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager, crunch, runs = blocking(tmp_path, timeout=LEASE, concurrency=1)
    manager.start_workers()
    try:
        crunch.enqueue_sync(3 * LEASE).result_sync(10)
    finally:
        manager.stop_workers()
    assert runs == [1]
    [job] = jobs_in(manager)
    assert (job.state, job.attempt) == (JobState.COMPLETED, 1)
    assert "its leases are kept no longer" in caplog.text
    manager.close()


def test_it_does_nothing_while_the_loop_turns(tmp_path: Path) -> None:
    manager = QueueManager(f"sqlite:///{tmp_path}/jobs.db", lease=0.3, poll_interval=0.1)
    looks = list[int]()
    look = Guard.look

    def counted(guard: Guard) -> None:
        looks.append(1)
        look(guard)

    @manager.handler
    async def work() -> None:
        await trio.sleep(1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Guard, "look", counted)
        patch.setattr(Guard, "_keep", None)  # called, it would raise
        manager.start_workers()
        work.enqueue_sync().result_sync(5)
        manager.stop_workers()
    assert looks
    manager.close()


class Crunch:
    async def __call__(self, items: list[int]) -> None: ...


def test_a_handlers_code_is_found_behind_wrappers(caplog: pytest.LogCaptureFixture) -> None:
    async def plain(items: list[int], more: int = 0) -> None: ...

    @functools.wraps(plain)
    async def wrapped(items: list[int]) -> None: ...

    code = plain.__code__
    assert _code_of(plain) is code
    assert _code_of(wrapped) is code
    assert _code_of(functools.partial(functools.partial(plain, more=1))) is code
    assert _code_of(Crunch()) is Crunch.__call__.__code__
    assert _code_of(len) is None
    assert caplog.get_records("call") == []
    logging.getLogger("batchq").debug("nothing was said")


def test_a_guard_that_cannot_extend_says_so_once_the_loop_turns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = list[Exception]()
    manager, crunch, runs = blocking(tmp_path, hooks=JobHooks(on_store_error=told.append))
    commit = Ledger.commit_now

    def refuse(ledger: Ledger, group: Group) -> Answers:
        if threading.current_thread().name == "batchq-guard":
            raise StoreBusy("locked")
        return commit(ledger, group)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "commit_now", refuse)
        manager.start_workers()
        crunch.enqueue_sync(0.7 * LEASE).result_sync(10)
        manager.stop_workers()
    assert runs == [1]
    assert told
    assert {str(error) for error in told} == {"locked"}
    assert "the store could not do it: locked" in caplog.text
    manager.close()
