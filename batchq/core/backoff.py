"""How long to wait before the next attempt: shared by both tiers."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any

import attrs

from batchq.core.checks import choice, wait
from batchq.core.numbers import A_WAIT, is_amount, is_wait
from batchq.errors import OptionError

__all__ = ["Backoff", "Jitter"]


class Jitter(Enum):
    """Which share of a delay is left to chance.

    Source:
        M. Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015.
    """

    FULL = "full"
    EQUAL = "equal"
    NONE = "none"


def _jitter(value: object) -> Jitter:
    return choice("jitter", Jitter, value)


def _schedule(value: Sequence[float] | None) -> tuple[float, ...] | None:
    given: Any = value  # users without a type checker pass anything
    return None if value is None else tuple(given) if isinstance(given, list | tuple) else given


@attrs.frozen(kw_only=True)
class Backoff:
    """The delay before each retry.

    It grows from `initial_delay` by `multiplier` with every retry, up to `max_delay`;
    then chance takes a share off, so that what failed together elsewhere does not come
    back together.

    Attributes:
        initial_delay: delay before the first retry [s, from 0].
        multiplier: growth per retry [ratio, from 1].
        max_delay: longest delay [s, from 0].
        jitter: `full`: delay * U(0, 1); `equal`: delay * (1 + U(0, 1)) / 2; `none`.
        schedule: the delays one by one instead [s]; the last one repeats.

    Raises:
        OptionError: a value is out of its range.
    """

    initial_delay: float = attrs.field(default=1.0, validator=wait())
    multiplier: float = 2.0
    max_delay: float = attrs.field(default=60.0, validator=wait())
    jitter: Jitter = attrs.field(default=Jitter.FULL, converter=_jitter)
    schedule: tuple[float, ...] | None = attrs.field(default=None, converter=_schedule)

    def __attrs_post_init__(self) -> None:
        if not is_amount(self.multiplier) or self.multiplier < 1:
            raise OptionError(f"multiplier must be a finite number from 1, got {self.multiplier!r}")
        delays: Any = self.schedule
        if delays is not None and not (
            isinstance(delays, tuple) and delays and all(map(is_wait, delays))
        ):
            raise OptionError(
                f"schedule must be a list of one or more delays, each {A_WAIT}, got {delays!r}"
            )

    def delay(self, retry: int, *, draw: float) -> float:
        """Return how long to wait before retry number `retry`.

        Args:
            retry: which retry [count, from 1].
            draw: uniform in [0, 1), drawn by the caller. A failed batch draws once, so
                that its items stay together.

        Returns:
            Delay [s].
        """
        if self.schedule is not None:
            whole = self.schedule[min(retry, len(self.schedule)) - 1]
        elif not self.initial_delay:
            whole = 0.0
        else:
            try:
                growth = float(self.multiplier) ** (retry - 1)
                whole = min(self.max_delay, self.initial_delay * growth)
            except OverflowError:  # float ** int raises past 1e308 instead of giving inf
                whole = self.max_delay
        if self.jitter is Jitter.FULL:
            return whole * draw
        if self.jitter is Jitter.EQUAL:
            return whole * (1 + draw) / 2
        return whole
