"""Plain functions as handlers: they run in threads, in real time."""

from __future__ import annotations

import threading

import pytest
import trio

from batchq import JobFailed, QueueManager, Result, RetryPolicy


def test_a_plain_function_runs_in_a_thread_and_its_late_return_is_a_failure() -> None:
    async def main() -> None:
        manager = QueueManager("memory:")
        threads = list[str]()

        @manager.handler(timeout=0.05, retry=RetryPolicy(max_retries=0))
        def slow(seconds: float) -> int:
            threads.append(threading.current_thread().name)
            threading.Event().wait(seconds)
            return 7

        async with manager.working():
            late, quick = await slow.enqueue(0.2), await slow.enqueue(0.0)
            assert await quick.result(5) == 7
            with pytest.raises(JobFailed, match="BatchTimeout: handler 'slow' took longer"):
                await late.result(5)
        assert threading.main_thread().name not in threads

    trio.run(main)


def test_a_plain_batch_function_runs_in_a_thread_and_others_go_on_meanwhile() -> None:
    async def main() -> None:
        manager, go_on = QueueManager("memory:"), threading.Event()

        @manager.batch_handler(batch_size=2)
        def send(items: list[int]) -> list[Result[int]]:
            go_on.wait(10)
            return [Result.ok(item * 2) for item in items]

        @manager.handler
        async def release() -> None:
            go_on.set()

        async with manager.working():
            jobs = await send.enqueue_many([1, 2])
            await release.enqueue()
            assert [await job.result(10) for job in jobs] == [2, 4]

    trio.run(main)


def test_as_many_threads_run_as_the_queue_has_slots() -> None:
    async def main() -> None:
        manager, together = QueueManager("memory:"), threading.Barrier(45)

        @manager.handler(concurrency=45)  # more than the default limiter of trio lets run
        def meet() -> int:
            return together.wait(20)

        async with manager.working():
            jobs = [await meet.enqueue() for _ in range(45)]
            assert sorted([await job.result(20) for job in jobs]) == list(range(45))

    trio.run(main)


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        (SystemExit("gone"), r"called sys\.exit\('gone'\)"),
        (KeyboardInterrupt(), r"raised KeyboardInterrupt\(\)"),  # no Ctrl-C arrives in a thread
    ],
    ids=["exit", "interrupt"],
)
def test_a_plain_function_that_would_end_the_program_fails_its_job_and_ends_nothing(
    ends: BaseException, told: str
) -> None:
    async def main() -> None:
        manager = QueueManager("memory:")

        @manager.handler(retry=RetryPolicy(max_retries=0))
        def leave() -> None:
            raise ends

        async with manager.working():
            job = await leave.enqueue()
            with pytest.raises(JobFailed, match=told):
                await job.result(5)

    trio.run(main)
