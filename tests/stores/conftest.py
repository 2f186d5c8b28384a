"""Every store, over a clock that the test moves by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from batchq.stores.base import Store
from tests.stores.kit import STORES, HandClock, StoreKind


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(params=STORES, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> StoreKind:
    found: StoreKind = request.param
    return found


@pytest.fixture
def store(kind: StoreKind, tmp_path: Path, clock: HandClock) -> Iterator[Store]:
    with closing(kind.open(tmp_path, clock)) as opened:
        yield opened
