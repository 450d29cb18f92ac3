"""Every test here runs against strongSwan, on a link of its own between two namespaces."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .network import Network

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.interop)


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    if os.geteuid():
        pytest.fail(
            "network namespaces need root; run as root, or deselect these tests with: -m 'not interop'"
        )
    with Network() as found:
        yield found
