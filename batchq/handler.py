"""A registered function: it stays a function, and jobs can be enqueued for it.

    send(letters)                  calls it, here and now
    await send.enqueue(letter)     checks and encodes the letter; an intake takes the job
    run(batch)                     a queue has a batch of its jobs: decode, call, answer

Rule 1: what is wrong with a payload is found before anything is stored.
Rule 2: a job whose payload can't be read fails alone; the function gets the others.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import (
    AsyncIterable,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from functools import cached_property, partial
from typing import Any, Generic, ParamSpec, Self, TypeVar, Unpack

import attrs
import trio

from batchq.bulk import chunks, each_chunk, hinted, saying
from batchq.call_context import Asked, CancelReason, Context
from batchq.core.batch import Batch
from batchq.core.checks import is_async
from batchq.core.job import Job, JobKey, NewJob
from batchq.core.payload import Signature
from batchq.core.result import Result
from batchq.core.retry import RetryPolicy
from batchq.core.using import Using, UsingOptions
from batchq.errors import (
    BatchTimeout,
    ContractError,
    JobStopped,
    PayloadError,
)
from batchq.exits import fail_instead
from batchq.job_handle import Intake, JobHandle

__all__ = ["AnyHandler", "BatchHandler", "Handler"]

logger = logging.getLogger("batchq")

P = TypeVar("P")
R = TypeVar("R")
Args = ParamSpec("Args")


@attrs.define(eq=False)
class _Limit:
    """How long one call may take, and why else it is to stop; asked from any thread."""

    timeout: float | None
    others: Asked
    ends_at: float = attrs.field(init=False)
    _clock: trio.abc.Clock = attrs.field(factory=trio.lowlevel.current_clock, init=False)

    def __attrs_post_init__(self) -> None:
        self.ends_at = trio.current_time() + (math.inf if self.timeout is None else self.timeout)

    @property
    def over(self) -> bool:
        return self._clock.current_time() >= self.ends_at

    def asked(self) -> CancelReason | None:
        return self.others() or (CancelReason.TIMEOUT if self.over else None)


@attrs.define(eq=False, kw_only=True)
class AnyHandler(Generic[R]):
    """What both kinds of handler are: a function under a name, and where its jobs go.

    Attributes:
        name: what its jobs are stored under.
        aliases: other names whose jobs it runs.
        queue: the queue its jobs wait in.
        takes_many: whether one call runs many jobs.
        retry: when a failed job is tried again.
        timeout: longest call [s]; None is no limit.
        priority: the level of its jobs [0 highest .. 9].
        signature: what its payloads and values look like.
    """

    function: Callable[..., Any] = attrs.field(repr=False)
    name: str
    aliases: tuple[str, ...] = ()
    queue: str
    takes_many: bool
    retry: RetryPolicy
    timeout: float | None
    priority: int
    signature: Signature = attrs.field(repr=False)
    _intake: Intake = attrs.field(repr=False)
    _using: Using = attrs.field(factory=Using, repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The names whose jobs it runs, its own first."""
        return (self.name, *self.aliases)

    @cached_property
    def is_async(self) -> bool:
        """Whether its function runs in the event loop; a plain one runs in a thread."""
        return is_async(self.function)

    def using(self, **options: Unpack[UsingOptions]) -> Self:
        """Return the same handler with options for the jobs that are enqueued through it.

        Args:
            options: `delay` [s], `priority` [0 highest .. 9, or a name], `max_retries`,
                `key`, `expires` [s], `tags`; see `UsingOptions`.

        Raises:
            OptionError: a value is out of its range.
        """
        return attrs.evolve(self, using=self._using.changed(**options))

    def new_job(self, payload: object) -> NewJob:
        """Check and encode a payload, with what `using` says.

        Raises:
            PayloadError: it does not fit; says where.
        """
        return NewJob(self.queue, self.name, self.signature.encode(payload), *self._terms)

    @cached_property
    def _terms(self) -> tuple[int, float, int, JobKey | None, float | None, tuple[str, ...]]:
        """What follows the payload in every new job, in `NewJob`'s order; worked out once."""
        using = self._using
        retries = self.retry.max_retries if using.max_retries is None else using.max_retries
        return (
            self.priority if using.priority is None else using.priority,
            using.delay or 0.0,
            1 + retries,
            None if using.key is None else JobKey(using.key),
            using.expires,
            using.tags or (),
        )

    async def add(self, payload: object) -> JobHandle[R]:
        """Store a job whose payload is given as such; see `QueueManager.add_job`."""
        return await self._intake.add(self.new_job(payload), self.signature.decode_value)  # type: ignore[no-any-return]  # of R: `decode_value` checks

    def add_sync(self, payload: object) -> JobHandle[R]:
        """Do the same, blocking."""
        return self._add_sync(self.new_job(payload))

    def _add_sync(self, job: NewJob) -> JobHandle[R]:
        [handle] = self._intake.enqueue_sync([job], self.signature.decode_value)
        return handle  # type: ignore[no-any-return]  # of R: `decode_value` checks

    async def run(self, batch: Batch[Job[Any]], asked: Asked = lambda: None) -> object:
        """Call the function for a batch of its jobs; returns as a processor does.

        Jobs that have a verdict already are left out.

        Args:
            batch: the jobs.
            asked: tells why the call is to stop, if it is; from any thread.

        Raises:
            BatchTimeout: the call took longer than `timeout`.
            JobStopped: the function has let `context().check()` stop it.
            ContractError: it answered as no handler may.
            RuntimeError: the function raised what ends programs, as `sys.exit` does.
            KeyboardInterrupt: somebody pressed Ctrl-C.
            Exception: whatever the function raises.
        """
        payloads = self._payloads(batch)
        if not payloads:
            return None
        call = self._call(batch, payloads)
        limit = _Limit(self.timeout, asked)
        whole = len(payloads) == len(batch)
        jobs = list(batch.items) if whole else [batch[index] for index in payloads]
        with Context(jobs, limit.asked).current():
            answers = await self._under(limit, call)
        if not self.takes_many:
            # Any value is a value here, a dict with "success" in it too.
            return [answers if isinstance(answers, Result | Exception) else Result.ok(answers)]
        return self._spread(batch, list(payloads), answers)

    def _payloads(self, batch: Batch[Job[Any]]) -> dict[int, Any]:
        """Read the payloads, by position; a job without one that can be read has failed."""
        payloads = {}
        early = batch.early
        for index, job in enumerate(batch.items):
            if index in early:
                continue
            try:
                payloads[index] = job.payload
            except PayloadError as error:
                job.undecodable = True
                batch.settle(index, Result.discard(error))
        return payloads

    def _call(self, batch: Batch[Job[Any]], payloads: dict[int, Any]) -> Callable[[], Any]:
        """Return the call to make."""
        if not self.takes_many:
            [payload] = payloads.values()
            return partial(self.function, **payload)
        if self.signature.wants_jobs:
            return partial(self.function, [batch[index] for index in payloads])
        return partial(self.function, list(payloads.values()))

    def _spread(self, batch: Batch[Job[Any]], called: Sequence[int], answers: Any) -> object:  # noqa: ANN401 - a user's function gave them
        """Give the answers to the jobs that the function was called with, by position."""
        by_id = isinstance(answers, Mapping)  # of ids that no handler knows
        if answers is None or (len(called) == len(batch) and not by_id):
            return answers
        if not isinstance(answers, list | tuple) or len(answers) != len(called):
            raise ContractError(
                f"handler {self.name!r} got {len(called)} items and must return exactly one"
                f" result per item, in order, or None; it returned {type(answers).__name__}"
            )
        given = batch.early | dict(zip(called, answers, strict=True))
        return {batch.entries[index].id: answer for index, answer in given.items()}

    async def _under(self, limit: _Limit, call: Callable[[], Any]) -> object:
        try:
            return await (self._awaited if self.is_async else self._in_a_thread)(call, limit)
        except JobStopped:
            if limit.over:
                raise self._timed_out() from None
            if limit.asked() is None:
                raise ContractError("a handler raised JobStopped, and nothing stops it") from None
            raise

    async def _awaited(self, call: Callable[[], Awaitable[object]], limit: _Limit) -> object:
        with trio.move_on_at(limit.ends_at):
            try:
                return await call()
            except (Exception, trio.Cancelled, JobStopped):
                raise
            except BaseException as error:
                if trio.lowlevel.in_trio_task():  # else the coroutine is being thrown away
                    fail_instead(error, self.name)
                raise
        raise self._timed_out()

    async def _in_a_thread(self, call: Callable[[], object], limit: _Limit) -> object:
        """Call a plain function; its time limit is looked at when it has returned.

        Only a stop of the queue abandons the thread, which goes on alone until it returns
        or the process ends.
        """
        one = trio.CapacityLimiter(1)  # the queue's concurrency is the limit
        called = partial(self._called, call)
        answers = await trio.to_thread.run_sync(called, abandon_on_cancel=True, limiter=one)
        if limit.over:
            logger.warning("handler %r returned after its timeout; dropped", self.name)
            raise self._timed_out()
        return answers

    def _called(self, call: Callable[[], object]) -> object:
        """Call a plain function, in its thread."""
        try:
            answers = call()
        except (Exception, trio.Cancelled, JobStopped):
            raise
        except BaseException as error:
            fail_instead(error, self.name)
            raise
        if inspect.isawaitable(answers):
            if inspect.iscoroutine(answers):
                answers.close()  # or Python would warn of it, too
            raise ContractError(
                f"handler {self.name!r} is a plain function and returned"
                f" a {type(answers).__name__}, which nobody awaits; write async def"
            )
        return answers

    def _timed_out(self) -> BatchTimeout:
        return BatchTimeout(f"handler {self.name!r} took longer than timeout={self.timeout:g} s")


class Handler(AnyHandler[R], Generic[Args, R]):
    """A function that runs one job in a call; what `@manager.handler` returns.

    Many jobs at once are enqueued one by one, by tasks of a nursery in a block of the
    manager (`async with manager`), where what comes together is one commit; a batch handler
    has `enqueue_many`.
    """

    def __call__(self, *args: Args.args, **kwargs: Args.kwargs) -> Any:  # noqa: ANN401 - the function's
        """Call the function, here and now."""
        return self.function(*args, **kwargs)

    async def enqueue(self, *args: Args.args, **kwargs: Args.kwargs) -> JobHandle[R]:
        """Store a job; returns when it is stored (in the memory tier: at its admission).

        Works under trio and asyncio. Under trio, cancelled means not stored.

        Raises:
            PayloadError: the arguments do not fit the function; says where.
            StoreError: it was not stored.
            QueueError: it can't come in (memory tier).
        """
        return await self.add(self.signature.bind(args, kwargs))

    def enqueue_sync(self, *args: Args.args, **kwargs: Args.kwargs) -> JobHandle[R]:
        """Do the same, blocking: for threads, scripts, frameworks without an event loop.

        Raises:
            RuntimeError: an event loop runs in this thread; it would stand still.
        """
        return self.add_sync(self.signature.bind(args, kwargs))


class BatchHandler(AnyHandler[R], Generic[P, R]):
    """A function that runs many jobs in a call; what `@manager.batch_handler` returns."""

    def __call__(self, items: Sequence[Any], /) -> Any:  # noqa: ANN401 - the function's
        """Call the function, here and now."""
        return self.function(items)

    async def enqueue(self, item: P) -> JobHandle[R]:
        """Store a job for one item; see `Handler.enqueue`."""
        return await self._intake.add(self._job(item), self.signature.decode_value)  # type: ignore[no-any-return]  # of R: `decode_value` checks

    def enqueue_sync(self, item: P) -> JobHandle[R]:
        """Do the same, blocking; see `Handler.enqueue_sync`."""
        return self._add_sync(self._job(item))

    def _job(self, item: P) -> NewJob:
        try:
            return self.new_job(item)
        except PayloadError as error:
            raise hinted(error, item) from error.__cause__

    async def enqueue_many(self, items: Iterable[P]) -> list[JobHandle[R]]:
        """Store a job per item, checked and stored a thousand at a time.

        Cancelled, it may have stored whole thousands, the first ones.

        Returns:
            One handle per item, in order.

        Raises:
            BatchqError: as `enqueue`; its `stored` has the handles of what was stored
                before.
            Exception: whatever `items` raises. A note of each error says how many jobs were
                stored before.
        """
        stored: list[JobHandle[R]] = []
        with saying(lambda more: [*stored, *more]):
            for chunk in chunks(items, self.new_job):
                stored += await self._intake.enqueue(chunk, self.signature.decode_value)
        return stored

    def enqueue_many_sync(self, items: Iterable[P]) -> list[JobHandle[R]]:
        """Do the same, blocking; see `Handler.enqueue_sync`."""
        stored: list[JobHandle[R]] = []
        with saying(lambda more: [*stored, *more]):
            for chunk in chunks(items, self.new_job):
                stored += self._intake.enqueue_sync(chunk, self.signature.decode_value)
        return stored

    async def store_many(self, items: Iterable[P] | AsyncIterable[P]) -> int:
        """Store a job per item of any iterable, in flat memory; return how many.

        They are stored a thousand at a time, and what is left at the end. Cancelled, it may
        have stored whole thousands, the first ones.

        Raises:
            BatchqError: as `enqueue_many`; its `stored` is the number stored before.
            Exception: whatever `items` raises, as in `enqueue_many`.
        """
        stored = 0

        async def store(chunk: list[NewJob]) -> None:
            nonlocal stored
            stored += len(await self._intake.enqueue(chunk, self.signature.decode_value))

        with saying(lambda more: stored + len(more)):
            await each_chunk(items, self.new_job, store)
        return stored

    def store_many_sync(self, items: Iterable[P]) -> int:
        """Do the same, blocking; see `Handler.enqueue_sync`."""
        stored = 0
        with saying(lambda more: stored + len(more)):
            for chunk in chunks(items, self.new_job):
                stored += len(self._intake.enqueue_sync(chunk, self.signature.decode_value))
        return stored
