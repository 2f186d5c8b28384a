"""The signals that stop a process; the rest of it stands in test_manager_processes.py."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import pytest

from batchq import signals
from batchq.cli import supervisor


class Ended(BaseException):
    pass


async def test_a_signal_within_20_ms_of_the_first_is_a_copy_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 5.0

    def end(number: int) -> None:
        raise Ended(number)

    monkeypatch.setattr(signals, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(signal, "raise_signal", end)
    stop = signals._Stop()
    stop.hear(signal.SIGTERM, None)
    stop.hear(signal.SIGINT, None)
    now = 5.0199
    stop.hear(signal.SIGINT, None)
    await stop.asked.wait()
    assert stop.number == signal.SIGTERM
    before = signal.getsignal(signal.SIGINT)
    now = 5.0201
    try:
        with pytest.raises(Ended, match=str(int(signal.SIGINT))):
            stop.hear(signal.SIGINT, None)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_supervisor_takes_the_same_for_copies() -> None:
    assert supervisor._COPIES == signals._COPIES
