"""Progress: what is shown while the campaign runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from batchq.cli.demo.progress import Pace, Snapshot, display


def test_the_rate_is_of_the_last_seconds_and_begins_with_the_first_item_done() -> None:
    times: Iterator[float] = iter([0.0, 10.0, 11.0, 12.0, 20.0])
    pace = Pace(clock=lambda: next(times))
    assert [pace.rate(done) for done in (0, 0, 100, 300, 300)] == [0.0, 0.0, 100.0, 150.0, 0.0]


@pytest.mark.parametrize(
    ("rate", "shown"), [(0.0, "-"), (10.0, "9 s"), (0.5, "3 min"), (0.1, "15 min")]
)
def test_what_is_left_is_told_in_units_for_people(rate: float, shown: str) -> None:
    now = Snapshot(stored=100, sent=9, failed=1, retrying=0, rate=rate)
    assert now.done == 10
    assert now.eta == shown


def test_elsewhere_than_in_a_terminal_the_last_line_always_comes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with display(fancy=False, to_stderr=False) as show:
        for sent in (0, 50, 99, 100):
            show.update(Snapshot(stored=100, sent=sent, failed=0, retrying=0, rate=50.0))
        show.say("all sent")
    *_, last, said = capsys.readouterr().out.splitlines()
    assert "stored 100  sent 100  retrying 0  failed 0  50 items/s  ETA 0 s" in last
    assert said == "all sent"
