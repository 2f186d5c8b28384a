"""The way from a simulated process to the store: slow, in trouble, or cut in the middle.

Rule 1: it behaves as a thread does: cancelled before the start, or not at all.
Rule 2: an atomic unit fails before it takes effect, never after: the stores at hand know
their outcome. What can be lost is the answer, with the process that waits for it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs
import trio

from batchq.core.job import Answers, Group
from batchq.core.lifecycle import USER, JobState
from batchq.core.record import Changed, Cleaned, JobFilter
from batchq.errors import StoreBroken, StoreBusy, StoreFull
from batchq.stores.base import Store, StoreInfo
from tests.simulation.book import Book, has_written
from tests.simulation.host import Host
from tests.simulation.threads import Threads

__all__ = ["BUG", "Door", "Road", "Weather"]

BUG: Final = "a bug in the store"
_LONG: Final = 0.25  # a delay that counts as trouble [s]


@attrs.define(eq=False)
class Weather:
    """How stores do now, for all processes.

    Attributes:
        error: makes what a commit raises before it takes effect; None: it works.
        share: how many of the commits do [0 .. 1].
        slow: share of the commits that take long [0 .. 1].
        longest: how long those take at the most [s].
        until: when the last of them is over [s, the host's time].
    """

    error: Callable[[], Exception] | None = None
    share: float = 0.0
    slow: float = 0.0
    longest: float = 0.0
    until: float = 0.0

    def clear(self) -> None:
        """End all trouble."""
        self.error, self.share, self.slow, self.longest = None, 0.0, 0.0, 0.0


ERRORS: Final[tuple[Callable[[], Exception], ...]] = (
    lambda: StoreBusy("locked by others; nothing was done"),
    lambda: StoreFull("no space; nothing was done"),
    lambda: ZeroDivisionError(BUG),
)


@attrs.define(eq=False)
class Door:
    """One process's own store: enters what it does in the book.

    Attributes:
        store: does it.
        who: the process.
        host: has the time.
        book: gets every commit.
        threads: are told of every commit.
        weather: how the store does.
        shut: whether the process is dead.
        troubled_at: when something last went wrong or took long here [s, the host's time].
    """

    store: Store
    who: str
    host: Host
    book: Book
    threads: Threads
    weather: Weather
    shut: bool = False
    troubled_at: float = -1.0

    def commit(self, group: Group) -> Answers:
        """Carry out the group, or raise what the weather says."""
        self._look_at_the_weather()
        now = self.store.now()
        answers = self.store.commit(group)
        self.book.commit(self.who, self.host.now, now, group, answers)
        if has_written(answers):
            self.threads.written()
        return answers

    def cancel(
        self,
        selection: Sequence[int] | JobFilter,
        reason: str = USER,
        *,
        after: int = 0,
        limit: int = 1_000,
    ) -> Changed:
        """Cancel jobs, or ask them to stop."""
        self._look_at_the_weather()
        now = self.store.now()
        changed = self.store.cancel(selection, reason, after=after, limit=limit)
        self.book.cancel(self.host.now, now, reason, changed)
        return changed

    def retry(
        self, selection: Sequence[int] | JobFilter, *, after: int = 0, limit: int = 1_000
    ) -> Changed:
        """Let jobs run again."""
        self._look_at_the_weather()
        now = self.store.now()
        changed = self.store.retry(selection, after=after, limit=limit)
        self.book.retry(self.host.now, now, changed)
        return changed

    def clean(
        self,
        retention: Mapping[JobState, float],
        *,
        queue: str | None = None,
        after: int = 0,
        limit: int = 1_000,
    ) -> Cleaned:
        """Delete what ended long enough ago; every final state is kept for as long."""
        self._look_at_the_weather()
        now = self.store.now()
        cleaned = self.store.clean(retention, queue=queue, after=after, limit=limit)
        self.book.clean(
            self.host.now,
            now,
            keep=min(retention.values()),
            after=after,
            limit=limit,
            cleaned=cleaned,
        )
        return cleaned

    def set_queue(self, queue: str, *, paused: bool) -> None:
        """Pause a queue, or let it go on."""
        self._look_at_the_weather()
        self.store.set_queue(queue, paused=paused)
        self.book.pause(queue, paused=paused)

    def info(self) -> StoreInfo:
        """Say that it needs no thread, and whether others' commits are told of."""
        return attrs.evolve(self.store.info(), inline=True, shared=self.threads.watchers)

    def close(self) -> None:
        """Leave it open: the machine closes it."""

    def _look_at_the_weather(self) -> None:
        if self.shut:
            raise StoreBroken("its process is dead")
        if self.weather.error is not None and self.host.draw.random() < self.weather.share:
            self.trouble()
            raise self.weather.error()

    def trouble(self) -> None:
        """Note that something goes wrong now."""
        self.troubled_at = self.host.now

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever else a store has
        return getattr(self.store, name)


@attrs.define(eq=False)
class Road:
    """Runs commits as a thread would; see `RunSync`.

    Attributes:
        door: where it leads.
        draw: decides how long each takes.
        disk: how long it takes at the most, while all is well [s].
        kill: ends the process.
        die_at: the commit in which the process dies, counted from 1; 0: in none.
        die_before: whether it dies before that commit takes effect, or after.
    """

    door: Door
    draw: random.Random
    disk: float
    kill: Callable[[], object]
    die_at: int = 0
    die_before: bool = False
    _commits: int = 0

    async def __call__(self, call: Callable[..., Any], *args: Any) -> Any:  # noqa: ANN401 - any call
        await trio.lowlevel.checkpoint_if_cancelled()
        with trio.CancelScope(shield=True):
            self._commits += 1
            await self._pass(before=True)
            try:
                return call(*args)
            finally:
                await self._pass(before=False)

    async def _pass(self, *, before: bool) -> None:
        if self._commits == self.die_at and self.die_before is before:
            self.kill()
        await trio.sleep(self._delay())

    def _delay(self) -> float:
        weather = self.door.weather
        if self.draw.random() < weather.slow:
            delay = self.draw.uniform(0, weather.longest)
            if delay > _LONG:
                self.door.trouble()
            weather.until = max(weather.until, self.door.host.now + delay)
            return delay
        return self.disk * self.draw.choice((0.0, 0.0, 0.05, 0.2, 1.0))
