"""The checks of ``load`` on made-up runs: a good one passes, every fault fails the check about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from netnslab.scenarios.load import Load, examine

NAMES = ("first", "refresh", "move", "deregistration", "burst", "detection")


def good() -> Load:
    load = Load(1000)
    for name in NAMES:
        load.reports[name] = {"accepted": 1000, "unanswered": 0, "per_second": 900.0, "seconds": 1.2}
        load.messages[name] = 0
    load.messages |= {"first": 2000, "move": 3000}
    load.left_behind["ha"] = []
    load.exit_status["ha"] = 0
    return load


def failed(load: Load) -> list[str]:
    return [check.name for check in examine(load).checks if not check.ok]


def test_good_run() -> None:
    assert not failed(good())
    figures = examine(good()).figures
    assert figures["netlink_messages"] == {"first": 2.0, "refresh": 0.0, "move": 3.0}
    assert (figures["mobile_nodes"], figures["unanswered"]) == (1000, 0)


def test_a_dataplane_that_does_not_count_netlink_messages() -> None:
    load = good()
    load.messages = dict.fromkeys(NAMES)
    assert not failed(load)
    assert examine(load).figures["netlink_messages"]["refresh"] is None


@pytest.mark.parametrize(
    ("spoil", "check"),
    [
        (lambda load: load.reports["first"].update(per_second=299.0), "first registrations per second"),
        (lambda load: load.reports["refresh"].update(per_second=799.0), "refreshes per second"),
        (lambda load: load.reports["burst"].update(unanswered=1), "unanswered"),
        (lambda load: load.reports["move"].update(accepted=999), "phases without 1000 accepted"),
        (lambda load: load.reports["detection"].update(seconds=5.1), "all registered after DAD, s"),
        (lambda load: load.messages.update(refresh=1), "netlink messages of refreshes"),
        (lambda load: load.exit_status.update(ha=1), "exit status of the home agents"),
        (lambda load: load.left_behind.update(ha=["rule 13500"]), "left behind by ha"),
    ],
)
def test_every_fault_fails_its_check(spoil: Callable[[Load], Any], check: str) -> None:
    load = good()
    spoil(load)
    assert failed(load) == [check]
