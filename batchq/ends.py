"""Who waits here for jobs to end, so that they need not ask the store so often.

Rule 1: from any thread. It is a hint: jobs that end in another process are not told of.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs

__all__ = ["Ends"]


@attrs.define(eq=False)
class Ends:
    """Functions to call when a job has ended in this process, by job."""

    _waiting: dict[int, list[Callable[[], object]]] = attrs.field(factory=dict, init=False)
    _lock: Any = attrs.field(factory=threading.Lock, init=False)

    @contextmanager
    def watch(self, job_id: int, wake: Callable[[], object]) -> Iterator[None]:
        """Have `wake` called, in whatever thread, when the job has ended."""
        with self._lock:
            self._waiting.setdefault(job_id, []).append(wake)
        try:
            yield
        finally:
            with self._lock:
                wakes = self._waiting[job_id]
                wakes.remove(wake)
                if not wakes:
                    del self._waiting[job_id]

    def tell(self, job_ids: Iterable[int]) -> None:
        """Wake those who wait for these jobs."""
        if not self._waiting:
            return
        with self._lock:
            wakes = [wake for job_id in job_ids for wake in self._waiting.get(job_id, ())]
        for wake in wakes:
            wake()
