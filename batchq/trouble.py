"""What a worker does about errors outside of handlers' code: it tells of them, and goes on."""

from __future__ import annotations

import logging
import random
from typing import Final

from batchq.core.backoff import Backoff
from batchq.errors import StoreError
from batchq.hooks import JobWatchers

__all__ = ["pause_after", "tell_of_trouble"]

logger = logging.getLogger("batchq")

_AGAIN: Final = Backoff(initial_delay=0.1, max_delay=5.0)


def pause_after(failures: int) -> float:
    """Return how long to wait after so many failures in a row [s]."""
    return _AGAIN.delay(failures, draw=random.random())  # noqa: S311 - jitter is no secret


def tell_of_trouble(watchers: JobWatchers, where: str, error: Exception) -> None:
    """Tell that the store could not do it, or that it, or we, have a bug."""
    if isinstance(error, StoreError):
        logger.warning("%s: the store could not do it: %s", where, error)
        watchers.tell(watchers.on_store_error, error)
    else:
        logger.error("%s goes on after an error", where, exc_info=error)
        watchers.tell(watchers.on_error, error)
