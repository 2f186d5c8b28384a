"""Importing the package, or asking the command line for help, costs next to nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"attrs", "attr", "msgspec", "sqlite3", "sqlite_utils", "trio"}


def modules_imported_by(*arguments: str) -> set[str]:
    """Run Python in a fresh process, and return the top-level packages it imported."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def test_the_probe_sees_what_is_imported() -> None:
    assert {"attrs", "batchq"} <= modules_imported_by("-c", "import batchq, attrs")


def test_importing_the_package_imports_no_dependency() -> None:
    assert not HEAVY & modules_imported_by("-c", "import batchq")


def test_a_public_name_brings_its_module_along() -> None:
    assert "trio" in modules_imported_by("-c", "from batchq import BatchedQueue")


@pytest.mark.parametrize(
    "arguments",
    [
        ("-m", "batchq", "--help"),
        ("-c", "import sys; from batchq.cli import main; sys.argv[1:] = ['--help']; main()"),
    ],
    ids=["module", "script"],
)
def test_help_imports_no_dependency_but_the_command_line_s(arguments: tuple[str, ...]) -> None:
    assert not HEAVY & modules_imported_by(*arguments)
