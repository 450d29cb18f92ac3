"""The lab in another kernel, at real-time priority, begins with the session; the order of all other tests.

Covered: what goes beside the lab, and what after it. Not covered: what begins (``lab/conftest``).
"""

from __future__ import annotations

import pytest

__all__ = ["turn"]


def turn(item: pytest.Item) -> int:
    """The lab in another kernel measures: beside it goes what takes the other processors and no more.

    What measures here has the machine for itself, at the end.
    """
    if item.path.name == "test_kernel_dataplane.py":
        return 4
    if item.path.parent.name == "simulation":
        return 3
    if item.get_closest_marker("kernel"):
        return 2
    if item.get_closest_marker("interop"):
        return 1
    return 5 if item.get_closest_marker("netns") else 0
