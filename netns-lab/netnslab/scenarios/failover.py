"""Scenario ``failover``: the active member of a set of two is gone at once, the standby goes on.

Covered: steps. Not covered: what they show (`failover_checks`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from ..failover_checks import Failover, examine
from ..injection import replay
from ..mobility_network import HOME_AGENT
from ..packets import Captured, address, esp_numbers, read_pcap
from ..redundant_network import FLEET_SPI, SetParameters, member_name, redundant_topology
from ..redundant_set import TOOLS, RedundantSet
from ..scenario import Outcome, Run, Scenario
from ..set_record import SetRecord
from ..topology import NAMESPACE_DIRECTORY

__all__ = ["FAILOVER"]

AFTER = 1.0
# Registrations of the fleet that are played again; those of the mobile node all are.
FLEET_REPLAYS = 100
REPLAY_SETTLE = 0.3
CAPTURE_SETTLE = 0.7
# To print more bindings than this takes a home agent longer than a probe's interval.
QUICKLY_SHOWN = 50
# In this order: a member that has lost the home link alone hands over to the other.
CABLES = (("eth1", "sync"), ("eth0", "home"))

STEPS = (
    "network, captures, routers",
    "home agents",
    "register",
    "register the fleet",
    "traffic until the next refresh",
    "fault",
    "replay what was captured before",
    "next refresh",
    "heal",
    "stop",
    "examine",
)


def _to_replay(shared: RedundantSet, before: float) -> list[Captured]:
    """What reached the home agent under ESP before a time, as the core link saw it: each frame still leads
    from its sender to the home router.
    """
    home_agent = address(HOME_AGENT)
    sent: dict[int, list[Captured]] = {}
    for each in read_pcap(shared.captures.path("core")):
        numbers = esp_numbers(each.packet) if each.destination == home_agent else None
        if numbers is not None and each.time < before:
            sent.setdefault(numbers.spi, []).append(each)
    own = [each for spi, frames in sent.items() if spi < FLEET_SPI for each in frames]
    # Of a registration that was sent again, the first one may have been lost, and so be new to everybody.
    fleet = [frames[0] for spi, frames in sent.items() if spi >= FLEET_SPI and len(frames) == 1]
    return [*own, *fleet[:: max(1, len(fleet) // FLEET_REPLAYS)]]


def _lasting(bindings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Bindings without what goes on by itself."""
    return [{name: value for name, value in each.items() if name != "expires_in_s"} for each in bindings]


def _replay(shared: RedundantSet, active: int, fault: float) -> dict[str, Any]:
    """Play what came before the fault to the new active member; what that changed."""
    run, member = shared.run, shared.members[active]
    shared.pause(CAPTURE_SETTLE)
    frames = _to_replay(shared, fault + run.timeline.epoch_offset)
    before = member.ask("counters"), member.ask("bindings")
    sent = {}
    for node, interface in (("ar1", "eth1"), ("fleet", "eth0")):
        mac = run.network.execute(node, "cat", f"/sys/class/net/{interface}/address").strip()
        own = [each for each in frames if each.sender.hex(":") == mac]
        sent[node] = replay(NAMESPACE_DIRECTORY / run.network.namespace(node), interface, own)
    run.timeline.add("replayed", ", ".join(f"{count} from {node}" for node, count in sent.items()))
    shared.pause(REPLAY_SETTLE)
    after = member.ask("counters"), member.ask("bindings")
    return {
        "sent": sum(sent.values()),
        "refused": after[0].get("replayed", 0) - before[0].get("replayed", 0),
        "bindings": before[1],
        "changed": _lasting(before[1]) != _lasting(after[1]),
    }


def _perform(run: Run) -> Callable[[], Outcome]:
    parameters = SetParameters(contexts=run.options.contexts)
    shared = RedundantSet.prepare(run, parameters)
    steps = iter(STEPS)
    run.step(next(steps))
    shared.open_network()
    run.step(next(steps))
    shared.start_members()
    run.step(next(steps))
    shared.register()
    run.step(next(steps))
    shared.load_fleet()

    run.step(next(steps))
    shared.start_probes()
    # Who serves need not be who began: a fleet that registers may take more than a member can do in time.
    active = shared.wait_for_any(shared.members, "active")
    standby = 3 - active
    shared.wait_synchronized(active)
    # The member dies right after it has acknowledged something.
    last = shared.wait_acknowledged(time.monotonic())

    run.step(next(steps))
    links = run.options.fault == "links"
    cables = [(member_name(active), interface, link) for interface, link in CABLES]
    fault = shared.cut(*(cable[:2] for cable in cables)) if links else shared.kill(active)
    shared.pause(AFTER)
    shared.wait_for_role(standby, "active")

    run.step(next(steps))
    if parameters.contexts > QUICKLY_SHOWN:
        shared.silence()
    shared.shown["replay"] = _replay(shared, standby, fault)

    run.step(next(steps))
    refresh = shared.wait_acknowledged(fault)
    shared.shown["sas after the fault"] = shared.members[standby].ask("sas")
    shared.pause(0.1)
    run.step(next(steps))
    healed = None
    if links:
        healed = shared.heal(cables)
        shared.wait_for_role(active, "standby")
    else:
        shared.start_member(active)
    shared.wait_synchronized(standby)
    shared.pause(AFTER)

    run.step(next(steps))
    if not shared.silent:
        shared.silence()
    shared.finish()
    story = Failover(fault, last, refresh, healed, new_active=standby)
    return partial(examine, SetRecord(shared.recording()), story, member_name(standby))


FAILOVER = Scenario(
    name="failover",
    description=(
        "The active one of two home agents is killed (or all its links go down) right after it acknowledged "
        "a registration, while correspondent and mobile node exchange a probe every millisecond in both "
        "directions; the standby takes over, refuses what is replayed and acknowledges the next refresh."
    ),
    topology=redundant_topology(2),
    steps=STEPS,
    perform=_perform,
    tools=TOOLS,
)
