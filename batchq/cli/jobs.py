"""`batchq jobs` and `batchq job`: the jobs themselves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from batchq.cli.door import existing_store, store_options
from batchq.cli.orders import STATUSES, JobId, cancel, delete, retry
from batchq.cli.refusal import Refusal
from batchq.cli.table import table, visible, when

if TYPE_CHECKING:
    from batchq.core.record import Failure, JobRecord

__all__ = ["job", "jobs"]

_PAYLOAD: Final = 40
_ERROR: Final = 60


@click.command()
@store_options
@click.option("--status", type=click.Choice(STATUSES), help="Only jobs that are so.")
@click.option("--queue", metavar="NAME", help="Only jobs of this queue.")
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=20,
    show_default=True,
    help="At most so many.",
)
@click.option(
    "--after",
    type=click.IntRange(min=0),
    default=0,
    metavar="ID",
    help="Only jobs with a higher id.",
)
def jobs(
    *, url: str, as_json: bool, status: str | None, queue: str | None, limit: int, after: int
) -> None:
    """List jobs in the order they were stored.

    ATTEMPT is used/allowed; DUE is when the job may be claimed, or when a worker's lease on
    it runs out.

    \b
    Example:
        batchq jobs --status failed --limit 5
        batchq job 17                            all about one of them
    """  # noqa: D301 - click's mark, not a backslash
    from batchq.core.record import JobFilter

    with existing_store(url) as store:
        where = JobFilter(status=status, queue=queue)
        found = store.find(where, after=after, limit=limit)
        now = store.now()
        failures = [_last_failure(store.errors(record.id, limit=1)) for record in found]
    if as_json:
        click.echo(
            json.dumps(
                [_as_json(*pair, now) for pair in zip(found, failures, strict=True)], indent=2
            )
        )
        return
    if not found:
        click.echo("no such jobs")
        return
    click.echo(_listing(found, failures, now))
    if len(found) == limit:
        click.echo(f"\nmore, perhaps: --after {found[-1].id}")


class _Job(click.Group):
    """Shows a job where no other command is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the words of the command line."""
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            args = ["show", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Job)
def job() -> None:
    """Show, cancel, retry or delete jobs.

    \b
    Example:
        batchq job 17                            all about one of them
        batchq job retry 17
    """  # noqa: D301 - click's mark, not a backslash


job.add_command(cancel)
job.add_command(retry)
job.add_command(delete)


@job.command()
@click.argument("job_id", type=JobId(), metavar="ID")
@store_options
def show(*, job_id: int, url: str, as_json: bool) -> None:
    """Show all about one job, and how its attempts failed.

    \b
    Example:
        batchq job 17
    """  # noqa: D301 - click's mark, not a backslash
    with existing_store(url) as store:
        [record] = store.get([job_id])
        failures = store.errors(job_id)
        now = store.now()
    if record is None:
        raise Refusal(f"there is no job {job_id} in {url}; `batchq jobs` lists them")
    if as_json:
        last = _last_failure(failures)
        errors = [_failure_as_json(failure, now) for failure in failures]
        click.echo(json.dumps({**_as_json(record, last, now), "errors": errors}, indent=2))
        return
    click.echo(_detail(record, now))
    for failure in failures:
        click.echo(_account(failure, now))


def _last_failure(failures: Sequence[Failure]) -> Failure | None:
    return failures[0] if failures else None


def _listing(found: Sequence[JobRecord], failures: Sequence[Failure | None], now: float) -> str:
    rows = [
        [
            str(record.id),
            record.queue,
            record.handler,
            record.status(now),
            _attempts(record),
            _due(record, now),
            visible(record.payload.decode(errors="replace"), _PAYLOAD),
            visible(_trouble(record, failure), _ERROR),
        ]
        for record, failure in zip(found, failures, strict=True)
    ]
    headings = ["id", "queue", "handler", "status", "attempt", "due", "payload", "last error"]
    return table(headings, rows)


def _trouble(record: JobRecord, failure: Failure | None) -> str:
    if record.spoiled is not None:
        return f"spoiled row: {record.spoiled}"
    return "" if failure is None else str(failure.line)


def _attempts(record: JobRecord) -> str:
    return f"{record.used}/{'∞' if record.max_attempts is None else record.max_attempts}"


def _due(record: JobRecord, now: float) -> str:
    return "" if record.due_at is None else when(record.due_at - now)


def _detail(record: JobRecord, now: float) -> str:
    status = record.status(now)
    if record.reason is not None:
        status += f" ({record.reason})"
    facts = {
        "job": str(record.id),
        "queue": record.queue,
        "handler": record.handler,
        "status": status,
        "attempts": _attempts(record),
        "priority": str(record.priority),
        "due": _due(record, now),
        "stored": when(record.enqueued_at - now),
        "started": "" if record.started_at is None else when(record.started_at - now),
        "finished": "" if record.finished_at is None else when(record.finished_at - now),
        "worker": record.worker or "",
        "tags": visible(", ".join(record.tags), 10_000),
        "spoiled": visible(record.spoiled or "", 10_000),
        "payload": visible(record.payload.decode(errors="replace"), 10_000),
        "value": visible((record.value or b"").decode(errors="replace"), 10_000),
    }
    return "\n".join(f"{name:<9} {fact}" for name, fact in facts.items() if fact)


def _account(failure: Failure, now: float) -> str:
    head = f"\nattempt {failure.attempt} failed {when(failure.at - now)}: {failure.line}"
    # A traceback keeps its lines; each of them is made harmless by itself.
    lines = [_visible_indented(line) for line in failure.line.traceback.splitlines()]
    return "\n".join([visible(head, 10_000) if not lines else head.rstrip(), *lines])


def _visible_indented(line: str) -> str:
    """Make a line of a traceback harmless, and keep how far it is indented."""
    return " " * (4 + len(line) - len(line.lstrip())) + visible(line, 1_000)


def _as_json(record: JobRecord, failure: Failure | None, now: float) -> dict[str, Any]:
    return {
        "id": record.id,
        "queue": record.queue,
        "handler": record.handler,
        "status": record.status(now),
        "state": record.state.value,
        "reason": record.reason,
        "attempt": record.attempt,
        "used": record.used,
        "max_attempts": record.max_attempts,
        "priority": record.priority,
        "due_in": None if record.due_at is None else round(record.due_at - now, 3),
        "enqueued_at": record.enqueued_at,
        "started_at": record.started_at,
        "finished_at": record.finished_at,
        "worker": record.worker,
        "payload": _decoded(record.payload),
        "value": _decoded(record.value),
        "tags": list(record.tags),
        "spoiled": record.spoiled,
        "last_error": None if failure is None else str(failure.line),
    }


def _failure_as_json(failure: Failure, now: float) -> dict[str, Any]:
    return {
        "attempt": failure.attempt,
        "at": failure.at,
        "ago": round(now - failure.at, 3),
        "kind": failure.line.kind,
        "message": failure.line.message,
        "traceback": failure.line.traceback,
        "worker": failure.worker,
    }


def _decoded(content: bytes | None) -> object:
    if content is None:
        return None
    try:
        return json.loads(content)
    except (ValueError, RecursionError):  # an undecodable payload is what one may be looking for
        return content.decode(errors="replace")
