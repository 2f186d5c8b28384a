"""Claims jobs for one queue whenever there is room and a claim makes sense.

Rule 1: a claimed job always has a place: what is held and what claims under way may bring
is never more than `most`.
Rule 2: a new event, *then* a look, then the wait; the other order loses news.
Rule 3: it outlives every error of the store but a broken one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import attrs
import trio

from batchq.core.job import Claimed, ClaimedJob, ClaimRequest, Group
from batchq.errors import StoreBroken
from batchq.leases import Leases
from batchq.ledger import Ledger
from batchq.trouble import pause_after

__all__ = ["Feeder", "SuspectPlace"]


@attrs.define(eq=False)
class SuspectPlace:
    """The one place that a process has for a job that may have killed others.

    Attributes:
        is_taken: tells whether there is, or may soon be, such a job.
    """

    is_taken: Callable[[], bool] = lambda: False


@attrs.define(eq=False, kw_only=True)
class Feeder:
    """Knows when to claim, and how much.

    Attributes:
        queue: the queue's name.
        handlers: the names of the jobs to claim.
        most: jobs that have a place at once [jobs].
        poll_interval: longest time between two claims that find nothing [s].
        ledger: the road to the store.
        leases: what is held.
        suspects: the place for one of them; all queues of a process share it.
        accept: gets the jobs of each claim, in order, in the step that learns of them.
        on_error: told when the store could not do it.
    """

    queue: str
    handlers: tuple[str, ...]
    most: int
    poll_interval: float
    ledger: Ledger
    leases: Leases
    suspects: SuspectPlace
    accept: Callable[[Sequence[ClaimedJob]], object]
    on_error: Callable[[Exception], object]
    _asked: int = attrs.field(default=0, init=False)
    _next: float = attrs.field(default=-math.inf, init=False)
    _held_back: float = attrs.field(default=-math.inf, init=False)
    _failures: int = attrs.field(default=0, init=False)
    _woken: bool = attrs.field(default=False, init=False)
    _news: trio.Event = attrs.field(factory=trio.Event, init=False)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _stopped: bool = attrs.field(default=False, init=False)
    _ended: trio.Event = attrs.field(factory=trio.Event, init=False)

    async def run(self) -> None:
        """Claim until `stop`.

        Raises:
            StoreBroken: the store must not be used any more.
        """
        try:
            with self._scope:
                while not self._stopped:
                    await self._supervised()
        finally:
            self._ended.set()

    async def _supervised(self) -> None:
        """Take a step; after an error, whatever it is, the next one a little later."""
        try:
            await self._step()
        except StoreBroken as error:
            self.on_error(error)
            raise
        except Exception as error:
            self.on_error(error)
            self._failures += 1
            self._next = trio.current_time() + pause_after(self._failures)

    async def _step(self) -> None:
        """Claim, or wait until it makes sense."""
        self._news = trio.Event()
        when = max(self._next, self._held_back) if self._room() > 0 else math.inf
        if when <= trio.current_time():
            await self._claim()
            return
        with trio.move_on_at(when):
            await self._news.wait()

    async def stop(self) -> None:
        """Claim no more; returns when no claim of `run` is under way."""
        self._stopped = True
        self._scope.cancel()
        await self._ended.wait()

    def look(self) -> None:
        """Look now whether there is room, or jobs that were stored here."""
        self._news.set()

    def wake(self) -> None:
        """Claim now if there is room: jobs were stored here."""
        self._next = -math.inf
        self._woken = self._asked > 0  # what is asked already may not have seen them
        self._news.set()

    def hold_back(self, seconds: float) -> None:
        """Claim nothing for so long [s]."""
        self._held_back = max(self._held_back, trio.current_time() + seconds)

    def requests(self) -> list[ClaimRequest]:
        """Return the claim to make now, if any; `answered` must follow for each."""
        limit = self._room()
        if limit <= 0 or self._stopped or self._held_back > trio.current_time():
            return []
        self._asked += limit
        suspect = not self.suspects.is_taken()
        if suspect:
            self.suspects.is_taken = lambda: True
        return [
            ClaimRequest(
                queue=self.queue,
                handlers=self.handlers,
                limit=limit,
                lease=self.leases.lease,
                worker=self.ledger.worker,
                suspect=suspect,
            )
        ]

    def answered(self, request: ClaimRequest, claimed: Claimed | None, sent: float) -> None:
        """Take in what a claim brought that was sent at this time [s]; None: it failed."""
        self._asked -= request.limit
        self._news.set()
        if request.suspect:
            self._note_suspect(claimed)
        if claimed is None:
            return
        wait = self.poll_interval
        if self._woken or len(claimed.jobs) == request.limit:
            wait, self._woken = 0.0, False  # there may be more
        elif claimed.wait is not None:
            wait = min(wait, claimed.wait)
        self._next = trio.current_time() + wait
        if claimed.jobs:
            receipts = [job.receipt for job in claimed.jobs]
            self.leases.hold(receipts, sent)
            try:
                self.accept(claimed.jobs)
            except BaseException:
                self.leases.let_go(receipts)  # they come again when their leases have run out
                raise

    def _note_suspect(self, claimed: Claimed | None) -> None:
        """Keep the place for a suspect that has come, as long as it is held."""
        come = [job.receipt for job in claimed.jobs if job.suspect] if claimed else []
        self.suspects.is_taken = lambda: any(receipt in self.leases for receipt in come)

    def _room(self) -> int:
        return self.most - len(self.leases) - self._asked

    async def _claim(self) -> None:
        [request] = self.requests()
        claimed, sent = None, trio.current_time()
        try:
            answers = await self.ledger.submit(Group(claim=[request]))
            claimed = answers.claim[0]
            self._failures = 0
        finally:
            self.answered(request, claimed, sent)
