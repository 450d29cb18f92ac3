"""Settings that every test shares.

Property tests run the same examples each time, so that a gate never fails by luck; look for new ones with
``pytest --hypothesis-profile=explore``.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from .beside import turn

settings.register_profile(
    "gate", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", deadline=None, max_examples=5000)
settings.load_profile("gate")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=turn)
