"""Tables and times for people."""

from __future__ import annotations

from batchq.cli.table import table, visible, when


def test_numbers_stand_to_the_right_and_nothing_trails() -> None:
    assert table(["queue", "pending"], [["email", 12_000], ["ai", None]]) == (
        "queue  pending\nemail   12,000\nai           -"
    )


def test_foreign_text_cannot_move_the_cursor() -> None:
    assert visible("a\x1b[31mred\x07\nb\u202ec", 80) == r"a\x1b[31mred\x07 b\u202ec"
    assert visible("abcdef", 4) == "abc…"


def test_times_are_relative() -> None:
    assert when(3) == "in 3.0 s"
    assert when(-0.25) == "0.2 s ago"
    assert when(-180) == "3 min ago"
    assert when(7_200) == "in 2 h"
    assert when(864_000) == "in 10 d"
