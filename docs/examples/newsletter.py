"""Send a newsletter from a SQLite file, in batches: the durable tier.

Run:    python docs/examples/newsletter.py
Shows:  jobs are on disk when enqueue_many() returns; one call serves many of
        them, each has its own result, and what was put off comes again.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
import trio

from batchq import Backoff, Job, QueueManager, Result, RetryPolicy


class Letter(msgspec.Struct):
    """What is stored, as JSON."""

    to: str
    subject: str


async def newsletter(jobs: list[Job[Letter]]) -> list[Result[str]]:
    """Stand in for one SMTP connection; its server puts every fifth letter off once."""
    print(f"one connection for {len(jobs)} letters")
    await trio.sleep(0.05)
    return [
        Result.fail("451 try later") if job.id % 5 == 0 and job.attempt == 1 else Result.ok("250")
        for job in jobs
    ]


async def main(url: str) -> None:
    """Store thirty letters, and work until each has a result."""
    manager = QueueManager(url, poll_interval=0.05)
    retry = RetryPolicy(max_retries=3, backoff=Backoff(initial_delay=0.2))
    send = manager.batch_handler(batch_size=12, flush_interval=0.1, retry=retry)(newsletter)
    letters = [Letter(f"reader-{n}@example.org", "This week") for n in range(30)]
    jobs = await send.enqueue_many(letters)
    print(f"stored {len(jobs)} jobs")
    async with manager.working():
        answers = [await job.result(timeout=10) for job in jobs]
    print(f"{answers.count('250')} of {len(jobs)} letters sent")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        trio.run(main, f"sqlite:///{Path(folder, 'jobs.db')}")
