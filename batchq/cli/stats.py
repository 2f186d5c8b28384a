"""`batchq stats`: what is there, counted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import click

from batchq.cli.door import existing_store, store_options
from batchq.cli.table import table, when

if TYPE_CHECKING:
    from batchq.stores.base import Store

__all__ = ["stats"]

_READINGS: Final = ("scheduled", "retrying", "stalled")
# Nobody keeps count of readings: the jobs are read, page by page.
_PAGE: Final = 10_000
_WORKERS: Final = 10


@click.command()
@store_options
def stats(*, url: str, as_json: bool) -> None:
    """Count the jobs of each queue, and what each worker has done.

    `scheduled` and `retrying` are pending jobs whose time has not come; `stalled` are
    processing ones whose worker is gone: the next claim takes them.

    \b
    Example:
        batchq stats --url sqlite:///batchq-demo.db
    """  # noqa: D301 - click's mark, not a backslash
    with existing_store(url) as store:
        report = _report(store)
    click.echo(json.dumps(report, indent=2) if as_json else _for_people(report))


def _report(store: Store) -> dict[str, Any]:
    from batchq.core.lifecycle import JobState

    info = store.info()
    now = store.now()
    return {
        "store": {
            "kind": info.kind,
            "location": info.location,
            "schema": info.schema,
            "durability": info.durability,
            "version": info.version,
        },
        "queues": [
            {
                "queue": queue,
                **{state.value: counted.get(state, 0) for state in JobState},
                **{reading: _count(store, queue, reading) for reading in _READINGS},
            }
            for queue, counted in sorted(store.counts().items())
        ],
        "workers": [
            {
                "worker": worker.worker,
                "commits": worker.commits,
                "batches": worker.batches,
                "lost": worker.beat.lost if worker.beat is not None else 0,
                "seen_ago": round(max(0.0, now - worker.seen_at), 3),
            }
            for worker in store.workers()
        ],
    }


def _count(store: Store, queue: str, reading: str) -> int:
    from batchq.core.record import JobFilter

    where = JobFilter(queue=queue, status=reading)
    count = after = 0
    while page := store.find(where, after=after, limit=_PAGE):
        count, after = count + len(page), page[-1].id
        if len(page) < _PAGE:
            break
    return count


def _for_people(report: dict[str, Any]) -> str:
    store, queues, workers = report["store"], report["queues"], report["workers"]
    kind = f"{store['kind']} {store['version']}"
    about = f"schema {store['schema']}, durability {store['durability']}"
    lines = [f"{store['location']}: {kind}, {about}", ""]
    if not queues:
        return "\n".join([*lines, "No jobs yet: handlers store them with enqueue()."])
    states = [key for key in queues[0] if key != "queue" and any(row[key] for row in queues)]
    lines.append(
        table(["queue", *states], [[row[key] for key in ("queue", *states)] for row in queues])
    )
    if workers:
        rows = [
            [row["worker"], row["commits"], row["batches"], row["lost"], when(-row["seen_ago"])]
            for row in workers[:_WORKERS]
        ]
        lines += ["", table(["worker", "commits", "batches", "lost", "last commit"], rows)]
    if len(workers) > _WORKERS:
        lines.append(f"and {len(workers) - _WORKERS} more (--json has them all)")
    return "\n".join(lines)
