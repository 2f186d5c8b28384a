"""Tables and times for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

__all__ = ["table", "visible", "when"]

_ELLIPSIS: Final = "…"
_UNITS: Final = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"))


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Write rows under headings; columns of numbers stand to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    numeric = [
        bool(rows) and all(isinstance(value, int | None) for value in column)
        for column in zip(*rows, strict=True)
    ] or [False] * len(headings)
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in (headings, *cells)
    ]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else str(value)


def visible(text: str, most: int) -> str:
    """Write foreign text on one line of at most `most` characters.

    What would move a terminal's cursor or change its colours is shown, not done.
    """
    line = " ".join(text.split())
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    return line if len(line) <= most else line[: most - 1] + _ELLIPSIS


def when(seconds: float) -> str:
    """Write a time from now: `in 3 s`, `2 min ago`."""
    amount = abs(seconds)
    text = next(
        (f"{amount / size:.0f} {unit}" for size, unit in _UNITS if amount >= size),
        f"{amount:.1f} s",
    )
    return f"in {text}" if seconds > 0 else f"{text} ago"
