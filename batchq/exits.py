"""What ends a program where it is raised: `sys.exit`, Ctrl-C and their like, in a handler.

Rule 1: a handler that raises it has failed. If the worker ended, the jobs of the call would be
given back, begin anew in the next process, and end that, too, for ever.
Rule 2: trio's `Cancelled` and `JobStopped` are none of it, nor a group of those; nor is a
Ctrl-C that somebody has pressed.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar

import trio

from batchq.errors import JobStopped

__all__ = ["ctrl_c_is_taken", "fail_instead"]

ctrl_c_is_taken: ContextVar[bool] = ContextVar("ctrl_c_is_taken", default=False)
"""Whether signals are taken here by a handler that raises nothing."""


def fail_instead(error: BaseException, handler: str) -> None:
    """Raise an error in place of what would end the program, if a handler raised that.

    Args:
        error: what it raised: no `Exception`, and neither `Cancelled` nor `JobStopped` alone.
        handler: its name.

    Raises:
        JobStopped: its tasks have let themselves be stopped.
        BaseExceptionGroup: some have, and others have failed: the errors of those.
        RuntimeError: a failure like any other.
    """
    ends: BaseException | None = error
    if isinstance(error, BaseExceptionGroup):
        ends = error.split((Exception, trio.Cancelled))[1]
        if ends is not None and ends.split(JobStopped)[1] is None:
            others = error.split(JobStopped)[1]
            if others is None or others.split(trio.Cancelled)[1] is None:
                raise JobStopped("tasks of this call were stopped") from error
            raise others
    if ends is None or (_has_interrupt(error) and _may_be_ctrl_c()):
        return
    did = f"called sys.exit({ends.code!r})" if isinstance(ends, SystemExit) else f"raised {ends!r}"
    raise RuntimeError(
        f"handler {handler!r} {did}, which fails its jobs and ends nothing; raise an error instead"
    ) from error


def _has_interrupt(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(KeyboardInterrupt) is not None
    return isinstance(error, KeyboardInterrupt)


def _may_be_ctrl_c() -> bool:
    """Tell whether a KeyboardInterrupt that is raised here may be somebody's Ctrl-C."""
    return not ctrl_c_is_taken.get() and threading.current_thread() is threading.main_thread()
