"""JSON has no NaN and no infinity: where in a value there is one."""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec

__all__ = ["not_finite"]

_SUSPECT: Final = frozenset({dict, list, tuple, float})  # may be, or hold, a NaN


def not_finite(value: object) -> str | None:
    """Return the path of a NaN or infinity in what msgspec has encoded; None: all is finite.

    msgspec writes them as null, which may well be legal in their place.
    """
    waiting: list[tuple[str, Any]] = [("$", msgspec.to_builtins(value, enc_hook=str))]
    while waiting:
        path, found = waiting.pop()
        if type(found) is dict:
            waiting += [(f"{path}.{k}", v) for k, v in found.items() if type(v) in _SUSPECT]
        elif type(found) in (list, tuple):
            waiting += [(f"{path}[{i}]", v) for i, v in enumerate(found) if type(v) in _SUSPECT]
        elif type(found) is float and not math.isfinite(found):
            return path
    return None
