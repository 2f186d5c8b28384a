"""One history, from its seed to what was wrong in it.

faults and producers, for some seconds ─▶ quiet: all must finish ─▶ stop ─▶ compare
"""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Final

import attrs

from tests.simulation.book import Book
from tests.simulation.host import Host, Stuck, seeded
from tests.simulation.machine import Machine
from tests.simulation.plan import Event, Plan, draw_plan
from tests.simulation.program import Incarnation, World
from tests.simulation.road import ERRORS
from tests.simulation.threads import Threads

__all__ = ["Report", "live"]

_QUIET: Final = 400.0  # in which all has to finish [s]
_STOPPING: Final = 60.0


@attrs.frozen(kw_only=True)
class Report:
    """What came of a history.

    Attributes:
        plan: what was to happen.
        wrong: what did not hold, in words.
        digest: tells it from every other.
        jobs: stored jobs [count].
        commits: transactions [count].
        ran_out: leases that ran out [count].
        lives: processes that were started [count].
        seconds: simulated time [s].
    """

    plan: Plan
    wrong: Sequence[str]
    digest: str
    jobs: int
    commits: int
    ran_out: int
    lives: int
    seconds: float


def live(seed: int, folder: Path, *, tell: Callable[[str], object] | None = None) -> Report:
    """Live through the history of a seed; files of SQLite go to `folder`.

    Args:
        seed: which history.
        folder: where files may be made.
        tell: is told of every event, in words.
    """
    with seeded(seed):
        draw = random.Random(seed)
        plan = draw_plan(seed, draw)
        host = Host(draw)
        book = Book(clock=lambda: host.now, tell_words=tell)
        machine = Machine(host, folder if plan.sqlite else None)
        threads = Threads(host, guards=plan.guards, watchers=plan.watchers)
        world = World(plan, draw, host, machine, book, threads)
        with machine.clocks(), world.threads.simulated():
            history = _History(world)
            try:
                history.live()
            finally:
                seconds = host.now
                book.closed = True
                history.clear_away()
                machine.close()
    return Report(
        plan=plan,
        wrong=book.wrong,
        digest=book.digest,
        jobs=len(book.rows),
        commits=book.commits,
        ran_out=book.ran_out,
        lives=len(history.lives),
        seconds=seconds,
    )


class _History:
    """Lets a plan happen."""

    def __init__(self, world: World) -> None:
        self.lives: list[Incarnation] = []
        self._world = world
        self._places: list[Incarnation] = []

    def live(self) -> None:
        """Let it happen, and see what is there at the end."""
        world, host = self._world, self._world.host
        world.book.is_well = self._is_well
        if world.plan.calm:  # in trouble a settlement that failed holds its job for longer
            world.book.most = world.plan.most_held()
        for place in range(world.plan.processes):
            self._places.append(self._new(place))
        for event in world.plan.events:
            host.at(event.at, partial(self._happen, event))
        try:
            host.run(lambda: False, world.plan.duration)
            self._quiet()
            world.book.close(world.machine.open_store())
            self._look_at_orders()
        except Stuck as stuck:
            world.book.complain(str(stuck))
        except Exception:  # the product's own, of a kind that no simulated process meets
            world.book.complain(traceback.format_exc())

    def clear_away(self) -> None:
        """Let Python forget those that were killed."""
        host = self._world.host
        for life in self.lives:
            life.door.shut = True
            if not life.process.dead and life.alive:
                life.process.kill()
            life.process.clear_away()
        host.run(lambda: not any(life.alive for life in self.lives), host.now + 1e6)

    def _quiet(self) -> None:
        """End all faults; everything has to finish, and to stop in order."""
        world, host, book = self._world, self._world.host, self._world.book
        world.over = True
        world.weather.clear()
        for life in self.lives:
            life.road.die_at = 0
        for place, life in enumerate(self._places):
            if not life.alive or (life.stopping_at is not None):
                self._replace(place, world.plan.queues if place == 0 else None)
        # By then whoever was dead, frozen or kept waiting has lost its leases; others have not.
        # A pause may have been ordered in a process that only now gets its turns.
        for queue, after in product(world.plan.queues, (0.0, 30.0, 100.0)):
            host.at(host.now + after, partial(self._resume, queue))
        thawed = max(life.process.frozen_until for life in self.lives)
        book.quiet_since = max(host.now, thawed, world.weather.until) + 2 * world.plan.lease + 1.0
        if not host.run(self._is_finished, host.now + _QUIET):
            book.complain(f"{book.unfinished} jobs are not finished after {_QUIET:g} s of quiet")
        for life in self.lives:
            life.stop()
        host.run(lambda: not any(life.alive for life in self.lives), host.now + _STOPPING)
        for life in self.lives:
            self._look_at_end(life)

    def _is_well(self, name: str) -> bool:
        [life] = [life for life in self.lives if life.name == name]
        thawed = self._world.host.now - life.process.frozen_until
        return life.alive and thawed > self._world.plan.lease

    def _is_finished(self) -> bool:
        still = any(life.alive and (life.producing or life.obeying) for life in self.lives)
        return not still and not self._world.book.unfinished

    def _new(
        self, place: int, queues: Sequence[str] | None = None, *, die_at: int = 0
    ) -> Incarnation:
        draw = self._world.draw
        every = self._world.plan.queues
        if queues is None and place == 0:
            queues = every
        elif queues is None:
            queues = [name for name in every if draw.random() < 0.8] or every
        life = Incarnation(self._world, f"{place}.{len(self.lives)}", queues=queues, die_at=die_at)
        self.lives.append(life)
        return life

    def _replace(self, place: int, queues: Sequence[str] | None = None, *, die_at: int = 0) -> None:
        self._places[place] = self._new(place, queues, die_at=die_at)

    def _happen(self, event: Event) -> None:
        world = self._world
        if world.over:
            return
        life = self._places[event.place]
        world.book.note(event.kind, life.name, round(event.seconds, 3))
        match event.kind:
            case "kill" | "die" | "stop":
                life.stop() if event.kind == "stop" else life.kill()
                die_at = 1 + event.number if event.kind == "die" else 0
                self._later(event.place, event.seconds, die_at=die_at)
            case "freeze":
                life.process.freeze(event.seconds)
            case "step":
                world.machine.wall_ahead += event.seconds
            case "reboot":
                self._reboot()
            case "trouble" | "slow":
                self._turn_the_weather(event)
            case _:
                self._order(life, event)

    def _turn_the_weather(self, event: Event) -> None:
        weather, host, lasts = self._world.weather, self._world.host, event.seconds
        if event.kind == "trouble":
            weather.error = ERRORS[event.number % len(ERRORS)]
            weather.share = self._world.draw.choice((0.3, 1.0))
        else:
            weather.slow, weather.longest = 0.5, event.seconds
            lasts *= 2
        host.at(host.now + lasts, weather.clear)

    def _order(self, life: Incarnation, event: Event) -> None:
        """Order something about some of the jobs, or about a queue, as people do."""
        draw, host = self._world.draw, self._world.host
        if event.kind == "pause":
            queue = draw.choice(self._world.plan.queues)
            life.obey(lambda manager: manager.pause(queue))
            host.at(host.now + event.seconds, partial(self._resume, queue))
            return
        if event.kind == "clean":
            life.obey(lambda manager: manager.clean(grace=event.seconds))
            return
        ids = list(self._world.book.rows)
        chosen = sorted(draw.sample(ids, k=min(len(ids), 5)))
        if event.kind == "cancel":
            life.obey(lambda manager: manager.cancel(chosen))
        else:
            life.obey(lambda manager: manager.retry(chosen))

    def _resume(self, queue: str) -> None:
        if queue in self._world.book.paused:
            self._places[0].obey(lambda manager: manager.resume(queue))

    def _later(self, place: int, seconds: float, *, die_at: int = 0) -> None:
        """Start a process anew in a while, unless that has happened."""
        gone = self._places[place]

        def start() -> None:
            if self._places[place] is gone and not self._world.over:
                self._replace(place, die_at=die_at)

        self._world.host.at(self._world.host.now + seconds, start)

    def _reboot(self) -> None:
        for life in self.lives:
            if life.alive:
                life.kill()
        machine = self._world.machine
        machine.reboot()
        self._world.book.reboot(machine.open_store().now())
        for place in range(len(self._places)):
            self._later(place, 1.0)

    # ---- What is there at the end.

    def _look_at_end(self, life: Incarnation) -> None:
        book = self._world.book
        if life.alive:
            book.complain(f"{life.name} does not stop")
        elif not life.process.dead and life.process.error is not None:
            lines = traceback.format_exception(life.process.error)
            book.complain(f"{life.name} came to grief: {''.join(lines)}")

    def _look_at_orders(self) -> None:
        """Compare what producers were told with what is there."""
        book = self._world.book
        for key, order in self._world.orders.items():
            ids = book.ids(key)
            book.note(key, order.outcome, ids)
            fits = {
                "stored": ids == [order.id],
                "refused": not ids,
                "cancelled": not ids,
                "unknown": len(ids) <= 1,
            }
            if not fits[order.outcome]:
                book.wrong.append(f"J1: the order {key} was {order.outcome} and stored as {ids}")
