"""Jobs that kill their workers: they run alone, one per process, and no more than they may."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from batchq import Job, JobState, QueueManager
from batchq.core.job import Group
from tests.jobs import WatchedStore, claim, jobs_in


@pytest.fixture
def store() -> WatchedStore:
    return WatchedStore()


async def crashed(store: WatchedStore, queue: str, times: int) -> None:
    """Let claims of all jobs of a queue run out so many times."""
    for _ in range(times):
        taken = [
            store.commit(Group(claim=[claim(1, queue=queue, lease=1)])).claim[0].jobs
            for _ in range(len(jobs_in(store)))
        ]
        assert all(taken)
        await trio.sleep(1)


async def test_a_suspect_runs_alone_and_others_share_a_call(
    store: WatchedStore, autojump_clock: MockClock
) -> None:
    calls = list[list[int]]()
    manager = QueueManager(store, poll_interval=0.5)

    @manager.batch_handler(batch_size=10, flush_interval=0.25, concurrency=3)
    async def work(jobs: list[Job[int]]) -> None:
        calls.append([job.payload for job in jobs])
        await trio.sleep(1)

    await work.enqueue_many(range(3))
    await crashed(store, "work", 2)
    await work.enqueue_many(range(3, 6))
    async with manager.working():
        await trio.sleep(20)
    assert sorted(calls) == [[0], [1], [2], [3, 4, 5]]
    assert {job.state for job in jobs_in(store)} == {JobState.COMPLETED}


@pytest.mark.parametrize("shared", [True, False], ids=["one queue", "two queues"])
async def test_a_process_has_one_suspect_at_a_time(
    store: WatchedStore, autojump_clock: MockClock, *, shared: bool
) -> None:
    running, most = list[int](), list[int]()
    manager = QueueManager(store, poll_interval=0.25)

    async def run(number: int) -> None:
        running.append(number)
        most.append(len(running))
        await trio.sleep(1)
        running.remove(number)

    first = manager.handler(name="a")(run)
    second = first if shared else manager.handler(name="b")(run)
    await first.enqueue(1)
    await crashed(store, "a", 2)
    if not shared:
        store_of_b = WatchedStore.commit  # its only job so far is of the other queue
        await second.enqueue(2)
        for _ in range(2):
            store_of_b(store, Group(claim=[claim(1, queue="b", lease=1)]))
            await trio.sleep(1)
    async with manager.working():
        await trio.sleep(10)
    assert set(most) == {1}
    assert {job.state for job in jobs_in(store)} == {JobState.COMPLETED}


APP = """
    import os, signal, sys
    from batchq import Job, QueueManager, RetryPolicy

    manager = QueueManager(sys.argv[1], lease=0.3, poll_interval=0.05)

    @manager.batch_handler(batch_size=4, flush_interval=0.05, retry=RetryPolicy(3))
    async def work(jobs: list[Job[int]]) -> None:
        for job in jobs:
            print(job.payload, job.attempt, len(jobs), flush=True)
        if any(job.payload == 0 for job in jobs):
            os.kill(os.getpid(), signal.SIGKILL)

    manager.run()
"""


def test_a_job_that_kills_its_process_fails_after_exactly_its_attempts(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    app, out = tmp_path / "app.py", (tmp_path / "out").open("a")
    app.write_text(textwrap.dedent(APP))
    manager = QueueManager(url)

    @manager.batch_handler
    async def work(items: list[int]) -> None: ...

    work.using(max_retries=3).enqueue_many_sync(range(4))
    deaths, ends = 0, time.monotonic() + 60
    while any(not job.state.final for job in jobs_in(manager)):
        assert time.monotonic() < ends
        worker = subprocess.Popen([sys.executable, str(app), url], stdout=out, cwd=Path.cwd())
        while worker.poll() is None and time.monotonic() < ends:
            if all(job.state.final for job in jobs_in(manager)):
                os.kill(worker.pid, signal.SIGTERM)
                worker.wait(20)
            time.sleep(0.02)
        deaths += worker.returncode == -signal.SIGKILL
    out.close()
    poison, *innocent = jobs_in(manager)
    assert (poison.state, poison.reason, poison.used) == (JobState.FAILED, "crashed", 4)
    assert deaths == 4
    runs = [tuple(map(int, line.split())) for line in (tmp_path / "out").read_text().splitlines()]
    assert [attempt for job, attempt, _ in runs if job == 0] == [1, 2, 3, 4]
    assert [size for job, _, size in runs if job == 0][2:] == [1, 1]  # a suspect runs alone
    assert {job.state for job in innocent} == {JobState.COMPLETED}
    assert all(job.used <= 3 for job in innocent)
    manager.close()
