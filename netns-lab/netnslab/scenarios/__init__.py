"""The scenarios, by name."""

from __future__ import annotations

from ..scenario import Scenario
from .arbiter import ARBITER
from .failover import FAILOVER, IKE_FAILOVER
from .handover import HANDOVER, IKE_HANDOVER
from .interop import INTEROP_INITIATOR, INTEROP_RESPONDER
from .load import LOAD
from .restart import RESTART
from .split_brain import SPLIT_BRAIN
from .switchover import SWITCHOVER

__all__ = ["SCENARIOS"]

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        HANDOVER,
        IKE_HANDOVER,
        FAILOVER,
        IKE_FAILOVER,
        SWITCHOVER,
        SPLIT_BRAIN,
        RESTART,
        ARBITER,
        INTEROP_INITIATOR,
        INTEROP_RESPONDER,
        LOAD,
    )
}
