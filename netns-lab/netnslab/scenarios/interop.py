"""Scenarios ``interop-strongswan-initiator`` and ``-responder``: strongSwan has a tunnel to a redundant set,
and the active member is killed in the middle.

Covered: steps. Not covered: what they show (`interop_checks`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from ..client_network import Suite, client_topology
from ..client_set import ClientSet
from ..interop_checks import ClientRecord, Story, examine_asked, examine_asking
from ..scenario import Outcome, Run, Scenario
from ..strongswan import CONTROL, DAEMON

__all__ = ["INTEROP_INITIATOR", "INTEROP_RESPONDER"]

DWELL = 1.5
BETWEEN = 0.5
AEAD = Suite("aes128gcm16-prfsha256-x25519", "aes128gcm16")
# charon makes IVs of message ids under an AEAD, and cannot answer RFC 6311 there: see docs/ike.md.
CBC = Suite("aes128-sha256-x25519", "aes128-sha256")
# Of the home agent's child in the second scenario: it is replaced after nine to ten tenths of it.
CHILD_LIFETIME = 12

BEGIN = ("network, captures", "home agents", "strongSwan connects", "traffic", "fault", "replay")
ASKING = (
    *BEGIN,
    "strongSwan re-keys its child",
    "strongSwan asks whether anybody is there",
    "strongSwan re-keys its IKE SA",
    "heal",
    "strongSwan disconnects, stop",
    "examine",
)
ASKED = (
    *BEGIN,
    "sign of life",
    "message ids",
    "the home agent re-keys the IKE SA",
    "the child's lifetime ends",
    "heal",
    "the home agent disconnects, stop",
    "examine",
)
TOOLS = {
    "dumpcap": "wireshark-common",
    "tshark": "tshark",
    DAEMON: "charon-systemd",
    CONTROL: "strongswan-swanctl",
}


def _begin(client: ClientSet, steps: tuple[str, ...]) -> tuple[float, int]:
    """Everything up to the replay after the fault: when that was, and who serves."""
    run, shared = client.run, client.shared
    run.step(steps[0])
    client.begin()
    run.step(steps[1])
    shared.start_members()
    run.step(steps[2])
    client.connect()
    run.step(steps[3])
    shared.start_probes()
    shared.pause(DWELL)
    run.step(steps[4])
    fault, active = client.fail_over()
    shared.shown["sas after the fault"] = shared.members[active].ask("sas")
    run.step(steps[5])
    shared.shown["replay"] = client.replay(active, fault)
    client.note("after the fault")
    return fault, active


def _heal(client: ClientSet, active: int) -> None:
    client.shared.start_member(3 - active)
    client.shared.wait_synchronized(active)


def _end(client: ClientSet, active: int) -> None:
    shared = client.shared
    shared.shown["bindings at the end"] = shared.members[active].ask("bindings")
    shared.finish()
    client.charon.tell(lambda text: text.startswith(("[IKE]", "[CHD]", "[ESP]", "[DMN]")))


def _asking(run: Run) -> Callable[[], Outcome]:
    client = ClientSet.prepare(run, AEAD)
    fault, active = _begin(client, ASKING)
    shared = client.shared

    asked = time.monotonic()
    run.step(ASKING[6])
    client.rekey_child()
    shared.pause(BETWEEN)
    run.step(ASKING[7])
    shared.silence()
    client.wait_probed(shared.silent)
    client.note("asked")
    run.step(ASKING[8])
    client.rekey_ike()
    shared.shown["echo"] = client.echo()
    run.step(ASKING[9])
    _heal(client, active)
    run.step(ASKING[10])
    client.disconnect()
    _end(client, active)
    story = Story(fault, asked, active, client.seen, client.charon.lines())
    return partial(examine_asking, ClientRecord(shared.recording(), story))


def _asked(run: Run) -> Callable[[], Outcome]:
    client = ClientSet.prepare(run, CBC, child_lifetime=CHILD_LIFETIME)
    fault, active = _begin(client, ASKED)
    shared = client.shared

    asked = time.monotonic()
    run.step(ASKED[6])
    client.ask(active, "probe")
    shared.pause(BETWEEN)
    run.step(ASKED[7])
    client.ask(active, "synchronise")
    shared.pause(BETWEEN)
    run.step(ASKED[8])
    client.ask(active, "rekey")
    client.note_new_ike_sa("IKE SA re-keyed")
    run.step(ASKED[9])
    client.note_new_child("child re-keyed", CHILD_LIFETIME)
    shared.pause(BETWEEN)
    shared.silence()
    shared.shown["echo"] = client.echo()
    run.step(ASKED[10])
    _heal(client, active)
    run.step(ASKED[11])
    client.ask(active, "delete")
    client.wait_gone()
    _end(client, active)
    story = Story(fault, asked, active, client.seen, client.charon.lines())
    return partial(examine_asked, ClientRecord(shared.recording(), story))


INTEROP_INITIATOR = Scenario(
    name="interop-strongswan-initiator",
    description=(
        "strongSwan has a tunnel (IKEv2, ESP in UDP) to two home agents, and exchanges a probe every "
        "millisecond with a correspondent. The active one is killed: the standby goes on under the same SAs, "
        "and answers strongSwan's re-keys, its liveness checks and its delete."
    ),
    topology=client_topology(2),
    steps=ASKING,
    perform=_asking,
    tools=TOOLS,
    mobile_dataplanes=("tun",),
)
INTEROP_RESPONDER = Scenario(
    name="interop-strongswan-responder",
    description=(
        "As interop-strongswan-initiator, but after the take-over the new active home agent asks and "
        "strongSwan answers: a sign of life, message ids (RFC 6311), re-keys of the IKE SA and of the child, "
        "delete."
    ),
    topology=client_topology(2),
    steps=ASKED,
    perform=_asked,
    tools=TOOLS,
    mobile_dataplanes=("tun",),
)
