"""Running the command line as its users do: in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def command() -> Callable[..., list[str]]:
    """Make a command line of batchq."""

    def make(*arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", "batchq", *map(str, arguments)]

    return make


@pytest.fixture(scope="session")
def environment() -> Callable[..., dict[str, str]]:
    """Make an environment without our own settings."""

    def make(**more: str) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("BATCHQ_")}
        return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **more}

    return make


@pytest.fixture
def batchq(
    tmp_path: Path,
    command: Callable[..., list[str]],
    environment: Callable[..., dict[str, str]],
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command in an empty directory, to its end; further names are its environment."""

    def run(*arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments),
            cwd=tmp_path,
            env=environment(**more),
            timeout=60,
            capture_output=True,
            text=True,
            check=False,
        )

    return run
