"""Scenarios ``handover`` and ``ike-handover``: register from a foreign link, move to another one, go home,
with traffic all the time.

Covered: steps and figures. Not covered: what the figures are held against (`handover_checks`, `negotiation`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from .. import echo, negotiation
from ..capture import Captures
from ..daemons import Association, HomeAgentDaemon, MobileNodeDaemon, new_associations
from ..dissection import write_wireshark_directory
from ..handover_checks import Recording, examine
from ..mobility_network import (
    ADVERTISERS,
    CORRESPONDENT,
    HOME_ADDRESS,
    MOBILITY_TOPOLOGY,
    write_home_agent,
    write_mobile_node,
)
from ..probes import Phase, ProbePair
from ..routers import start_advertiser
from ..scenario import Outcome, Run, Scenario
from ..state import network_state

__all__ = ["HANDOVER", "IKE_HANDOVER"]

PROBE_INTERVAL = 0.01
DWELL = 2.0
UNPLUGGED = 0.1
SIGNALLING_LIMIT = 8.0
SETTLE = 0.3
FIRST_SPI = 0x2000
USES = ("binding", "prefix")

STEPS = (
    "network, captures, routers",
    "home agent",
    "register from foreign link 1",
    "traffic on foreign link 1",
    "move to foreign link 2",
    "traffic on foreign link 2",
    "go home",
    "traffic at home",
    "stop",
    "examine",
)


@dataclass(slots=True)
class _Stage:
    """What the steps share."""

    run: Run
    captures: Captures
    home_agent: HomeAgentDaemon
    mobile_node: MobileNodeDaemon
    probes: ProbePair
    associations: tuple[Association, ...]
    phases: list[Phase] = field(default_factory=list)
    moves: dict[str, tuple[float, float]] = field(default_factory=dict)
    shown: dict[str, Any] = field(default_factory=dict)
    left_behind: dict[str, list[str]] = field(default_factory=dict)
    exit_status: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)


def _prepare(run: Run, *, ike: bool) -> _Stage:
    associations = () if ike else new_associations(USES, FIRST_SPI)
    write_wireshark_directory(run.report / "wireshark", [each.esp_key() for each in associations])
    configuration, control_socket = write_home_agent(
        run.report, run.work, associations, dataplane=run.options.dataplane, dad=run.options.dad
    )
    mobile_configuration, events = write_mobile_node(
        run.report, run.work, associations, dataplane=run.options.mobile_dataplane
    )
    if ike:
        secret = negotiation.new_secret()
        key_log = run.report / "wireshark"
        negotiation.negotiate(configuration, negotiation.HOME_AGENT, USES, secret, key_log=key_log)
        negotiation.negotiate(mobile_configuration, negotiation.MOBILE_NODE, USES, secret)
    return _Stage(
        run,
        Captures(run.processes, run.network, run.report),
        HomeAgentDaemon(configuration, control_socket),
        MobileNodeDaemon(mobile_configuration, events, run.timeline),
        ProbePair(run.processes, run.work, PROBE_INTERVAL),
        associations,
    )


def _move(stage: _Stage, link: str) -> float:
    """Take the mobile node's cable to a link; returns the time just before carrier came up."""
    timeline, network = stage.run.timeline, stage.run.network
    down = network.detach("mn", "eth0")
    timeline.add("carrier_down", "cable out", at=down)
    stage.mobile_node.pause(UNPLUGGED)
    up = network.attach("mn", "eth0", link)
    timeline.add("carrier_up", f"cable into {link}", at=up)
    stage.moves[link] = (down, up)
    return up


def _accepted(event: dict[str, Any]) -> bool:
    return bool(event["status"] < 128)


def _echo(run: Run) -> str:
    argv = (sys.executable, "-I", "-S", echo.__file__, "--local", CORRESPONDENT, "--remote", HOME_ADDRESS)
    return run.network.execute("cn", *argv).strip()


def _perform(run: Run, *, ike: bool = False) -> Callable[[], Outcome]:
    stage = _prepare(run, ike=ike)
    network, timeline, mobile_node = run.network, run.timeline, stage.mobile_node

    run.step(STEPS[0])
    stage.captures.start(MOBILITY_TOPOLOGY.links)
    for advertiser in ADVERTISERS:
        start_advertiser(run.processes, network, advertiser, run.work)
    timeline.add("network_up", f"namespaces {network.prefix}-*")

    run.step(STEPS[1])
    before = {node: network_state(network, node) for node in ("ha", "mn")}
    stage.home_agent.start(run.processes, network, "ha")
    timeline.add("home_agent_up", f"dataplane {run.options.dataplane}, dad {run.options.dad}")

    run.step(STEPS[2])
    mobile_node.start(run.processes, network, "mn")
    up = network.attach("mn", "eth0", "foreign1")
    timeline.add("carrier_up", "cable into foreign1", at=up)
    mobile_node.wait_for("binding_acknowledged", after=up, limit=SIGNALLING_LIMIT, matching=_accepted)
    stage.shown["bindings"] = stage.home_agent.show("bindings")

    run.step(STEPS[3])
    timeline.add("echo", f"sent, answered, median ms: {_echo(run)}")
    ends = {
        "cn": (network.namespace("cn"), CORRESPONDENT),
        "mn": (network.namespace("mn"), HOME_ADDRESS),
    }
    stage.probes.start(ends)
    started = time.monotonic()
    timeline.add("probes_start", f"every {PROBE_INTERVAL * 1000:g} ms in both directions")
    mobile_node.pause(DWELL)

    run.step(STEPS[4])
    up = _move(stage, "foreign2")
    mobile_node.wait_for("binding_acknowledged", after=up, limit=SIGNALLING_LIMIT, matching=_accepted)
    run.step(STEPS[5])
    mobile_node.pause(DWELL)

    run.step(STEPS[6])
    up = _move(stage, "home")
    mobile_node.wait_for("deregistered", after=up, limit=SIGNALLING_LIMIT)
    run.step(STEPS[7])
    mobile_node.pause(DWELL)
    stage.shown["bindings_at_home"] = stage.home_agent.ask("bindings")
    stage.shown["counters"] = stage.home_agent.ask("counters")

    run.step(STEPS[8])
    stage.probes.silence()
    silent = time.monotonic()
    timeline.add("probes_stop")
    mobile_node.pause(SETTLE)
    streams = stage.probes.finish()
    stage.exit_status = {"mn": mobile_node.stop(), "ha": stage.home_agent.stop()}
    stage.home_agent.tell(timeline)
    timeline.add("daemons_stopped", f"exit status {stage.exit_status}")
    after = {node: network_state(network, node) for node in before}
    stage.left_behind = {node: sorted(before[node] ^ after[node]) for node in before}
    stage.dropped = stage.captures.stop()
    return partial(negotiation.examine if ike else examine, _recording(stage, streams, started, silent))


def _recording(stage: _Stage, streams: Any, started: float, silent: float) -> Recording:
    run = stage.run
    return Recording(
        options=run.options,
        timeline=run.timeline,
        directory=run.report,
        captures={link: capture.path for link, capture in stage.captures.links.items()},
        events=stage.mobile_node.events,
        streams=streams,
        started=started,
        silent=silent,
        moves=stage.moves,
        shown=stage.shown,
        left_behind=stage.left_behind,
        exit_status=stage.exit_status,
        dropped=stage.dropped,
    )


HANDOVER = Scenario(
    name="handover",
    description=(
        "A mobile node registers from a foreign link, moves to another one, goes home and de-registers, "
        "while a correspondent and its home address exchange a probe every 10 ms in both directions."
    ),
    topology=MOBILITY_TOPOLOGY,
    steps=STEPS,
    perform=_perform,
    tools={"dumpcap": "wireshark-common", "tshark": "tshark", "radvd": "radvd"},
)

IKE_HANDOVER = replace(
    HANDOVER,
    name="ike-handover",
    description=(
        "As handover, but mobile node and home agent negotiate their SAs by IKEv2 from the first care-of "
        "address, and the IKE SA goes along with the mobile node."
    ),
    perform=partial(_perform, ike=True),
    # The emulator negotiates only there.
    mobile_dataplanes=("tun",),
)
