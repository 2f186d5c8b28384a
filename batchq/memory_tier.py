"""A handler with `tier="memory"`: its jobs go to a `BatchedQueue`, and are nowhere else.

Rule 1: the same code as in the durable tier: payloads are checked and copied through JSON,
the function gets them in the same way, and verdicts mean the same.
Where nothing is stored, a value may be one that JSON can't hold.
Rule 2: it takes jobs only while it works: inside `manager.working()` or `run()`.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final, Generic, TypeVar

import attrs
import trio

from batchq.bridge import Bell, forbid_event_loop, in_trio, run_blocking
from batchq.call_context import CancelReason
from batchq.calls import Calls
from batchq.core.batch import Batch
from batchq.core.job import PRIORITY_LEVELS, Job, NewJob, Undecoded
from batchq.core.job_options import JobQueueOptions
from batchq.core.result import Result
from batchq.errors import DrainTimeout, JobStopped, OptionError, QueueClosed, QueueError
from batchq.handle import Entry
from batchq.handler import AnyHandler
from batchq.hooks import JobHooks
from batchq.job_handle import Read
from batchq.queue import BatchedQueue
from batchq.stop import AFTER_GRACE, NOTICE, Stop

__all__ = ["EntryHandle", "MemoryIntake", "MemoryQueue"]

logger = logging.getLogger("batchq")

R = TypeVar("R")

_MOST_WAITING: Final = 10_000  # then producers wait
# Of a call that was stopped: its jobs come again when the queue has ended.
_NO_MORE: Final[Result[Any]] = Result.snooze(AFTER_GRACE)


@attrs.define(eq=False)
class EntryHandle(Generic[R]):
    """A job of the memory tier, as whoever enqueued it holds it.

    Attributes:
        id: its number, unique among its handler's jobs as long as the manager lives.
    """

    id: int
    _entry: Entry[Job[Any], R] = attrs.field(repr=False)
    _token: trio.lowlevel.TrioToken = attrs.field(repr=False)

    @property
    def status(self) -> str:
        """Where it is."""
        return self._entry.status.value

    async def result(self, timeout: float | None = None) -> R:  # noqa: ASYNC109
        """Wait for its value; under trio or asyncio.

        Raises:
            TimeoutError: it was not settled in time; it goes on.
            Exception: what it failed with.
        """
        seconds = math.inf if timeout is None else timeout
        if in_trio() and trio.lowlevel.current_trio_token() is self._token:
            with trio.move_on_after(seconds):
                return await self._entry.result()
            raise self._timed_out(seconds)
        # No thread waits meanwhile: there may be more who wait than threads.
        with self._bell() as bell:
            if await bell.wait(seconds):
                return self._entry.value()
        raise self._timed_out(seconds)

    def result_sync(self, timeout: float | None = None) -> R:
        """Do the same, blocking, in another thread than the queue's."""
        forbid_event_loop("result_sync()", "await job.result()")
        seconds = math.inf if timeout is None else timeout
        with self._bell() as bell:
            if bell.wait_sync(seconds):
                return self._entry.value()
        raise self._timed_out(seconds)

    @contextmanager
    def _bell(self) -> Iterator[Bell]:
        """Make a bell that is rung when it is settled; in another thread than the queue's."""
        bell, waiting = Bell(), trio.CancelScope()
        try:
            self._token.run_sync_soon(self._ring_at_the_end, bell, waiting)
        except trio.RunFinishedError:
            bell.ring()  # the queue has ended, and settled everything
        try:
            yield bell
        finally:
            # No task of the queue's waits on for one who has given up.
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(waiting.cancel)

    def _ring_at_the_end(self, bell: Bell, waiting: trio.CancelScope) -> None:
        if self._entry.settled:
            bell.ring()
        else:
            trio.lowlevel.spawn_system_task(self._wait_and_ring, bell, waiting)

    async def _wait_and_ring(self, bell: Bell, waiting: trio.CancelScope) -> None:
        with waiting:
            await self._entry.wait()
            bell.ring()

    def _timed_out(self, seconds: float) -> TimeoutError:
        return TimeoutError(f"job {self.id} was not settled within {seconds:g} s")


class MemoryQueue:
    """Works on the jobs of one handler, in memory."""

    def __init__(
        self, options: JobQueueOptions, handler: AnyHandler[Any], hooks: Sequence[JobHooks]
    ) -> None:
        """Make a queue that does not work yet."""
        self._handler = handler
        self._calls = Calls(lambda _: None)
        self._stop = Stop()
        self.queue: BatchedQueue[Job[Any], Any] = BatchedQueue(
            self._process,
            name=options.name,
            batch_size=options.batch_size,
            flush_interval=options.flush_interval,
            concurrency=options.concurrency,
            priority_levels=PRIORITY_LEVELS,
            max_queue_size=options.max_pending or _MOST_WAITING,
            drop_policy="block" if options.max_pending is None else "reject-new",
            retry=handler.retry,
            bisect=options.bisect,
            shutdown_timeout=None,
            hooks=list(hooks),
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run jobs until `stop`; then finish what is held, in the time that it gives."""
        async with self.queue:
            task_status.started()
            await self._stop.asked.wait()
            try:
                with self._stop.within:
                    await self.queue.drain()
                    return
                await self.queue.drain(0.0 if self._handler.is_async else NOTICE)
            except DrainTimeout as error:
                logger.warning("queue %r: %s", self.queue.name, error)

    def stop(self, grace: float) -> None:
        """Take no more, and end within `grace` [s], or soon after."""
        self._stop.ask(grace)

    @property
    def max_attempts(self) -> int:
        """Attempts that each of its jobs may make, at most [count]."""
        return 1 + self._handler.retry.max_retries

    def decode(self, content: bytes) -> object:
        """Read a payload."""
        return self._handler.signature.decode(content)

    def settle(self, job: Job[Any], result: Any) -> None:  # noqa: ANN401 - a Result of any type
        """Do what `job.settle` says; from any thread."""
        self._calls.settle(job.receipt, result)

    async def _process(self, batch: Batch[Job[Any]]) -> object:
        asked = partial(self._asked, trio.lowlevel.current_clock())
        if asked() is not None:  # nothing begins any more
            return [_NO_MORE] * len(batch)
        for job, entry in zip(batch, batch.entries, strict=True):
            job.attempt = job.used = entry.attempts + 1
        self._calls.begin(batch)
        try:
            return await self._handler.run(batch, asked)
        except JobStopped:
            return [_NO_MORE] * len(batch)
        finally:
            self._calls.end(batch)

    def _asked(self, clock: trio.abc.Clock) -> CancelReason | None:
        """Tell whether a call is to stop; from any thread."""
        return CancelReason.SHUTDOWN if clock.current_time() >= self._stop.at else None


@attrs.define(eq=False)
class MemoryIntake:
    """Takes the jobs of one handler in, while its queue works.

    Attributes:
        name: the handler's, for messages.
        working: the queue that takes them, and its event loop; None: none works.
    """

    name: str
    working: tuple[MemoryQueue, trio.lowlevel.TrioToken] | None = None
    _pid: int = attrs.field(default=0, init=False)
    _ids: Iterator[int] = attrs.field(factory=partial(itertools.count, 1), init=False)

    def begin(self, queue: MemoryQueue) -> None:
        """Let jobs in to a queue that works in this event loop.

        Raises:
            RuntimeError: one works already.
        """
        if self.working is not None and self._pid == os.getpid():
            raise RuntimeError(
                f"handler {self.name!r} of the memory tier works already; it has one queue"
            )
        self._pid = os.getpid()
        self.working = queue, trio.lowlevel.current_trio_token()

    def end(self) -> None:
        """Let nothing in."""
        self.working = None

    async def add(self, job: NewJob, read: Read) -> Any:  # noqa: ANN401 - see `Intake`
        """Admit a job; see `Intake`."""
        [handle] = await self.enqueue([job], read)
        return handle

    async def enqueue(self, jobs: Sequence[NewJob], read: Read) -> list[Any]:
        """Admit jobs; see `Intake`."""
        del read  # values are not stored: nothing is to be decoded
        queue, token = self._open()
        if in_trio() and trio.lowlevel.current_trio_token() is token:
            return await self._admit(jobs, queue, token)
        return await run_blocking(partial(self._admit_there, jobs, queue, token))

    def enqueue_sync(self, jobs: Sequence[NewJob], read: Read) -> list[Any]:
        """Do the same, blocking, in another thread than the queue's."""
        del read
        forbid_event_loop("enqueue_sync()", "await handler.enqueue(...)")
        queue, token = self._open()
        return self._admit_there(jobs, queue, token)

    def _open(self) -> tuple[MemoryQueue, trio.lowlevel.TrioToken]:
        # What worked in the parent of a forked process does not work here.
        if self.working is None or self._pid != os.getpid():
            raise self._closed()
        return self.working

    def _closed(self) -> QueueClosed:
        return QueueClosed(
            f"handler {self.name!r} is of the memory tier and takes jobs only while its"
            " manager works: inside 'async with manager.working():' or in run()"
        )

    def _admit_there(
        self, jobs: Sequence[NewJob], queue: MemoryQueue, token: trio.lowlevel.TrioToken
    ) -> list[Any]:
        """Admit jobs from another thread than the queue's."""
        try:
            return trio.from_thread.run(self._admit, jobs, queue, token, trio_token=token)
        except (trio.RunFinishedError, trio.Cancelled):
            # Its event loop has ended meanwhile, or ends: nobody cancelled this thread.
            raise self._closed() from None  # noqa: ASYNC104

    async def _admit(
        self, jobs: Sequence[NewJob], queue: MemoryQueue, token: trio.lowlevel.TrioToken
    ) -> list[Any]:
        handles: list[Any] = []
        for (priority, delay), run in itertools.groupby(jobs, _place):
            made = [self._job(new, queue) for new in run]
            try:
                entries = await queue.queue.enqueue_many(made, priority, delay=delay)
            except QueueError as error:
                admitted: Sequence[Any] = error.entries
                error.entries = [*handles, *_handles(made, admitted, token)]
                raise
            handles += _handles(made, entries, token)
        return handles

    def _job(self, new: NewJob, queue: MemoryQueue) -> Job[Any]:
        if new.max_attempts != queue.max_attempts:
            raise OptionError(
                f"handler {self.name!r} is of the memory tier, where max_retries is its own:"
                " using(max_retries=...) needs tier='durable'"
            )
        if new.key is not None or new.expires is not None or new.tags:
            raise OptionError(
                f"handler {self.name!r} is of the memory tier, which keeps no jobs:"
                " using(key=..., expires=..., tags=...) needs tier='durable'"
            )
        return Job(
            id=next(self._ids),
            attempt=0,
            queue=new.queue,
            handler=new.handler,
            priority=new.priority,
            used=0,
            max_attempts=new.max_attempts,
            enqueued_at=trio.current_time(),
            payload=Undecoded(new.payload, queue.decode),
            settle=queue.settle,
        )


def _place(new: NewJob) -> tuple[int, float]:
    return new.priority, new.delay


def _handles(
    jobs: Sequence[Job[Any]], entries: Sequence[Entry[Any, Any]], token: trio.lowlevel.TrioToken
) -> list[Any]:
    """Make the handles of those jobs, from the first on, that were admitted."""
    return [EntryHandle(job.id, entry, token) for job, entry in zip(jobs, entries, strict=False)]
