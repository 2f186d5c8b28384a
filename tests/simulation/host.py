"""A host for simulated processes: each is a trio run of its own, driven step by step.

    Host.run ─▶ draws one process that is able to go on ─▶ Process.tick: one turn of its loop
       └─ none is able: time moves to the next deadline, or to what the agenda says

Rule 1: nothing waits in earnest. Time is a number, which moves only when every process that
is able to run has done so; who runs next is drawn. One seed is one history.
Rule 2: a killed process never gets another turn, as after `kill -9`: no `finally` runs, no
shielded write goes out. A frozen one gets none for a while, as after SIGSTOP.
Rule 3: what is private to trio stands in this file: several guest runs take turns in one
thread, and its scheduler draws from our seed.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import attrs
import outcome
import trio
from trio._core import _run as trio_run
from trio._core._run_context import GLOBAL_RUN_CONTEXT

__all__ = ["Host", "Process", "Stuck", "seeded"]

_MOST_TURNS: Final = 100_000  # between two moments: somebody turns in circles


class Stuck(Exception):
    """The history does not come to its end: says why."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let trio's scheduler, and whoever draws from `random`, draw from this seed."""
    private: Any = trio_run
    before = private._ALLOW_DETERMINISTIC_SCHEDULING, private._r.getstate(), random.getstate()
    private._ALLOW_DETERMINISTIC_SCHEDULING = True
    private._r.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        private._ALLOW_DETERMINISTIC_SCHEDULING = before[0]
        private._r.setstate(before[1])
        random.setstate(before[2])


@attrs.define(eq=False)
class Host:
    """Time, and the processes that share it.

    Attributes:
        draw: decides who runs next.
        now: the time [s].
        processes: all that were started, dead ones included.
        turns: turns that processes have had [count].
        current: the process whose turn it is; None: nobody's.
    """

    draw: random.Random
    now: float = 0.0
    processes: list[Process] = attrs.field(factory=list)
    turns: int = 0
    current: Process | None = None
    _agenda: list[tuple[float, int, Callable[[], object]]] = attrs.field(factory=list)
    _numbers: Iterator[int] = attrs.field(factory=itertools.count)

    def at(self, when: float, call: Callable[[], object]) -> None:
        """Put on the agenda: call this at `when` [s], or now if that is past."""
        heapq.heappush(self._agenda, (max(when, self.now), next(self._numbers), call))

    def run(self, over: Callable[[], bool], until: float) -> bool:
        """Let the processes run until `over()`, or until the time is `until` [s].

        Returns:
            Whether it was over in time.

        Raises:
            Stuck: they run in circles.
        """
        turns = 0
        while True:
            able = [process for process in self.processes if process.is_able]
            if able:
                turns += 1
                if turns > _MOST_TURNS:
                    raise Stuck(f"{turns} turns at {self.now:.3f} s: {able[0].name} spins")
                self.turns += 1
                (able[0] if len(able) == 1 else self.draw.choice(able)).tick()
                continue
            if over():
                return True
            turns, when = 0, self._next()
            if when > until:
                self.now = max(self.now, until)
                return over()
            self.now = max(self.now, when)
            while self._agenda and self._agenda[0][0] <= self.now:
                heapq.heappop(self._agenda)[2]()

    def _next(self) -> float:
        """Return when something may happen [s]."""
        agenda = self._agenda[0][0] if self._agenda else math.inf
        return min([agenda, *(process.next_turn for process in self.processes)])


@attrs.define(eq=False)
class _Clock(trio.abc.Clock):
    """The host's time, in place of trio's own."""

    host: Host

    def start_clock(self) -> None: ...

    def current_time(self) -> float:
        return self.host.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return 0.0


class Process:
    """A simulated process.

    Attributes:
        name: for people.
        dead: killed, and gone.
        ended: what its main function came to; None: it has not ended.
    """

    def __init__(self, host: Host, name: str, main: Callable[[], Awaitable[object]]) -> None:
        """Start it; it runs when it is drawn."""
        self.name = name
        self.dead = False
        self.ended: outcome.Outcome[object] | None = None
        self._host = host
        self._main = main
        self._scope = trio.CancelScope()
        self._frozen_until = -math.inf
        self._ticks: deque[Callable[[], object]] = deque()
        self._context: dict[str, Any] = {}
        self._hooks: Any = sys.get_asyncgen_hooks()
        with self._entered():
            trio.lowlevel.start_guest_run(
                self._run,
                run_sync_soon_threadsafe=self._ticks.append,
                done_callback=self._end,
                clock=_Clock(host),
                host_uses_signal_set_wakeup_fd=True,
            )
            self._runner: Any = GLOBAL_RUN_CONTEXT.runner
        host.processes.append(self)

    @property
    def alive(self) -> bool:
        """Whether it has neither ended nor been killed."""
        return not self.dead and self.ended is None

    @property
    def frozen(self) -> bool:
        """Whether it gets no turns for a while."""
        return self._host.now < self._frozen_until

    @property
    def frozen_until(self) -> float:
        """Until when it gets no turns [s]; it may be long past."""
        return self._frozen_until

    @property
    def error(self) -> BaseException | None:
        """What ended it, if that was an error."""
        return self.ended.error if isinstance(self.ended, outcome.Error) else None

    @property
    def is_able(self) -> bool:
        """Whether a turn would make it go on."""
        return self.alive and not self.frozen and self._has_work()

    @property
    def next_turn(self) -> float:
        """When it may be able to go on by itself [s]."""
        if not self.alive:
            return math.inf
        when = -math.inf if self._has_work() else float(self._runner.deadlines.next_deadline())
        return max(when, self._frozen_until)

    def tick(self) -> None:
        """Give it one turn: every task that can run does one step."""
        with self._entered():
            self._ticks.popleft()()

    def call(self, function: Callable[[], object]) -> None:
        """Call a plain function as if it were one of this process's tasks."""
        with self._entered():
            function()

    def freeze(self, seconds: float) -> None:
        """Give it no turns for so long from now [s]."""
        self._frozen_until = max(self._frozen_until, self._host.now + seconds)

    def kill(self) -> None:
        """Give it no turns any more."""
        self.dead = True

    def clear_away(self) -> None:
        """Give a killed process turns after all, so that Python can forget it; ends it.

        What it does now is nobody's business: its way to the store must be shut.
        """
        if not self.dead or self.ended is not None:
            return
        self.dead, self._frozen_until = False, -math.inf
        with self._entered():
            self._scope.cancel()

    def _has_work(self) -> bool:
        runner = self._runner
        return bool(
            runner.runq
            or runner.entry_queue.queue
            or runner.entry_queue.idempotent_queue
            or runner.waiting_for_idle
            or runner.deadlines.next_deadline() <= self._host.now
        )

    async def _run(self) -> None:
        with self._scope:
            await self._main()

    def _end(self, ended: outcome.Outcome[object]) -> None:
        self.ended = ended

    @contextmanager
    def _entered(self) -> Iterator[None]:
        """Put this process's run in the place of whichever was there."""
        context = GLOBAL_RUN_CONTEXT.__dict__
        before, self._host.current = self._host.current, self
        outside, hooks = dict(context), sys.get_asyncgen_hooks()
        context.clear()
        context.update(self._context)
        sys.set_asyncgen_hooks(*self._hooks)
        try:
            yield
        finally:
            self._host.current = before
            self._context = dict(context)
            self._hooks = sys.get_asyncgen_hooks()
            context.clear()
            context.update(outside)
            sys.set_asyncgen_hooks(*hooks)
