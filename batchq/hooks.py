"""Hooks: let the outside watch, never steer.

A hook is a plain function, told what has just happened. It cannot change a result, delay
the queue by awaiting, or break it by raising.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from typing import Any, Final, Generic, ParamSpec, TypeVar, get_args, get_type_hints

import attrs

from batchq.core.batch import Batch
from batchq.core.checks import attribute_of, is_async
from batchq.core.job import Job
from batchq.core.result import Result
from batchq.core.statistics import DrainReport
from batchq.errors import HookError, OptionError

__all__ = ["Hooks", "JobHooks", "JobWatchers", "Watchers", "only_for"]

logger = logging.getLogger("batchq")

T = TypeVar("T")
R = TypeVar("R")
Args = ParamSpec("Args")


@attrs.frozen(kw_only=True)
class Hooks(Generic[T, R]):
    """The functions to tell, by event; None tells nobody.

    Attributes:
        on_enqueue: (item) after admission, before the item can start; not for an incoming
            item that is dropped.
        on_batch_start: (batch) just before each call.
        on_batch_complete: (batch, results) after each call, whatever its end; one result
            per item, in order.
        on_processed: (item, result) once per item that succeeded or failed for good, in
            batch order, before that call's `on_batch_complete`.
        on_queue_size_change: (size) [items waiting] after it changed, at most once per
            step of the queue; the last value always comes.
        on_error: (error) a call, a hook, a check or a save raised; not a single item's
            failure. Where no hook is told, the log gets a warning, of each kind of error
            once a minute.
        on_retry: (item, error, attempt, delay) a failed item comes again in `delay` [s].
        on_drop: (item, reason) it left without a verdict: overflow, expired, cancelled or
            closed.
        on_dead_letter: (item, error) it failed for good or expired; follows `on_processed`
            or `on_drop`.
        on_coalesce: (key, kept, incoming) an item came to share an entry that waits, which
            has the item `kept` from now on.
        on_bisect: (batch, error, left, right) a call raised and its items are called in two
            parts.
        on_throttled: (delay, cause) a start is put off for so long [s], once per wait, by
            throttle, rate_limit or processor.
        on_pause: () it starts nothing from now on.
        on_resume: () it starts batches again.
        on_idle: () nothing waits and no call runs any more.
        on_drained: (report) a drain has succeeded.
        on_state_saved: (count) so many entries were saved.
        on_state_restored: (count) so many entries came in from a snapshot.

    Raises:
        TypeError: a hook is no function, or an async one.
    """

    on_enqueue: Callable[[T], object] | None = None
    on_batch_start: Callable[[Batch[T]], object] | None = None
    on_batch_complete: Callable[[Batch[T], Sequence[Result[R]]], object] | None = None
    on_processed: Callable[[T, Result[R]], object] | None = None
    on_queue_size_change: Callable[[int], object] | None = None
    on_error: Callable[[Exception], object] | None = None
    on_retry: Callable[[T, Exception, int, float], object] | None = None
    on_drop: Callable[[T, str], object] | None = None
    on_dead_letter: Callable[[T, Exception], object] | None = None
    on_coalesce: Callable[[Hashable, T, T], object] | None = None
    on_bisect: Callable[[Batch[T], Exception, Sequence[T], Sequence[T]], object] | None = None
    on_throttled: Callable[[float, str], object] | None = None
    on_pause: Callable[[], object] | None = None
    on_resume: Callable[[], object] | None = None
    on_idle: Callable[[], object] | None = None
    on_drained: Callable[[DrainReport], object] | None = None
    on_state_saved: Callable[[int], object] | None = None
    on_state_restored: Callable[[int], object] | None = None

    def __init_subclass__(cls) -> None:
        """Refuse methods of a hook's name, which nobody would ever call.

        Raises:
            TypeError: there is one.
        """
        super().__init_subclass__()
        found = [name for name, value in vars(cls).items() if _is_hook(name, value)]
        if found:
            raise TypeError(
                f"{cls.__name__}.{found[0]} would never be called: give hooks to {cls.__name__}()"
                " as arguments, or write them as methods of a subclass of BatchedQueue"
            )

    def __attrs_post_init__(self) -> None:
        for field in attrs.fields(type(self)):
            _check(field.name, getattr(self, field.name))


def _is_hook(name: str, value: object) -> bool:
    return name.startswith("on_") and (callable(value) or isinstance(value, classmethod))


@attrs.frozen(kw_only=True)
class JobHooks(Hooks[Job[Any], Any]):
    """The functions to tell of durable jobs: the names of `Hooks`, with a `Job` as item.

    `on_enqueue` is told after the commit, in the thread that stored the job: a worker may
    have it already. `on_dead_letter` is told of jobs that failed in a worker of this process;
    those that a claim ends, as crashed or expired, `QueueManager.failed` lists. Of `on_drop`,
    `on_coalesce`, `on_pause`, `on_resume`, `on_idle`, `on_drained` and the two of snapshots
    nobody is told in the durable tier.

    Attributes:
        on_lease_lost: (job) somebody else has it, or may have it soon; what this worker
            makes of it is not written.
        on_store_error: (error) the store could not do it; the worker tries again.
    """

    on_lease_lost: Callable[[Job[Any]], object] | None = None
    on_store_error: Callable[[Exception], object] | None = None


EVENTS = tuple(field.name for field in attrs.fields(Hooks))
# How many arguments each is called with: those of `Callable[[...], object] | None`.
_ARGUMENTS: Final = {
    event: len(get_args(get_args(hint)[0])[0]) for event, hint in get_type_hints(Hooks).items()
}


def _check(name: str, hook: object) -> None:
    if hook is None:
        return
    if not callable(hook):
        raise TypeError(f"{name} must be a function or None, got {hook!r}")
    if is_async(hook):
        raise TypeError(f"{name} must be a plain function: a hook watches and is not awaited")


def _hooks_of(given: object) -> list[Hooks[Any, Any]]:
    if given is None or isinstance(given, Hooks):
        return [] if given is None else [given]
    found: list[Any] = list(given) if isinstance(given, Iterable) else [given]
    for each in found:
        if not isinstance(each, Hooks):
            raise OptionError(f"hooks must be Hooks or a list of Hooks, got {each!r}")
    return found


class Watchers(Generic[T, R]):
    """The hooks of one queue: who is to be told of each event, in order.

    An event that nobody watches is an empty tuple, so that telling it costs one test.

    Attributes:
        errors: hooks that raised [count].
    """

    def __init__(
        self, hooks: Hooks[T, R] | Iterable[Hooks[T, R]] | None, owner: object, base: type
    ) -> None:
        """Gather the hooks.

        Args:
            hooks: one or more; each event goes to them in order.
            owner: the queue; its methods of a hook's name come first.
            base: the class whose subclass `owner` is.

        Raises:
            OptionError: `hooks` are no Hooks.
            TypeError: a hook is no function, or an async one.
        """
        given = _hooks_of(hooks)

        def told(event: str) -> tuple[Callable[..., object], ...]:
            method = None
            if hasattr(owner, event) and not hasattr(base, event):
                method = attribute_of(owner, event, takes=_ARGUMENTS[event])
            _check(event, method)
            found = [method, *(getattr(each, event) for each in given)]
            return tuple(hook for hook in found if hook is not None)

        self.errors = 0
        self.on_enqueue: tuple[Callable[[T], object], ...] = told("on_enqueue")
        self.on_batch_start: tuple[Callable[[Batch[T]], object], ...] = told("on_batch_start")
        self.on_batch_complete: tuple[Callable[[Batch[T], Sequence[Result[R]]], object], ...]
        self.on_batch_complete = told("on_batch_complete")
        self.on_processed: tuple[Callable[[T, Result[R]], object], ...] = told("on_processed")
        self.on_queue_size_change: tuple[Callable[[int], object], ...]
        self.on_queue_size_change = told("on_queue_size_change")
        self.on_error: tuple[Callable[[Exception], object], ...] = told("on_error")
        self.on_retry: tuple[Callable[[T, Exception, int, float], object], ...]
        self.on_retry = told("on_retry")
        self.on_drop: tuple[Callable[[T, str], object], ...] = told("on_drop")
        self.on_dead_letter: tuple[Callable[[T, Exception], object], ...] = told("on_dead_letter")
        self.on_throttled: tuple[Callable[[float, str], object], ...] = told("on_throttled")
        self.on_idle: tuple[Callable[[], object], ...] = told("on_idle")
        self.on_drained: tuple[Callable[[DrainReport], object], ...] = told("on_drained")
        # Of the core's own events, by name.
        self._others = {event: told(event) for event in EVENTS if event not in vars(self)}
        # Whether anybody wants to know of the results of calls.
        results = self.on_processed or self.on_retry or self.on_dead_letter
        self.of_calls = bool(self.on_batch_complete or results)

    def tell_of(self, event: str, *arguments: object) -> None:
        """Call the hooks of the event of this name."""
        hooks = self._others.get(event)
        self.tell(getattr(self, event) if hooks is None else hooks, *arguments)

    def tell(
        self,
        hooks: tuple[Callable[Args, object], ...],
        *args: Args.args,
        **kwargs: Args.kwargs,
    ) -> None:
        """Call `hooks`, one event of this object's own; report those that raise."""
        for hook in hooks:
            try:
                returned = hook(*args, **kwargs)
                if returned is not None and inspect.isawaitable(returned):
                    _refuse(returned)
            except Exception as error:
                # A dashboard must never take the queue down with it.
                self.errors += 1
                logger.exception("hook %r raised", hook)
                if hook not in self.on_error:
                    report = HookError(getattr(hook, "__name__", repr(hook)), error)
                    report.__cause__ = error
                    self.tell(self.on_error, report)


def only_for(names: Collection[str], hooks: JobHooks) -> JobHooks:
    """Return the same hooks, told of jobs of these handlers only.

    Errors concern the whole queue, and go through.
    """

    def of_job(hook: Callable[..., object] | None) -> Callable[..., object] | None:
        if hook is None:
            return None
        told = hook
        return lambda job, *more: told(job, *more) if job.handler in names else None

    def of_batch(hook: Callable[..., object] | None) -> Callable[..., object] | None:
        if hook is None:
            return None
        told = hook
        return lambda batch, *more: told(batch, *more) if batch[0].handler in names else None

    return attrs.evolve(
        hooks,
        on_enqueue=of_job(hooks.on_enqueue),
        on_processed=of_job(hooks.on_processed),
        on_retry=of_job(hooks.on_retry),
        on_lease_lost=of_job(hooks.on_lease_lost),
        on_drop=of_job(hooks.on_drop),
        on_dead_letter=of_job(hooks.on_dead_letter),
        on_batch_start=of_batch(hooks.on_batch_start),
        on_batch_complete=of_batch(hooks.on_batch_complete),
        on_bisect=of_batch(hooks.on_bisect),
    )


class JobWatchers(Watchers[Job[Any], Any]):
    """The hooks of one durable queue: the manager's, then the queue's, then the handlers'.

    The engine tells of calls (`of_engine`), the durable queue of jobs: only it knows what
    the store has made of them.
    """

    def __init__(self, hooks: Iterable[JobHooks]) -> None:
        """Gather the hooks, in the order in which they are told."""
        given = list(hooks)
        super().__init__(given, None, object)
        self.on_lease_lost = tuple(each.on_lease_lost for each in given if each.on_lease_lost)
        self.on_store_error = tuple(each.on_store_error for each in given if each.on_store_error)
        self.of_engine: list[Hooks[Job[Any], Any]] = [
            Hooks(
                on_batch_start=each.on_batch_start,
                on_batch_complete=each.on_batch_complete,
                on_queue_size_change=each.on_queue_size_change,
                on_error=each.on_error,
                on_bisect=each.on_bisect,
                on_throttled=each.on_throttled,
            )
            for each in given
        ]


def _refuse(returned: object) -> None:
    close = getattr(returned, "close", None)
    if close is not None:
        close()  # or Python warns that the coroutine was never awaited
    raise TypeError("a hook must be a plain function; this one returned something to await")
