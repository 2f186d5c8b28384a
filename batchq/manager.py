"""`QueueManager`: names to queues, in two tiers; one start, one stop, one store.

Rule 1: it delegates: what is registered, how jobs come in, how a queue works and how queues
are stopped stands in the rooms below.
Rule 2: nothing is opened or started before it is used.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, Unpack, overload

import trio

from batchq.admin import Admin
from batchq.at_work import AtWork
from batchq.bridge import LoopThread, forbid_event_loop, in_trio, run_blocking, run_to_its_end
from batchq.core.checks import check_quantity
from batchq.core.job import Job
from batchq.core.job_options import JobQueueOptions
from batchq.core.retention import Retention
from batchq.core.using import UsingOptions
from batchq.ends import Ends
from batchq.errors import OptionError, Unsupported
from batchq.handler import BatchHandler, Handler
from batchq.hooks import JobHooks
from batchq.intake import AtFirstUse, DurableIntake, JobLookup
from batchq.job_handle import JobHandle
from batchq.ledger import Ledger, RunSync
from batchq.pending import Pending
from batchq.registration import (
    BatchHandlerOptions,
    HandlerOptions,
    RegisterBatchHandler,
    RegisterHandler,
)
from batchq.registry import Registry, job_hooks
from batchq.signals import run_until_signal
from batchq.stores.base import Store
from batchq.stores.upkeep import Upkeep
from batchq.stores.url import DEFAULT_URL, check_url, open_store

__all__ = ["QueueManager"]

logger = logging.getLogger("batchq")

P = TypeVar("P")
R = TypeVar("R")
Args = ParamSpec("Args")

Queues = Iterable[str] | Mapping[str, int | None]


class QueueManager(Admin):
    """Stores jobs for functions, and runs them in batches.

        manager = QueueManager("sqlite:///jobs.db")

        @manager.batch_handler(batch_size=100, flush_interval=0.5)
        async def send_emails(emails: list[Email]) -> None: ...

        await send_emails.enqueue(Email(...))
        manager.run()                                  # or: batchq work myapp:manager

    Args:
        store: its URL, or an open store; None: $BATCHQ_URL, else sqlite:///batchq.db. It is
            opened when it is first needed.
        lease: how long a claim holds, where a queue does not say [s]. A job whose worker
            was killed comes back after it.
        poll_interval: longest time between two looks for jobs that other processes stored
            [s].
        grace: how long running handlers have when work is stopped [s].
        durability: of a store given by URL: `full` or `process`; None is the store's default.
        retention: how long ended jobs are kept; workers clean away what is older.
        cleanup_interval: from one such clean to the next [s].
        hooks: whom to tell of all jobs.
        run_sync: how a blocking commit is run; None: in a thread if the store needs one.

    Raises:
        OptionError: a value is out of its range.
    """

    def __init__(
        self,
        store: str | Store | None = None,
        *,
        lease: float = 30.0,
        poll_interval: float = 1.0,
        grace: float = 30.0,
        durability: str | None = None,
        retention: Retention | None = None,
        cleanup_interval: float = 3600.0,
        hooks: JobHooks | Sequence[JobHooks] | None = None,
        run_sync: RunSync | None = None,
    ) -> None:
        JobQueueOptions(name="all", lease=lease, poll_interval=poll_interval)  # checks them
        _check(store, grace, retention, cleanup_interval=cleanup_interval)
        self._grace = grace

        def make() -> Ledger:
            url = store if store is not None else os.environ.get("BATCHQ_URL", DEFAULT_URL)
            found = open_store(url, durability=durability) if isinstance(url, str) else url
            return Ledger(found, run_sync)

        named = store is None or isinstance(store, str)
        self._ledgers = AtFirstUse(make, None if named else make())
        ends = Ends()
        self._registry = Registry({"lease": lease, "poll_interval": poll_interval})
        self._at_work = AtWork(
            queues=self._registry.queues,
            ends=ends,
            hooks=job_hooks(hooks),
            retention=retention or Retention(),
            cleanup_interval=cleanup_interval,
        )
        super().__init__(self._ledgers, self._at_work.asked, self._at_work.look)
        lookup = JobLookup(self._ledgers, ends, poll_interval, self)
        pending = Pending(self._registry.max_pending)
        self._intake = DurableIntake(lookup, pending, self._at_work.stored)
        # By process id and task; a forked child is in none of its parent's.
        self._blocks: dict[tuple[int, object], list[AbstractAsyncContextManager[None]]] = {}
        self._portal: LoopThread | None = None

    def queue(
        self,
        name: str,
        *,
        concurrency: int = 5,
        lease: float | None = None,
        prefetch: int = 0,
        max_pending: int | None = None,
        hooks: JobHooks | Sequence[JobHooks] | None = None,
    ) -> None:
        """Declare a queue that several handlers share by naming it, before they do.

        Args:
            name: 1 to 64 letters, digits, `_`, `.` or `-`.
            concurrency: most calls in flight in one process.
            lease: how long a claim holds [s]; None: the manager's.
            prefetch: calls' worth of jobs claimed ahead of a free slot.
            max_pending: most jobs that wait; one more is refused with `QueueFull`.
            hooks: whom to tell of its jobs.

        Raises:
            OptionError: a value is out of its range, or there is such a queue.
        """
        settings: dict[str, Any] = {
            "concurrency": concurrency,
            "prefetch": prefetch,
            "max_pending": max_pending,
        }
        if lease is not None:
            settings["lease"] = lease
        self._registry.declare(name, settings, job_hooks(hooks))

    @overload
    def handler(self, function: Callable[Args, Awaitable[R]], /) -> Handler[Args, R]: ...
    @overload
    def handler(self, function: Callable[Args, R], /) -> Handler[Args, R]: ...
    @overload
    def handler(self, /, **options: Unpack[HandlerOptions]) -> RegisterHandler: ...
    def handler(
        self, function: Callable[..., Any] | None = None, /, **options: Unpack[HandlerOptions]
    ) -> Any:
        """Register a function that runs one job in a call; use it as a decorator.

        An async function runs in the event loop, a plain one in a thread. It stays a
        function: called, it runs here and now.

        Raises:
            OptionError: a name is no name, or taken; a value is out of its range; or the
                queue can't have it.
            TypeError: no such option, or a function that no job could be made for.
            RuntimeError: workers that would never run it have started.
        """

        def register(function: Callable[..., Any]) -> object:
            return self._register(function, options, kind=Handler)

        return register if function is None else register(function)

    @overload
    def batch_handler(self, function: Callable[[list[Job[P]]], Any], /) -> BatchHandler[P, Any]: ...
    @overload
    def batch_handler(self, function: Callable[[list[P]], Any], /) -> BatchHandler[P, Any]: ...
    @overload
    def batch_handler(self, /, **options: Unpack[BatchHandlerOptions]) -> RegisterBatchHandler: ...
    def batch_handler(
        self, function: Callable[..., Any] | None = None, /, **options: Unpack[BatchHandlerOptions]
    ) -> Any:
        """Register a function that runs many jobs in a call; use it as a decorator.

        It takes a list of items, or of `Job`s, and returns None (all succeeded) or one
        value or `Result` per item, in order. Raises as `handler`.
        """

        def register(function: Callable[..., Any]) -> Any:  # noqa: ANN401 - typed by the protocol
            return self._register(function, options, kind=BatchHandler)

        return register if function is None else register(function)

    def _register(
        self,
        function: Callable[..., Any],
        options: Mapping[str, Any],
        *,
        kind: type[Handler[..., Any] | BatchHandler[Any, Any]],
    ) -> Any:  # noqa: ANN401 - typed by the decorators
        name = options.get("name", getattr(function, "__name__", ""))
        self._at_work.check_not_working(options.get("queue", name))
        return self._registry.register(function, options, kind=kind, durable=self._intake)

    async def add_job(
        self, name: str, payload: object, **options: Unpack[UsingOptions]
    ) -> JobHandle[Any]:
        """Store a job by its handler's name; the same checks as `enqueue`.

        Args:
            name: a registered handler's.
            payload: what JSON gives: an object of the arguments; of a batch handler, one item.
            options: as of `using`: `delay` [s], `priority`, `max_retries`.

        Raises:
            UnknownHandler: no handler has that name.
            PayloadError: the payload does not fit; says where.
        """
        return await self._registry.handler(name).using(**options).add(payload)

    def add_job_sync(
        self, name: str, payload: object, **options: Unpack[UsingOptions]
    ) -> JobHandle[Any]:
        """Do the same, blocking; see `Handler.enqueue_sync`."""
        return self._registry.handler(name).using(**options).add_sync(payload)

    def working(self, queues: Queues | None = None) -> AbstractAsyncContextManager[Self]:
        """Run workers as long as the block lasts: under trio here, under asyncio in a thread.

        Leaving the block claims no more, gives back what has not started, and lets running
        handlers finish within `grace`.

        Args:
            queues: which ones; or a mapping to the concurrency of each in this process,
                None for its own. None: all.

        Raises:
            OptionError: there is no such queue, or no handler at all; or the annotations of a
                handler name what is not defined, or no type of JSON.
        """
        return self._working(self._registry.chosen(queues))

    def run(
        self,
        queues: Queues | None = None,
        *,
        on_start: Callable[[Mapping[str, int]], object] | None = None,
    ) -> None:
        """Run workers until SIGINT or SIGTERM; a second signal ends the process at once.

        Args:
            queues: as of `working`.
            on_start: called when they work, with the queues and the concurrency of each.

        Raises:
            OptionError: as `working`.
            RuntimeError: this is not the main thread, to which signals come; in another one
                use `start_workers`. Or an event loop runs here: use `working` under it.
            StoreError: the store can't be opened, or is broken.
        """
        forbid_event_loop("run()", "async with manager.working()")
        chosen = self._registry.chosen(queues)
        begun = partial(self._tell_start, chosen, on_start)
        trio.run(run_until_signal, self._working(chosen), begun)

    def start_workers(self, queues: Queues | None = None) -> None:
        """Run workers in a thread of their own until `stop_workers`; for plain programs.

        Raises:
            RuntimeError: they are started already.
        """
        chosen = self._registry.chosen(queues)
        if self._portal is not None and not self._portal.inherited:
            raise RuntimeError("the workers are started already; stop_workers() ends them")
        portal = LoopThread(lambda: self._working(chosen))
        try:
            portal.start()
        finally:
            # Interrupted by Ctrl-C, they are on their way: stop_workers() ends those, too.
            self._portal = portal if portal.unfinished else None

    def stop_workers(self) -> None:
        """Stop what `start_workers` started, as the end of a `working` block does."""
        portal, self._portal = self._portal, None
        if portal is not None:
            portal.stop()

    async def backup(self, destination: str | os.PathLike[str]) -> None:
        """Copy the store, as it is at one moment, to a file that is not there yet.

        Work goes on meanwhile. The copy appears when it is whole and on the disk, and is
        readable by its owner only; opened, it is a store like any other.

        Raises:
            Unsupported: the store is not in a file.
            StoreFull: no space; nothing is left of the copy.
            StoreError: the file is there already, or can't be made.
        """
        await run_blocking(partial(self.backup_sync, destination))

    def backup_sync(self, destination: str | os.PathLike[str]) -> None:
        """Do the same, blocking."""
        store = self._ledgers.get().store
        if not isinstance(store, Upkeep):
            raise Unsupported(f"a store in {store.info().location} can't be copied to a file")
        store.backup(destination)

    def close(self) -> None:
        """Close the store, if it is open.

        The next use opens one given by URL anew; one given as an object stays closed.

        Raises:
            RuntimeError: a block of this manager is open in this process, or its workers
                are started.
        """
        here = os.getpid()
        if self._at_work.working or any(pid == here for pid, _ in list(self._blocks)):
            raise RuntimeError(
                "the store is in use: leave the blocks of this manager first, or write"
                " stop_workers(), then close()"
            )
        self._ledgers.close()

    async def __aenter__(self) -> Self:
        """Gather what is enqueued in this block: many callers' jobs become one commit."""
        ledger = await self._ledgers.aget()
        if in_trio():
            block = ledger.open()
            await block.__aenter__()
            place = (os.getpid(), trio.lowlevel.current_task())
            self._blocks.setdefault(place, []).append(block)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if in_trio():
            place = (os.getpid(), trio.lowlevel.current_task())
            blocks = self._blocks.pop(place, [])
            if not blocks:
                return  # forked inside of it: it is the parent's block
            block = blocks.pop()
            if blocks:
                self._blocks[place] = blocks
            await block.__aexit__(kind, error, trace)

    @asynccontextmanager
    async def _working(self, chosen: Mapping[str, int | None]) -> AsyncIterator[Self]:
        if in_trio():
            ledger = await self._ledgers.aget() if self._at_work.need_store(chosen) else None
            async with self._at_work.workers(chosen, ledger, self._grace):
                yield self
            return
        portal = LoopThread(lambda: self._working(chosen))
        try:
            await run_to_its_end(portal.start)
            yield self
        finally:
            await run_to_its_end(portal.stop)

    def _tell_start(
        self,
        chosen: Mapping[str, int | None],
        on_start: Callable[[Mapping[str, int]], object] | None,
    ) -> None:
        logger.info("working on %s", ", ".join(chosen))
        if on_start is not None:
            on_start(self._registry.concurrency(chosen))


def _check(store: object, grace: object, retention: object, *, cleanup_interval: object) -> None:
    """Refuse what could only fail later."""
    if isinstance(store, str):
        check_url(store)
    elif store is not None and not hasattr(store, "commit"):
        raise OptionError(f"store must be a URL or an open store, got {store!r}")
    check_quantity("grace", grace)
    check_quantity("cleanup_interval", cleanup_interval, above=True)
    if not isinstance(retention, Retention | None):
        raise OptionError(f"retention must be a Retention or None, got {retention!r}")
