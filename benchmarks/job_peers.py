"""Other job queues that keep their jobs in SQLite, from end to end: as they come.

Each generator opens its peer, yields (the clock starts), and then stores jobs and runs them,
in one process, by the quickest way that its documentation shows. What they promise differs;
a line of each case says what is known of it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.harness import Reading, Stopwatch
from benchmarks.raw import a_file

__all__ = ["PEERS", "Item", "Peer", "letter", "measure"]

Item = dict[str, Any]


def letter(number: int) -> Item:
    """Return what a job is for: about 100 bytes as JSON."""
    return {
        "id": number,
        "to": "somebody@example.com",
        "subject": "The news of today",
        "text": "There is little.",
    }


Work = Callable[[str, int], Iterator[None]]


class Peer(NamedTuple):
    """Another job queue.

    Attributes:
        module: what has to be installed.
        work: stores and runs so many jobs in the file.
        beside: what it is, and how durable.
        reach: what ours / its own jobs per second are to be, now or soon and in the end.
    """

    module: str
    work: Work
    beside: str
    reach: tuple[float, float] = (5.0, 10.0)


def measure(work: Work, size: int) -> Reading:
    """Measure a peer."""
    with a_file() as path:
        steps = work(path, size)
        next(steps)
        with Stopwatch() as watch:
            for _ in steps:
                pass
        return watch.rate(size)


def huey(path: str, size: int) -> Iterator[None]:
    """Store tasks and execute them: SqliteHuey as it comes."""
    from huey import SqliteHuey  # noqa: PLC0415 - a peer, where it is installed

    app = SqliteHuey(filename=path, results=False)
    handled = 0

    @app.task()  # type: ignore[untyped-decorator]
    def letters(_: Item) -> None:
        nonlocal handled
        handled += 1

    yield
    for number in range(size):
        letters(letter(number))
    while (task := app.dequeue()) is not None:
        app.execute(task)
    assert handled == size


def litequeue(path: str, size: int) -> Iterator[None]:
    """Put, pop and finish messages."""
    from litequeue import LiteQueue  # noqa: PLC0415 - a peer, where it is installed

    queue = LiteQueue(path)
    yield
    for number in range(size):
        queue.put(json.dumps(letter(number)))
    handled = 0
    while (message := queue.pop()) is not None:
        json.loads(message.data)
        queue.done(message.message_id)
        handled += 1
    assert handled == size
    queue.close()


def persistqueue(path: str, size: int) -> Iterator[None]:
    """Put, get and acknowledge items."""
    from persistqueue import SQLiteAckQueue  # noqa: PLC0415 - a peer, where it is installed
    from persistqueue.serializers import json as as_json  # noqa: PLC0415

    queue = SQLiteAckQueue(str(Path(path).parent), serializer=as_json)
    yield
    for number in range(size):
        queue.put(letter(number))
    for _ in range(size):
        queue.ack(queue.get(block=False))
    assert queue.acked_count() == size
    queue.close()


def localqueue(path: str, size: int) -> Iterator[None]:
    """Put many, then get and acknowledge one after the other."""
    from localqueue import SimpleQueue  # noqa: PLC0415 - a peer, where it is installed

    queue: Any
    with SimpleQueue(str(Path(path).parent)) as queue:
        yield
        for first in range(0, size, 1_000):
            queue.put_many([letter(number) for number in range(first, min(first + 1_000, size))])
        for _ in range(size):
            job = queue.get()
            assert job.data
            queue.ack(job)


def simplebroker(path: str, size: int) -> Iterator[None]:
    """Write messages, and read a hundred at a time."""
    from simplebroker import Queue  # noqa: PLC0415 - a peer, where it is installed

    with Queue("letters", db_path=path, persistent=True) as queue:
        yield
        for number in range(size):
            queue.write(json.dumps(letter(number)))
        handled = 0
        while messages := queue.read_many(100):
            handled += len([json.loads(message) for message in messages])
        assert handled == size


def _gigq_letter(**_: object) -> None:
    """Do nothing: the handler, found by its name."""


def gigq(path: str, size: int) -> Iterator[None]:
    """Submit jobs, and process one after the other."""
    from gigq import Job, JobQueue, Worker  # noqa: PLC0415 - a peer, where it is installed

    logging.getLogger("gigq").setLevel(logging.ERROR)
    queue, worker = JobQueue(path), Worker(path)
    worker.logger.setLevel(logging.ERROR)
    yield
    for number in range(size):
        queue.submit(Job(name="letter", function=_gigq_letter, params=letter(number)))
    handled = 0
    while worker.process_one():
        handled += 1
    assert handled == size
    worker.close()
    queue.close()


def cairnq(path: str, size: int) -> Iterator[None]:
    """Submit tasks, and let its worker run them a hundred in a call."""
    from cairnq import CairnQ, Worker  # noqa: PLC0415 - a peer, where it is installed

    async def main() -> None:
        tasks, worker = CairnQ.sqlite(path), Worker.sqlite(path)
        handled = 0

        @worker.task("letters", batch=100)  # type: ignore[untyped-decorator]
        async def letters(contexts: list[Any]) -> list[None]:
            nonlocal handled
            handled += len(contexts)
            if handled == size:
                worker.stop()
            return [None] * len(contexts)

        async with tasks:
            for number in range(size):
                await tasks.submit("letters", letter(number))
            await worker.run()
        await worker.close()
        assert handled == size

    yield
    asyncio.run(main())


PEERS: Final[Sequence[Peer]] = (
    Peer("huey", huey, "huey as it comes: NORMAL; a killed worker's task is lost"),
    Peer("litequeue", litequeue, "litequeue as it comes: NORMAL"),
    Peer("persistqueue", persistqueue, "persist-queue's SQLiteAckQueue as it comes: FULL"),
    Peer("localqueue", localqueue, "localqueue as it comes, in Rust: NORMAL", (3.0, 5.0)),
    Peer("simplebroker", simplebroker, "simplebroker: FULL; a killed reader's messages are lost"),
    Peer("gigq", gigq, "gigq as it comes: FULL"),
    Peer("cairnq", cairnq, "cairnq as it comes: FULL; a hundred tasks in a call"),
)
