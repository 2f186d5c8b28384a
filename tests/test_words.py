"""One word per concept: the words that lost may not come back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "batchq"
TEXTS = [path for kind in ("py", "sql", "lua", "html") for path in PACKAGE.rglob(f"*.{kind}")]

# What lost, and the word that won.
LOST = {
    "linger": "flush_interval",
    "max_wait": "flush_interval",
    "broker": "store",
    "ticket": "entry, handle",
    "visibility_timeout": "lease",
    "dead_letter_queue": "failed",
}


@pytest.mark.parametrize("path", sorted(TEXTS), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_words_that_lost_do_not_come_back(path: Path) -> None:
    found = {
        f"line {number}: {lost!r}, say {won!r}"
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        for lost, won in LOST.items()
        if re.search(lost.replace("_", "[_ -]?"), line, re.IGNORECASE)
    }
    assert found == set()
