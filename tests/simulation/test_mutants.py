"""The simulation can fail: each deliberate fault of the product breaks its rule within 200 seeds."""

from __future__ import annotations

from itertools import chain

import pytest

from .mutants import MUTANTS
from .run import Result, one

# The rule that breaks, and a seed that showed it soon. It is only where the search begins: what changes the
# course of a run may let that one pass.
_BREAKS = {
    "ack-before-replication": ("R1", 37),
    "no-block-reservation": ("R3", 23),
    "no-fencing": ("R5", 10),
    "stale-state": ("R5", 15),
    "no-window": ("R4", 50),
    "no-horizon": ("R4", 0),
    "binding-alone": ("R2", 17),
    "outbound-late": ("R2", 17),
    "pushes-first": ("R3", 182),
    "believes-all": ("R7", 42),
    "lends-unheard": ("R4", 50),
    "keeps-its-window": ("R3", 14),
}
_SEEDS = 200


def _search(name: str) -> Result:
    rule, first = _BREAKS[name]
    for seed in chain((first,), range(_SEEDS)):
        result = one(seed, 2.0, name)
        if result.rule == rule:
            return result
    pytest.fail(f"{name} goes unnoticed")


@pytest.mark.parametrize("name", MUTANTS)
def test_a_fault_is_found(name: str) -> None:
    assert _search(name).failed


def test_a_failure_tells_what_happened_and_how_to_see_it_again() -> None:
    result = _search("ack-before-replication")
    lines = result.text().splitlines()
    again = f"again: python -m tests.simulation --seed {result.seed} --minutes 2 --mutant {result.mutant}"
    assert lines[-1] == again
    assert "acknowledged" in lines[-2]
    assert any("active" in line and "term 0x" in line for line in lines[:-2])
