"""The plugin that runs the conformance suite: what it takes for a store's address."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from batchq.testing.conformance.kit import HandClock, StoreKind


@pytest.mark.parametrize("url", ["sqlite:///x.db", "sqlite:////tmp/{place}/x.db"])
def test_a_file_that_all_tests_would_share_is_refused(url: str, tmp_path: Path) -> None:
    words = ["-p", "batchq.testing.plugin", "--pyargs", "batchq.testing.conformance"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, "--collect-only", f"--batchq-store={url}"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "write 'sqlite:///{folder}/x.db'" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_other_braces_are_part_of_the_name(tmp_path: Path) -> None:
    kind = StoreKind("sqlite:///{folder}/{x}.db")
    with closing(kind.open(tmp_path, HandClock())):
        assert (tmp_path / "{x}.db").exists()
