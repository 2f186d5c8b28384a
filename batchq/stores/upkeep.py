"""What a store that lies in files can do besides: be copied, and be looked at by a person."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import attrs

__all__ = ["Finding", "Upkeep"]


@attrs.frozen
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what, in one word.
        ok: whether it is as it should be.
        text: what was found, and what to do about it.
        harmless: not as it should be, and nothing is broken yet.
    """

    name: str
    ok: bool = attrs.field(kw_only=True)
    text: str = attrs.field(kw_only=True)
    harmless: bool = attrs.field(default=False, kw_only=True)


@runtime_checkable
class Upkeep(Protocol):
    """A store that can be copied and looked at, from any thread, while others use it."""

    def backup(self, destination: str | os.PathLike[str]) -> None:
        """Copy all of it, as it is at one moment, to a file that is not there yet.

        The copy appears when it is whole and on the disk. It is a store like any other.

        Raises:
            StoreFull: no space; nothing is left of the copy.
            StoreError: the file is there already, or can't be made.
        """

    def examine(self) -> Sequence[Finding]:
        """Look whether it is whole, and whether anything about it is odd."""
