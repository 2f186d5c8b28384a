"""The campaign from the first job to the report.

store all jobs ──> SMTP server, two workers ──> watch ──> half-way: one is killed, another
starts ──> nothing pending, nothing processing ──> stop the workers ──> does it add up?
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import attrs
import trio

from batchq.cli.demo.campaign import BATCH_SIZE, LEASE, QUEUE, build, newsletter_for
from batchq.cli.demo.crew import Crew, Executioner
from batchq.cli.demo.database import mark_as_demo, mark_as_finished, url_of
from batchq.cli.demo.progress import Display, Pace, Snapshot
from batchq.cli.demo.recipients import Recipient
from batchq.cli.demo.report import Killing, Report, Seen, Times, add_up
from batchq.cli.demo.server import PostOffice, Server
from batchq.core.lifecycle import JobState
from batchq.core.record import JobFilter, JobRecord
from batchq.handlers.email import SmtpTransport
from batchq.stores.base import Store
from batchq.stores.url import open_store

__all__ = ["Plan", "Stuck", "perform"]

_WORKERS: Final = 2
_LOOK_EVERY: Final = 0.1
_PATIENCE: Final = 60.0
_PAGE: Final = 1_000
_ONE_IN_REFUSED: Final = 100
_ONE_IN_PUT_OFF: Final = 25
_ONE_IN_PUT_OFF_TWICE: Final = 4


class Stuck(Exception):
    """Nothing has moved for a minute."""


@attrs.frozen(kw_only=True)
class Plan:
    """What is to be done.

    Attributes:
        recipients: who gets the newsletter.
        seed: which of them the server puts off or refuses.
        database: where no file is yet.
        kill: whether a worker is killed half-way.
    """

    recipients: Sequence[Recipient]
    seed: int
    database: Path
    kill: bool


def perform(plan: Plan, show: Display) -> Report:
    """Do it all, and return what came of it.

    Raises:
        WorkersFailed: the workers end by themselves.
        Stuck: nothing has moved for a minute.
    """
    url = url_of(plan.database)
    office = _post_office(plan)
    storing = _store_all(url, plan.recipients)
    mark_as_demo(plan.database)
    count = len(plan.recipients)
    show.say(f"jobs stored: {count:,} in {storing:.2f} s; now {_WORKERS} workers send the mail")
    with Server(office) as server, closing(open_store(url)) as store:
        crew = Crew({"BATCHQ_URL": url, "BATCHQ_DEMO_SMTP_PORT": str(server.port)})
        executioner = Executioner(crew, office, count - len(office.refuse))
        if plan.kill:
            office.on_delivery = executioner
        try:
            for _ in range(_WORKERS):
                crew.start()
            _watch(store, office, crew=crew, executioner=executioner, show=show)
            sending = time.monotonic() - (office.began_at or time.monotonic())
        finally:
            crew.stop()
        report = add_up(
            [recipient.email for recipient in plan.recipients],
            _all_jobs(store),
            _seen(office),
            workers=store.workers(),
            killed=_killing(executioner),
            times=Times(storing=storing, sending=sending),
            database=str(plan.database),
        )
    mark_as_finished(plan.database)
    return report


def _post_office(plan: Plan) -> PostOffice:
    """Choose whom the server refuses, and whom it puts off once or twice."""
    keys = [recipient.email.casefold() for recipient in plan.recipients]
    count = len(keys)
    refused = count // _ONE_IN_REFUSED or (1 if count >= _ONE_IN_REFUSED // 10 else 0)
    put_off = count // _ONE_IN_PUT_OFF or 1
    draw = random.Random(plan.seed)  # noqa: S311 - a reproducible choice, no secret
    chosen = draw.sample(keys, refused + put_off)
    return PostOffice(
        refuse=frozenset(chosen[:refused]),
        put_off={
            key: 1 if number % _ONE_IN_PUT_OFF_TWICE else 2
            for number, key in enumerate(chosen[refused:], start=1)
        },
    )


def _store_all(url: str, recipients: Sequence[Recipient]) -> float:
    """Store one job per recipient; return how long that took [s]."""
    manager, newsletter = build(url, SmtpTransport())
    emails = [newsletter_for(recipient) for recipient in recipients]

    async def store() -> float:
        async with manager:
            started = trio.current_time()
            await newsletter.enqueue_many(emails)
            return trio.current_time() - started

    try:
        return trio.run(store)
    finally:
        manager.close()


def _watch(
    store: Store, office: PostOffice, *, crew: Crew, executioner: Executioner, show: Display
) -> None:
    """Show progress, and replace workers that die, until no job is left to do."""
    pace = Pace()
    moved_at = time.monotonic()
    last = None
    while True:
        counts = store.counts().get(QUEUE, {})
        now = _snapshot(counts, office, pace)
        show.update(now)
        if now.done == now.stored:
            return
        if (sign := (now.done, office.connections)) != last:
            last, moved_at = sign, time.monotonic()
        if time.monotonic() - moved_at > _PATIENCE:
            raise Stuck(f"nothing has moved for {_PATIENCE:.0f} s")
        for dead, successor in crew.replace_the_dead():
            show.say(_obituary(dead, successor, executioner))
        time.sleep(_LOOK_EVERY)


def _snapshot(counts: dict[JobState, int], office: PostOffice, pace: Pace) -> Snapshot:
    sent, failed = counts.get(JobState.COMPLETED, 0), counts.get(JobState.FAILED, 0)
    deferred = list(office.deferred)  # a copy in one step: the server's thread goes on
    return Snapshot(
        stored=sum(counts.values()),
        sent=sent,
        failed=failed,
        retrying=sum(1 for key in deferred if office.deferred[key] and key not in office.delivered),
        rate=pace.rate(sent + failed),
    )


def _obituary(dead: int, successor: int, executioner: Executioner) -> str:
    if executioner.victim is None or dead != executioner.pid:
        return f"worker {dead} ended by itself; worker {successor} takes its place"
    return (
        f"killed worker {dead} in the middle of a batch of up to {BATCH_SIZE} (SIGKILL);"
        f" worker {successor} takes its place. What the dead one held comes back when its"
        f" lease of {LEASE:g} s runs out"
    )


def _killing(executioner: Executioner) -> Killing | None:
    if executioner.victim is None or executioner.pid is None:
        return None
    return Killing(pid=executioner.pid, accepted=tuple(executioner.victim.accepted))


def _seen(office: PostOffice) -> Seen:
    return Seen(
        delivered=office.delivered,
        deferred=office.deferred,
        refused=frozenset(office.refused),
        message_ids=office.message_ids,
        connections=office.connections,
    )


def _all_jobs(store: Store) -> Iterator[JobRecord]:
    after = 0
    while page := store.find(JobFilter(), after=after, limit=_PAGE):
        yield from page
        after = page[-1].id
