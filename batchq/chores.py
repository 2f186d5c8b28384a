"""What a worker process does beside work: it says that it is there, what waits in vain, cleans.

Rule 1: nothing depends on it. What fails is told of, and tried again at its next time.
Rule 2: a clean is many short transactions, and never keeps others waiting for long. Two
processes that clean at once do no harm.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final

import attrs
import trio

from batchq.core.lifecycle import JobState
from batchq.core.record import Beat
from batchq.core.retention import Retention
from batchq.errors import StoreBroken
from batchq.ledger import Ledger
from batchq.stores.base import Store

__all__ = ["Chores"]

logger = logging.getLogger("batchq")

_BEAT: Final = 10.0  # from one beat to the next [s]
_REPORT: Final = 60.0  # from one look for what waits in vain to the next [s]
_REPORTS: Final = 60  # looks in which it is said once
_CHUNK: Final = 1_000  # jobs looked at in one transaction
_MOST: Final = 100_000  # jobs looked at in one clean
_SOON: Final = 60.0  # the first clean comes after so long at the latest [s]


@attrs.define(eq=False, kw_only=True)
class Chores:
    """The chores of one process, as long as its queues work.

    Attributes:
        ledger: the road to the store.
        beat: says how the process does; gets how late its event loop was [s].
        retention: how long ended jobs are kept.
        cleanup_interval: from one clean to the next [s].
        cares: whether jobs of a queue and a handler are run here, or are not to be.
        on_error: told when the store could not do it.
    """

    ledger: Ledger
    beat: Callable[[float], Beat]
    retention: Retention
    cleanup_interval: float
    cares: Callable[[str, str], bool]
    on_error: Callable[[Exception], object]
    _late: float = attrs.field(default=0.0, init=False)
    _told: set[tuple[str, str]] = attrs.field(factory=set, init=False)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Do them until `stop`.

        Raises:
            StoreBroken: the store must not be used any more.
        """
        task_status.started()
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_beating)
                nursery.start_soon(self._keep_reporting)
                nursery.start_soon(self._keep_clean)

    def stop(self, grace: float) -> None:
        """Do no more; what has begun of a transaction ends."""
        del grace
        self._scope.cancel()

    async def end(self) -> None:
        """Beat once more, for what has happened since; the queues have ended."""
        try:
            await self._say()
        except StoreBroken:
            return  # that is known: it has ended them
        except Exception as error:  # whatever it is, the process ends in order
            self.on_error(error)

    async def _keep_beating(self) -> None:
        while True:
            await self._try(self._say)
            due = trio.current_time() + _BEAT
            await trio.sleep_until(due)
            self._late = trio.current_time() - due

    async def _say(self) -> None:
        beat = self.beat(self._late)
        await self.ledger.call(lambda store: store.beat(beat))

    async def _keep_reporting(self) -> None:
        reports = 0
        while True:
            await self._try(self._report)
            await trio.sleep(_REPORT)
            reports += 1
            if not reports % _REPORTS:
                self._told.clear()  # it is said anew each hour, as long as it is so

    async def _report(self) -> None:
        """Say which jobs wait for handlers that are not known here."""
        kinds = await self.ledger.call(lambda store: store.kinds())
        for queue, handler in kinds:
            if (queue, handler) not in self._told and not self.cares(queue, handler):
                self._told.add((queue, handler))
                logger.warning(
                    "queue %r: jobs of handler %r wait, and none of that name is registered here:"
                    " they stay until a worker comes that has it, perhaps as an alias",
                    queue,
                    handler,
                )

    async def _keep_clean(self) -> None:
        if not self.retention.by_state():
            return
        soon = min(_SOON, self.cleanup_interval) * random.random()  # noqa: S311 - no secret
        await trio.sleep(soon)
        while True:
            await self._try(self._clean)
            await trio.sleep(self.cleanup_interval)

    async def _clean(self) -> None:
        """Walk from the oldest job on, until one is too young to be cleaned away."""
        kept, after = self.retention.by_state(), 0
        for _ in range(_MOST // _CHUNK):
            clean = partial(_clean_some, after=after, retention=kept)
            following = await self.ledger.call(clean)
            if following is None:
                return
            after = following

    async def _try(self, chore: Callable[[], Awaitable[None]]) -> None:
        try:
            await chore()
        except StoreBroken as error:
            self.on_error(error)
            raise
        except Exception as error:  # whatever it is, the process works on
            self.on_error(error)


def _clean_some(store: Store, after: int, retention: Mapping[JobState, float]) -> int | None:
    return store.clean(retention, after=after, limit=_CHUNK).next
