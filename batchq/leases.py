"""Keeps what was claimed: extends the leases of jobs that are held here.

Rule 1: a job is held from its claim until its settlement is submitted, no longer: what
comes after that, in the same transaction, must not be taken for a lost lease.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import attrs
import trio

from batchq.core.job import Extended, Extension, Group, Receipt
from batchq.errors import StoreBroken
from batchq.ledger import Ledger

__all__ = ["Leases"]

_PER_LEASE: Final = 3  # extensions; two may fail before a lease runs out


@attrs.define(eq=False)
class Leases:
    """The leases that one queue holds.

    Attributes:
        ledger: where they are extended.
        lease: how long a claim or an extension holds [s].
        on_lost: told of each receipt whose job is somebody else's now.
        on_error: told when the store could not extend.
    """

    ledger: Ledger
    lease: float
    on_lost: Callable[[Receipt], object]
    on_error: Callable[[Exception], object]
    _held: dict[Receipt, None] = attrs.field(factory=dict, init=False)

    def __len__(self) -> int:
        return len(self._held)

    @property
    def held(self) -> list[Receipt]:
        """The receipts of what is held, oldest first."""
        return list(self._held)

    def hold(self, receipts: Iterable[Receipt]) -> None:
        """Extend these from now on."""
        self._held.update(dict.fromkeys(receipts))

    def let_go(self, receipts: Iterable[Receipt]) -> None:
        """Extend these no more."""
        for receipt in receipts:
            self._held.pop(receipt, None)

    async def run(self) -> None:
        """Extend what is held, three times per lease, until cancelled."""
        while True:
            await trio.sleep(self.lease / _PER_LEASE)
            held = self.held
            if not held:
                continue
            try:
                answers = await self.ledger.submit(Group(extend=[Extension(held, self.lease)]))
            except StoreBroken as error:
                self.on_error(error)
                raise
            except Exception as error:  # whatever it is, the worker goes on
                self.on_error(error)
                continue
            self._look(held, answers.extend[0])

    def _look(self, held: Iterable[Receipt], answers: Iterable[Extended]) -> None:
        for receipt, answer in zip(held, answers, strict=True):
            # Settled meanwhile: then it is not held any more, and nothing is lost.
            if answer is Extended.STALE and receipt in self._held:
                del self._held[receipt]
                self.on_lost(receipt)
