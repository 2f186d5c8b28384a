"""The hunt for planted faults works; the whole hunt is `python -m tests.teeth`."""

from __future__ import annotations

from tests import teeth


def test_each_fault_still_has_its_one_place_in_the_engine() -> None:
    teeth.check_places()
    assert len({fault.name for fault in teeth.FAULTS}) == len(teeth.FAULTS) >= 12


def test_a_fault_of_the_core_and_one_of_the_shell_are_found() -> None:
    faults = {fault.name: fault for fault in teeth.FAULTS}
    assert teeth.hunt(faults["late by one item"])
    assert teeth.hunt(faults["the time limit is not kept"])
