"""The one road to a store's writes: commands gather while a commit runs, and become one.

    submit(command) ─▶ BatchedQueue(flush_interval=0, concurrency=1) ─▶ ⇣ commit_now(merged)
    commit_now(group) ─────────────── any thread ─────────────────────▶ lock ─▶ store.commit

Rule 1: every write goes through `commit_now`, which holds the ledger's lock for the whole
unit. Nothing else calls `Store.commit`; what is no group goes through `call_now`.
Rule 2: a commit that has begun belongs to the ledger. Whoever submitted is told its answer,
cancelled or not; a cancelled `submit` was not carried out.
Rule 3: one bad command does not spoil its neighbours: after an error that is not the
store's, each command is committed again as a group of its own.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from itertools import chain, islice
from operator import attrgetter
from typing import Any, Final, Protocol, TypeVar, overload

import attrs
import msgspec
import trio

from batchq.core.batch import Batch
from batchq.core.job import Answers, Enqueued, Group, NewJob
from batchq.core.result import Result
from batchq.errors import StoreError
from batchq.hooks import Hooks
from batchq.nest import Nest
from batchq.queue import BatchedQueue
from batchq.stores.base import Store, Waits

__all__ = ["Ledger", "RunSync"]

A = TypeVar("A")
T = TypeVar("T")

_settle, _extend, _enqueue, _claim = map(attrgetter, ("settle", "extend", "enqueue", "claim"))

Command = Group | NewJob

# Commands that may become one commit. What comes in bulk is cut by thousands before.
_MOST: Final = 1_000


class RunSync(Protocol):
    """Runs a blocking call without blocking the event loop."""

    def __call__(self, call: Callable[[Any], Any], argument: Any, /) -> Awaitable[Any]:  # noqa: ANN401 - any call
        """Run `call(argument)` and return what it returns."""


@attrs.define(eq=False)
class _Process:
    """What one process has of a ledger."""

    worker: str
    lock: Any = attrs.field(factory=threading.Lock, init=False)
    commits: int = attrs.field(default=0, init=False)  # begun, empty ones included
    counting: Any = attrs.field(factory=threading.Lock, init=False)
    ended: int = attrs.field(default=0, init=False)  # calls of handlers
    counted: int = attrs.field(default=0, init=False)  # those of them that were written


def _new_process(pid: int) -> _Process:
    return _Process(f"{socket.gethostname()}-{pid}-{secrets.token_hex(3)}")


@attrs.define(eq=False)
class Ledger:
    """Commits groups to a store.

    Attributes:
        store: where they go.
        run_sync: how a blocking commit is run; None: in a thread, or right here if the
            store's `info().inline` says that it needs none.
    """

    store: Store
    run_sync: RunSync | None = None
    # By event loop: one per open block. Blocks may overlap; the last one gathers for all.
    _queues: dict[trio.lowlevel.TrioToken, list[BatchedQueue[Command, Any]]] = attrs.field(
        factory=dict, init=False
    )
    # By process id: a child must not wait for a lock that its parent held.
    _processes: dict[int, _Process] = attrs.field(factory=dict, init=False)
    # One per event loop: who else takes threads there must not keep commits waiting.
    _limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = attrs.field(
        factory=partial(trio.lowlevel.RunVar, "batchq_ledger"), init=False
    )

    @property
    def worker(self) -> str:
        """Who commits here: a name that no other process has, nor a later one."""
        return self._process.worker

    @property
    def _process(self) -> _Process:
        pid = os.getpid()
        # Threads that come first together must all get the same.
        return self._processes.get(pid) or self._processes.setdefault(pid, _new_process(pid))

    @property
    def commits(self) -> int:
        """How many commits have begun in this process."""
        return self._process.commits

    @property
    def threaded(self) -> bool:
        """Whether commits run in threads, beside the event loop."""
        return self.run_sync is None and not self.store.info().inline

    def count_batch(self) -> None:
        """Count one ended call of a handler; it is written with the next commit."""
        here = self._process
        with here.counting:  # event loops of several threads may count
            here.ended += 1

    def commit_now(self, group: Group) -> Answers:
        """Commit a group, from any thread; it blocks.

        Returns:
            One answer per command, in order.

        Raises:
            StoreError: nothing of it was done.
        """
        here = self._process
        with here.lock:
            here.commits += 1
            ended = here.ended
            answers = self.store.commit(
                msgspec.structs.replace(group, worker=here.worker, batches=ended - here.counted)
            )
            here.counted = ended  # after a commit that failed the next one counts them
            return answers

    def call_now(self, call: Callable[[Store], T]) -> T:
        """Let `call` write to the store outside a group, from any thread; it blocks.

        Raises:
            StoreError: nothing of it was done.
        """
        with self._process.lock:
            return call(self.store)

    def hurry(self, seconds: float) -> None:
        """Let no commit wait longer than this for others [s]; inf: as the store does."""
        if isinstance(self.store, Waits):
            with suppress(StoreError):  # it was closed, and nothing waits
                self.store.hurry(time.monotonic() + seconds)

    def changed(self) -> bool:
        """Hint that another process has written since somebody here last asked; it blocks."""
        return self.call_now(lambda store: store.changed())

    async def call(self, call: Callable[[Store], T]) -> T:
        """Do the same without blocking the event loop; a call that has begun is waited for."""
        return await self._blocking(self.call_now, call)

    def close(self) -> None:
        """Close the store, once no commit is under way."""
        with self._process.lock:
            self.store.close()

    @overload
    def submit(self, command: Group) -> Awaitable[Answers]: ...
    @overload
    def submit(self, command: NewJob) -> Awaitable[Enqueued]: ...
    def submit(self, command: Command) -> Awaitable[Any]:
        """Commit a group, or one new job, together with what others submit meanwhile.

        To be awaited at once, by the very task that calls it. Cancelled means that it was not
        carried out. Outside `open` it is a commit of its own.

        Raises:
            StoreError: nothing of it was done.
        """
        queues = self._queues.get(trio.lowlevel.current_trio_token())
        if not queues:
            return self._alone(command)
        entry = queues[-1].enqueue_nowait(command)
        entry.waiter = trio.lowlevel.current_task()
        # Awaited by whoever submits: one frame less to go through.
        return trio.lowlevel.wait_task_rescheduled(entry.withdraw_in_time)  # noqa: ASYNC105

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Gather what is submitted in this event loop, as long as the block lasts.

        Its end commits what has been submitted. Blocks may stand in each other, and overlap.
        """
        nest, closing = Nest(), trio.Event()
        nursery = await nest.enter()
        try:
            # Shielded: cancelled, `start` would wait for the end of a task that has none.
            with trio.CancelScope(shield=True):
                await nursery.start(self._gather, closing)
            yield
        finally:
            error = sys.exception()
            closing.set()
            await nest.leave(error)

    async def _gather(
        self, closing: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Keep a queue for this event loop until `closing`; no cancellation reaches it."""
        queue = BatchedQueue[Command, Any](
            self._commit,
            name="batchq.ledger",
            batch_size=_MOST,
            flush_interval=0.0,
            max_queue_size=None,
            shutdown_timeout=None,
            hooks=Hooks(on_error=_known),
        )
        with trio.CancelScope(shield=True):
            async with queue:
                with self._in_use(queue):
                    task_status.started()
                    await closing.wait()

    @contextmanager
    def _in_use(self, queue: BatchedQueue[Command, Any]) -> Iterator[None]:
        """Let what is submitted in this event loop go there."""
        token = trio.lowlevel.current_trio_token()
        queues = self._queues.setdefault(token, [])
        queues.append(queue)
        try:
            yield
        finally:
            queues.remove(queue)
            if not queues:
                del self._queues[token]

    async def _commit(self, batch: Batch[Command]) -> Sequence[object]:
        """Commit what has gathered as one; each by itself if one of them can't be."""
        commands = list(batch)
        try:
            answers = await self._run(_merge(commands))
        except StoreError:
            raise  # every member's error: nothing of it was done
        except Exception:
            if len(commands) == 1:
                raise
            return [await self._try_alone(command) for command in commands]
        return _split(answers, commands)

    async def _try_alone(self, command: Command) -> Result[Any]:
        try:
            return Result.ok(await self._alone(command))
        except Exception as error:
            return Result.fail(error)

    async def _alone(self, command: Command) -> Answers | Enqueued:
        return _own(await self._run(_as_group(command)), command)

    async def _run(self, group: Group) -> Answers:
        return await self._blocking(self.commit_now, group)

    async def _blocking(self, call: Callable[[A], T], argument: A) -> T:
        if self.run_sync is not None:
            return await self.run_sync(call, argument)  # type: ignore[no-any-return]  # of `call`
        if self.store.info().inline:
            await trio.lowlevel.checkpoint_if_cancelled()
            return call(argument)
        return await trio.to_thread.run_sync(call, argument, limiter=self._one_thread())

    def _one_thread(self) -> trio.CapacityLimiter:
        try:
            return self._limiter.get()
        except LookupError:
            self._limiter.set(limiter := trio.CapacityLimiter(1))
            return limiter


def _known(_: Exception) -> None:
    """Say nothing of an error of a commit: it is raised where the command was submitted."""


def _as_group(command: Command) -> Group:
    return Group(enqueue=[command]) if isinstance(command, NewJob) else command


def _own(answers: Answers, command: Command) -> Answers | Enqueued:
    return answers.enqueue[0] if isinstance(command, NewJob) else answers


def _merge(commands: Sequence[Command]) -> Group:
    """Put commands together as one group."""
    jobs = [command for command in commands if isinstance(command, NewJob)]
    if len(jobs) == len(commands):  # many callers store jobs: nothing is made for each
        return Group(enqueue=jobs)
    groups = [*map(_as_group, commands)]
    if len(groups) == 1:
        return groups[0]
    return Group(
        settle=[*chain.from_iterable(map(_settle, groups))],
        extend=[*chain.from_iterable(map(_extend, groups))],
        enqueue=[*chain.from_iterable(map(_enqueue, groups))],
        claim=[*chain.from_iterable(map(_claim, groups))],
    )


def _split(answers: Answers, commands: Sequence[Command]) -> Sequence[object]:
    """Give each of the merged commands its answers."""
    if all(isinstance(command, NewJob) for command in commands):
        return answers.enqueue
    if len(commands) == 1:
        return [answers]
    enqueue, claim = iter(answers.enqueue), iter(answers.claim)
    settle, extend = iter(answers.settle), iter(answers.extend)
    # Most groups have one part: nothing is made for the others.
    return [
        next(enqueue)
        if isinstance(command, NewJob)
        else Answers(
            settle=list(islice(settle, len(command.settle))) if command.settle else [],
            extend=list(islice(extend, len(command.extend))) if command.extend else [],
            enqueue=list(islice(enqueue, len(command.enqueue))) if command.enqueue else [],
            claim=list(islice(claim, len(command.claim))) if command.claim else [],
        )
        for command in commands
    ]
