"""What `@manager.handler` and `@manager.batch_handler` take, and what they make of a function.

For type checkers: the decorators see the function's own signature, so that `enqueue` takes
what the function takes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import ParamSpec, Protocol, TypedDict, TypeVar, overload

from batchq.core.bisect import BisectMode
from batchq.core.job import Job
from batchq.core.result import Result
from batchq.core.retry import RetryPolicy
from batchq.handler import BatchHandler, Handler
from batchq.hooks import JobHooks

__all__ = ["BatchHandlerOptions", "HandlerOptions", "RegisterBatchHandler", "RegisterHandler"]

P = TypeVar("P")
R = TypeVar("R")
Args = ParamSpec("Args")


class HandlerOptions(TypedDict, total=False):
    """How a handler's jobs are kept and run.

    Attributes:
        name: what its jobs are stored under; the function's name.
        aliases: other names whose jobs it runs, as after a renaming.
        queue: a queue to share with other handlers; its own, of its name.
        retry: when a failed job is tried again; `RetryPolicy()`: three times.
        timeout: longest call [s]; None is no limit.
        priority: the level of its jobs [0 highest .. 9], or urgent, high, medium, low; 2.
        tier: `durable`, or `memory`: the same code, and nothing survives the process.
        hooks: whom to tell of its jobs.
        concurrency: most calls in flight in one process; 5. For a queue of its own.
        lease: how long a claim holds [s]; the manager's. For a queue of its own.
        prefetch: calls' worth of jobs claimed ahead; 0. For a queue of its own.
        max_pending: most jobs that wait; None is no limit. For a queue of its own.
    """

    name: str
    aliases: Iterable[str]
    queue: str
    retry: RetryPolicy
    timeout: float | None
    priority: int | str
    tier: str
    hooks: JobHooks | Sequence[JobHooks]
    concurrency: int
    lease: float
    prefetch: int
    max_pending: int | None


class BatchHandlerOptions(HandlerOptions, total=False):
    """The same, and how its jobs are gathered.

    Attributes:
        batch_size: most jobs in one call; 100.
        flush_interval: longest wait of a claimed job for company [s]; 1.
        bisect: when a call that raised is taken apart, to find the jobs that break it:
            `off`, `immediate`, or `exhausted`: when one of its jobs has no attempt left;
            exhausted.
    """

    batch_size: int
    flush_interval: float | None
    bisect: BisectMode | str


class RegisterHandler(Protocol):
    """Makes a `Handler` of a function that takes one job's arguments."""

    @overload
    def __call__(self, function: Callable[Args, Awaitable[Result[R]]], /) -> Handler[Args, R]: ...
    @overload
    def __call__(self, function: Callable[Args, Awaitable[R]], /) -> Handler[Args, R]: ...
    @overload
    def __call__(self, function: Callable[Args, Result[R]], /) -> Handler[Args, R]: ...
    @overload
    def __call__(self, function: Callable[Args, R], /) -> Handler[Args, R]: ...


class RegisterBatchHandler(Protocol):
    """Makes a `BatchHandler` of a function that takes a list of items, or of jobs."""

    @overload
    def __call__(
        self, function: Callable[[list[Job[P]]], Awaitable[None]], /
    ) -> BatchHandler[P, None]: ...
    @overload
    def __call__(
        self, function: Callable[[list[Job[P]]], Awaitable[Sequence[Result[R]] | None]], /
    ) -> BatchHandler[P, R]: ...
    @overload
    def __call__(
        self, function: Callable[[list[Job[P]]], Awaitable[Sequence[R] | None]], /
    ) -> BatchHandler[P, R]: ...
    @overload
    def __call__(self, function: Callable[[list[Job[P]]], None], /) -> BatchHandler[P, None]: ...
    @overload
    def __call__(
        self, function: Callable[[list[Job[P]]], Sequence[Result[R]] | None], /
    ) -> BatchHandler[P, R]: ...
    @overload
    def __call__(
        self, function: Callable[[list[Job[P]]], Sequence[R] | None], /
    ) -> BatchHandler[P, R]: ...
    @overload
    def __call__(
        self, function: Callable[[list[P]], Awaitable[None]], /
    ) -> BatchHandler[P, None]: ...
    @overload
    def __call__(
        self, function: Callable[[list[P]], Awaitable[Sequence[Result[R]] | None]], /
    ) -> BatchHandler[P, R]: ...
    @overload
    def __call__(
        self, function: Callable[[list[P]], Awaitable[Sequence[R] | None]], /
    ) -> BatchHandler[P, R]: ...
    @overload
    def __call__(self, function: Callable[[list[P]], None], /) -> BatchHandler[P, None]: ...
    @overload
    def __call__(
        self, function: Callable[[list[P]], Sequence[Result[R]] | None], /
    ) -> BatchHandler[P, R]: ...
    @overload
    def __call__(
        self, function: Callable[[list[P]], Sequence[R] | None], /
    ) -> BatchHandler[P, R]: ...
