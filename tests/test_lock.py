"""pyproject.toml asks for what the package imports, requirements.lock covers it, without index."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.test_architecture import FILES, imports_of

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()
PINNED = dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", LOCK, re.MULTILINE))
EXTRAS = PROJECT["optional-dependencies"]
ASKED = {
    *PROJECT["dependencies"],
    *(each for extra in ("test", "lint", "docs", "demo") for each in EXTRAS[extra]),
}


def test_what_the_package_imports_is_asked_for() -> None:
    """What comes along with another package may leave with it."""
    imported = {name.partition(".")[0] for path in FILES for name in imports_of(path)}
    foreign = imported - sys.stdlib_module_names - {"batchq"}
    owners = packages_distributions()
    every = {*PROJECT["dependencies"], *(each for extra in EXTRAS.values() for each in extra)}
    asked = {canonicalize_name(Requirement(each).name) for each in every}
    for name in foreign:
        assert asked & {canonicalize_name(owner) for owner in owners.get(name, [name])}, name


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
