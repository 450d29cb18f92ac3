"""Scenarios ``failover`` and ``ike-failover``: the active member of a set of two is gone at once, the standby
goes on.

Covered: steps. Not covered: what they show (`failover_checks`, `ike_failover_checks`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from .. import negotiation
from ..failover_checks import Failover, examine
from ..ike_failover_checks import examine_negotiated
from ..packets import Captured
from ..redundant_network import SetParameters, member_name, redundant_topology
from ..redundant_set import TOOLS, Negotiate, RedundantSet
from ..replays import play, protected_before
from ..scenario import Outcome, Run, Scenario
from ..set_record import SetRecord

__all__ = ["FAILOVER", "IKE_FAILOVER"]

AFTER = 1.0
# Registrations of the fleet that are played again; those of the mobile node all are.
FLEET_REPLAYS = 100
# Seconds from a Binding Update to what a capture has of it.
ON_ITS_WAY = 0.1
# To print more bindings than this takes a home agent longer than a probe's interval.
QUICKLY_SHOWN = 50
# In this order: a member that has lost the home link alone hands over to the other.
CABLES = (("eth1", "sync"), ("eth0", "home"))

# Of the mobile node's IKE: its child is replaced after nine to ten tenths of it, which is after the fault.
CHILD_LIFETIME = 18
USES = ("binding",)
# Seconds that the exchange may have taken before its end is told.
EXCHANGE = 0.1

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
IKE_STEPS = (*STEPS[:-2], "refresh after the child's re-key", *STEPS[-2:])


def _to_replay(shared: RedundantSet, fault: float) -> list[Captured]:
    sent, is_fleet = protected_before(shared, fault), shared.parameters.is_fleet
    # What was not acknowledged may have been lost, and so be new to everybody.
    lost = [at + shared.run.timeline.epoch_offset for at in shared.unacknowledged()]
    own = [
        each
        for spi, frames in sent.items()
        if not is_fleet(spi)
        for each in frames
        if not any(0 <= each.time - at < ON_ITS_WAY for at in lost)
    ]
    # Of the fleet it is only known what was sent again.
    fleet = [frames[0] for spi, frames in sent.items() if is_fleet(spi) and len(frames) == 1]
    return [*own, *fleet[:: max(1, len(fleet) // FLEET_REPLAYS)]]


def _negotiate(run: Run) -> Negotiate:
    """Have the mobile node and every member agree on SAs, under a secret made now."""
    secret = negotiation.new_secret()

    def negotiate(configuration: Path, node: str) -> None:
        if node == "mn":
            own = negotiation.MOBILE_NODE
            negotiation.negotiate(configuration, own, USES, secret, child_lifetime=CHILD_LIFETIME)
        else:
            own, key_log = negotiation.HOME_AGENT, run.report / "wireshark"
            negotiation.negotiate(configuration, own, USES, secret, key_log=key_log)

    return negotiate


def _perform(run: Run, *, ike: bool = False) -> Callable[[], Outcome]:
    parameters = SetParameters(contexts=run.options.contexts)
    shared = RedundantSet.prepare(run, parameters, negotiate=_negotiate(run) if ike else None)
    steps = iter(IKE_STEPS if ike else STEPS)
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
    active = shared.wait_settled()
    standby = 3 - active
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
    shared.shown["replay"] = play(shared, standby, _to_replay(shared, fault))

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

    rekeyed = _rekeyed(shared, fault) if ike else None
    if rekeyed is not None:
        run.step(next(steps))
        shared.wait_acknowledged(rekeyed["monotonic"])

    run.step(next(steps))
    if not shared.silent:
        shared.silence()
    shared.finish()
    name = member_name(standby)
    if rekeyed is None:
        story = Failover(fault, last, refresh, healed, new_active=standby)
        return partial(examine, SetRecord(shared.recording()), story, name)
    story = Failover(fault, last, refresh, healed, standby, rekeyed["monotonic"] - EXCHANGE)
    return partial(examine_negotiated, shared.recording(), story, name, rekeyed)


def _rekeyed(shared: RedundantSet, fault: float) -> dict[str, Any]:
    """The mobile node's child comes to the end of its lifetime; the event about its successor."""
    return shared.emulator.wait_for("child_installed", after=fault, limit=CHILD_LIFETIME + 5.0)


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

IKE_FAILOVER = replace(
    FAILOVER,
    name="ike-failover",
    description=(
        "As failover, but mobile node and home agents negotiate their SAs by IKEv2: the standby goes on "
        "under the same IKE SA, without a word of IKE, until the mobile node re-keys its child."
    ),
    steps=IKE_STEPS,
    perform=partial(_perform, ike=True),
    # The emulator negotiates only there.
    mobile_dataplanes=("tun",),
)
