"""The settings of a queue of durable jobs, checked once, when it is declared."""

from __future__ import annotations

import re
from typing import Any, Final

import attrs

from batchq.core.bisect import BisectMode, bisect_mode
from batchq.core.checks import wait, whole
from batchq.errors import OptionError

__all__ = ["JobQueueOptions", "check_name"]

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_RESERVED: Final = "batchq."


def check_name(what: str, name: Any) -> str:  # noqa: ANN401 - users without a type checker pass anything
    """Check the name of a queue or handler.

    Raises:
        OptionError: it is none, or reserved; `what` says whose it is.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise OptionError(f"{what} must be 1 to 64 letters, digits, '_', '.' or '-', got {name!r}")
    if name.startswith(_RESERVED):
        raise OptionError(f"{what} may not begin with {_RESERVED!r}, got {name!r}")
    return name


@attrs.frozen(kw_only=True)
class JobQueueOptions:
    """How one process works on a queue of jobs.

    Attributes:
        name: the queue's.
        concurrency: most batches in flight in this process [batches, from 1].
        lease: how long a claim holds; it is extended while the job is worked on [s, above
            0]. A job whose worker was killed comes back after it.
        poll_interval: longest time between two looks for jobs that others stored [s].
        prefetch: batches claimed ahead of a free slot [batches, from 0].
        max_pending: most jobs that wait in the queue [jobs, from 1]; None is no limit.
        batch_size: most jobs in one call of a handler [jobs]; 1 for plain handlers.
        flush_interval: longest wait of a claimed job for company [s].
        bisect: when a call for several jobs that raised is taken apart.

    Raises:
        OptionError: a value is out of its range.
    """

    name: str
    concurrency: int = attrs.field(default=5, validator=whole(1))
    lease: float = attrs.field(default=30.0, validator=wait(above=True))
    poll_interval: float = attrs.field(default=1.0, validator=wait(above=True))
    prefetch: int = attrs.field(default=0, validator=whole(0))
    max_pending: int | None = attrs.field(default=None, validator=whole(1, or_none=True))
    batch_size: int = attrs.field(default=1, validator=whole(1))
    flush_interval: float | None = attrs.field(default=0.0, validator=wait(or_none=True))
    bisect: BisectMode = attrs.field(default=BisectMode.EXHAUSTED, converter=bisect_mode)

    @property
    def most_held(self) -> int:
        """Jobs that one process holds at the most."""
        return (self.concurrency + self.prefetch) * self.batch_size
