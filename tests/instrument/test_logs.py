"""What a queue does stands in log records, with fields."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
import structlog
import trio
import trio.testing

from batchq import Backoff, BatchedQueue, Result, RetryPolicy
from batchq.instrument.logs import LogWriter
from batchq.testing import ScriptedProcessor

RETRY = RetryPolicy(max_retries=1, backoff=Backoff(initial_delay=2, jitter="none"))


@pytest.fixture
def log() -> Iterator[StringIO]:
    """Collect the log as structlog writes records of the standard library: one JSON a line."""
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.ExtraAdder()],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(),
        ],
    )
    out = StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(formatter)
    logger = logging.getLogger("batchq.queue")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield out
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def records_of(log: StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


async def test_each_call_is_a_record_with_its_facts(
    autojump_clock: trio.testing.MockClock, log: StringIO
) -> None:
    send = ScriptedProcessor([Result.ok(), Result.fail("busy")], takes=0.5)
    writer = LogWriter("mail", describe=str.upper)
    async with BatchedQueue[str, None](
        send, batch_size=2, retry=RETRY, hooks=writer.hooks
    ) as queue:
        await queue.enqueue_many(["a", "b"])
        await queue.wait_idle()
    assert [record["queue"] for record in records_of(log)] == ["mail"] * len(records_of(log))
    records = [
        {key: value for key, value in record.items() if key not in {"queue", "level", "error"}}
        for record in records_of(log)
        if record["event"] != "drained"
    ]
    assert records == [
        {"event": "batch begins", "batch": 1, "items": 2, "attempt": 1, "trigger": "size"},
        {"event": "item comes again", "item": "B", "attempt": 1, "delay": 2.0},
        {"event": "batch done", "batch": 1, "items": 2, "failed": 1, "seconds": 0.5},
        {"event": "batch begins", "batch": 2, "items": 1, "attempt": 2, "trigger": "retry"},
        {"event": "batch done", "batch": 2, "items": 1, "failed": 0, "seconds": 0.5},
    ]


async def test_what_went_wrong_is_louder(
    autojump_clock: trio.testing.MockClock, log: StringIO
) -> None:
    send = ScriptedProcessor(OSError("down"))
    async with BatchedQueue[str, None](
        send,
        batch_size=1,
        max_queue_size=1,
        drop_policy="drop-oldest",
        hooks=LogWriter("mail").hooks,
    ) as queue:
        queue.pause()
        await queue.enqueue("a")
        await queue.enqueue("b")
        queue.resume()
    levels = {record["event"]: record["level"] for record in records_of(log)}
    assert levels["item dropped"] == "warning"
    assert levels["call failed"] == "error"
    assert levels["item failed"] == "warning"
    assert levels["batch begins"] == "debug"
    assert "'a'" not in log.getvalue(), "items are nobody else's business"
    assert queue.stats().hook_errors == 0


async def test_every_event_that_is_logged_can_be(
    autojump_clock: trio.testing.MockClock, log: StringIO
) -> None:
    queue = BatchedQueue[int, None](
        ScriptedProcessor(), batch_size=1, throttle=1, hooks=LogWriter("mail").hooks
    )
    async with queue:
        queue.pause()
        queue.resume()
        await queue.enqueue_many([1, 2])
    said = [record["event"] for record in records_of(log)]
    assert {"paused", "resumed", "throttled", "drained"} <= set(said)
    (drained,) = [record for record in records_of(log) if record["event"] == "drained"]
    assert drained["succeeded"] == 2
