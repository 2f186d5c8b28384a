"""`batchq demo`: what the user says, checked; the rest is in the files beside it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from batchq.cli.refusal import Refusal
from batchq.errors import MissingExtra

if TYPE_CHECKING:
    from batchq.cli.demo.director import Plan
    from batchq.cli.demo.recipients import Recipient
    from batchq.cli.demo.report import Report

__all__ = ["demo"]

_COUNT: Final = 10_000
_QUICK: Final = 500


@click.command()
@click.option(
    "--recipients",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A CSV file with the columns email,name; without it, a list is made up.",
)
@click.option(
    "--count",
    type=click.IntRange(1, 1_000_000),
    help=f"How many recipients to make up.  [default: {_COUNT:,}]",
)
@click.option("--seed", type=int, default=1, show_default=True, help="What they are made from.")
@click.option(
    "--database",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Where to keep the jobs: a new file, or one that a demo left, which is replaced. "
    " [default: batchq-demo.db]",
)
@click.option("--quick", is_flag=True, help=f"The same with {_QUICK} recipients.")
@click.option("--no-kill", is_flag=True, help="Leave the workers alive.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.pass_context
def demo(
    ctx: click.Context,
    *,
    file: Path | None,
    count: int | None,
    seed: int,
    database: Path | None,
    quick: bool,
    no_kill: bool,
    as_json: bool,
) -> None:
    """Send a newsletter to 10,000 people, and see that nobody is lost.

    One job per recipient goes into a SQLite file. Two worker processes send them in batches
    of 100, to a real SMTP server on this machine; it puts some off and refuses some. Half-way
    one worker is killed and another one started. No mail leaves this machine.

    It ends by itself, with a report; exit code 0 says that every recipient is accounted for.
    The database stays, for `batchq stats` and `batchq jobs`.

    \b
    Example:
        batchq demo --quick
        batchq demo --recipients friends.csv
    """  # noqa: D301 - click's mark, not a backslash
    if file is not None and (quick or count is not None):
        raise click.UsageError("--recipients brings its own number: leave --count and --quick out")
    if quick and count is not None:
        raise click.UsageError("--quick is --count 500: say one of them")
    _need_extras()
    import attrs

    from batchq.cli.demo.database import fresh_database, url_of
    from batchq.cli.demo.director import Plan
    from batchq.cli.demo.recipients import make_recipients, read_recipients
    from batchq.cli.demo.telling import account_of_file, account_of_report

    if file is None:
        people: Sequence[Recipient] = make_recipients(count or (_QUICK if quick else _COUNT), seed)
        bad = repeated = 0
    else:
        content = read_recipients(file)
        people, bad, repeated = content.recipients, len(content.bad), len(content.repeated)
        _say(account_of_file(file, content), err=as_json)
    path = fresh_database(database)
    plan = Plan(recipients=people, seed=seed, database=path, kill=not no_kill)
    report = attrs.evolve(_perform(plan, quiet=as_json), bad_rows=bad, repeated_rows=repeated)
    _say([report.as_json()] if as_json else account_of_report(report, url_of(_near(path))))
    ctx.exit(0 if report.adds_up else 1)


def _need_extras() -> None:
    for package in ("aiosmtpd", "rich"):
        if find_spec(package) is None:
            raise MissingExtra("the demo", package, "demo")


def _perform(plan: Plan, *, quiet: bool) -> Report:
    from batchq.cli.demo.crew import WorkersFailed
    from batchq.cli.demo.director import Stuck, perform
    from batchq.cli.demo.progress import display

    plain = "NO_COLOR" in os.environ or os.environ.get("TERM", "dumb") == "dumb"
    fancy = not quiet and not plain and sys.stdout.isatty()
    try:
        with display(fancy=fancy, to_stderr=quiet) as show:
            return perform(plan, show)
    except (Stuck, WorkersFailed) as error:
        raise Refusal(f"gave up, the jobs are in {plan.database}: {error}", exit_code=1) from None
    except KeyboardInterrupt:
        said = f"stopped; what was not sent waits in {plan.database}"
        raise Refusal(said, exit_code=130) from None


def _say(lines: Iterable[str], *, err: bool = False) -> None:
    for line in lines:
        click.echo(line, err=err)


def _near(path: Path) -> Path:
    """Return the path as one would type it here."""
    try:
        return path.relative_to(Path.cwd().resolve())
    except ValueError:
        return path
