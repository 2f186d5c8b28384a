"""What the kill test's handlers make of a job: known beforehand, so that ends can be judged."""

from __future__ import annotations

from typing import Final

__all__ = ["LEASE", "MAX_ATTEMPTS", "SLOW", "fate"]

LEASE: Final = 1.0
MAX_ATTEMPTS: Final = 6
SLOW: Final = 1.5


def fate(number: int) -> str:
    """Say what the handler makes of a payload: ok, discard, raise (always) or again (once)."""
    if number % 31 == 0:
        return "discard"
    if number % 37 == 0:
        return "raise"
    return "again" if number % 7 == 0 else "ok"
