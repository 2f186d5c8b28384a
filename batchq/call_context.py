"""What running handler code may ask about itself: `context()`.

Rule 1: it only tells. What stops a call is a cancellation of its trio scope; a thread, which
nothing can stop, has to ask: `context().check()`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from typing import Any

import attrs

from batchq.core.job import Job, Receipt
from batchq.errors import JobStopped

__all__ = ["Asked", "CancelReason", "Context", "context"]


class CancelReason(Enum):
    """Why a call of a handler is to stop.

    USER: somebody cancelled its jobs. TIMEOUT: it takes longer than its handler's `timeout`.
    LEASE_LOST: its jobs are, or may be, somebody else's by now. SHUTDOWN: the worker stops,
    and the grace is over.
    """

    USER = "user"
    TIMEOUT = "timeout"
    LEASE_LOST = "lease_lost"
    SHUTDOWN = "shutdown"


class _JobLog(logging.LoggerAdapter[logging.Logger]):
    """Puts jobs in front of each line, and into the fields of its record."""

    def process(
        self, msg: object, kwargs: MutableMapping[str, Any]
    ) -> tuple[object, MutableMapping[str, Any]]:
        facts: dict[str, Any] = {**(self.extra or {})}
        first, *others = facts["jobs"]
        which = f"job {first} and {len(others)} more" if others else f"job {first}"
        return f"{which}: {msg}", {**kwargs, "extra": facts | (kwargs.get("extra") or {})}


Asked = Callable[[], CancelReason | None]


@attrs.frozen(eq=False)
class Context:
    """One call of a handler, as its own code sees it; from any thread.

    Attributes:
        jobs: what it was called for, in order; one, unless it is a batch handler's.
    """

    jobs: Sequence[Job[Any]]
    _asked: Asked = attrs.field(repr=False)

    @property
    def job(self) -> Job[Any]:
        """The job of a plain handler's call.

        Raises:
            LookupError: the call is for several: see `jobs`.
        """
        if len(self.jobs) != 1:
            raise LookupError(f"this call is for {len(self.jobs)} jobs: see context().jobs")
        return self.jobs[0]

    @property
    def attempt(self) -> int:
        """Which claim of its job this is [count, from 1]."""
        return self.job.attempt

    @property
    def receipt(self) -> Receipt:
        """The fencing token of this attempt, for writes elsewhere."""
        return self.job.receipt

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """The logger `batchq.job`, whose lines say which jobs they are of.

        Each line begins with the first one's number; a record's fields are `queue`,
        `handler` and `jobs`: the numbers of all.
        """
        first, ids = self.jobs[0], [job.id for job in self.jobs]
        facts = {"queue": first.queue, "handler": first.handler, "jobs": ids}
        return _JobLog(logging.getLogger("batchq.job"), facts)

    @property
    def cancel_reason(self) -> CancelReason | None:
        """Why this call is to stop; None: it may go on."""
        return self._asked()

    def check(self) -> None:
        """Stop here, if this call is to stop: for plain functions and long computations.

        Raises:
            JobStopped: it is; let it pass.
        """
        reason = self._asked()
        if reason is not None:
            raise JobStopped(f"this call is to stop: {reason.value}")

    @contextmanager
    def current(self) -> Iterator[None]:
        """Let `context()` return this in the block, and in threads that it starts."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)


_current: ContextVar[Context] = ContextVar("batchq_context")


def context() -> Context:
    """Return what the handler that runs here may know of its call.

    Raises:
        LookupError: no handler runs here.
    """
    try:
        return _current.get()
    except LookupError:
        raise LookupError("context() is for code that a handler runs; none does here") from None
