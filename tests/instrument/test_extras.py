"""A watcher whose package is missing says what to type."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("batchq.instrument.prometheus", "prometheus_client", "metrics"),
        ("batchq.instrument.tracing", "opentelemetry", "otel"),
        ("batchq.testing.machine", "hypothesis", "test"),
    ],
)
def test_a_missing_package_is_named_with_what_to_type(
    module: str, package: str, extra: str
) -> None:
    script = f"""
import sys
sys.modules[{package!r}] = None
from batchq import MissingExtra
try:
    import {module}
except MissingExtra as error:
    print(error.extra, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith(f"{extra} ")
    assert f"pip install '.[{extra}]'" in done.stdout
