"""The measurement of wake-ups, in short; how fast they are is not for a busy machine to say."""

from __future__ import annotations

import pytest

from tests.crash.wake import measure


@pytest.mark.parametrize("ticks", [False, True], ids=["as here", "ticks"])
def test_jobs_of_another_process_are_not_found_by_polling_alone(*, ticks: bool) -> None:
    found = measure(jobs=10, idle=0.5, ticks=ticks)
    assert found["jobs"] == 11
    assert found["p50_ms"] < 1_000  # a poll comes every 5 s
