"""Log what a queue does as JSON, with structlog or any formatter that knows fields.

Run:    python docs/examples/log_calls.py
Shows:  one record per call and per item that comes again, with its facts as fields;
        what is told of an item, `describe` says.
"""

from __future__ import annotations

import logging
import sys

import structlog
import trio

from batchq import Backoff, Batch, BatchedQueue, Result, RetryPolicy
from batchq.instrument.logs import LogWriter


def configure() -> None:
    """Let structlog write the records of the standard library, one JSON object a line."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler])


async def send(batch: Batch[str]) -> list[Result[None]]:
    """Stand in for a server that puts one message off."""
    return [
        Result.fail("busy") if message == "b" and batch.attempt == 1 else Result.ok()
        for message in batch
    ]


async def main() -> None:
    """Send three messages."""
    writer = LogWriter("mail", describe=str.upper)
    retry = RetryPolicy(max_retries=2, backoff=Backoff(initial_delay=0.1, jitter="none"))
    async with BatchedQueue[str, None](send, retry=retry, hooks=writer.hooks) as queue:
        await queue.enqueue_many(["a", "b", "c"])


if __name__ == "__main__":
    configure()
    trio.run(main)
