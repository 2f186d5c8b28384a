"""What a simulated process does: a manager at work, handlers that do as fated, producers.

Everything of the product is real here: manager, queues, feeder, settler, leases, ledger.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import attrs
import trio

from batchq import Backoff, JobHooks, QueueManager, Result, Retention, RetryPolicy, Throttled
from batchq.core.batch import Batch
from batchq.core.job import Job, Receipt, Verdict
from batchq.errors import BatchqError, JobFailed, StoreError, UnknownJob
from tests.simulation.book import Book
from tests.simulation.host import Host, Process
from tests.simulation.machine import Machine
from tests.simulation.plan import Fate, Plan, draw_fate
from tests.simulation.road import BUG, Door, Road, Weather
from tests.simulation.threads import Threads

__all__ = ["Incarnation", "Order", "World"]

_HANDLERS: Final = {
    "plain": ("plain",),
    "shared": ("ping", "pong"),
    "many": ("many",),
    "jobs": ("jobs",),
}
_MANY: Final = frozenset({"many", "jobs"})
Command = Callable[[QueueManager], Awaitable[object]]
_FAILS: Final = (Verdict.RETRY, Verdict.FAIL)


@attrs.define
class Order:
    """What a producer asked for, and what came of it.

    Attributes:
        outcome: stored, refused, cancelled; unknown: its process died.
        id: of the job, where it was stored.
    """

    outcome: str = "unknown"
    id: int | None = None


@attrs.define(eq=False)
class World:
    """What all processes of a history share.

    Attributes:
        plan: its setting.
        draw: the source of all draws.
        host: has the time and the processes.
        machine: has the clocks and the store.
        book: what has happened.
        threads: what the processes' threads would do.
        weather: how stores do.
        fates: what becomes of each job, by key.
        orders: what producers asked for, by key.
        over: whether no more jobs are stored, and no more faults come.
    """

    plan: Plan
    draw: random.Random
    host: Host
    machine: Machine
    book: Book
    threads: Threads
    weather: Weather = attrs.field(factory=Weather)
    fates: dict[int, Fate] = attrs.field(factory=dict)
    orders: dict[int, Order] = attrs.field(factory=dict)
    over: bool = False

    def new_key(self) -> int:
        """Make up a job: its key is its payload."""
        key = len(self.fates) + 1
        self.fates[key] = draw_fate(self.draw, self.plan)
        self.orders[key] = Order()
        return key


class Incarnation:
    """One life of a process.

    Attributes:
        name: of this life; no other has it.
        process: its run.
        stopping_at: when it was told to stop [s]; None: it was not.
        producing: tasks of it that may still store jobs [count].
        obeying: orders that it has still to carry out [count].
    """

    def __init__(self, world: World, name: str, *, queues: Sequence[str], die_at: int = 0) -> None:
        """Start it.

        Args:
            world: where.
            name: of this life.
            queues: which it works on.
            die_at: the commit that it does not survive; 0: none.
        """
        self.name = name
        self.stopping_at: float | None = None
        self.producing = 0
        self.obeying = 0
        self.blocked_at = -1.0
        self._world = world
        self._queues = queues
        self._stop = trio.Event()
        self._orders = trio.open_memory_channel[Command](math.inf)
        self._names = [name for queue in world.plan.queues for name in _HANDLERS[queue]]
        self._running: dict[int, Receipt] = {}
        self.door = Door(
            world.machine.open_store(), name, world.host, world.book, world.threads, world.weather
        )
        self.road = Road(
            self.door,
            world.draw,
            world.plan.disk,
            self.kill,
            die_at=die_at,
            die_before=world.draw.random() < 0.5,
        )
        self.process = Process(world.host, name, self._main)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.alive

    def kill(self) -> None:
        """Kill it, as -9 does."""
        self._world.book.note("kill", self.name)
        self.door.shut = True
        self.process.kill()

    def stop(self) -> None:
        """Tell it to stop, as SIGTERM does."""
        if self.alive and self.stopping_at is None:
            self._world.book.note("stop", self.name)
            self.stopping_at = self._world.host.now
            self.process.call(self._stop.set)

    def obey(self, order: Command) -> None:
        """Let it give an order to its manager, if it runs."""
        if self.alive and self.stopping_at is None:
            self.obeying += 1
            self.process.call(partial(self._orders[0].send_nowait, order))

    # ---- Its main function.

    async def _main(self) -> None:
        world = self._world
        self._manager = manager = QueueManager(
            self.door,
            lease=world.plan.lease,
            poll_interval=world.plan.poll_interval,
            grace=world.plan.grace,
            # The book keeps all; and a boot with a wrong clock ages jobs by days.
            retention=Retention(completed=None, failed=None, cancelled=None),
            hooks=JobHooks(
                on_batch_start=self._batch_starts,
                on_processed=lambda job, _: self._told(job),
                on_error=self._look_at_error,
            ),
            run_sync=self.road,
        )
        self._register(manager)
        async with manager.working(self._queues), trio.open_nursery() as nursery:
            nursery.start_soon(self._obey)
            for _ in range(world.draw.randint(1, 3)):
                nursery.start_soon(self._produce)
            await self._stop.wait()
            nursery.cancel_scope.cancel()
        self._look_at_the_end()

    async def _obey(self) -> None:
        async for order in self._orders[1]:
            # Nothing was done, and people are told.
            with suppress(StoreError, ZeroDivisionError):
                await order(self._manager)
            self.obeying -= 1

    def _register(self, manager: QueueManager) -> None:
        plan = self._world.plan
        backoff = Backoff(initial_delay=0.1, max_delay=2.0)
        retry = RetryPolicy(plan.max_retries, backoff=backoff)
        own: dict[str, Any] = {"concurrency": plan.concurrency, "prefetch": plan.prefetch}
        manager.queue("shared", **own)

        async def plain(key: int) -> Any:  # noqa: ANN401 - whatever it is fated to return
            return await self._run(key)

        manager.handler(name="plain", retry=retry, timeout=plan.timeout, **own)(plain)
        manager.handler(name="ping", queue="shared", retry=retry)(plain)
        manager.handler(name="pong", queue="shared", retry=retry, priority=1)(plain)

        async def many(keys: list[int]) -> list[Any]:
            return await self._run_many(keys, [None] * len(keys))

        async def jobs(given: list[Job[int]]) -> list[Any]:
            return await self._run_many([job.payload for job in given], given)

        batch: dict[str, Any] = {
            "batch_size": plan.batch_size,
            "flush_interval": plan.flush_interval,
            "retry": retry,
            **own,
        }
        manager.batch_handler(name="many", **batch)(many)
        manager.batch_handler(name="jobs", **batch)(jobs)

    # ---- Handlers.

    def _batch_starts(self, batch: Batch[Job[Any]]) -> None:
        for job in batch:
            self._running[self._world.book.rows[job.id].key] = job.receipt
            self._world.book.start(self.name, job.receipt)

    def _fate(self, key: int) -> Fate:
        """Return what this run of a job comes to."""
        fate = self._world.fates[key]
        return fate if self._world.book.runs[key] <= fate.runs else Fate("ok", 0, 0.0)

    async def _run(self, key: int) -> Any:  # noqa: ANN401 - whatever it is fated to return
        """Be the handler of one job."""
        receipt = self._running[key]
        with self._world.book.run([receipt]):
            return await self._run_one(key, receipt)

    async def _run_one(self, key: int, receipt: Receipt) -> Any:  # noqa: ANN401 - as above
        if self._world.plan.timeout is not None:
            self._world.book.say(receipt, Verdict.RELEASE, *_FAILS)
        fate = self._fate(key)
        await self._suffer(fate)
        answer = self._answer(key, fate)
        self._world.book.say(receipt, *_VERDICTS[fate.kind])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _run_many(self, keys: list[int], jobs: Sequence[Job[int] | None]) -> list[Any]:
        """Be the handler of many jobs: what one suffers all suffer."""
        receipts = [self._running[key] for key in keys]
        with self._world.book.run(receipts):
            return await self._run_all(keys, jobs, receipts)

    async def _run_all(
        self, keys: list[int], jobs: Sequence[Job[int] | None], receipts: list[Receipt]
    ) -> list[Any]:
        fates = [self._fate(key) for key in keys]
        for fate, job in zip(fates, jobs, strict=True):
            if fate.kind == "early" and job is not None:
                # Written, or the call ends before it is: both are well.
                self._world.book.say(job.receipt, Verdict.OK, Verdict.RELEASE)
                job.settle(Result.ok(job.payload))
            await self._suffer(fate)
        answers = [self._answer(key, fate) for key, fate in zip(keys, fates, strict=True)]
        raised = [answer for answer in answers if isinstance(answer, Exception)]
        for receipt, fate, job in zip(receipts, fates, jobs, strict=True):
            early = fate.kind == "early" and job is not None
            spoilt = bool(raised) and not early
            said = _FAILS if spoilt else (Verdict.OK,) if early else _VERDICTS[fate.kind]
            if spoilt and len(keys) > 1:  # a stop may come while the batch is taken apart
                said = (*_FAILS, Verdict.RELEASE)
            if raised and isinstance(raised[0], Throttled) and not early:
                said = (*_FAILS, Verdict.SNOOZE, Verdict.RELEASE)
            self._world.book.say(receipt, *said)
        if raised:
            self._world.book.raised(receipts)
            raise raised[0]
        return answers

    async def _suffer(self, fate: Fate) -> None:
        world = self._world
        match fate.kind:
            case "poison" | "block" | "hang" if world.over:
                await trio.lowlevel.checkpoint()
            case "poison":
                self.kill()
                await trio.sleep_forever()
            case "block":
                self.blocked_at = world.host.now + fate.seconds
                world.threads.stand_still(self.process, fate.seconds, world.plan.lease)
                await trio.lowlevel.checkpoint()
            case "slow" | "hang" | "early":
                await trio.sleep(fate.seconds)
            case _:
                await trio.lowlevel.checkpoint()

    def _answer(self, key: int, fate: Fate) -> Any:  # noqa: ANN401 - whatever a handler returns
        return _ANSWERS.get(fate.kind, _ok)(key, fate)

    # ---- Hooks.

    def _told(self, job: Job[Any]) -> None:
        self._world.book.tell(self.name, job.receipt)

    def _look_at_error(self, error: Exception) -> None:
        """Complain of errors that no handler and no store has raised."""
        if not isinstance(error, BatchqError | Fated | Throttled) and str(error) != BUG:
            self._world.book.complain(f"{self.name}: {type(error).__name__}: {error}")

    def _look_at_the_end(self) -> None:
        """Nothing is left leased by a stop that nothing has disturbed, and it was in time."""
        began, grace = self.stopping_at, self._world.plan.grace
        if began is None or max(self.door.troubled_at, self.blocked_at) >= began - 5.0:
            return
        held = self._world.book.held_by(self.name)
        if held and self.process.frozen_until < began:
            self._world.book.complain(f"{self.name} has stopped, and holds the jobs {held}")
        took = round(self._world.host.now - began, 3)
        if took > grace + 2.0 and self.process.frozen_until < began:
            self._world.book.complain(f"{self.name} took {took} s to stop, not {grace}")

    # ---- Producers.

    async def _produce(self) -> None:
        world = self._world
        actions: list[Callable[[], Awaitable[None]]] = [
            self._enqueue,
            self._enqueue,
            self._enqueue_many,
            self._enqueue_and_wait,
            self._enqueue_in_haste,
        ]
        self.producing += 1
        try:
            while True:
                await trio.sleep(world.draw.expovariate(1 / 1.5))
                if world.over:
                    return
                await world.draw.choice(actions)()
        finally:
            self.producing -= 1

    def _handler(self, name: str) -> Any:  # noqa: ANN401 - one of several kinds
        return self._manager._registry.handler(name)

    def _using(self, name: str) -> Any:  # noqa: ANN401 - as above
        draw = self._world.draw
        delay = draw.choice((None, None, None, draw.uniform(0, 10.0)))
        priority = draw.choice((None, None, 0, 3))
        return self._handler(name).using(delay=delay, priority=priority)

    async def _enqueue(self) -> Any:  # noqa: ANN401 - a handle, or None
        key = self._world.new_key()
        using = self._using(self._world.draw.choice(self._names))
        order = self._world.orders[key]
        try:
            handle = await using.enqueue(key)
        except StoreError:
            self._note(order, "refused")
        except ZeroDivisionError:
            self._note(order, "refused")
        except trio.Cancelled:
            self._note(order, "cancelled")
            raise
        else:
            self._note(order, "stored", handle.id)
            return handle
        return None

    async def _enqueue_many(self) -> None:
        draw = self._world.draw
        name = draw.choice(self._names)
        if name not in _MANY:
            return
        keys = [self._world.new_key() for _ in range(draw.randint(1, 20))]
        orders = [self._world.orders[key] for key in keys]
        outcome, ids = "stored", [None] * len(keys)
        try:
            ids = [handle.id for handle in await self._using(name).enqueue_many(keys)]
        except (StoreError, ZeroDivisionError):
            outcome = "refused"
        except trio.Cancelled:
            outcome = "cancelled"
            raise
        finally:
            for order, id_ in zip(orders, ids, strict=True):
                self._note(order, outcome, id_)

    async def _enqueue_and_wait(self) -> None:
        handle = await self._enqueue()
        if handle is None:
            return
        row = self._world.book.rows[handle.id]
        try:
            value = await handle.result(timeout=self._world.draw.uniform(0, 10))
        except (StoreError, TimeoutError):
            return
        except UnknownJob:
            if not row.gone:
                self._complain(f"job {row.id} is unknown to whoever waited for it")
            return
        except JobFailed:
            if row.state.value not in {"failed", "cancelled"}:
                self._complain(f"job {row.id} is told to have failed, and is {row.state.value}")
            return
        if value != row.key:
            self._complain(f"job {row.id} gave {value!r} to whoever waited for {row.key}")

    async def _enqueue_in_haste(self) -> None:
        with trio.move_on_after(self._world.draw.choice((0.0, 0.0004, 0.0015, 0.02))):
            await self._enqueue()

    def _note(self, order: Order, outcome: str, id_: int | None = None) -> None:
        if not self.door.shut:
            order.outcome, order.id = outcome, id_

    def _complain(self, words: str) -> None:
        if not self.door.shut:
            self._world.book.complain(words)


class Fated(Exception):
    """A handler was to raise."""


def _ok(key: int, _: Fate) -> Any:  # noqa: ANN401 - a handler's answer
    return key


_ANSWERS: Final[dict[str, Callable[[int, Fate], Any]]] = {
    "fail": lambda key, _: Fated(key),
    "retry": lambda key, fate: Result.retry(Fated(key), after=fate.seconds),
    "discard": lambda key, _: Result.discard(Fated(key)),
    "snooze": lambda _, fate: Result.snooze(fate.seconds),
    "release": lambda _, __: Result.snooze(0.0),
    "odd": lambda _, __: Result.ok(object()),
    "throttle": lambda _, fate: Throttled(fate.seconds),
}
_VERDICTS: Final[dict[str, tuple[Verdict, ...]]] = {
    **dict.fromkeys(("ok", "slow", "hang", "block", "early", "poison"), (Verdict.OK,)),
    "fail": _FAILS,
    "retry": (Verdict.RETRY,),
    "discard": (Verdict.FAIL,),
    "snooze": (Verdict.SNOOZE,),
    "release": (Verdict.SNOOZE,),
    "odd": (Verdict.FAIL,),
    "throttle": (*_FAILS, Verdict.SNOOZE, Verdict.RELEASE),
}
