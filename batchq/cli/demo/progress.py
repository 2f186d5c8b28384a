"""The campaign while it runs: a bar in a terminal, a line a second elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

import attrs
import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

__all__ = ["Display", "Pace", "Snapshot", "display"]

_WINDOW: Final = 3.0
_LINE_EVERY: Final = 1.0


@attrs.frozen(kw_only=True)
class Snapshot:
    """How far it is.

    Attributes:
        stored: all jobs.
        sent: completed jobs.
        failed: failed jobs.
        retrying: recipients that the server has put off and not served since.
        rate: lately [1/s].
    """

    stored: int
    sent: int
    failed: int
    retrying: int
    rate: float

    @property
    def done(self) -> int:
        """Jobs with a final verdict."""
        return self.sent + self.failed

    @property
    def eta(self) -> str:
        """How long the rest takes at this rate."""
        if not self.rate:
            return "-"
        seconds = (self.stored - self.done) / self.rate
        return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"  # noqa: PLR2004


class Display(Protocol):
    """Where progress is shown."""

    def update(self, now: Snapshot) -> None:
        """Show how far it is."""

    def say(self, line: str) -> None:
        """Tell something, once."""


@attrs.define(eq=False)
class Pace:
    """Measures the rate over the last seconds, from the first item that is done."""

    clock: Callable[[], float] = time.monotonic
    _seen: deque[tuple[float, int]] = attrs.field(factory=deque, init=False)

    def rate(self, done: int) -> float:
        """Note that so many are done by now; return how many a second lately."""
        now = self.clock()
        if not done:
            self._seen.clear()  # the workers are still starting
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[0][0] > _WINDOW:  # noqa: PLR2004
            self._seen.popleft()
        start, before = self._seen[0]
        return (done - before) / (now - start) if now > start else 0.0


@contextmanager
def display(*, fancy: bool, to_stderr: bool) -> Iterator[Display]:
    """Choose how to show progress, and end it cleanly."""
    if not fancy:
        yield _Lines(to_stderr)
        return
    with _progress(to_stderr=to_stderr) as progress:
        yield _Bar(progress)


def _progress(*, to_stderr: bool) -> Progress:
    return Progress(
        TextColumn("sent [green]{task.fields[now].sent:,}[/]"),
        BarColumn(),
        TextColumn("of {task.fields[now].stored:,} stored"),
        TextColumn("[yellow]retrying {task.fields[now].retrying:,}[/]"),
        TextColumn("[red]failed {task.fields[now].failed:,}[/]"),
        TextColumn("{task.fields[now].rate:,.0f} items/s"),
        TextColumn("ETA {task.fields[now].eta}"),
        console=Console(stderr=to_stderr),
        auto_refresh=False,
    )


@attrs.define(eq=False)
class _Bar:
    progress: Progress

    def update(self, now: Snapshot) -> None:
        if not self.progress.tasks:
            self.progress.add_task("", now=now)
        task = self.progress.tasks[0].id
        self.progress.update(task, total=now.stored, completed=now.done, now=now)
        self.progress.refresh()

    def say(self, line: str) -> None:
        self.progress.console.print(line, markup=False, highlight=False)


@attrs.define(eq=False)
class _Lines:
    to_stderr: bool
    _started: float = attrs.field(factory=time.monotonic, init=False)
    _last: float = attrs.field(default=0.0, init=False)

    def update(self, now: Snapshot) -> None:
        at = time.monotonic()
        if at - self._last < _LINE_EVERY and now.done < now.stored:
            return
        self._last = at
        self.say(
            f"{at - self._started:6.1f} s  stored {now.stored:,}  sent {now.sent:,}"
            f"  retrying {now.retrying:,}  failed {now.failed:,}"
            f"  {now.rate:,.0f} items/s  ETA {now.eta}"
        )

    def say(self, line: str) -> None:
        click.echo(line, err=self.to_stderr)
