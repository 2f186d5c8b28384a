"""The suite has teeth, and says what it proves."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import batchq.testing.conformance as suite
from tests.stores.teeth import FAULTS
from tests.teeth import check_places

DOCS = Path(__file__).parent.parent.parent / "docs"
SUITE = Path(suite.__file__).parent


def test_each_planted_fault_still_has_its_one_place() -> None:
    check_places(FAULTS)


def test_each_invariant_of_the_page_is_named_where_the_page_says() -> None:
    page = (DOCS / "howto" / "write_a_store.md").read_text()
    rows = re.findall(r"^\| (J\d+) \| .* \| (.+) \|$", page, re.MULTILINE)
    assert len(rows) >= 14
    for number, places in rows:
        for module in re.findall(r"`(\w+)`", places):
            text = (SUITE / f"{module}.py").read_text()
            assert re.search(rf"\b{number}\b", text), f"{number} in {module}"


def test_every_test_of_the_suite_runs_on_our_stores() -> None:
    ours = vars(import_module("tests.stores.test_conformance"))
    for path in SUITE.glob("test_*.py"):
        names = re.findall(r"^def (test_\w+)\(", path.read_text(), re.MULTILINE)
        assert names
        assert set(names) <= set(ours), path.name
    total = sum(
        len(re.findall(r"^def test_", path.read_text(), re.MULTILINE))
        for path in SUITE.glob("test_*.py")
    )
    assert total == sum(name.startswith("test_") for name in ours)  # no two of one name
