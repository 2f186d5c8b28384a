"""Who waits here for jobs to end, so that they need not ask the store so often.

Rule 1: from any thread. It is a hint: jobs that end in another process are not told of.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import attrs

__all__ = ["Ends"]


@attrs.define(eq=False)
class _Process:
    """Those who wait in one process, by job, and the lock of their lists."""

    waiting: dict[int, list[Callable[[], object]]] = attrs.field(factory=dict)
    lock: threading.Lock = attrs.field(factory=threading.Lock)


@attrs.define(eq=False)
class Ends:
    """Functions to call when a job has ended in this process, by job."""

    # By process id: those who wait in the parent of a forked process are not in the child,
    # and it must not wait for a lock that its parent held.
    _processes: dict[int, _Process] = attrs.field(factory=dict, init=False)

    @contextmanager
    def watch(self, job_id: int, wake: Callable[[], object]) -> Iterator[None]:
        """Have `wake` called, in whatever thread, when the job has ended."""
        here = self._here
        with here.lock:
            here.waiting.setdefault(job_id, []).append(wake)
        try:
            yield
        finally:
            with here.lock:
                wakes = here.waiting[job_id]
                wakes.remove(wake)
                if not wakes:
                    del here.waiting[job_id]

    def tell(self, job_ids: Iterable[int]) -> None:
        """Wake those who wait for these jobs."""
        here = self._here
        if not here.waiting:
            return
        with here.lock:
            wakes = [wake for job_id in job_ids for wake in here.waiting.get(job_id, ())]
        for wake in wakes:
            wake()

    @property
    def _here(self) -> _Process:
        pid = os.getpid()
        return self._processes.get(pid) or self._processes.setdefault(pid, _Process())
