"""requirements.lock covers what pyproject.toml asks for, and names no index."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()
PINNED = dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", LOCK, re.MULTILINE))
EXTRAS = PROJECT["optional-dependencies"]
ASKED = {
    *PROJECT["dependencies"],
    *(each for extra in ("test", "lint", "docs", "demo", "cli") for each in EXTRAS[extra]),
}


@pytest.mark.parametrize("asked", sorted(ASKED))
def test_the_lock_pins_a_version_that_will_do(asked: str) -> None:
    requirement = Requirement(asked)
    assert PINNED[canonicalize_name(requirement.name)] in requirement.specifier


def test_every_pin_has_its_hashes() -> None:
    for block in re.split(r"\n(?=[a-z0-9.-]+==)", LOCK)[1:]:
        assert "--hash=sha256:" in block, block.partition("\n")[0]


def test_the_lock_names_no_index() -> None:
    assert "://" not in LOCK
    assert not [line for line in LOCK.splitlines() if line.startswith("--")]
