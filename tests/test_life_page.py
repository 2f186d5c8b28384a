"""The page of a job's life is drawn from the table."""

from __future__ import annotations

import re
from pathlib import Path

from batchq.core.lifecycle import TABLE, JobState
from docs.conf import _life

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "life_of_a_job.md"


def drawn() -> str:
    text = PAGE.read_text()
    return re.sub(r"^```\{life\}\n```$", _life, text, flags=re.MULTILINE)


def said(state: JobState | None) -> str:
    return "none" if state is None else f"`{state.value}`"


def test_each_row_of_the_table_is_a_row_of_the_page() -> None:
    rows = re.findall(r"^\| (T\d+) \| (.+?) \| (.+?) \|", drawn(), re.MULTILINE)
    assert rows == [(row.number, said(row.source), said(row.target)) for row in TABLE]


def test_each_state_and_each_move_is_drawn() -> None:
    page = drawn()
    drawing = page[page.index("<svg") : page.index("</svg>")]
    for state in JobState:
        assert f">{state.value}</text>" in drawing
    for row in TABLE:
        if row.target is not None:
            assert f">{row.number} {row.move.value}</text>" in drawing
