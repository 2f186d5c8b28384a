"""What becomes of the entries of a call.

Rule 1: an entry that is not IN_FLIGHT any more is passed over: it has its verdict.
Rule 2: a failure comes again while its policy allows; one that nobody wants does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import attrs

from batchq.core.batch import Batch
from batchq.core.entry import (
    CANCELLED,
    CLOSED,
    DROPPED,
    FAILED,
    IN_FLIGHT,
    SUCCEEDED,
    Entry,
    EntryStatus,
)
from batchq.core.numbers import is_wait
from batchq.core.result import Result, read_answer
from batchq.core.retry import RetryPolicy, error_of
from batchq.errors import ContractError, EntryCancelled

__all__ = ["Settling"]

# What an answer may be, beside a Result, that is more than the value of a success.
_SAYS_MORE: Final = (Exception, dict)

Again = tuple[Entry[Any, Any], float | None]


@attrs.define(eq=False)
class Settling:
    """Judges entries and counts how they ended.

    Attributes:
        retry: when a failed entry comes again; None: never.
        leave: True: what would come again settles instead.
        complaints: what the user's `retryable` check raised.
        unwanted: items that were cancelled for want of a verdict, and of anybody waiting.
    """

    retry: RetryPolicy | None
    leave: bool = attrs.field(kw_only=True)
    complaints: list[Exception] = attrs.field(factory=list)
    unwanted: list[Any] = attrs.field(factory=list)
    _succeeded: int = 0
    _retries: int = 0
    _ended: list[int] = attrs.field(factory=lambda: [0] * len(EntryStatus))

    def count(self, code: int) -> None:
        """Count one entry's end."""
        self._ended[code] += 1

    def counts(self) -> dict[str, int]:
        """Tell how entries ended, by the names of `QueueStats`."""
        return {
            "succeeded": self._succeeded,
            "failed": self._ended[FAILED],
            "dropped": self._ended[DROPPED],
            "cancelled": self._ended[CANCELLED],
            "closed": self._ended[CLOSED],
            "retries": self._retries,
        }

    def end(
        self, batch: Batch[Any], answers: Sequence[object] | None, *, now: float, draw: float
    ) -> list[Again]:
        """Settle the entries of a call that ended.

        Returns:
            Those that come again, each with the instant from which it may [s]; None: it
            returns to its place at once.
        """
        if answers is None and not batch.early:
            self._succeed(batch.entries)
            return []
        again: list[Again] = []
        early = batch.early
        done = 0
        found = answers if answers is not None else [None] * len(batch)
        for index, (entry, answer) in enumerate(zip(batch.entries, found, strict=True)):
            if entry.code != IN_FLIGHT:
                continue
            if not (early or type(answer) is Result or isinstance(answer, _SAYS_MORE)):
                # Entry.settle, written out, as in _succeed.
                done += 1
                entry.attempts += 1
                entry.code = SUCCEEDED
                entry.answer = answer
                entry.item = None
                if entry.wake is not None:
                    entry.wake()
                    entry.wake = None
                continue
            due = self._end_one(entry, early.get(index) or read_answer(answer), now=now, draw=draw)
            if due is not _NEVER:
                again.append((entry, due))
        self._succeeded += done
        return again

    def early(self, batch: Batch[Any], index: int, result: Result[Any]) -> bool:
        """Fix a verdict while the call runs; tell whether it settled the entry now."""
        entry = batch.entries[index]
        index %= len(batch)
        if entry.code != IN_FLIGHT or index in batch.early:
            return False
        batch.early[index] = result
        if result.success is None:
            return False
        if not result.success and not self.leave and self._comes_again(entry, result):
            return False
        entry.attempts += 1
        self._finish(entry, result)
        return True

    def _succeed(self, entries: Sequence[Entry[Any, Any]]) -> None:
        done = 0
        for entry in entries:
            if entry.code != IN_FLIGHT:
                continue
            # Entry.settle, written out: this loop is the engine's hottest.
            done += 1
            entry.attempts += 1
            entry.code = SUCCEEDED
            entry.item = None
            if entry.wake is not None:
                entry.wake()
                entry.wake = None
        self._succeeded += done

    def _end_one(
        self, entry: Entry[Any, Any], result: Result[Any], *, now: float, draw: float
    ) -> float | None:
        """Settle one entry, or return from when it comes again."""
        if result.retry_after is not None and not is_wait(result.retry_after):
            result = Result.discard(ContractError(_BAD_WAIT.format(result.retry_after)))
        if result.success is None:
            return self._no_verdict(entry, result, now)
        again = result.success is False and self._comes_again(entry, result)
        entry.attempts += 1
        if again and self.retry is not None and not self.leave:
            self._retries += 1
            return now + self.retry.delay(result, attempts=entry.attempts, draw=draw)
        self._finish(entry, result)
        return _NEVER

    def _no_verdict(self, entry: Entry[Any, Any], result: Result[Any], now: float) -> float | None:
        if self.leave and result.retry_after is not None:
            self.count(CANCELLED)
            entry.settle(CANCELLED, result)
            return _NEVER
        if entry.abandoned:
            self.unwanted.append(entry.item)
            self.count(CANCELLED)
            error = EntryCancelled(f"entry {entry.id} was cancelled while it was in flight")
            entry.settle(CANCELLED, Result.fail(error))
            return _NEVER
        return None if result.retry_after is None else now + result.retry_after

    def _finish(self, entry: Entry[Any, Any], result: Result[Any]) -> None:
        if result.success:
            self._succeeded += 1
            entry.settle(SUCCEEDED, result)
        else:
            self.count(FAILED)
            entry.settle(FAILED, result)

    def _comes_again(self, entry: Entry[Any, Any], result: Result[Any]) -> bool:
        """Ask the policy, as for the attempt that has just failed."""
        if self.retry is None or entry.abandoned:
            return False
        attempts = entry.attempts + 1
        try:
            error = error_of(result, entry.item, attempts)
            return self.retry.allows(result, error, attempts=attempts)
        except Exception as raised:  # the check is the user's code, and the error's __str__
            self.complaints.append(raised)
            return False


_NEVER: Final = float("-inf")  # not an instant that anything could come again at
_BAD_WAIT: Final = "retry_after must be a finite number of seconds from 0, got {!r}"
