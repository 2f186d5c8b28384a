"""What a worker does about errors outside of handlers' code: it tells of them, and goes on."""

from __future__ import annotations

import logging
import random
from typing import Final

import attrs

from batchq.core.backoff import Backoff
from batchq.errors import StoreError
from batchq.hooks import JobWatchers
from batchq.repeats import Repeats

__all__ = ["Trouble", "pause_after"]

logger = logging.getLogger("batchq")

_AGAIN: Final = Backoff(initial_delay=0.1, max_delay=5.0)


def pause_after(failures: int) -> float:
    """Return how long to wait after so many failures in a row [s]."""
    return _AGAIN.delay(failures, draw=random.random())  # noqa: S311 - jitter is no secret


@attrs.define(eq=False)
class Trouble:
    """Tells the hooks of each error of one place, and the log once a minute of each kind.

    Attributes:
        watchers: whom to tell.
        where: the place, for the log.
    """

    watchers: JobWatchers
    where: str
    _repeats: Repeats = attrs.field(factory=Repeats, init=False)

    def tell(self, error: Exception) -> None:
        """Tell that the store could not do it, or that it, or we, have a bug."""
        told = self._repeats.due(type(error))
        again = f" ({told} times since the last such line)" if told > 1 else ""
        watchers = self.watchers
        if isinstance(error, StoreError):
            if told:
                logger.warning("%s: the store could not do it%s: %s", self.where, again, error)
            watchers.tell(watchers.on_store_error, error)
        else:
            if told:
                logger.error("%s goes on after an error%s", self.where, again, exc_info=error)
            watchers.tell(watchers.on_error, error)
