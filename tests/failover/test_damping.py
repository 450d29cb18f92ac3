"""Hold-down: doubling, window, cap."""

from __future__ import annotations

from mip6ha.failover.damping import HoldDown


def test_nothing_is_held_down_at_first() -> None:
    assert HoldDown().allows(-1e9)


def test_each_change_doubles() -> None:
    held = HoldDown(base=2.0)
    now = 100.0
    for wait in (2.0, 4.0, 8.0, 16.0):
        held.changed(now)
        assert held.until == now + wait
        assert not held.allows(now + wait - 0.001)
        assert held.allows(now + wait)
        now += wait


def test_changes_outside_the_window_are_forgotten() -> None:
    held = HoldDown(base=1.0, window=60.0)
    for now in (0.0, 10.0, 20.0):
        held.changed(now)
    assert held.until == 24.0
    held.changed(75.0)
    assert held.until == 77.0
    held.changed(200.0)
    assert held.until == 201.0


def test_no_wait_is_longer_than_the_cap() -> None:
    held = HoldDown(base=1.0, cap=30.0, window=1e9)
    for now in range(2000):
        held.changed(float(now))
    assert held.until == 1999.0 + 30.0
