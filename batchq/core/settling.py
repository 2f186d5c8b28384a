"""What becomes of the entries of a call.

Rule 1: an entry that is not IN_FLIGHT any more is passed over: it has its verdict.
Rule 2: a failure comes again while its policy allows; one that nobody wants does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

from batchq.core.answers import read_answer
from batchq.core.batch import Batch
from batchq.core.entry import (
    CANCELLED,
    CLOSED,
    DROPPED,
    EXPIRED,
    FAILED,
    IN_FLIGHT,
    SUCCEEDED,
    Entry,
    EntryStatus,
)
from batchq.core.lot import Cut, Piece
from batchq.core.news import News
from batchq.core.numbers import A_WAIT, is_wait
from batchq.core.result import Result
from batchq.core.retry import RetryPolicy, error_of, said
from batchq.errors import ContractError, EntryCancelled, Expired

__all__ = ["GOES_ON", "Settling"]

# Says of an entry that a bisect goes on with it: it stays in flight.
GOES_ON: Final[Result[Any]] = Result(success=None)

# What an answer may be, beside a Result, that is more than the value of a success.
_SAYS_MORE: Final = (Exception, dict)

Again = tuple[Entry[Any, Any], float | None]


@attrs.define(eq=False)
class Settling:
    """Judges entries and counts how they ended.

    Attributes:
        retry: when a failed entry comes again; None: never.
        news: what the shell tells of.
        may_retry: takes the place of `retry` where it is asked whether an error may be
            retried and attempts are left; None: nothing does.
        leave: True: what would come again settles instead.
        complaints: what the user's `retryable` check raised.
        suspects: entries that failed alone in a bisect since the batcher last looked.
        unwanted: items that were cancelled for want of a verdict, and of anybody waiting.
    """

    retry: RetryPolicy | None
    news: News
    leave: bool = attrs.field(kw_only=True)
    may_retry: Callable[[Entry[Any, Any], Exception], bool] | None = attrs.field(
        default=None, kw_only=True
    )
    complaints: list[Exception] = attrs.field(factory=list)
    suspects: list[Entry[Any, Any]] = attrs.field(factory=list)
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
            "expired": self._ended[EXPIRED],
            "retries": self._retries,
        }

    @property
    def ended(self) -> int:
        """How many entries have a final status [entries]."""
        return self._succeeded + sum(self._ended)

    def end(
        self, batch: Batch[Any], answers: Sequence[object] | None, *, now: float, draw: float
    ) -> list[Again]:
        """Settle the entries of a call that ended.

        Returns:
            Those that come again, each with the instant from which it may [s]; None: it
            returns to its place at once.
        """
        entries = batch.entries
        if type(entries) is Cut and self._succeed_unmade(entries, answers) == len(entries):
            return []
        if answers is None and not batch.early:
            self._succeed(entries)
            return []
        again: list[Again] = []
        early = batch.early
        done = 0
        found = answers if answers is not None else [None] * len(batch)
        for index, (entry, answer) in enumerate(zip(entries, found, strict=True)):
            if entry.code != IN_FLIGHT:
                continue
            if not (early or type(answer) is Result or isinstance(answer, _SAYS_MORE)):
                # Entry.settle, written out, as in _succeed.
                done += 1
                entry.attempts += 1
                entry.code = SUCCEEDED
                entry.answer = answer
                entry.item = None
                if entry.waiter is not None:
                    entry.wake()
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
        if not result.success and not self.leave and self.comes_again(entry, result):
            return False
        entry.attempts += 1
        self._finish(entry, result)
        return True

    def give_back(self, entries: Sequence[Entry[Any, Any]]) -> list[Entry[Any, Any]]:
        """Return those of the entries in flight that wait again; others are cancelled."""
        nothing: Result[Any] = Result(success=None)
        flying = [entry for entry in entries if entry.code == IN_FLIGHT]
        return [entry for entry in flying if self._no_verdict(entry, nothing, 0.0) is None]

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
            if entry.waiter is not None:
                entry.wake()
        self._succeeded += done

    def _succeed_unmade(self, entries: Cut, answers: Sequence[object] | None) -> int:
        """Let all succeed, if all do, unless all are there; return how many."""
        kinds = () if answers is None else set(map(type, answers))
        more = kinds and any(kind is Result or issubclass(kind, _SAYS_MORE) for kind in kinds)
        before = self._succeeded
        with entries.lock:
            if not (more or entries.made):
                self._succeed_parts(entries.parts, answers)
        return self._succeeded - before

    def _succeed_parts(
        self,
        parts: Sequence[Piece | list[Entry[Any, Any]]],
        answers: Sequence[object] | None,
    ) -> None:
        start = 0
        for part in parts:
            stop = start + len(part)
            values = None if answers is None else answers[start:stop]
            if isinstance(part, Piece):
                self._succeeded += part.succeed(values)
            else:
                # All are in flight: what settles one before its call ends makes them all.
                for entry, value in zip(part, values or (), strict=False):
                    entry.answer = value
                self._succeed(part)
            start = stop

    def _end_one(
        self, entry: Entry[Any, Any], result: Result[Any], *, now: float, draw: float
    ) -> float | None:
        """Settle one entry, or return from when it comes again."""
        if result is GOES_ON:
            return _NEVER
        if result.retry_after is not None and not is_wait(result.retry_after):
            result = Result.discard(ContractError(_BAD_WAIT.format(result.retry_after)))
        if result.success is None:
            return self._no_verdict(entry, result, now)
        again = result.success is False and not self.leave and self.comes_again(entry, result)
        entry.attempts += 1
        if again and self.retry is not None:
            if entry.more is not None:
                entry.more.error = result.error
            due = now + self.retry.delay(result, attempts=entry.attempts, draw=draw)
            if entry.more is None or due <= entry.more.ends_by:
                self._retries += 1
                return due
            self._expire(entry, result)
            return _NEVER
        self._finish(entry, result)
        return _NEVER

    def _expire(self, entry: Entry[Any, Any], result: Result[Any]) -> None:
        """Settle an entry whose retry would come too late."""
        item = entry.item
        cause = error_of(result, None, entry.attempts)  # it lets go of its item
        error = Expired(
            f"entry {entry.id} failed {entry.attempts} times, and could not be retried before"
            f" its deadline: {said(cause)}",
            attempt=entry.attempts,
            cause=result.error,
        )
        error.__cause__ = cause
        self.count(EXPIRED)
        entry.settle(EXPIRED, Result.fail(error))
        self.news.add("on_drop", item, "expired")
        self.news.add("on_dead_letter", item, error)

    def _no_verdict(self, entry: Entry[Any, Any], result: Result[Any], now: float) -> float | None:
        if self.leave:
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

    def comes_again(self, entry: Entry[Any, Any], result: Result[Any]) -> bool:
        """Ask whether a failed entry may be tried again, as after the attempt just made."""
        if entry.abandoned or (self.retry is None and self.may_retry is None):
            return False
        attempts = entry.attempts + 1
        try:
            error = error_of(result, entry.item, attempts)
            if self.may_retry is not None:
                return self.may_retry(entry, error)
            return self.retry is not None and self.retry.allows(result, error, attempts=attempts)
        except Exception as raised:  # the check is the user's code, and the error's __str__
            self.complaints.append(raised)
            return False

    def permits(self, error: Exception) -> bool:
        """Ask the same of an error alone, however many attempts were made."""
        try:
            return self.retry is not None and self.retry.permits(Result.fail(error), error)
        except Exception as raised:  # as above
            self.complaints.append(raised)
            return False


_NEVER: Final = float("-inf")  # not an instant that anything could come again at
_BAD_WAIT: Final = f"retry_after must be {A_WAIT}, got {{!r}}"
