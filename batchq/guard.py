"""Keeps leases while an event loop stands still: one thread that a busy handler can't stop.

    loop turns ── loop stands for lease/3 ──▶ the guard extends, and says where it stands
                                   └── for the handler's timeout, or ten leases ──▶ no more

Rule 1: it does nothing while the loop turns: extensions travel in the ledger.
Rule 2: it decides nothing. What the store answers goes to the leases, once the loop turns.
"""

from __future__ import annotations

import inspect
import logging
import math
import sys
import threading
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import CodeType, FrameType
from typing import Any, Final

import attrs

from batchq.handler import AnyHandler
from batchq.leases import Leases

__all__ = ["Guard"]

logger = logging.getLogger("batchq")

_LOOKS: Final = 12  # per lease
_PER_LEASE: Final = 3  # extensions
_LEASES: Final = 10  # without a timeout, a loop may stand for so many


@attrs.define(eq=False)
class _Watch:
    """One queue's leases, and how its event loop stands still.

    Attributes:
        leases: to be extended.
        handlers: those that may stand in the loop, by their code.
        since: when the loop had last turned before it stood [s, its clock].
        extended_at: how long it had stood when the leases were last extended [s].
        gave_up: whether they are extended no more.
    """

    leases: Leases
    handlers: Mapping[CodeType, AnyHandler[Any]]
    since: float = -math.inf
    extended_at: float = -math.inf
    gave_up: bool = False

    def begin(self, since: float) -> None:
        """Note that the loop stands since then."""
        if self.since != since:
            self.since, self.extended_at, self.gave_up = since, -math.inf, False


@attrs.define(eq=False)
class Guard:
    """Watches the leases of the queues of one event loop."""

    _watches: tuple[_Watch, ...] = attrs.field(default=(), init=False)
    _thread: int = attrs.field(default=0, init=False)  # the event loop's
    _named: set[str | None] = attrs.field(factory=set, init=False)
    _stop: threading.Event = attrs.field(factory=threading.Event, init=False)

    @contextmanager
    def watch(self, leases: Leases, handlers: Iterable[AnyHandler[Any]]) -> Iterator[None]:
        """Keep the leases in the block, which runs in their event loop's thread."""
        codes = {code: each for each in handlers if (code := _code_of(each.function)) is not None}
        watch = _Watch(leases, codes)
        if not self._watches:
            self._thread, self._stop = threading.get_ident(), threading.Event()
            run = threading.Thread(
                target=self._run, args=(self._stop,), name="batchq-guard", daemon=True
            )
            run.start()
        self._watches = (*self._watches, watch)
        try:
            yield
        finally:
            self._watches = tuple(each for each in self._watches if each is not watch)
            if not self._watches:
                self._stop.set()

    def look(self) -> None:
        """Extend the leases whose event loop stands still."""
        for watch in self._watches:
            if watch.leases.is_stalled():
                self._keep(watch)

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(min((each.leases.lease for each in self._watches), default=1) / _LOOKS):
            self.look()

    def _keep(self, watch: _Watch) -> None:
        leases, stalled = watch.leases, watch.leases.stalled_for()
        watch.begin(leases.turned_at)
        frame = sys._current_frames().get(self._thread)  # noqa: SLF001 - as faulthandler does
        handler = self._handler_in(frame)
        self._warn(handler, frame, stalled)
        timeout = None if handler is None else handler.timeout
        if stalled > (_LEASES * leases.lease if timeout is None else timeout):
            self._give_up(watch, stalled)
        elif stalled - watch.extended_at >= leases.lease / _PER_LEASE and leases.extend_now():
            watch.extended_at = stalled

    def _handler_in(self, frame: FrameType | None) -> AnyHandler[Any] | None:
        """Return the handler whose code stands in a thread."""
        handlers = ChainMap(*(dict(each.handlers) for each in self._watches))
        while frame is not None and frame.f_code not in handlers:
            frame = frame.f_back
        return None if frame is None else handlers[frame.f_code]

    def _warn(
        self, handler: AnyHandler[Any] | None, frame: FrameType | None, stalled: float
    ) -> None:
        name = None if handler is None else handler.name
        if name in self._named:
            return
        self._named.add(name)
        logger.warning(
            "%s keeps the event loop from turning, for %.1f s now: leases are kept meanwhile, but"
            " nothing else runs here. A plain def runs in a thread. It stands in %s",
            "something" if name is None else f"handler {name!r}",
            stalled,
            "nobody's code" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}",
        )

    def _give_up(self, watch: _Watch, stalled: float) -> None:
        if not watch.gave_up:
            watch.gave_up = True
            logger.warning(
                "the event loop has not turned for %.1f s: its leases are kept no longer, and"
                " other workers may run its jobs",
                stalled,
            )


def _code_of(function: Callable[..., Any]) -> CodeType | None:
    """Return the code that runs when a handler's function is called."""
    inner: Any = inspect.unwrap(function)
    while isinstance(inner, partial):
        inner = inspect.unwrap(inner.func)
    if not hasattr(inner, "__code__"):  # an object with a __call__
        inner = type(inner).__call__
    return getattr(inner, "__code__", None)
