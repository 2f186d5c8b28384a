"""What a manager knows by name: its handlers, and the queues that their jobs wait in.

Rule 1: what contradicts is refused when it is declared, with both names.
Rule 2: a queue has any number of plain handlers, or exactly one batch handler: so a batch
never holds jobs of two handlers.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from batchq.core.checks import check_quantity
from batchq.core.job import DEFAULT_PRIORITY
from batchq.core.job_options import JobQueueOptions, check_name
from batchq.core.payload import Signature
from batchq.core.retry import RetryPolicy
from batchq.core.using import priority_level
from batchq.errors import OptionError, UnknownHandler
from batchq.handler import AnyHandler, BatchHandler, Handler
from batchq.hooks import JobHooks, only_for
from batchq.job_handle import Intake
from batchq.memory_tier import MemoryIntake
from batchq.registration import BatchHandlerOptions, HandlerOptions

__all__ = ["Declared", "Registry", "job_hooks"]

_OF_QUEUE: Final = ("concurrency", "lease", "prefetch", "max_pending")
_CLAIMING: Final = ("lease", "prefetch")
_GATHERING: Final = ("batch_size", "flush_interval", "bisect")


@attrs.define(eq=False, kw_only=True)
class Declared:
    """A queue, as far as it was declared.

    Attributes:
        options: how one process works on it.
        hooks: whom to tell, in order.
        handlers: whose jobs wait in it.
        memory: where its jobs go if it is of the memory tier.
        shared: whether `manager.queue` declared it, or a handler named it by `queue=`.
    """

    options: JobQueueOptions
    hooks: list[JobHooks] = attrs.field(factory=list)
    handlers: list[AnyHandler[Any]] = attrs.field(factory=list)
    memory: MemoryIntake | None = None
    shared: bool = False


@attrs.define(eq=False)
class Registry:
    """Handlers by the names of their jobs, and queues by name.

    Attributes:
        defaults: `lease` and `poll_interval` of queues that do not say.
    """

    defaults: Mapping[str, float]
    handlers: dict[str, AnyHandler[Any]] = attrs.field(factory=dict, init=False)
    queues: dict[str, Declared] = attrs.field(factory=dict, init=False)

    def declare(self, name: str, settings: Mapping[str, Any], hooks: Sequence[JobHooks]) -> None:
        """Declare a queue that handlers share.

        Raises:
            OptionError: its name is no name, or taken, or a setting is out of its range.
        """
        options = JobQueueOptions(
            name=check_name("a queue's name", name), **{**self.defaults, **settings}
        )
        known = self.queues.get(name)
        if known is not None:
            raise OptionError(
                f"queue {name!r} is there already, with handlers"
                f" {', '.join(each.name for each in known.handlers) or 'to come'};"
                " declare a queue once, before the handlers that name it"
            )
        self.queues[name] = Declared(options=options, hooks=list(hooks), shared=True)

    def register(
        self,
        function: Callable[..., Any],
        options: Mapping[str, Any],
        *,
        kind: type[Handler[..., Any] | BatchHandler[Any, Any]],
        durable: Intake,
    ) -> AnyHandler[Any]:
        """Make a handler of a function, and its queue if it is not there yet.

        Args:
            function: what it calls.
            options: see `HandlerOptions` and `BatchHandlerOptions`.
            kind: which of the two to make.
            durable: where its jobs go, unless it is of the memory tier.

        Raises:
            OptionError: a name is no name, or taken; a setting is out of its range; or the
                queue can't have it.
            TypeError: there is no such option, or the function can't be a handler.
        """
        takes_many = kind is BatchHandler
        _check_known(options, BatchHandlerOptions if takes_many else HandlerOptions)
        given = options["name"] if "name" in options else _name_of(function)
        name = check_name("a handler's name", given)
        memory = MemoryIntake(name) if _in_memory(options.get("tier", "durable")) else None
        signature = Signature.of_batch if takes_many else Signature.of_call
        handler: AnyHandler[Any] = kind(
            function=function,
            name=name,
            aliases=_aliases(options.get("aliases", ())),
            queue=options.get("queue", name),
            takes_many=takes_many,
            retry=_retry(options.get("retry")),
            timeout=_timeout(options.get("timeout")),
            priority=priority_level(options.get("priority", DEFAULT_PRIORITY)),
            signature=signature(function, handler=name),
            intake=memory or durable,
        )
        self._check_names(handler)
        hooks = _hooks(options.get("hooks"), handler)
        queue = self._queue_for(handler, options, memory)
        queue.hooks += hooks
        queue.handlers.append(handler)
        self.queues[handler.queue] = queue
        self.handlers.update(dict.fromkeys(handler.names, handler))
        return handler

    def handler(self, name: str) -> AnyHandler[Any]:
        """Return the handler that runs jobs of this name.

        Raises:
            UnknownHandler: there is none; the message lists those there are.
        """
        try:
            return self.handlers[name]
        except KeyError:
            there = ", ".join(sorted(self.handlers)) or "none at all"
            raise UnknownHandler(
                f"no handler named {name!r} is registered; there are: {there}"
            ) from None

    def chosen(
        self, queues: Iterable[str] | Mapping[str, int | None] | None
    ) -> dict[str, int | None]:
        """Return the queues to work on, each with its own concurrency or None.

        Raises:
            OptionError: there is no queue of that name, or none at all; or a handler's
                annotations name what is not defined, or no type of JSON.
        """
        with_handlers = {name for name, queue in self.queues.items() if queue.handlers}
        if queues is None:
            wanted: dict[str, int | None] = dict.fromkeys(sorted(with_handlers))
        elif isinstance(queues, Mapping):
            wanted = dict(queues)
        else:
            wanted = dict.fromkeys([queues] if isinstance(queues, str) else queues)
        there = ", ".join(sorted(with_handlers)) or "none at all"
        for name, slots in wanted.items():
            if name not in with_handlers:
                raise OptionError(
                    f"queues names {name!r}, which no handler has; there are: {there}"
                )
            if slots is not None:
                attrs.evolve(self.queues[name].options, concurrency=slots)  # checks it
            for handler in self.queues[name].handlers:
                _resolve(handler.signature)
        if not wanted:
            why = "no handler is registered" if queues is None else "queues names none"
            raise OptionError(f"there is nothing to work on: {why}; there are: {there}")
        return wanted

    def max_pending(self, queue: str) -> int | None:
        """Return how many jobs may wait in a queue; None is no limit."""
        return self.queues[queue].options.max_pending

    def concurrency(self, chosen: Mapping[str, int | None]) -> dict[str, int]:
        """Return how many calls of each of these queues run at a time in one process."""
        return {
            name: slots or self.queues[name].options.concurrency for name, slots in chosen.items()
        }

    def _check_names(self, handler: AnyHandler[Any]) -> None:
        for name in handler.names:
            check_name("a handler's name", name)
            if name in self.handlers:
                raise OptionError(
                    f"a handler named {name!r} is registered already; give this one another"
                    " name=, or none of its aliases="
                )

    def _queue_for(
        self, handler: AnyHandler[Any], options: Mapping[str, Any], memory: MemoryIntake | None
    ) -> Declared:
        """Return the queue that a handler is to have, its own or a shared one."""
        settings = {key: options[key] for key in _OF_QUEUE if key in options}
        if handler.takes_many:
            gathered = {key: options[key] for key in _GATHERING if key in options}
            settings |= {"batch_size": 100, "flush_interval": 1.0, "bisect": "exhausted"} | gathered
        if "queue" not in options:
            made = JobQueueOptions(name=handler.queue, **{**self.defaults, **settings})
            if memory is not None:
                _check_memory(handler.name, settings)
            self._check_own(handler)
            return Declared(options=made, memory=memory)
        if memory is not None:
            raise OptionError(f"handler {handler.name!r}: the memory tier shares no queues")
        own = ", ".join(key for key in _OF_QUEUE if key in settings)
        if own:
            raise OptionError(
                f"handler {handler.name!r} shares queue {handler.queue!r}, whose {own} is said"
                f" once: manager.queue({handler.queue!r}, ...)"
            )
        return self._shared(handler, settings)

    def _check_own(self, handler: AnyHandler[Any]) -> None:
        if handler.queue in self.queues:
            raise OptionError(
                f"handler {handler.name!r} can't have a queue of its own: there is a queue"
                f" {handler.queue!r} already; share it by queue={handler.queue!r}"
            )

    def _shared(self, handler: AnyHandler[Any], settings: Mapping[str, Any]) -> Declared:
        name = check_name("a queue's name", handler.queue)
        made = JobQueueOptions(name=name, **{**self.defaults, **settings})
        queue = self.queues.get(name)
        if queue is None:
            return Declared(options=made, shared=True)
        if not queue.shared:
            raise OptionError(
                f"queue {name!r} belongs to handler {queue.handlers[0].name!r} alone; to share"
                " a queue, all of its handlers name it by queue="
            )
        if queue.handlers and (handler.takes_many or queue.handlers[0].takes_many):
            there = ", ".join(each.name for each in queue.handlers)
            raise OptionError(
                f"queue {name!r} can't have handler {handler.name!r} beside {there}: a queue"
                " has any number of plain handlers, or exactly one batch handler"
            )
        if handler.takes_many:
            batching = {key: settings[key] for key in _GATHERING}
            queue.options = attrs.evolve(queue.options, **batching)
        return queue


def _resolve(signature: Signature) -> None:
    try:
        signature.resolve()
    except TypeError as error:
        raise OptionError(f"module {signature.module!r}: {error}") from error


def _check_known(options: Mapping[str, Any], known: type) -> None:
    names = {**HandlerOptions.__annotations__, **known.__annotations__}
    for name in options:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names)}"
            raise TypeError(f"a handler has no option {name!r}; {hint}")


def _name_of(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", None)
    if name is None:
        raise OptionError(f"{function!r} has no name of its own: give the handler one by name=")
    return str(name)


def _aliases(aliases: object) -> tuple[str, ...]:
    if isinstance(aliases, str) or not isinstance(aliases, Iterable):
        raise OptionError(f"aliases must be a list of names, got {aliases!r}")
    return tuple(aliases)


def _in_memory(tier: object) -> bool:
    if tier not in ("durable", "memory"):
        raise OptionError(f"tier must be 'durable' or 'memory', got {tier!r}")
    return tier == "memory"


def _check_memory(name: str, settings: Mapping[str, Any]) -> None:
    claiming = ", ".join(key for key in _CLAIMING if key in settings)
    if claiming:
        raise OptionError(
            f"handler {name!r} is of the memory tier, where nothing is claimed: {claiming}"
            " needs tier='durable'"
        )


def _retry(retry: object) -> RetryPolicy:
    if retry is None:
        return RetryPolicy()
    if not isinstance(retry, RetryPolicy):
        raise OptionError(f"retry must be a RetryPolicy, got {retry!r}")
    return retry


def _timeout(timeout: float | None) -> float | None:
    check_quantity("timeout", timeout, above=True, or_none=True)
    return timeout


def _hooks(hooks: JobHooks | Sequence[JobHooks] | None, handler: AnyHandler[Any]) -> list[JobHooks]:
    return [only_for(handler.names, each) for each in job_hooks(hooks)]


def job_hooks(hooks: JobHooks | Sequence[JobHooks] | None) -> list[JobHooks]:
    """Read what a user gave as hooks.

    Raises:
        OptionError: it is something else.
    """
    given = [] if hooks is None else [hooks] if isinstance(hooks, JobHooks) else list(hooks)
    for each in given:
        if not isinstance(each, JobHooks):
            raise OptionError(f"hooks must be JobHooks or a list of JobHooks, got {each!r}")
    return given
