"""The public API as a user's type checker sees it: tests/typing/ is checked, never run."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(
    find_spec("mypy") is None, reason="mypy comes with the extra lint; .ci/run runs it on tests/"
)
def test_a_user_s_code_checks_under_strict_mypy() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "tests/typing"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
