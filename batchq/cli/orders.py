"""`batchq job cancel`, `batchq queue pause`, `batchq clean`: what people order of a store."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from batchq.cli.door import existing_store, store_options
from batchq.cli.refusal import Refusal
from batchq.cli.table import table

if TYPE_CHECKING:
    from batchq.core.record import JobFilter, Outcome
    from batchq.manager import QueueManager
    from batchq.stores.base import Store

__all__ = ["STATUSES", "JobId", "cancel", "clean", "delete", "queue", "retry"]

F = TypeVar("F", bound=Callable[..., Any])

# As batchq.core: stored states, then what is read from them. Written out, for --help is to
# answer without importing the core; a test compares.
STATUSES: Final = (
    "pending",
    "processing",
    "completed",
    "failed",
    "cancelled",
    "scheduled",
    "retrying",
    "stalled",
)
_ENDS: Final = ("completed", "failed", "cancelled")
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
_LONGEST: Final = 3_155_760_000  # as batchq.core.numbers has it [s]
_WORDS: Final = {
    "asked": "asked to stop: they run, and their workers will hear of it",
    "refused": "refused: a job in their state can't",
    "conflict": "refused: another job has their key",
    "unknown": "unknown: there are no such jobs",
}


class _Duration(click.ParamType):  # type: ignore[type-arg]  # generic for its checker only
    """A number of seconds, or one with a unit."""

    name = "duration"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        """Read it [s]."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", str(value))
        if found is None:
            self.fail(f"{value!r} is no time: write 90, 15m, 24h or 7d", param, ctx)
        seconds = float(found[1]) * _UNITS[found[2]]
        if seconds > _LONGEST:
            self.fail(f"{value!r} is too long: at most {_LONGEST // 86_400}d", param, ctx)
        return seconds


class JobId(click.ParamType):  # type: ignore[type-arg]  # generic for its checker only
    """What a job is named by."""

    name = "id"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> int:
        """Read it."""
        try:
            number = int(value)
        except ValueError:
            number = 0
        if number < 1:
            words = "is no job's id: it is a whole number from 1, as `batchq jobs` lists them"
            self.fail(f"{value!r} {words}", param, ctx)
        return number


def _which(command: F) -> F:
    """Give a command ids, and the options that say which jobs are meant."""
    for option in (
        click.option("--queue", metavar="NAME", help="All jobs of this queue."),
        click.option("--status", type=click.Choice(STATUSES), help="All jobs that are so."),
        click.argument("ids", type=JobId(), nargs=-1, metavar="[ID]..."),
    ):
        command = option(command)
    return command


@click.command()
@_which
@click.option("--reason", default="user", show_default=True, help="Why, in one word.")
@store_options
def cancel(*, reason: str, **which: Any) -> None:  # noqa: ANN401 - as `_carry_out` has them
    """Cancel jobs that wait, and ask those that are running to stop.

    \b
    Example:
        batchq job cancel 17 18
        batchq job cancel --queue letters --status pending
    """  # noqa: D301 - click's mark, not a backslash
    _carry_out(lambda manager, jobs: manager.cancel_sync(jobs, reason), "cancelled", **which)


@click.command()
@_which
@store_options
def retry(**which: Any) -> None:  # noqa: ANN401 - as `_carry_out` has them
    """Let jobs that ended run again, with all their attempts; and waiting ones run now.

    \b
    Example:
        batchq job retry 17
        batchq job retry --status failed --queue letters
    """  # noqa: D301 - click's mark, not a backslash
    _carry_out(lambda manager, jobs: manager.retry_sync(jobs), "to run", **which)


@click.command()
@_which
@store_options
def delete(**which: Any) -> None:  # noqa: ANN401 - as `_carry_out` has them
    """Delete jobs that ended, with what is kept of their failures; now, whatever their age.

    \b
    Example:
        batchq job delete 17
        batchq job delete --status failed --queue letters
    """  # noqa: D301 - click's mark, not a backslash
    _carry_out(lambda manager, jobs: manager.delete_sync(jobs), "deleted", **which)


@click.command()
@click.option(
    "--older-than",
    "grace",
    type=_Duration(),
    required=True,
    metavar="TIME",
    help="They ended so long ago: 90 (seconds), 15m, 24h, 7d.",
)
@click.option("--queue", metavar="NAME", help="Only jobs of this queue.")
@click.option(
    "--status", "states", type=click.Choice(_ENDS), multiple=True, help="Only those that ended so."
)
@store_options
def clean(
    *, grace: float, queue: str | None, states: tuple[str, ...], url: str, as_json: bool
) -> None:
    """Delete jobs that ended long enough ago. Workers go on meanwhile.

    \b
    Example:
        batchq clean --older-than 7d
        batchq clean --older-than 24h --status completed
    """  # noqa: D301 - click's mark, not a backslash
    from batchq.core.lifecycle import JobState
    from batchq.manager import QueueManager

    with existing_store(url) as store:
        deleted = QueueManager(store).clean_sync(
            grace=grace, queue=queue, states=[JobState(state) for state in states or _ENDS]
        )
    click.echo(json.dumps({"deleted": deleted}) if as_json else f"{deleted} jobs deleted")


@click.group()
def queue() -> None:
    """Pause queues, and let them go on."""


@queue.command()
@click.argument("name")
@store_options
def pause(*, name: str, url: str, as_json: bool) -> None:
    """Let no worker claim jobs of a queue; what runs goes on. It outlives every restart.

    \b
    Example:
        batchq queue pause letters
    """  # noqa: D301 - click's mark, not a backslash
    _set_paused(name, url, paused=True, as_json=as_json)


@queue.command()
@click.argument("name")
@store_options
def resume(*, name: str, url: str, as_json: bool) -> None:
    """Let a queue's jobs be claimed again.

    \b
    Example:
        batchq queue resume letters
    """  # noqa: D301 - click's mark, not a backslash
    _set_paused(name, url, paused=False, as_json=as_json)


@queue.command("list")
@store_options
def list_queues(*, url: str, as_json: bool) -> None:
    """Name the queues that have jobs or are paused.

    \b
    Example:
        batchq queue list
    """  # noqa: D301 - click's mark, not a backslash
    with existing_store(url) as store:
        rows = _queues(store)
    if as_json:
        click.echo(json.dumps([{"queue": name, "paused": paused} for name, paused in rows]))
    elif rows:
        click.echo(table(["queue", ""], [[name, "paused" * paused] for name, paused in rows]))
    else:
        click.echo("no queues yet")


def _queues(store: Store) -> list[tuple[str, bool]]:
    paused = {each.queue: each.paused for each in store.queues()}
    return [(name, paused.get(name, False)) for name in sorted({*paused, *store.counts()})]


def _set_paused(name: str, url: str, *, paused: bool, as_json: bool) -> None:
    from batchq.manager import QueueManager

    with existing_store(url) as store:
        manager = QueueManager(store)
        known = name in dict(_queues(store))
        (manager.pause_sync if paused else manager.resume_sync)(name)
    if as_json:
        click.echo(json.dumps({"queue": name, "paused": paused}))
        return
    note = "" if known else " (it has no jobs yet)"
    click.echo(f"{name} {'is paused' if paused else 'goes on'}{note}")


def _carry_out(
    order: Callable[[QueueManager, tuple[int, ...] | JobFilter], Outcome],
    done: str,
    *,
    ids: tuple[int, ...],
    status: str | None,
    queue: str | None,
    url: str,
    as_json: bool,
) -> None:
    """Carry an order out on the jobs that are meant, and tell what became of it."""
    from batchq.manager import QueueManager

    jobs = _selection(ids, status, queue)
    with existing_store(url) as store:
        outcome = order(QueueManager(store), jobs)
    _tell(outcome, done, ids=ids, as_json=as_json)


def _selection(
    ids: tuple[int, ...], status: str | None, queue: str | None
) -> tuple[int, ...] | JobFilter:
    from batchq.core.record import JobFilter

    named = status is not None or queue is not None
    if bool(ids) == named:
        raise Refusal("name jobs by their ids, or by --status and --queue; one of the two")
    return ids or JobFilter(status=status, queue=queue)


def _tell(outcome: Outcome, done: str, *, ids: Sequence[int], as_json: bool) -> None:
    counts = {answer.value: count for answer, count in outcome.counts.items()}
    if as_json:
        answers = [answer.value for answer in outcome.answers]
        click.echo(json.dumps({"counts": counts, "answers": answers}))
    else:
        words = {"done": done, **_WORDS}
        for answer, word in words.items():
            if counts.get(answer):
                named = _named(ids, outcome, answer) if answer != "done" else ""
                click.echo(f"{counts[answer]} {word}{named}")
        if not counts:
            click.echo("no such jobs")
    if outcome.answers and not outcome.done:
        raise SystemExit(1)


def _named(ids: Sequence[int], outcome: Outcome, answer: str) -> str:
    """Name the jobs that got an answer, where they were named."""
    if not outcome.answers:
        return ""
    pairs = zip(ids, outcome.answers, strict=True)
    named = [str(job_id) for job_id, found in pairs if found.value == answer]
    return f" ({'jobs' if len(named) > 1 else 'job'} {', '.join(named)})"
