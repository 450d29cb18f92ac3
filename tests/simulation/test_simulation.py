"""Three hundred redundant sets, each for two simulated minutes, and every rule after every step."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from .plan import plan
from .run import one, results

_SEEDS, _MINUTES = 300, 2.0


@pytest.mark.timeout(900)
def test_no_rule_is_broken() -> None:
    happened: Counter[str] = Counter()
    figures: Counter[str] = Counter()
    for result in results(range(_SEEDS), _MINUTES):
        assert not result.failed, result.text()
        happened += result.happened
        figures += result.figures
    # A simulation in which nothing happens breaks no rule either.
    assert figures["acknowledgements"] > 100 * _SEEDS
    assert figures["takeovers"] > 5 * _SEEDS
    assert figures["replays"] > 100 * _SEEDS
    for name in (
        "crash",
        "stopped",
        "paused",
        "slow",
        "cut",
        "network",
        "command",
        "higher_term",
        "lease_lost",
        "switch_begins",
        "switch_complete",
        "switch_failed",
        "switch_refused",
        "member_appeared",
    ):
        # Each kind of event often enough to have met the others.
        assert happened[name] >= 20, (name, happened[name])


def test_the_seeds_are_of_every_kind() -> None:
    groups = [group for seed in range(_SEEDS) for group in plan(seed, _MINUTES).groups]
    assert {len(group.hosts) for group in groups} == {2, 3, 4, 5}
    assert max(group.number for group in groups) == 2
    assert max(group.mobile_nodes for group in groups) > 100
    for name in ("synchronous", "preempt", "arbiter", "extensions", "probing", "esn"):
        assert {getattr(group, name) for group in groups} == {False, True}, name
    assert min(group.interval for group in groups) == 0.01


def test_a_seed_is_always_the_same_run() -> None:
    first, second = (one(3, 1.0, events=400) for _ in range(2))
    assert (first.figures, first.happened) == (second.figures, second.happened)
    root = Path(__file__).parents[2]
    said = {
        subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.simulation",
                "--seed",
                "3",
                "--minutes",
                "1",
                "--mutant",
                "no-window",
            ],
            cwd=root,
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        for seed in ("1", "2")
    }
    assert len({re.sub(r"\(\d+\.\d+ s\)", "", each) for each in said}) == 1
