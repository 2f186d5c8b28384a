"""What becomes of one attempt on a job: its result, as the settlement to write down.

    success ──encode──> OK        no verdict ──> SNOOZE (again in ...), RELEASE (at once)
                └──> FAIL         failure ──permits──> RETRY
                     contract                   └──> FAIL discarded, contract, undecodable

Rule 1: nothing here raises. One job whose value, error or policy is strange costs its
neighbours nothing.
Rule 2: whether attempts remain is not asked: the store counts them, and fails as
`exhausted` what has none left.
Rule 3: what an error says may be hostile. It is stored short, and as valid text.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from typing import Any, Final

import attrs

from batchq.core.job import ErrorLine, Receipt, Settlement, Verdict
from batchq.core.numbers import A_WAIT, is_wait
from batchq.core.result import Result
from batchq.core.retry import RetryPolicy, error_of, said
from batchq.errors import ContractError, PayloadError

__all__ = ["MAX_MESSAGE", "MAX_TRACEBACK", "Judge", "line_of"]

MAX_MESSAGE: Final = 1_000  # [characters]
MAX_TRACEBACK: Final = 8_192  # 8 KiB [bytes of UTF-8]

_MARK: Final = "  [...]\n"


@attrs.define(eq=False)
class Judge:
    """Judges the jobs of one call of a handler.

    An error that many of them share, as after a call that raised, is written out once.

    Attributes:
        policy: whether a failure comes again, and when.
        encode: makes a value what is stored; raises `PayloadError` where that cannot be.
        draw: uniform in [0, 1), one for the call: what failed together comes back together.
        complaints: what the policy's check raised; such a job is not tried again.
    """

    policy: RetryPolicy = attrs.field(kw_only=True)
    encode: Callable[[object], bytes | None] = attrs.field(kw_only=True)
    draw: float = attrs.field(kw_only=True)
    complaints: list[Exception] = attrs.field(factory=list, init=False)
    # By the error's id, beside the error itself: while it is kept no other has its id.
    _lines: dict[int, tuple[object, ErrorLine]] = attrs.field(factory=dict, init=False)

    def settlement(
        self,
        receipt: Receipt,
        result: Result[Any],
        *,
        item: object,
        used: int,
        reason: str | None = None,
    ) -> Settlement:
        """Return what is to be written down for one job.

        Args:
            receipt: the attempt that ended.
            result: what the handler said of it.
            item: what failed, for the policy's check.
            used: attempts that counted, this one included [count, from 1].
            reason: why a failure is final, where that is known already (`undecodable`);
                None: the result and the policy decide.
        """
        if result.success:
            return self._done(receipt, result)
        after = result.retry_after
        if after is not None and not is_wait(after):
            wrong = ContractError(f"a result's retry_after must be {A_WAIT}, got {after!r}")
            return self._failed(receipt, wrong, "contract")
        if result.success is None:
            verdict = Verdict.RELEASE if after is None else Verdict.SNOOZE
            return Settlement(receipt, verdict, delay=after or 0.0)
        if reason is not None:
            return self._failed(receipt, result.error, reason)
        if self._may_retry(result, item, used):
            delay = self.policy.delay(result, attempts=used, draw=self.draw)
            error = self._line(result.error)
            return Settlement(receipt, Verdict.RETRY, error=error, delay=delay)
        broken = isinstance(result.error, ContractError)
        return self._failed(receipt, result.error, "contract" if broken else "discarded")

    def _done(self, receipt: Receipt, result: Result[Any]) -> Settlement:
        try:
            return Settlement(receipt, Verdict.OK, value=self.encode(result.value))
        except PayloadError as error:  # and running it again would not change that
            return self._failed(receipt, error, "contract")

    def _failed(self, receipt: Receipt, error: object, reason: str) -> Settlement:
        return Settlement(receipt, Verdict.FAIL, error=self._line(error), reason=reason)

    def _may_retry(self, result: Result[Any], item: object, used: int) -> bool:
        try:
            return self.policy.permits(result, error_of(result, item, used))
        except Exception as raised:  # the check is the user's code
            self.complaints.append(raised)
            return False

    def _line(self, error: object) -> ErrorLine:
        kept = self._lines.get(id(error))
        if kept is None:
            kept = self._lines[id(error)] = (error, line_of(error))
        return kept[1]


def line_of(error: object) -> ErrorLine:
    """Return an error as it is kept: valid text, without NUL, of bounded length.

    Args:
        error: an exception, or any value that a handler gave for one. A group of
            exceptions is one error; its message names what is in it.
    """
    if not isinstance(error, BaseException):
        return ErrorLine("text", _message(said(error)))
    message = said(error)
    if isinstance(error, BaseExceptionGroup):
        inside = (f"{type(leaf).__name__}: {said(leaf)}" for leaf in _leaves(error))
        message = f"{message}: {'; '.join(inside)}"
    return ErrorLine(_message(type(error).__name__), _message(message), _traceback(error))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    waiting = [error]
    while waiting:
        found = waiting.pop()
        if isinstance(found, BaseExceptionGroup):
            waiting += reversed(found.exceptions)
        else:
            yield found


def _message(text: str) -> str:
    if len(text) > MAX_MESSAGE:
        mark = f" [... {len(text)} characters]"
        text = text[: MAX_MESSAGE - len(mark)] + mark
    return _storable(text).decode()


def _traceback(error: BaseException) -> str:
    """Return where an error came from; empty where there is no more than its message."""
    lines = list(traceback.TracebackException.from_exception(error).format())
    if len(lines) == 1:
        return ""
    content = _storable("".join(lines))
    if len(content) <= MAX_TRACEBACK:
        return content.decode()
    head = _storable(lines[0])[:MAX_MESSAGE] + _MARK.encode()
    tail = content[len(head) - MAX_TRACEBACK :]
    # A cut may fall inside a character.
    return (head + tail).decode(errors="ignore")


def _storable(text: str) -> bytes:
    """Return text as a database takes it: no half of a surrogate pair, no NUL."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="backslashreplace")
