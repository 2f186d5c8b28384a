"""The hunt for planted faults works; the whole hunt is `python -m tests.teeth`."""

from __future__ import annotations

from typing import Final

from tests import teeth

FAMILIES: Final = {
    "lots",
    "partitions",
    "weights",
    "solo",
    "ageing",
    "mix",
    "limits",
    "coalescing",
    "deadlines",
    "bisect",
    "guard",
    "ordered",
    "strategy",
    "adaptive",
    "outstanding",
    "restore",
    "victims",
    "told",
    "early",
    "last save",
}


def test_each_fault_still_has_its_one_place_in_the_engine() -> None:
    teeth.check_places()
    assert len({fault.name for fault in teeth.FAULTS}) == len(teeth.FAULTS) >= 12


def test_each_family_of_rich_rules_has_a_fault_and_a_test_that_hunts_it() -> None:
    families = {fault.name.partition(":")[0] for fault in teeth.RICH}
    assert families == FAMILIES
    assert len(teeth.RICH) >= 20
    assert all(fault.tests for fault in teeth.RICH)


def test_a_fault_of_the_core_and_one_of_the_shell_are_found() -> None:
    faults = {fault.name: fault for fault in teeth.FAULTS}
    assert teeth.hunt(faults["late by one item"])
    assert teeth.hunt(faults["the time limit is not kept"])
