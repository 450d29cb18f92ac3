"""What a scenario is: a description, a topology, steps, checks; and what a run of one carries around.

A scenario says what it needs and what it found; `main` opens the network, starts it, cleans up whatever
happens, and writes the outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .pace import HOST, Pace
from .probes import Phase, Stream
from .processes import Processes
from .roles import RoleSpan
from .timeline import Timeline
from .topology import Network, Topology

__all__ = ["Check", "Options", "Outcome", "Run", "Scenario", "StepListener"]

StepListener = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks of a scenario. `dad`: the home agent probes a home address before it
    answers. `contexts` counts mobile nodes; `fault` is how the active member goes, "kill" or "links";
    `credentials` is how strongSwan and home agents prove who they are, "psk", "rsa" or "ecdsa"; `pace` is
    what the kernel allows.
    """

    dataplane: str = "tun"
    mobile_dataplane: str = "tun"
    dad: bool = False
    contexts: int = 1
    fault: str = "kill"
    credentials: str = "psk"
    pace: Pace = HOST


@dataclass(frozen=True, slots=True)
class Check:
    """One claim with the figure that was measured and the limit that it was held against."""

    name: str
    ok: bool
    measured: object
    limit: object

    def view(self) -> dict[str, object]:
        """The form in the JSON output."""
        return {"name": self.name, "ok": self.ok, "measured": self.measured, "limit": self.limit}


@dataclass(slots=True)
class Outcome:
    """What a scenario found: figures for the JSON, checks, and what the report draws."""

    figures: dict[str, Any] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    streams: tuple[Stream, ...] = ()
    phases: tuple[Phase, ...] = ()
    outages: tuple[Phase, ...] = ()
    roles: tuple[RoleSpan, ...] = ()
    files: dict[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """The world of one run. `report` is the output directory, `work` a short-named one that ends with the
    run.
    """

    options: Options
    network: Network
    processes: Processes
    timeline: Timeline
    report: Path
    work: Path
    step: StepListener


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario. `steps` names what `perform` goes through, in order, each told by `Run.step` when it
    begins.

    `perform` drives the network and returns what examines the recordings once everything is stopped.
    `tools` are the programs that it starts, each with the package to install; `mobile_dataplanes` are those
    that its mobile node can have.
    """

    name: str
    description: str
    topology: Topology
    steps: tuple[str, ...]
    perform: Callable[[Run], Callable[[], Outcome]]
    tools: Mapping[str, str] = field(default_factory=dict)
    mobile_dataplanes: tuple[str, ...] = ("tun", "kernel")

    def mobile_dataplane(self, wanted: str | None, of_home_agents: str) -> str | None:
        """The mobile node's: what is wanted, else the home agents' where it can be; ``None``: it cannot."""
        if wanted is None:
            return of_home_agents if of_home_agents in self.mobile_dataplanes else self.mobile_dataplanes[0]
        return wanted if wanted in self.mobile_dataplanes else None
