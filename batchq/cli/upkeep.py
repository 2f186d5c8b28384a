"""`batchq backup` and `batchq doctor`: what a database file needs of a person."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchq.cli.door import existing_store, store_options
from batchq.cli.refusal import Refusal
from batchq.cli.table import visible

if TYPE_CHECKING:
    from batchq.stores.base import Store
    from batchq.stores.upkeep import Finding, Upkeep

__all__ = ["backup", "doctor"]


@click.command()
@click.argument("destination", type=click.Path(path_type=Path), metavar="DEST")
@store_options
def backup(*, destination: Path, url: str, as_json: bool) -> None:
    """Copy the store to a new file, while work goes on.

    The copy is the store as it was at one moment. It appears when it is whole and on the
    disk, readable by its owner only. To restore it, stop the workers and put it in the
    place of the database, of which neither the -wal nor the -shm file may be left.

    Never copy the file of a store that is in use by other means: what is missing in such a
    copy is in the -wal file, and to close it may lose jobs.

    \b
    Example:
        batchq backup jobs-$(date +%F).db --url sqlite:///jobs.db
    """  # noqa: D301 - click's mark, not a backslash
    with existing_store(url) as store:
        _with_files(store, url).backup(destination)
    size = destination.stat().st_size
    if as_json:
        click.echo(json.dumps({"destination": str(destination), "bytes": size}))
    else:
        click.echo(f"{destination}: {size / 2**20:.1f} MiB")


@click.command()
@store_options
def doctor(*, url: str, as_json: bool) -> None:
    """Look whether the store's file is whole, and whether anything about it is odd.

    It reads the whole file, which takes a while if that is large; work goes on. It names
    jobs whose rows something else has spoiled. The exit code is 1 if something is broken,
    0 if something is only odd, 2 if there is no store to look at.

    If the file is corrupt, stop the workers and restore a copy that `batchq backup` made.
    Without one, `sqlite3 jobs.db .recover | sqlite3 new.db` saves what can still be read.

    \b
    Example:
        batchq doctor --url sqlite:///jobs.db
    """  # noqa: D301 - click's mark, not a backslash
    with existing_store(url) as store:
        found = _with_files(store, url).examine()
    if as_json:
        report = [
            {"name": each.name, "verdict": _verdict(each), "text": each.text} for each in found
        ]
        click.echo(json.dumps(report, indent=2))
    else:
        for each in found:
            text = visible(each.text, 10_000)
            click.echo(f"{_verdict(each):<6}  {each.name:<7}  {text}")
    if any(_verdict(each) == "broken" for each in found):
        raise SystemExit(1)


def _verdict(finding: Finding) -> str:
    if finding.ok:
        return "ok"
    return "odd" if finding.harmless else "broken"


def _with_files(store: Store, url: str) -> Upkeep:
    from batchq.stores.upkeep import Upkeep

    if not isinstance(store, Upkeep):
        raise Refusal(f"{url} is no store in a file")
    return store
