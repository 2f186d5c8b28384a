"""How large batches are and how many run at once, where the queue finds that out itself.

Rule 1: it learns from single calls: what they took, never a sequence of retries.
Rule 2: one call proves nothing: outliers are dropped, old samples fade.
Rule 3: no clock, no dice: durations, instants and draws are arguments.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

from batchq.core.checks import seconds, whole
from batchq.core.numbers import is_number
from batchq.errors import OptionError, Throttled

__all__ = [
    "AdaptiveBatchSize",
    "AdaptiveConcurrency",
    "BatchSizer",
    "SlotLimit",
    "fit",
    "is_backpressure",
]

_Sample = tuple[int, float, float]  # count, duration, weight

_SAMPLES: Final = 60  # calls that the fit looks at
_FADE: Final = 0.97  # weight of a sample against that of the next newer one
_VARIATION: Final = 0.25  # share by which a size is varied, so that sizes differ
_ROUNDS: Final = 3  # of dropping outliers; more change nothing
_OUTLIER: Final = 4.0  # deviations from the fit
_DEVIATION: Final = 1.4826  # of a normal distribution, per median absolute deviation
_LEVEL: Final = 1e6  # items; a fixed cost of so many of them: what a call has hardly matters
_TINY: Final = 1e-12  # seconds; no clock shows less
_SAME: Final = 1e-6  # share by which durations differ and are the same: clocks are coarse


def _share(*, one: bool) -> Callable[[object, attrs.Attribute[Any], object], None]:
    """Make an attrs validator for numbers above 0 and below 1, or up to it."""

    def check(_: object, field: attrs.Attribute[Any], value: object) -> None:
        if not is_number(value) or not 0 < value <= 1 or (value == 1 and not one):
            end = "up to 1" if one else "below 1"
            raise OptionError(f"{field.name} must be a number above 0 and {end}, got {value!r}")

    return check


def _deviations(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if not is_number(value) or not 0 <= value < math.inf:
        raise OptionError(f"{field.name} must be a finite number from 0, got {value!r}")


@attrs.frozen(kw_only=True)
class AdaptiveBatchSize:
    """Batches as large as pays: `batch_size=AdaptiveBatchSize()`.

    A call for n items is taken to last `a + b * n`. The size is the smaller of that at
    which the fixed share `a` falls to `target_overhead` and that at which the call lasts
    `target_duration`.

    Attributes:
        min_size: smallest size; it begins there [items, from 1].
        max_size: largest size [items].
        target_overhead: share of a call that its fixed cost may take [above 0, below 1].
        target_duration: how long a call may last [s, above 0]; inf is no limit.

    Raises:
        OptionError: a value is out of its range, or two are at odds.

    Source:
        Apache Beam, `BatchElements` (apache_beam/transforms/util.py).
    """

    min_size: int = attrs.field(default=1, validator=whole(1))
    max_size: int = attrs.field(default=1000, validator=whole(1))
    target_overhead: float = attrs.field(default=0.05, validator=_share(one=False))
    target_duration: float = attrs.field(default=10.0, validator=seconds(above=True))

    def __attrs_post_init__(self) -> None:
        if self.max_size < self.min_size:
            raise OptionError(
                f"max_size ({self.max_size}) must be at least min_size ({self.min_size})"
            )


@attrs.frozen(kw_only=True)
class AdaptiveConcurrency:
    """As many batches at once as the other side bears: `concurrency=AdaptiveConcurrency()`.

    One more slot where all were in use and calls took no longer than on average; fewer
    where they took much longer, or the other side pushed back (`Throttled`,
    `BatchTimeout`, `OSError`, `TimeoutError`). At most one change per mean duration.

    Attributes:
        min_limit: fewest slots [batches, from 1].
        initial: slots to begin with [batches].
        max_limit: most slots [batches].
        decrease_ratio: share of the slots that is left after a decrease [above 0, below 1].
        ewma_alpha: share of the newest measurement in the running mean [above 0, to 1].
        rtt_deviation_scale: deviations above the mean that are much longer [from 0].

    Raises:
        OptionError: a value is out of its range, or two are at odds.

    Source:
        Vector, adaptive request concurrency (src/sinks/util/adaptive_concurrency).
    """

    min_limit: int = attrs.field(default=1, validator=whole(1))
    initial: int = attrs.field(default=1, validator=whole(1))
    max_limit: int = attrs.field(default=200, validator=whole(1))
    decrease_ratio: float = attrs.field(default=0.9, validator=_share(one=False))
    ewma_alpha: float = attrs.field(default=0.4, validator=_share(one=True))
    rtt_deviation_scale: float = attrs.field(default=2.5, validator=_deviations)

    def __attrs_post_init__(self) -> None:
        if not self.min_limit <= self.initial <= self.max_limit:
            raise OptionError(
                f"initial ({self.initial}) must be from min_limit ({self.min_limit})"
                f" to max_limit ({self.max_limit})"
            )


@attrs.define(eq=False)
class BatchSizer:
    """Finds the batch size.

    Attributes:
        settings: what it aims at.
        size: what it found [items].
    """

    settings: AdaptiveBatchSize
    size: int = attrs.field(init=False)
    _samples: deque[tuple[int, float]] = attrs.field(factory=lambda: deque(maxlen=_SAMPLES))

    def __attrs_post_init__(self) -> None:
        self.size = self.settings.min_size

    def learn(self, count: int, duration: float, *, draw: float) -> int:
        """Learn from a call that returned; one that failed or was cut off says nothing.

        Args:
            count: what it had [items].
            duration: what it took [s].
            draw: uniform in [0, 1): how the size is varied.

        Returns:
            The size from now on [items]: at most twice and at least half of what it was,
            and not above twice what this call had, where that is more than now.
        """
        self._samples.append((count, duration))
        wanted = self._target(count) * (1 + _VARIATION * (2 * draw - 1))
        most = min(2 * self.size, max(self.size, 2 * count), self.settings.max_size)
        least = max((self.size + 1) // 2, self.settings.min_size)
        self.size = round(max(least, min(most, wanted)))
        return self.size

    def _target(self, count: int) -> float:
        fixed, each = fit(self._samples)
        if each is None:
            # Sizes have to differ, or there is nothing to fit: try a larger one.
            return 2 * self.size if count >= self.size else self.size
        if each <= 0:
            return math.inf
        share = self.settings.target_overhead
        by_overhead = max(0.0, fixed) / each * (1 - share) / share
        return min(by_overhead, (self.settings.target_duration - fixed) / each)


def fit(samples: Sequence[tuple[int, float]]) -> tuple[float, float | None]:
    """Fit `fixed + each * count` to calls; what lies far off is dropped.

    Durations are taken to vary by a share of themselves, as they do: so a second counts
    less in a call of a minute than in one of two seconds.

    Args:
        samples: (count, duration) of each call, the newest last, one or more.

    Returns:
        (fixed, each) [s]; each is None where all calls that count had the same size.
    """
    ages = reversed(range(len(samples)))
    weighted = [(n, t, _FADE**age) for (n, t), age in zip(samples, ages, strict=True)]
    fixed, each = _least_squares(weighted)
    for _ in range(_ROUNDS):
        base, slope = max(0.0, fixed), max(0.0, each or 0.0)
        ratio = min(base / slope, _LEVEL) if slope else _LEVEL
        kept = _plausible(weighted, base, slope)
        fixed, each = _least_squares([(n, t, w / (ratio + n) ** 2) for n, t, w in kept])
    return fixed, each


def _plausible(samples: list[_Sample], fixed: float, each: float) -> list[_Sample]:
    """Leave out the calls that took by far longer or shorter than the fit says."""
    shares = [t / max(fixed + each * n, _TINY) for n, t, _ in samples]
    middle = statistics.median(shares)
    spread = statistics.median([abs(share - middle) for share in shares])
    # What rounding leaves of an exact fit is no deviation.
    allowed = _OUTLIER * _DEVIATION * spread + _SAME * max(1.0, middle)
    return [
        sample
        for sample, share in zip(samples, shares, strict=True)
        if abs(share - middle) <= allowed
    ]


def _least_squares(samples: Sequence[_Sample]) -> tuple[float, float | None]:
    total = sum(w for _, _, w in samples)
    mean_n = sum(n * w for n, _, w in samples) / total
    mean_t = sum(t * w for _, t, w in samples) / total
    if all(n == samples[0][0] for n, _, _ in samples):
        return mean_t, None
    spread = sum(w * (n - mean_n) ** 2 for n, _, w in samples)
    slope = sum(w * (n - mean_n) * (t - mean_t) for n, t, w in samples) / spread
    return mean_t - slope * mean_n, slope


def is_backpressure(error: BaseException) -> bool:
    """Tell whether an error says that there is too much at once; of a group, any of it."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(is_backpressure, error.exceptions))
    return isinstance(error, Throttled | OSError)  # BatchTimeout is a TimeoutError, an OSError


@attrs.define(eq=False)
class SlotLimit:
    """Finds how many batches may run at once.

    Attributes:
        settings: how it goes about it.
        limit: what it found [batches].
    """

    settings: AdaptiveConcurrency
    limit: int = attrs.field(init=False)
    # Running, over periods; None: nothing was measured yet.
    _mean: float | None = None
    _variance: float = 0.0
    # Of this period: durations of its calls [s], and what else happened.
    _durations: list[float] = attrs.field(factory=list)
    _reached: bool = False
    _pushed_back: bool = False
    _ends: float = -math.inf
    _changed: float = -math.inf

    def __attrs_post_init__(self) -> None:
        self.limit = self.settings.initial

    def started(self, in_flight: int) -> None:
        """Note that a call started, as one of `in_flight`."""
        self._reached = self._reached or in_flight >= self.limit

    def ended(self, now: float, duration: float, error: BaseException | None = None) -> int:
        """Learn from a call that ended.

        Args:
            now: [s].
            duration: what it took [s].
            error: what it raised; None: it returned.

        Returns:
            The limit from now on [batches].
        """
        if error is None:
            self._durations.append(duration)
        elif is_backpressure(error):
            self._pushed_back = True
        mean = self._mean or 0.0
        # Whoever pushes back is heard at once, where the last change is long enough ago.
        if now >= self._ends or (self._pushed_back and now >= self._changed + mean):
            self._judge(now)
        return self.limit

    def _judge(self, now: float) -> None:
        """End a period, if something was learned in it."""
        taken = statistics.fmean(self._durations) if self._durations else None
        if taken is None and not self._pushed_back:
            return
        limit = self._next_limit(taken)
        if limit != self.limit:
            self.limit, self._changed = limit, now
        if taken is not None:
            self._note(taken)
        self._ends = now + (self._mean or 0.0)
        self._durations.clear()
        self._reached = self._pushed_back = False

    def _next_limit(self, taken: float | None) -> int:
        settings = self.settings
        mean = math.inf if self._mean is None else self._mean * (1 + _SAME)
        slow = mean + settings.rtt_deviation_scale * math.sqrt(self._variance)
        if self._pushed_back or (taken is not None and taken > slow):
            return max(settings.min_limit, int(self.limit * settings.decrease_ratio))
        if self._mean is not None and self._reached and taken is not None and taken <= mean:
            return min(settings.max_limit, self.limit + 1)
        return self.limit

    def _note(self, taken: float) -> None:
        """Take a period's mean duration into the running mean and variance."""
        if self._mean is None:
            self._mean = taken
            return
        alpha = self.settings.ewma_alpha
        off = taken - self._mean
        self._mean += alpha * off
        self._variance = (1 - alpha) * (self._variance + alpha * off * off)
