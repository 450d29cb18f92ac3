"""How fast the kernel is that a scenario runs on: rates and limits that follow from it.

Covered: a kernel on its own hardware, and User-Mode Linux: one processor, where a system call costs ten
times as much. Not covered: machines that are slow otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["HOST", "UML", "Pace", "pace_here"]

_PROCESSOR = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Pace:
    """`probe_interval` (seconds), `failure_factor` (intervals of silence until a member has failed) and
    `outage_limit_ms` are those of a redundant set, `registration_limit_ms` and `own_share_limit_ms` those of
    a mobile node that moves; `in_flight` is how many seconds a packet may take.
    """

    probe_interval: float
    failure_factor: int
    outage_limit_ms: float
    registration_limit_ms: float
    own_share_limit_ms: float
    in_flight: float


HOST = Pace(0.001, 3, 60.0, 20.0, 50.0, 0.01)
# Its timers tick every 10 ms, and a machine that is busy otherwise takes up to 50 ms of each second from it.
UML = Pace(0.01, 6, 100.0, 40.0, 100.0, 0.04)


def pace_here() -> Pace:
    """The pace of the kernel that this process runs on."""
    return UML if "User Mode Linux" in _PROCESSOR.read_text() else HOST
