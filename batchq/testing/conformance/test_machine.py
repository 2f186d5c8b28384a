"""Every history of a store, beside the model: see machine.py."""

from __future__ import annotations

from pathlib import Path

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from batchq.testing.conformance.kit import HandClock, StoreKind
from batchq.testing.conformance.orders import OrderMachine


def test_every_history_is_as_the_model_has_it(store_kind: StoreKind, tmp_path: Path) -> None:
    """J1 to J6, J8, J9, J13 to J15, J17, J19, J21."""
    store = store_kind.open(tmp_path, HandClock())
    # Where each history makes a database, that takes most of the time: a fifth will do.
    often = settings().max_examples
    if store_kind.faults or not store.info().inline:
        often = max(20, often // 5)
    store.close()

    class Machine(OrderMachine):
        pass

    Machine.kind = store_kind
    run_state_machine_as_test(Machine, settings=settings(max_examples=often))
