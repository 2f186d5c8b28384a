"""What every test shares: how hard Hypothesis tries.

HYPOTHESIS_PROFILE chooses: dev (the default) while writing, ci before a merge, deep
before a release (with `-o faulthandler_timeout=0`: it takes longer than any test may). The
merge's draws are always the same, so that it is judged by what it changes; the others draw
afresh.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator

import pytest
from hypothesis import settings

# A shell starts what runs in the background with SIGINT ignored, and nohup SIGHUP; tests of
# Ctrl-C and of a terminal that goes mind that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# No deadlines: two noisy cores make any single example slow now and then.
settings.register_profile("dev", deadline=None, derandomize=False, max_examples=50)
settings.register_profile("ci", deadline=None, derandomize=True, max_examples=500)
settings.register_profile("deep", deadline=None, derandomize=False, max_examples=20_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape what no UTF-8 can hold: tests of such texts log them, and processes pass that on."""
    report = yield
    report.sections = [
        (title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections
    ]
    return report
