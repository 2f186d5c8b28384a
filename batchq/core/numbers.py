"""What is a number here: one that people call so, and that arithmetic with floats can bear."""

from __future__ import annotations

import math
import sys
from typing import Final, TypeGuard

__all__ = ["A_WAIT", "LONGEST_WAIT", "NO_DELAY", "is_amount", "is_number", "is_wait"]

LONGEST_WAIT: Final = 3_155_760_000  # 100 years: so that no sum of times is out of reach [s]
A_WAIT: Final = f"a number of seconds from 0 to {LONGEST_WAIT} (100 years)"

# What a delay is when nobody gives one: this very object, so that a glance tells that there is
# nothing to check. None or False in its place would be no delay to `if delay`, either.
NO_DELAY: Final = 0.0

# A whole number may be greater than any float, and yet is less than infinity.
_GREATEST: Final = sys.float_info.max


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a number to people, too: True and False are not. It may be inf or NaN."""
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return -_GREATEST <= value <= _GREATEST
    return isinstance(value, float)


def is_amount(value: object) -> TypeGuard[float]:
    """Whether it is a finite number from 0."""
    return is_number(value) and 0 <= value < math.inf


def is_wait(value: object) -> TypeGuard[float]:
    """Whether it is a time that one can wait: from 0 to `LONGEST_WAIT` [s]."""
    return is_number(value) and 0 <= value <= LONGEST_WAIT
