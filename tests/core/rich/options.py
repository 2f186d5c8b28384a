"""What is said of a queue in the model's words, said in the code's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from batchq.core.adaptive import AdaptiveBatchSize, AdaptiveConcurrency
from batchq.core.backoff import Backoff, Jitter
from batchq.core.limits import SlidingWindow, TokenBucket
from batchq.core.retry import RetryPolicy
from tests.core.rich.starting import STRATEGIES
from tests.core.rich.terms import Limit, Terms

__all__ = ["LARGEST", "MOST_SLOTS", "Thing", "options_of"]

LARGEST: Final = 6  # size of an adaptive batch
MOST_SLOTS: Final = 4  # of an adaptive queue


class Thing:
    """An item whose end can be watched; two of them can be merged."""

    def __init__(self, number: int) -> None:
        self.number = number


def _raises(_: Exception) -> bool:
    raise RuntimeError("the check itself is broken")


_CHECKS: Final[dict[bool | None, Any]] = {True: lambda _: True, False: _raises, None: None}


def _strategy(name: str) -> Callable[[list[Thing]], Any]:
    def group(things: list[Thing]) -> Any:  # noqa: ANN401 - what a broken one returns
        known = {thing.number: thing for thing in things}
        match name:
            case "raises":
                raise RuntimeError("no idea")
            case "strangers":
                return [things, [Thing(-1)]]
            case "twice":
                return [things, things[:1]]
            case "no groups":
                return things
        return [[known[each] for each in group] for group in STRATEGIES[name](list(known))]

    return group


def _limit(limit: Limit) -> TokenBucket | SlidingWindow:
    if limit.window:
        return SlidingWindow(limit.most, limit.pace, limit.per)
    return TokenBucket(limit.pace, limit.most, limit.per)


def _merge(old: Thing, new: Thing) -> Thing:
    return Thing(old.number + new.number)


def options_of(terms: Terms) -> dict[str, Any]:
    """Say the same to the code."""
    retry = None
    if terms.retries is not None:
        backoff = Backoff(schedule=terms.schedule, jitter=Jitter(terms.jitter))
        retry = RetryPolicy(terms.retries, _CHECKS[terms.check], backoff)
    limited = {
        "max_batch_weight": terms.budget,
        "max_queue_size": terms.most_waiting,
        "max_outstanding": terms.most_outstanding,
        "max_queue_weight": terms.most_weight,
        "queue_timeout": terms.queue_timeout,
        "delivery_timeout": terms.delivery_timeout,
        "partition_concurrency": terms.partition_limit,
    }
    options: dict[str, Any] = {
        name: None if value == math.inf else value for name, value in limited.items()
    }
    return options | {
        "batch_size": AdaptiveBatchSize(max_size=LARGEST) if terms.adaptive else terms.batch_size,
        "flush_interval": terms.interval,
        "priority_levels": terms.levels,
        "priority_aging": terms.aging,
        "mix_priorities": terms.mix,
        "concurrency": (
            AdaptiveConcurrency(max_limit=MOST_SLOTS) if terms.adaptive else terms.concurrency
        ),
        "ordered": terms.ordered,
        "oversize": terms.oversize,
        "rate_limit": [_limit(limit) for limit in terms.limits] or None,
        "throttle": terms.throttle,
        "drop_policy": terms.drop_policy,
        "coalesce_policy": _merge if terms.coalesce == "merge" else terms.coalesce,
        "retry": retry,
        "bisect": terms.bisect,
        "batching_strategy": None if terms.strategy is None else _strategy(terms.strategy),
    }
