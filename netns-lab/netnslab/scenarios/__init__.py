"""The scenarios, by name."""

from __future__ import annotations

from ..scenario import Scenario
from .failover import FAILOVER
from .handover import HANDOVER

__all__ = ["SCENARIOS"]

SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in (HANDOVER, FAILOVER)}
