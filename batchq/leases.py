"""Keeps what was claimed: extends the leases of jobs that are held here.

    claim sent ──▶ extend ──▶ extend ──▶ ...          every lease/3; sooner after a failure
        └────────── lease - lease/6 ──────────▶ unsure: the store did not answer in time

Rule 1: a job is held from its claim until its settlement is submitted, no longer: what
comes after that, in the same transaction, must not be taken for a lost lease.
Rule 2: a lease counts from when its claim or extension was *sent*, on this process's own
steady clock. It is given up here before it runs out in the store.
Rule 3: the guard's thread calls `extend_now` and reads what is held; it changes nothing of
it but by replacing `_guarded`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from functools import partial
from typing import Final

import attrs
import trio

from batchq.core.job import Extended, Extension, Group, Receipt
from batchq.errors import StoreBroken
from batchq.ledger import Ledger
from batchq.trouble import pause_after

__all__ = ["Fate", "Leases"]

_PER_LEASE: Final = 3  # extensions
_SURE: Final = 5 / 6  # of a lease: so long it is held for certain
_TICK: Final = 1 / 6  # of a lease: the loop shows so often that it turns


class Fate(Enum):
    """What is to be known of a job that is held here.

    LOST: somebody else has it. UNSURE: somebody else may have it soon, for the store has
    not confirmed the lease in time. CANCEL: somebody wants it cancelled; it is still held.
    """

    LOST = "lost"
    UNSURE = "unsure"
    CANCEL = "cancel"


@attrs.define(eq=False)
class Leases:
    """The leases that one queue holds.

    Attributes:
        ledger: where they are extended.
        lease: how long a claim or an extension holds [s].
        on_fate: told of receipts, and what is to be known of them.
        on_error: told when the store could not extend.
        turned_at: when the event loop last turned [s, its clock]; inf: it does not yet.
    """

    ledger: Ledger
    lease: float
    on_fate: Callable[[Sequence[Receipt], Fate], object]
    on_error: Callable[[Exception], object]
    turned_at: float = attrs.field(default=math.inf, init=False)
    # By receipt: when what holds it was sent [s].
    _held: dict[Receipt, float] = attrs.field(factory=dict, init=False)
    # The same, as the guard has extended it; it replaces this, and changes nothing in it.
    _guarded: Mapping[Receipt, float] = attrs.field(factory=dict, init=False)
    _flagged: set[Receipt] = attrs.field(factory=set, init=False)
    _clock: trio.abc.Clock = attrs.field(init=False)
    _token: trio.lowlevel.TrioToken = attrs.field(init=False)
    _looks_at: float = attrs.field(default=math.inf, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, receipt: object) -> bool:
        return receipt in self._held

    @property
    def held(self) -> list[Receipt]:
        """The receipts of what is held, oldest first; from any thread."""
        return list(self._held)

    @property
    def flagged(self) -> set[Receipt]:
        """Those of them that somebody wants cancelled."""
        return self._flagged

    def hold(self, receipts: Iterable[Receipt], sent: float) -> None:
        """Extend these from now on; their claim was sent at this time [s, trio's clock]."""
        self._held.update(dict.fromkeys(receipts, sent))
        if sent + self.lease * _SURE < self._looks_at:
            self._changed.set()

    def let_go(self, receipts: Collection[Receipt]) -> None:
        """Extend these no more."""
        for receipt in receipts:
            self._held.pop(receipt, None)
        if self._flagged:
            self._flagged.difference_update(receipts)

    def cancel(self, job_ids: Iterable[int]) -> None:
        """Take in that somebody here wants jobs cancelled, if they are held."""
        ids = set(job_ids)
        self._cancel([receipt for receipt in self._held if receipt.job_id in ids])

    def see_to_late(self) -> None:
        """Give up what is unsure by now, where `run` has still to look: a call is to begin."""
        now = trio.current_time()
        if self._looks_at <= now or self._changed.is_set():
            self._give_up(now)

    async def run(self) -> None:
        """Extend what is held, and give up what is unsure, until cancelled."""
        self._clock = trio.lowlevel.current_clock()
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_watch)
            await self._keep_extending()

    def extend_now(self) -> bool:
        """Extend for the event loop, which does not turn: in another thread; it blocks.

        Returns whether the store could do it; the loop is told of everything once it turns.
        """
        held, sent = self.held, self._clock.current_time()
        try:
            answers = self.ledger.commit_now(Group(extend=[Extension(held, self.lease)])).extend[0]
        except Exception as error:  # whatever it is, the worker goes on
            self._tell_loop(partial(self.on_error, error))
            return False
        told = zip(held, answers, strict=True)
        self._guarded = {receipt: sent for receipt, it in told if it is not Extended.STALE}
        self._tell_loop(partial(self._look, held, answers, sent))
        return True

    def _tell_loop(self, what: Callable[[], object]) -> None:
        with suppress(trio.RunFinishedError):  # it has ended this very moment
            self._token.run_sync_soon(what)

    def is_stalled(self) -> bool:
        """Tell whether the loop has not turned for lease/3 while jobs are held; any thread."""
        return bool(self._held) and self.stalled_for() > self.lease / _PER_LEASE

    def stalled_for(self) -> float:
        """Tell for how long the event loop has not turned [s]; from any thread."""
        return self._clock.current_time() - self.turned_at if self.turned_at < math.inf else 0.0

    async def _keep_extending(self) -> None:
        failures = 0
        after = trio.current_time()
        while True:
            again = trio.current_time() + pause_after(failures) if failures else math.inf
            await trio.sleep_until(min(after + self.lease / _PER_LEASE, again))
            after = trio.current_time()
            if not self._held:
                failures = 0
                continue
            held = self.held
            try:
                answers = await self.ledger.submit(Group(extend=[Extension(held, self.lease)]))
            except StoreBroken as error:
                self.on_error(error)
                raise
            except Exception as error:  # whatever it is, the worker goes on
                self.on_error(error)
                failures += 1
                continue
            failures = 0
            self._look(held, answers.extend[0], after)

    async def _keep_watch(self) -> None:
        """Show that the loop turns, and give up what the store has not confirmed."""
        while True:
            self.turned_at = now = trio.current_time()
            self._give_up(now)
            self._changed = trio.Event()
            with trio.move_on_at(self._looks_at):
                await self._changed.wait()

    def _give_up(self, now: float) -> None:
        """Give up what is unsure at `now` [s]."""
        sure = self.lease * _SURE
        ends = {receipt: self._sent(receipt) + sure for receipt in self._held}
        late = [receipt for receipt, end in ends.items() if end <= now]
        if late:
            self.let_go(late)
            self.on_fate(late, Fate.UNSURE)
        left = (end for end in ends.values() if end > now)
        self._looks_at = min(now + self.lease * _TICK, min(left, default=math.inf))

    def _sent(self, receipt: Receipt) -> float:
        return max(self._held[receipt], self._guarded.get(receipt, -math.inf))

    def _look(self, asked: Iterable[Receipt], answers: Iterable[Extended], sent: float) -> None:
        # Settled meanwhile: then it is not held any more, and nothing is lost.
        told = [pair for pair in zip(asked, answers, strict=True) if pair[0] in self._held]
        lost = [receipt for receipt, answer in told if answer is Extended.STALE]
        for receipt, answer in told:
            if answer is not Extended.STALE:
                self._held[receipt] = max(sent, self._held[receipt])
        if lost:
            self.let_go(lost)
            self.on_fate(lost, Fate.LOST)
        self._cancel([receipt for receipt, answer in told if answer is Extended.CANCEL])

    def _cancel(self, receipts: Sequence[Receipt]) -> None:
        fresh = [receipt for receipt in receipts if receipt not in self._flagged]
        if fresh:
            self._flagged.update(fresh)
            self.on_fate(fresh, Fate.CANCEL)
