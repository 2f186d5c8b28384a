"""Which queues of a manager work now, in which event loops; who is told of what is stored.

Rule 1: queues are made anew for each block, so that one manager serves many event loops.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import attrs
import msgspec
import trio

from batchq import __version__
from batchq.chores import Chores
from batchq.core.job import Job, NewJob, Undecoded
from batchq.core.record import Beat
from batchq.core.result import Result
from batchq.core.retention import Retention
from batchq.durable import DurableQueue
from batchq.ends import Ends
from batchq.errors import LeaseLost
from batchq.feeder import SuspectPlace
from batchq.guard import Guard
from batchq.hooks import JobHooks, JobWatchers
from batchq.ledger import Ledger
from batchq.memory_tier import MemoryQueue
from batchq.registry import Declared
from batchq.trouble import Trouble
from batchq.wake import Wake
from batchq.workers import Workers, Works

__all__ = ["AtWork"]


@attrs.define(eq=False, kw_only=True)
class AtWork:
    """Makes queues work, and wakes those that do.

    Attributes:
        queues: what was declared, by name.
        ends: who waits for jobs to end.
        hooks: whom to tell of all jobs.
        retention: how long ended jobs are kept.
        cleanup_interval: from one clean to the next [s].
    """

    queues: Mapping[str, Declared]
    ends: Ends
    hooks: Sequence[JobHooks]
    retention: Retention
    cleanup_interval: float
    _pid: int = attrs.field(default=0, init=False)
    # What works here: the queues of each block, and whether those are all.
    _blocks: list[tuple[Mapping[str, int | None], bool]] = attrs.field(factory=list, init=False)
    _suspects: SuspectPlace = attrs.field(factory=SuspectPlace, init=False)
    _awake: dict[str, dict[DurableQueue, trio.lowlevel.TrioToken]] = attrs.field(
        factory=dict, init=False
    )

    @property
    def working(self) -> bool:
        """Whether queues of the durable tier work in this process."""
        return self._pid == os.getpid() and any(list(self._awake.values()))

    def need_store(self, chosen: Mapping[str, int | None]) -> bool:
        """Tell whether one of these queues is of the durable tier."""
        return any(self.queues[name].memory is None for name in chosen)

    def workers(
        self, chosen: Mapping[str, int | None], ledger: Ledger | None, grace: float
    ) -> Workers:
        """Make a block in which these queues work, with the concurrency given for each."""
        made: list[tuple[str, Works]] = []
        beside = AsyncExitStack()

        def make() -> Sequence[Works]:
            beside.enter_context(self._block(chosen, made))
            guard = Guard() if ledger is not None and ledger.threaded else None
            for name, slots in chosen.items():
                made.append((name, self._make(name, slots, ledger, guard=guard)))
            if ledger is not None:
                beside.enter_context(self._news(ledger))
                made.append(("", chores := self._chores(ledger, made)))
                beside.push_async_callback(chores.end)
            return [each for _, each in made]

        return Workers(make, ledger, grace, beside.aclose)

    def check_not_working(self, queue: str) -> None:
        """Refuse a handler for this queue, if nothing would ever run it.

        Raises:
            RuntimeError: this process works on that queue, or on all there are.
        """
        blocks = self._blocks if self._pid == os.getpid() else []
        if any(everything or queue in chosen for chosen, everything in blocks):
            raise RuntimeError(
                "workers know the handlers that were registered before they started, and would"
                " never run this one: register it before working(), run() or start_workers()"
            )

    def stored(self, jobs: Sequence[NewJob], ids: Sequence[int], now: Callable[[], float]) -> None:
        """Wake the queue that these new jobs are for, and tell its hooks.

        Args:
            jobs: what was stored; of one queue.
            ids: of each, in order.
            now: the store's clock.
        """
        name = jobs[0].queue
        if name in self._awake:
            self._wake(name)
        if self.hooks or self.queues[name].hooks:
            self._tell_stored(name, zip(jobs, ids, strict=True), now)

    def asked(self, job_ids: Sequence[int]) -> None:
        """Stop those of these jobs that are held here: they were asked to stop."""
        if self._pid != os.getpid():
            return  # they are held by the parent of this process
        for queues in list(self._awake.values()):
            for queue, token in list(queues.items()):
                with suppress(trio.RunFinishedError):  # its event loop has ended this very moment
                    token.run_sync_soon(queue.cancel, job_ids)

    def look(self) -> None:
        """Let all look for jobs: somebody else has written, or some are due now."""
        for name in list(self._awake):
            self._wake(name)

    def _wake(self, name: str) -> None:
        if self._pid != os.getpid():
            return  # they work in the parent of this process
        for queue, token in list(self._awake.get(name, {}).items()):
            with suppress(trio.RunFinishedError):  # its event loop has ended this very moment
                token.run_sync_soon(queue.wake, idempotent=True)

    def _tell_stored(
        self, name: str, new: Iterable[tuple[NewJob, int]], now: Callable[[], float]
    ) -> None:
        hooks = self._hooks(name)
        if any(each.on_enqueue is not None for each in hooks):
            watchers, at = JobWatchers(hooks), now()
            for job, id_ in new:
                watchers.tell(watchers.on_enqueue, self._stored_job(job, id_, at))

    def _hooks(self, name: str) -> list[JobHooks]:
        return [*self.hooks, *self.queues[name].hooks]

    @contextmanager
    def _block(
        self, chosen: Mapping[str, int | None], made: Sequence[tuple[str, Works]]
    ) -> Iterator[None]:
        """Note that these queues work here, in the block, and forget what is made in it."""
        if self._pid != os.getpid():  # what works in the parent of a forked process does not
            self._pid = os.getpid()
            self._awake.clear()
            self._blocks.clear()
            self._suspects = SuspectPlace()
        everything = {name for name, queue in self.queues.items() if queue.handlers} <= {*chosen}
        block = (chosen, everything)
        self._blocks.append(block)
        try:
            yield
        finally:
            self._forget(made)
            self._blocks.remove(block)

    @contextmanager
    def _news(self, ledger: Ledger) -> Iterator[None]:
        """Let queues look for jobs when other processes have written, in the block."""
        if not (ledger.threaded and ledger.store.info().shared):
            yield
            return
        wake = Wake(ledger, self.look)
        wake.start()
        try:
            yield
        finally:
            wake.stop()

    def _chores(self, ledger: Ledger, made: Sequence[tuple[str, Works]]) -> Chores:
        queues = {name: queue for name, queue in made if isinstance(queue, DurableQueue)}
        beat = Beat(
            worker=ledger.worker,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=__version__,
            queues={name: queue.concurrency for name, queue in queues.items()},
            handlers=tuple(
                handler
                for name in queues
                for each in self.queues[name].handlers
                for handler in each.names
            ),
        )

        def say(late: float) -> Beat:
            held = sum(queue.held for queue in queues.values())
            lost = sum(queue.lost for queue in queues.values())
            return msgspec.structs.replace(beat, held=held, lag=late, lost=lost)

        return Chores(
            ledger=ledger,
            beat=say,
            retention=self.retention,
            cleanup_interval=self.cleanup_interval,
            cares=partial(self._cares, queues),
            on_error=Trouble(JobWatchers(self.hooks), "the worker").tell,
        )

    def _cares(self, working: Collection[str], queue: str, handler: str) -> bool:
        """Tell whether jobs are run here, or are not to be, for others work on their queue."""
        declared = self.queues.get(queue)
        if declared is None:
            return not self._works_on_all
        return queue not in working or any(handler in each.names for each in declared.handlers)

    @property
    def _works_on_all(self) -> bool:
        return any(everything for _, everything in self._blocks)

    def _make(
        self, name: str, slots: int | None, ledger: Ledger | None, *, guard: Guard | None
    ) -> Works:
        declared = self.queues[name]
        options = declared.options
        if slots is not None:
            options = attrs.evolve(options, concurrency=slots)
        if declared.memory is not None:
            [handler] = declared.handlers
            memory = MemoryQueue(options, handler, self._hooks(name))
            declared.memory.begin(memory)
            return memory
        assert ledger is not None, "need_store said so"  # noqa: S101 - for the type checker
        queue = DurableQueue(
            options,
            declared.handlers,
            ledger=ledger,
            watchers=JobWatchers(self._hooks(name)),
            ends=self.ends,
            guard=guard,
            suspects=self._suspects,
        )
        self._awake.setdefault(name, {})[queue] = trio.lowlevel.current_trio_token()
        return queue

    def _forget(self, made: Sequence[tuple[str, Works]]) -> None:
        for name, queue in made:
            if isinstance(queue, DurableQueue):
                self._awake[name].pop(queue, None)
            elif isinstance(queue, MemoryQueue) and (memory := self.queues[name].memory):
                memory.end()

    def _stored_job(self, new: NewJob, id_: int, now: float) -> Job[Any]:
        [handler] = [each for each in self.queues[new.queue].handlers if each.name == new.handler]
        return Job(
            id=id_,
            attempt=0,
            queue=new.queue,
            handler=new.handler,
            priority=new.priority,
            used=0,
            max_attempts=new.max_attempts,
            enqueued_at=now,
            payload=Undecoded(new.payload, handler.signature.decode),
            settle=_not_yours,
        )


def _not_yours(_: Job[Any], __: Result[object]) -> None:
    raise LeaseLost("only the handler that a job was claimed for can settle it")
