"""Which queues of a manager work now, in which event loops; who is told of what is stored.

Rule 1: queues are made anew for each block, so that one manager serves many event loops.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import attrs
import trio

from batchq.core.job import Job, NewJob, Undecoded
from batchq.core.result import Result
from batchq.durable import DurableQueue
from batchq.ends import Ends
from batchq.errors import LeaseLost
from batchq.feeder import SuspectPlace
from batchq.guard import Guard
from batchq.hooks import JobHooks, JobWatchers
from batchq.ledger import Ledger
from batchq.memory_tier import MemoryQueue
from batchq.registry import Declared
from batchq.wake import Wake
from batchq.workers import Workers, Works

__all__ = ["AtWork"]


@attrs.define(eq=False)
class AtWork:
    """Makes queues work, and wakes those that do.

    Attributes:
        queues: what was declared, by name.
        ends: who waits for jobs to end.
        hooks: whom to tell of all jobs.
    """

    queues: Mapping[str, Declared]
    ends: Ends
    hooks: Sequence[JobHooks]
    _pid: int = attrs.field(default=0, init=False)
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
        wake: Wake | None = None
        guard = Guard() if ledger is not None and ledger.threaded else None

        def make() -> Sequence[Works]:
            nonlocal wake
            for name, slots in chosen.items():
                made.append((name, self._make(name, slots, ledger, guard=guard)))
            if ledger is not None and ledger.threaded and ledger.store.info().shared:
                wake = Wake(ledger, self.look)
                wake.start()
            return [queue for _, queue in made]

        def forget() -> None:
            if wake is not None:
                wake.stop()
            self._forget(made)

        return Workers(make, ledger, grace, forget)

    def stored(self, jobs: Sequence[NewJob], ids: Sequence[int], now: Callable[[], float]) -> None:
        """Wake the queues that these new jobs are for, and tell their hooks.

        Args:
            jobs: what was stored.
            ids: of each, in order.
            now: the store's clock.
        """
        for name in {job.queue for job in jobs}:
            self._wake(name)
            hooks = self._hooks(name)
            if hooks and any(each.on_enqueue is not None for each in hooks):
                new = [pair for pair in zip(jobs, ids, strict=True) if pair[0].queue == name]
                self._tell_stored(name, new, now())

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

    def _tell_stored(self, name: str, new: Sequence[tuple[NewJob, int]], now: float) -> None:
        watchers = JobWatchers(self._hooks(name))
        for job, id_ in new:
            watchers.tell(watchers.on_enqueue, self._stored_job(job, id_, now))

    def _hooks(self, name: str) -> list[JobHooks]:
        return [*self.hooks, *self.queues[name].hooks]

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
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._awake.clear()
            self._suspects = SuspectPlace()
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
            elif (memory := self.queues[name].memory) is not None:
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
