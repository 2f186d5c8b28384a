"""Calls that raised: what their entries take from it, and which parts are called next.

raised ─▶ one entry, or it may be retried whole: each takes the error as its own
     └──▶ Bisect: its parts wait here, before everything else; each is a batch
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs
import msgspec

from batchq.core.batch import Batch
from batchq.core.bisect import Alone, Bisect, BisectMode, Outage, Split, is_transient
from batchq.core.entry import IN_FLIGHT, Entry
from batchq.core.news import News
from batchq.core.result import Result
from batchq.core.settling import GOES_ON, Settling
from batchq.errors import ContractError

__all__ = ["Judged", "Splitting"]

_NONE: Final[Sequence[Any]] = ()


# A msgspec.Struct, as Entry: one is made for every call.
class Judged(msgspec.Struct, frozen=True, eq=False):
    """What a call comes to.

    Attributes:
        batch: the entries that it concerns: the call's own; where a bisect ends by an
            outage, those of the parts that were not called, too.
        results: one answer per item of `batch`, in order; None: all succeeded.
        error: what the call raised; None: it returned.
    """

    batch: Batch[Any]
    results: Sequence[object] | None
    error: Exception | None = None


@attrs.define(eq=False)
class Splitting:
    """The batches that are being taken apart.

    Attributes:
        mode: when a call that raised is taken apart.
        ordered: whether entries may not overtake one that comes again.
        kinds: what else but `OSError` all items would get in an outage.
        waiting: the batches whose next part may be called, the next one first.
    """

    mode: BisectMode
    ordered: bool
    settling: Settling
    news: News
    kinds: tuple[type[BaseException], ...] = ()
    waiting: deque[Batch[Any]] = attrs.field(factory=deque)

    def raised(self, batch: Batch[Any], error: Exception) -> Judged:
        """Say what a call that raised comes to; `settle` carries it out."""
        if isinstance(error, ContractError):  # nobody knows what ran
            if batch.bisect is not None:
                batch.bisect.returned()
            return Judged(batch, [Result.discard(error)] * len(batch), error)
        if batch.bisect is not None:
            return self._part_raised(batch, error)
        left = [entry for index, entry in enumerate(batch.entries) if index not in batch.early]
        left = [entry for entry in left if entry.code == IN_FLIGHT]
        failure: Result[Any] = Result.fail(error)
        if self.mode.splits(left, lambda entry: self.settling.comes_again(entry, failure)):
            bisect = Bisect.of(left, error, transient=self._is_transient, ordered=self.ordered)
            batch.bisect = bisect
            self._tell(batch, error, bisect.first)
            return Judged(batch, [GOES_ON] * len(batch), error)
        return Judged(batch, [failure] * len(batch), error)

    def throttled(self, batch: Batch[Any]) -> Sequence[Result[Any]] | None:
        """Say what becomes of a part that is to be called again; None: it is no part."""
        if batch.bisect is None:
            return None
        batch.bisect.again()
        return [GOES_ON] * len(batch)

    def returned(self, batch: Batch[Any]) -> None:
        """Note that a call returned."""
        if batch.bisect is not None:
            batch.bisect.returned()

    def settled(self, batch: Batch[Any], *, comes_again: bool) -> Sequence[Entry[Any, Any]]:
        """Note what a part came to; return the entries that go back to their place."""
        if not self.ordered:
            return _NONE
        left: Sequence[Entry[Any, Any]] = batch.bisect.judged(comes_again=comes_again)
        return left

    def give_up(self, batch: Batch[Any]) -> Sequence[Entry[Any, Any]]:
        """End the bisect of a batch; return its entries without a verdict."""
        if batch.bisect is None:
            return _NONE
        left: Sequence[Entry[Any, Any]] = batch.bisect.give_up()
        return left

    def goes_on(self, batch: Batch[Any]) -> bool:
        """Let the next part wait for its call; tell whether there is one."""
        if batch.bisect is None or batch.bisect.done:
            return False
        self.waiting.append(batch.root or batch)
        return True

    def first(self, ended: Callable[[Batch[Any]], object]) -> Batch[Any] | None:
        """Return the batch whose next part is to be called; tell of those with none left."""
        while self.waiting:
            if not self.waiting[0].bisect.done:
                return self.waiting[0]
            ended(self.waiting.popleft())
        return None

    def begin(self) -> tuple[Batch[Any], Sequence[Entry[Any, Any]]]:
        """Take the next part of the first batch; its call starts now."""
        whole = self.waiting.popleft()
        return whole, whole.bisect.begin()

    def _part_raised(self, batch: Batch[Any], error: Exception) -> Judged:
        spared = [batch.entries[index] for index in batch.early]
        step: Split | Alone | Outage = batch.bisect.raised(error, spared=spared)
        if isinstance(step, Split):
            if step.left:
                self._tell(batch, error, step)
            return Judged(batch, [GOES_ON] * len(batch), error)
        if isinstance(step, Alone):
            self.settling.suspects.append(step.entry)
            return Judged(batch, [Result.fail(error)] * len(batch), error)
        entries = [*batch.entries, *(each for each in step.entries if each not in batch.entries)]
        items = [*batch, *(entry.item for entry in entries[len(batch) :])]
        whole = Batch(batch.id, items, entries, batch.trigger, batch.attempt, batch.partition)
        whole.early = batch.early
        return Judged(whole, [Result.fail(step.error)] * len(entries), error)

    def _tell(self, batch: Batch[Any], error: Exception, split: Split) -> None:
        halves = ([entry.item for entry in half] for half in (split.left, split.right))
        self.news.add("on_bisect", batch, error, *halves)

    def _is_transient(self, error: Exception) -> bool:
        retry = self.settling.retry
        if retry is None or retry.retryable is None:
            return is_transient(error, *self.kinds)
        return self.settling.permits(error)
