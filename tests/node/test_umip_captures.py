"""Packets that the reference mobile node sent, and what the reference home agent answered: so do we."""

from __future__ import annotations

from typing import Any

import pytest

from mip6ha import icmpv6, ipv6
from mip6ha.binding.messages import BindingAcknowledgement, BindingUpdate
from mip6ha.binding.registration import HomePrefix
from mip6ha.effects import ReleaseAddress, RemoveTunnel, SetTunnel
from mip6ha.ipsec import esp
from mip6ha.ipsec.policy import Direction, Use
from mip6ha.ipsec.sad import SecurityAssociation
from mip6ha.ipv6 import ESP, IPV6
from mip6ha.parameters import AssociationParameters, MobileNodeParameters

from ..captured import VECTORS, ipv6_packets
from .reference import HOME, USES, opened, protection, signalling
from .world import HOME_AGENT, HOME_PREFIX, MobileNode, World, sent


def world(kind: str, valid: int, preferred: int, *, detect: bool = False) -> World:
    transform, keys = protection(kind)
    node = MobileNode()
    node.parameters = MobileNodeParameters(
        HOME,
        "umip",
        tuple(
            AssociationParameters(spi + offset, direction, use, transform, keys)
            for spi, use in USES[: 3 if kind == "tunnel" else 2]
            for offset, direction in enumerate((Direction.IN, Direction.OUT))
        ),
    )
    home = HomePrefix(HOME_PREFIX.prefix, 64, valid, preferred)
    return World(node, home_prefixes=(home,), max_lifetime=60, duplicate_address_detection=detect)


@pytest.mark.parametrize("link", ["home", "foreign"])
@pytest.mark.parametrize("kind", ["cbc", "gcm"])
def test_every_answer_is_the_reference_home_agents_field_by_field(kind: str, link: str) -> None:
    exchange = list(signalling(f"umip-esp-{kind}-{link}.pcap", kind))
    asked = [(packet, found) for packet, found in exchange if found.outer.destination == HOME_AGENT]
    answered = [(packet, found) for packet, found in exchange if found.outer.source == HOME_AGENT]
    assert len(asked) == len(answered) == (4 if link == "home" else 3)
    advertised = next(found.octets for _, found in answered if found.octets[0] == 147)
    (prefix,) = icmpv6.parse_prefixes(advertised[4:])
    agent = world(kind, prefix.valid, prefix.preferred)
    for (packet, request), (reference, theirs) in zip(asked, answered, strict=True):
        found = agent.receive(packet)
        (answer,) = sent(found)
        ours = opened(answer, kind)
        assert ours is not None
        # Type, status, flags, sequence, lifetime, options, checksum; prefixes with flags and lifetimes.
        assert ours.octets == theirs.octets
        assert ours.message == theirs.message
        assert (ours.spi, ours.sequence, ours.protocol) == (theirs.spi, theirs.sequence, theirs.protocol)
        # The hop limit is one less on the foreign link, and a flow label carries no meaning.
        same: dict[str, Any] = {"payload": b"", "hop_limit": 0, "flow": 0}
        assert ours.outer._replace(**same) == theirs.outer._replace(**same)
        assert len(answer) == len(reference)
        if isinstance(request.message, BindingUpdate) and request.message.lifetime:
            assert agent.plane.tunnels == {HOME: request.outer.source}
    if link == "home":
        assert RemoveTunnel(HOME) in found
        assert ReleaseAddress(HOME) in found
        assert agent.plane.tunnels == {}


@pytest.mark.parametrize("kind", ["cbc", "gcm", "tunnel"])
def test_with_detection_the_retransmission_counts(kind: str) -> None:
    # As it happened: the second update came 1.5 s after the first; ours answers once the address is free.
    packets = [
        (packet, found.message)
        for packet, found in signalling(f"umip-esp-{kind}-foreign.pcap", kind)
        if isinstance(found.message, BindingUpdate)
    ]
    agent = world(kind, 86400, 43200, detect=True)
    agent.receive(packets[0][0])
    agent.advance(0.6)
    assert agent.receive(packets[1][0]) == []
    found = agent.advance(0.4)
    assert SetTunnel(HOME, packets[0][0][8:24], kind == "tunnel") in found
    (answer,) = sent(found)
    ours = opened(answer, kind)
    assert ours is not None
    assert ours.message == BindingAcknowledgement(0, 0, packets[1][1].sequence, 15)


def test_every_captured_packet_twice_is_a_replay() -> None:
    agent = world("gcm", 86400, 43200)
    for packet, found in signalling("umip-esp-gcm-home.pcap", "gcm"):
        if found.outer.destination == HOME_AGENT:
            assert len(sent(agent.receive(packet))) == 1
            agent.drops(packet, "replayed")


def test_plain_updates_of_the_reference_are_dropped_in_silence() -> None:
    agent = world("gcm", 86400, 43200)
    reasons = {BindingUpdate: "unprotected_binding_update", icmpv6.Icmp: "unprotected_prefix_solicitation"}
    for packet, found in signalling("umip-plain-home.pcap", "gcm"):
        if found.outer.destination == HOME_AGENT:
            assert agent.drops(packet, reasons[type(found.message)]) == []


@pytest.mark.parametrize("kind", ["cbc", "gcm"])
def test_plain_tunnels_carry_what_the_reference_ones_carried(kind: str) -> None:
    agent = world(kind, 86400, 43200)
    there = back = 0
    for packet in ipv6_packets(VECTORS / f"umip-esp-{kind}-home.pcap").values():
        if HOME_AGENT not in (packet[8:24], packet[24:40]):
            continue
        outer = ipv6.parse(packet)
        found = opened(packet, kind)
        if found is not None and isinstance(found.message, BindingUpdate) and found.message.lifetime:
            agent.receive(packet)
        elif outer.next_header == IPV6 and outer.source == HOME_AGENT:
            there += 1
            (ours,) = sent(agent.receive(outer.payload))
            same: dict[str, Any] = {"hop_limit": 0, "flow": 0, "offset": 0}
            assert ipv6.parse(ours)._replace(**same) == outer._replace(**same)
        elif outer.next_header == IPV6:
            back += 1
            assert sent(agent.receive(packet)) == [outer.payload]
    assert there > 10
    assert back > 2


def test_payload_that_the_reference_home_agent_tunnelled_opens_and_ours_is_the_same_inside() -> None:
    packets = list(ipv6_packets(VECTORS / "umip-esp-tunnel-foreign.pcap").values())
    transform, keys = protection("tunnel")
    inners = []
    for packet in packets:
        if packet[6] == ESP and packet[40:44] == (0x2005).to_bytes(4, "big"):
            association = SecurityAssociation(
                spi=0x2005,
                direction=Direction.IN,
                use=Use.PAYLOAD,
                home_address=HOME,
                transform=transform,
                keys=keys,
            )
            inners.append((len(packet), esp.unprotect(association, packet[40:])[1]))
    assert len(inners) > 10
    agent = world("tunnel", 86400, 43200)
    update = next(
        packet
        for packet, found in signalling("umip-esp-tunnel-foreign.pcap", "tunnel")
        if isinstance(found.message, BindingUpdate)
    )
    agent.receive(update)
    for size, inner in inners:
        (ours,) = sent(agent.receive(inner))
        assert (ours[8:24], ours[24:40], ours[6], ours[40:44]) == (
            HOME_AGENT,
            update[8:24],
            ESP,
            b"\0\0\x20\5",
        )
        assert len(ours) == size
