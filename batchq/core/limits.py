"""When may the next batch start, whatever waits? Throttle, rate limits, processors that said so.

Rule 1: an instant is computed, never polled; asked at that instant, the answer is yes,
for both come from the same sum.
Rule 2: units are paid at the start, for what is really sent, and never given back.
Rule 3: what cannot be paid for yet stops everything: no other batch overtakes it.

    next_start: throttle, hold ── passed ─▶ affordable: how many of them ─▶ pay, start
                      │                          │ none
                      └──────── put_off ◀────────┘
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections import deque
from collections.abc import Sequence
from enum import Enum
from fractions import Fraction
from typing import Any, Final, Protocol, TypeAlias

import attrs

from batchq.core.checks import choice
from batchq.core.numbers import is_amount
from batchq.errors import OptionError

__all__ = [
    "Cause",
    "Limits",
    "Per",
    "RateLimit",
    "SlidingWindow",
    "TokenBucket",
    "limits_of",
]


class Per(Enum):
    """What a rate limit counts."""

    ITEM = "item"
    BATCH = "batch"
    WEIGHT = "weight"


class Cause(Enum):
    """What puts a start off."""

    THROTTLE = "throttle"
    RATE_LIMIT = "rate_limit"
    PROCESSOR = "processor"


def _per(value: object) -> Per:
    return choice("per", Per, value)


def _check(name: str, value: object, *, least: float = 0.0) -> None:
    """Refuse what is no finite number from `least`; `least=0`: above 0."""
    if not is_amount(value) or not value > 0 or value < least:
        bound = f"from {least:g}" if least else "above 0"
        raise OptionError(f"{name} must be a finite number {bound}, got {value!r}")


@attrs.frozen
class TokenBucket:
    """So much at once, and so much a second in the long run.

    The bucket starts full and never holds more than `burst`: in any interval of d
    seconds at most `burst + rate * d` units start.

    Attributes:
        rate: what flows in [units/s, above 0].
        burst: what it holds [units, from 1].
        per: what a unit is: one `item`, one `batch`, or a `weight` of 1.

    Raises:
        OptionError: a value is out of its range.
    """

    rate: float
    burst: float
    per: Per = attrs.field(default=Per.ITEM, converter=_per)

    def __attrs_post_init__(self) -> None:
        _check("rate of a TokenBucket [units/s]", self.rate)
        _check("burst of a TokenBucket [units]", self.burst, least=1)

    @property
    def most(self) -> float:
        """What may start at once [units]."""
        return self.burst


@attrs.frozen
class SlidingWindow:
    """So much in any window of time, wherever it begins.

    Any half-open window `[x, x + window)` holds at most `limit` units; a unit is free
    again exactly `window` after its start.

    Attributes:
        limit: what a window holds [units, from 1; of weight: above 0].
        window: how long it is [s, above 0].
        per: what a unit is: one `item`, one `batch`, or a `weight` of 1.

    Raises:
        OptionError: a value is out of its range.
    """

    limit: float
    window: float
    per: Per = attrs.field(default=Per.ITEM, converter=_per)

    def __attrs_post_init__(self) -> None:
        least = 0 if self.per is Per.WEIGHT else 1  # less than one item is a stop for ever
        _check("limit of a SlidingWindow [units]", self.limit, least=least)
        _check("window of a SlidingWindow [s]", self.window)

    @property
    def most(self) -> float:
        """What may start at once [units]."""
        return self.limit


RateLimit: TypeAlias = TokenBucket | SlidingWindow


def limits_of(value: object) -> tuple[RateLimit, ...]:
    """Read the option `rate_limit`: a limit, a list of limits, or None.

    Raises:
        OptionError: it is none of these.
    """
    if value is None:
        return ()
    found: Sequence[Any] = value if isinstance(value, list | tuple) else (value,)
    if not all(isinstance(each, TokenBucket | SlidingWindow) for each in found):
        raise OptionError(
            f"rate_limit must be a TokenBucket, a SlidingWindow, a list of them, or None;"
            f" got {value!r}"
        )
    return tuple(found)


class _Rate(Protocol):
    """A limit at work. `units` and the `sums` of a candidate's units never fall."""

    def opens_at(self, units: float) -> float:
        """Return from when `units` can be paid [s]; -inf: now; inf: never."""

    def prefix(self, sums: Sequence[float], now: float) -> int:
        """Count the `sums` that can be paid at `now` [s]."""

    def pay(self, units: float, now: float) -> None:
        """Take `units` at `now` [s]."""


@attrs.define(eq=False)
class _Tokens:
    rate: float
    burst: float
    _level: float = attrs.field(default=attrs.Factory(lambda self: self.burst, takes_self=True))
    _at: float = -math.inf

    def opens_at(self, units: float) -> float:
        if units <= self._level or not units:
            return -math.inf
        # The sum that `prefix` compares with `now`, too: what was announced is so.
        return math.inf if units > self.burst else self._at + (units - self._level) / self.rate

    def prefix(self, sums: Sequence[float], now: float) -> int:
        return bisect.bisect_right(sums, now, key=self.opens_at)

    def pay(self, units: float, now: float) -> None:
        # Rounding may leave a level of just below 0: that is owed, or it would add up.
        self._level = min(self.burst, self._level + (now - self._at) * self.rate) - units
        self._at = now


@attrs.define(eq=False)
class _Window:
    limit: float
    window: float
    _paid: deque[tuple[float, int | Fraction]] = attrs.field(factory=deque)
    # Exact: a sum of floats that grows and shrinks drifts, and narrows the limit for good.
    _used: int | Fraction = 0

    def opens_at(self, units: float) -> float:
        total = self._used + _exact(units)
        if not units or float(total) <= self.limit:
            return -math.inf
        for start, paid in self._paid:
            total -= paid
            if float(total) <= self.limit:
                return start + self.window
        return math.inf

    def prefix(self, sums: Sequence[float], now: float) -> int:
        self._forget(now)
        return bisect.bisect_right(sums, self.limit, key=self._with)

    def pay(self, units: float, now: float) -> None:
        self._forget(now)
        if not units:
            return
        paid = _exact(units)
        self._used += paid
        if self._paid and self._paid[-1][0] == now:
            paid += self._paid.pop()[1]
        self._paid.append((now, paid))

    def _with(self, units: float) -> float:
        return float(self._used + _exact(units)) if units else -math.inf

    def _forget(self, now: float) -> None:
        while self._paid and self._paid[0][0] + self.window <= now:
            self._used -= self._paid.popleft()[1]


def _exact(units: float) -> int | Fraction:
    return int(units) if units == int(units) else Fraction(units)


def _at_work(limit: RateLimit) -> _Rate:
    if isinstance(limit, TokenBucket):
        return _Tokens(limit.rate, limit.burst)
    return _Window(limit.limit, limit.window)


_NOW: Final = -math.inf


@attrs.define(eq=False)
class Limits:
    """All that keeps starts apart.

    Attributes:
        throttle: least time from one start to the next [s]; idle time earns no credit.
        rates: limits that all have to be kept.
        next_start: the earliest instant of the next start by throttle and hold [s];
            -inf: now.
        waits: starts put off since the shell last looked: for how long [s], and why.
    """

    throttle: float = 0.0
    rates: Sequence[RateLimit] = ()
    next_start: float = _NOW
    waits: list[tuple[float, Cause]] = attrs.field(factory=list)
    _held: float = _NOW
    _noted: Cause | None = None
    _at_work: list[tuple[Per, float, _Rate]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._at_work = [(each.per, each.most, _at_work(each)) for each in self.rates]

    @property
    def weighs(self) -> bool:
        """Whether `affordable` and `pay` need weights."""
        return any(per is Per.WEIGHT for per, _, _ in self._at_work)

    @property
    def max_unit(self) -> float:
        """The heaviest entry that every limit could ever pay [weight]; inf: any."""
        return min((most for per, most, _ in self._at_work if per is Per.WEIGHT), default=math.inf)

    def affordable(
        self, now: float, items: int, weights: Sequence[float] | None = None
    ) -> tuple[int, float]:
        """Say how much of a candidate may start by the rate limits.

        It starts when each limit can pay `min(its cost, burst or limit)`, and then its
        longest prefix goes that all can pay.

        Args:
            now: [s].
            items: how many there are [items, from 1].
            weights: theirs, one per item, in order; None: 1 each.

        Returns:
            How many of its first items may start; if none, the instant from which some
            may [s]: inf: never, for the first is heavier than `max_unit`.
        """
        if not self._at_work:
            return items, _NOW
        counts = range(1, items + 1)
        sums = counts if weights is None else list(itertools.accumulate(weights))
        costs = {Per.ITEM: counts, Per.BATCH: (1,), Per.WEIGHT: sums}
        opens = max(rate.opens_at(min(costs[per][-1], most)) for per, most, rate in self._at_work)
        if opens > now:
            return 0, opens
        cut = [(per, rate) for per, _, rate in self._at_work if per is not Per.BATCH]
        count = min([rate.prefix(costs[per], now) for per, rate in cut], default=items)
        return count, _NOW if count else math.inf

    def pay(self, now: float, items: int, weight: float | None = None) -> None:
        """Note a start at `now` [s] of so many items, of so much weight (None: 1 each)."""
        self._noted = None
        if self.throttle:
            self.next_start = max(self.next_start, now + self.throttle)
        for per, _, rate in self._at_work:
            units = items if per is Per.ITEM or weight is None else weight
            rate.pay(1 if per is Per.BATCH else units, now)

    def hold(self, until: float) -> None:
        """Start nothing before `until` [s], as a processor said; never brings one forward."""
        if until > self.next_start:
            self.next_start = self._held = until
            self._noted = None

    def put_off(self, now: float, opens: float | None = None) -> None:
        """Note in `waits` that a batch is ready and may not start; once per wait.

        Args:
            now: [s].
            opens: when `affordable` says that it may [s]; None: at `next_start`.
        """
        cause = Cause.THROTTLE
        if opens is not None:
            cause = Cause.RATE_LIMIT
        elif self._held == self.next_start:
            cause = Cause.PROCESSOR
        if cause is not self._noted:
            self._noted = cause
            self.waits.append(((self.next_start if opens is None else opens) - now, cause))
