"""How deep JSON may be nested, so that whoever reads it can.

Every level that msgspec reads or writes takes one of the calls that Python allows in a row
(1,000, if nobody changed it), and those that led there have taken some before. So what is
written at the top of a program might not be readable in the depth of another: a limit well
below Python's is one for all of them.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Final

__all__ = ["MAX_DEPTH", "depth"]

MAX_DEPTH: Final = 500  # objects and lists within each other [levels]

_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # +1 and -1, as signed bytes
_OTHERS: Final = bytes(set(range(256)) - set(b"[{]}"))


def depth(content: bytes) -> int:
    """Return how many objects and lists are within each other in JSON [levels].

    It need not be exact below `MAX_DEPTH`.
    """
    brackets = content.count(b"[") + content.count(b"{")
    if brackets <= MAX_DEPTH:
        return brackets
    # An even number of quotation marks, those within texts gone, leaves texts at odd places.
    marked = content.replace(rb"\\", b"").replace(rb"\"", b"")
    outside = b"".join(marked.split(b'"')[::2])
    steps = memoryview(outside.translate(_STEPS, _OTHERS)).cast("b")
    return max(accumulate(steps), default=0)
