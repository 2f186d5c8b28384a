"""What a seed means: the setting of a history, and the faults that come in it.

Everything is drawn before the history begins, but for what depends on its course: who runs
next, how long a commit takes, what a producer does next. Those draw from the same source.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

import attrs

__all__ = ["QUEUES", "Event", "Fate", "Plan", "draw_fate", "draw_plan"]

QUEUES: Final = ("plain", "shared", "many", "jobs")
_ON_SQLITE: Final = 4  # one history in so many
_NASTY: Final = ("poison", "block")


@attrs.frozen
class Fate:
    """What a handler makes of a job.

    Attributes:
        kind: ok, slow, fail, retry, discard, snooze, release, poison (kills its process), block
            (holds the event loop up), hang, odd (returns what can't be stored), throttle, early.
        runs: so many first runs of it do that; the later ones are `ok`.
        seconds: how long, or after how long.
    """

    kind: str
    runs: int
    seconds: float


@attrs.frozen
class Event:
    """Something that happens to the machine or to a process.

    Attributes:
        at: when [s].
        kind: kill, die (in the middle of a commit), stop, freeze, trouble, slow, step, reboot;
            or orders: cancel, retry, pause, clean.
        place: which process.
        seconds: how long it lasts, or by how much.
        number: which error; in which commit.
    """

    at: float
    kind: str
    place: int
    seconds: float
    number: int


@attrs.frozen(kw_only=True)
class Plan:
    """The setting of a history.

    Attributes:
        seed: what it was drawn from.
        sqlite: whether the store is a file; else it is in memory.
        processes: how many there are.
        lease: how long a claim holds [s].
        poll_interval: of the managers [s].
        grace: of the managers [s].
        queues: what there is to work on.
        duration: how long faults come and jobs are stored [s].
        batch_size: of the batch handlers [jobs].
        flush_interval: of the batch handlers [s].
        concurrency: of all queues.
        prefetch: of all queues.
        max_retries: of all handlers.
        guards: whether a thread keeps the leases of a process that stands still.
        watchers: whether a thread tells of what other processes have written.
        disk: how long a commit takes at the most, while all is well [s].
        timeout: of the plain handlers [s]; None is no limit.
        calm: no faults at all: then nothing may go wrong.
        events: what happens, by time.
    """

    seed: int
    sqlite: bool
    processes: int
    lease: float
    poll_interval: float
    grace: float
    queues: Sequence[str]
    duration: float
    batch_size: int
    flush_interval: float
    concurrency: int
    prefetch: int
    max_retries: int
    guards: bool
    watchers: bool
    disk: float
    timeout: float | None
    calm: bool
    events: Sequence[Event]

    def most_held(self) -> dict[str, int]:
        """Return how many jobs a process has room for, by queue."""
        calls = self.concurrency + self.prefetch
        batch = calls * self.batch_size
        return {"plain": calls, "shared": calls, "many": batch, "jobs": batch}


def draw_plan(seed: int, draw: random.Random) -> Plan:
    """Draw the setting of a history."""
    processes = draw.randint(1, 4)
    duration = draw.uniform(3, 20)
    sqlite = draw.randrange(_ON_SQLITE) == 0
    calm = draw.randrange(10) == 0
    lease = draw.choice((1.5, 3.0, 6.0, 30.0))
    return Plan(
        seed=seed,
        sqlite=sqlite,
        processes=processes,
        lease=lease,
        poll_interval=draw.choice((0.5, 1.0, 3.0)),
        grace=draw.choice((0.0, 0.5, 5.0)),
        queues=sorted(draw.sample(QUEUES, k=draw.randint(1, 3))),
        duration=duration,
        batch_size=draw.randint(1, 8),
        flush_interval=draw.choice((0.0, 0.1, 0.5)),
        concurrency=draw.randint(1, 4),
        prefetch=draw.choice((0, 0, 1)),
        max_retries=draw.randint(0, 3),
        guards=draw.random() < 0.5,
        watchers=draw.random() < 0.5,
        disk=draw.choice((0.01, 0.01, 0.2)),
        timeout=draw.choice((None, None, 1.0, 5.0)),
        calm=calm,
        events=[] if calm else _events(draw, processes, duration, lease=lease, sqlite=sqlite),
    )


def _events(
    draw: random.Random, processes: int, duration: float, *, lease: float, sqlite: bool
) -> list[Event]:
    lasting: dict[str, Callable[[], float]] = {
        "kill": lambda: draw.expovariate(1 / 3),
        "die": lambda: draw.expovariate(1 / 3),
        "stop": lambda: draw.expovariate(1 / 3),
        "freeze": lambda: draw.uniform(0.1, 2.5) * lease,
        "trouble": lambda: draw.expovariate(1 / 2),
        "slow": lambda: draw.expovariate(1 / 2),
        "step": lambda: draw.choice((-7200.0, -1.0, 3600.0, 30 * 86400.0)),
        "cancel": lambda: 0.0,
        "retry": lambda: 0.0,
        "clean": lambda: draw.choice((0.0, 1.0, 5.0)),
        "pause": lambda: draw.expovariate(1 / 3),
    }
    if sqlite:
        lasting["reboot"] = lambda: draw.expovariate(1 / 3)
    # A history with few kinds of trouble gets further into each than one with all.
    kinds = draw.sample(sorted(lasting), k=draw.randint(1, len(lasting)))
    events = []
    for _ in range(draw.randint(1, 12)):
        kind = draw.choice(kinds)
        events.append(
            Event(
                at=draw.uniform(0, duration),
                kind=kind,
                place=draw.randrange(processes),
                seconds=lasting[kind](),
                number=draw.randrange(12),
            )
        )
    return sorted(events, key=lambda event: event.at)


_KINDS: Final = {
    "ok": 12,
    "slow": 6,
    "fail": 3,
    "retry": 2,
    "discard": 1,
    "snooze": 2,
    "release": 1,
    "poison": 1,
    "block": 1,
    "hang": 1,
    "odd": 1,
    "throttle": 1,
    "early": 2,
}


def draw_fate(draw: random.Random, plan: Plan) -> Fate:
    """Draw what becomes of a job."""
    [kind] = draw.choices([*_KINDS], weights=[*_KINDS.values()])
    if plan.calm and kind in _NASTY:
        kind = "ok"
    seconds = {
        "slow": draw.expovariate(1 / 1.0),
        "block": draw.uniform(0.1, 2.0) * plan.lease,
        "hang": min(3 * plan.lease, 20.0),
        "snooze": draw.uniform(0.1, 5.0),
        "retry": draw.uniform(0.0, 3.0),
        "throttle": draw.uniform(0.1, 2.0),
        "early": draw.uniform(0.0, 1.0),
    }.get(kind, 0.0)
    runs = draw.choice((1, 1, 1, 2, 3, 9)) if kind != "throttle" else 1
    return Fate(kind, runs, seconds)
