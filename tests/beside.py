"""What runs in User-Mode Linux begins with the session, beside tests that need neither a kernel nor quiet.

Covered: the order of tests, one thing after the other in the background. Not covered: what it is
(``kernel/conftest``, ``lab/test_kernel_dataplane``).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import pytest

__all__ = ["begin", "turn"]

T = TypeVar("T")
_QUEUE = pytest.StashKey[ThreadPoolExecutor]()


def turn(item: pytest.Item) -> int:
    """The lab in another kernel measures: beside it goes what needs one processor.

    Then what takes all of them, beside the other tests of that kernel; and with the machine for itself what
    measures here.
    """
    if item.path.name == "test_kernel_dataplane.py":
        return 2
    if item.path.parent.name == "simulation":
        return 3
    if item.get_closest_marker("kernel"):
        return 4
    if item.get_closest_marker("interop"):
        return 1
    return 5 if item.get_closest_marker("netns") else 0


def begin(config: pytest.Config, what: Callable[[], T]) -> Future[T]:
    """Have ``what`` done when everything that was begun before it is done."""
    if _QUEUE not in config.stash:
        config.stash[_QUEUE] = queue = ThreadPoolExecutor(1)
        config.add_cleanup(lambda: queue.shutdown(cancel_futures=True))
    return config.stash[_QUEUE].submit(what)
