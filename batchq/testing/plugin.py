"""For pytest: runs `batchq.testing.conformance` on the stores that the command line names.

    pytest -p batchq.testing.plugin --pyargs batchq.testing.conformance --batchq-store URL

URL is a store's address, in which {folder} stands for an empty folder of the test; or
`package.module:function`, called as `function(folder, clock=...)` for a store that keeps its
rows there: what it stored must be found when it is called with that folder again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from batchq.stores.base import Store
    from batchq.testing.conformance.kit import HandClock, StoreKind

__all__ = ["clock", "pytest_addoption", "pytest_configure", "pytest_generate_tests", "store"]

pytest.register_assert_rewrite("batchq.testing.conformance")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the command line name stores."""
    parser.addoption(
        "--batchq-store",
        action="append",
        default=[],
        metavar="URL",
        help="a store to prove: its URL with {folder} in it, or package.module:function",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a file that all the tests would share: each is to begin with an empty store.

    Raises:
        pytest.UsageError: an address of SQLite has no {folder} in it; says what to write.
    """
    for url in config.getoption("--batchq-store"):
        if url.lower().startswith("sqlite:///") and "{folder}" not in url:
            file = url.rpartition("/")[2] or "jobs.db"
            raise pytest.UsageError(
                f"--batchq-store {url}: every test needs a store of its own; write"
                f" 'sqlite:///{{folder}}/{file}', where {{folder}} stands for a new empty folder"
            )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for a kind of store once for each, and once more with faults."""
    if "store_kind" not in metafunc.fixturenames:
        return
    from batchq.testing.conformance.kit import StoreKind  # noqa: PLC0415 - only if asked for

    urls = metafunc.config.getoption("--batchq-store") or getattr(metafunc.module, "STORES", ())
    kinds = [StoreKind(url, faults=faults) for url in urls for faults in (False, True)]
    metafunc.parametrize("store_kind", kinds, ids=lambda kind: kind.name)


@pytest.fixture
def clock() -> HandClock:
    """Give a clock that the test moves."""
    from batchq.testing.conformance.kit import HandClock  # noqa: PLC0415 - only if asked for

    return HandClock()


@pytest.fixture
def store(store_kind: StoreKind, tmp_path: Path, clock: HandClock) -> Iterator[Store]:
    """Give an empty store of the kind under test."""
    with closing(store_kind.open(tmp_path, clock)) as opened:
        yield opened
