"""Peers that signal without IPsec (RFC 4285), through the whole home agent."""

from __future__ import annotations

import hmac
from hashlib import sha1
from typing import Any

import pytest

from mip6ha import ipv6
from mip6ha.binding import messages
from mip6ha.binding.messages import BindingAcknowledgement, OptionType, Status
from mip6ha.effects import ProbeAddress, ReleaseAddress, RemoveTunnel, SetTunnel
from mip6ha.ipsec.policy import Use
from mip6ha.ipv6 import MOBILITY
from mip6ha.parameters import AuthenticationParameters, MobileNodeParameters
from mip6ha.wire import address

from ..binding import signed
from .world import CARE_OF_2, HOME_AGENT, MobileNode, World, dataplane, only_packet, sent

HOME = address("2001:db8:a::100")
CARE_OF = address("2001:db8:b::42")


def world(**settings: Any) -> World:
    node = MobileNode()
    node.parameters = MobileNodeParameters(
        HOME, "plain", authentication=AuthenticationParameters(signed.SPI, signed.KEY)
    )
    return World(node, **settings)


def update(sequence: int = 7, source: bytes = CARE_OF, **fields: Any) -> bytes:
    octets = signed.update(sequence, **fields)
    home_address = None if source == HOME else HOME
    return ipv6.build(source, HOME_AGENT, MOBILITY, octets, home_address=home_address)


def acknowledged(found: list[Any], care_of_address: bytes = CARE_OF) -> BindingAcknowledgement:
    """The answer, its authentication data checked without the code under test."""
    parsed = ipv6.parse(only_packet(found))
    assert parsed.next_header == MOBILITY
    message = messages.parse(parsed.payload, HOME_AGENT, parsed.logical_destination)
    assert isinstance(message, BindingAcknowledgement)
    kind, data = message.options[-1]
    assert kind == OptionType.AUTHENTICATION
    octets = parsed.payload
    covered = octets[:4] + b"\0\0" + octets[6 : octets.rindex(data) + 5]
    assert data[5:] == hmac.digest(signed.KEY, care_of_address + HOME + covered, sha1)[:12]
    return message


def test_a_registration_a_refresh_a_move_and_the_end() -> None:
    agent = world()
    found = agent.receive(update(1))
    assert SetTunnel(HOME, CARE_OF) in found
    assert acknowledged(found)[:4] == (Status.ACCEPTED, 0, 1, 15)
    assert dataplane(agent.receive(update(2))) == []
    moved = agent.receive(update(3, CARE_OF_2, alternate=CARE_OF_2, covered_address=CARE_OF_2))
    assert dataplane(moved) == [SetTunnel(HOME, CARE_OF_2)]
    assert acknowledged(moved, CARE_OF_2).status == 0
    home = agent.receive(update(4, HOME, alternate=HOME, covered_address=HOME, lifetime=0))
    assert dataplane(home) == [RemoveTunnel(HOME), ReleaseAddress(HOME)]
    assert acknowledged(home, HOME)[:4] == (Status.ACCEPTED, 0, 4, 0)
    assert ipv6.parse(only_packet(home)).routing is None


def test_with_detection_the_answer_is_over_the_latest_care_of_address() -> None:
    agent = world(duplicate_address_detection=True)
    assert agent.receive(update(1)) == [ProbeAddress(HOME)]
    assert agent.receive(update(2, CARE_OF_2, alternate=CARE_OF_2, covered_address=CARE_OF_2)) == []
    assert acknowledged(agent.advance(1), CARE_OF_2).sequence == 2


def test_status_144_and_a_second_try() -> None:
    agent = world()
    acknowledged(agent.receive(update(1, timestamp=1000)))
    before = agent.state()
    refused = acknowledged(agent.receive(update(2, timestamp=1000)))
    assert refused[:4] == (Status.ID_MISMATCH, 0, 2, 0)
    assert agent.state() == before
    assert acknowledged(agent.receive(update(2, timestamp=1001))).status == 0
    assert acknowledged(agent.receive(update(3))).status == Status.MESSAGE_ID_REQUIRED


def test_status_146_is_rate_limited_and_changes_nothing() -> None:
    agent = world()
    forged = update(9, key=bytes(20))
    before = agent.state()
    assert acknowledged(agent.receive(forged))[:4] == (Status.AUTHENTICATION_FAILED, 0, 9, 0)
    for _ in range(300):
        agent.receive(forged)
    assert agent.state() == before
    assert (agent.count("refused_146"), agent.count("errors_suppressed")) == (200, 101)


def test_status_135_is_authenticated_too() -> None:
    agent = world()
    agent.receive(update(5))
    assert acknowledged(agent.receive(update(5)))[:3] == (Status.SEQUENCE_OUT_OF_WINDOW, 0, 5)


def test_without_the_option_or_without_the_configuration_there_is_silence() -> None:
    node = MobileNode()
    bare = messages.build(node.message(1), HOME, HOME_AGENT)
    packet = ipv6.build(CARE_OF, HOME_AGENT, MOBILITY, bare, home_address=HOME)
    assert world().drops(packet, "unprotected_binding_update") == []
    assert World(node).drops(update(), "unprotected_binding_update") == []


def test_a_mobile_node_with_an_sa_for_updates_may_not_do_with_less() -> None:
    for use in (Use.BINDING, Use.SIGNALLING):
        node = MobileNode(
            "2001:db8:a::100", use, authentication=AuthenticationParameters(signed.SPI, signed.KEY)
        )
        agent = World(node)
        assert agent.drops(update(), "unprotected_binding_update") == []
        assert node.register(agent).options == ()


def test_payload_sas_go_with_it() -> None:
    node = MobileNode(
        "2001:db8:a::100", Use.PAYLOAD, authentication=AuthenticationParameters(signed.SPI, signed.KEY)
    )
    agent = World(node)
    assert acknowledged(agent.receive(update())).status == 0
    inner = ipv6.build(address("2001:db8:c::2"), HOME, 17, bytes(8))
    assert node.inner(only_packet(agent.receive(inner))) == inner


@pytest.mark.parametrize(
    ("at", "octets", "reason"),
    [
        (40 + 24 + 1, b"\xff", "mobility_header_length"),
        (40 + 24 + 4, b"\0\0", "mobility_header_checksum"),
    ],
)
def test_a_broken_update_is_dropped_in_silence(at: int, octets: bytes, reason: str) -> None:
    packet = update()
    broken = packet[:at] + octets + packet[at + len(octets) :]
    assert world().drops(broken, reason) == []


def test_an_unanswerable_source() -> None:
    packet = update()
    assert world().drops(packet[:8] + address("fe80::1") + packet[24:], "unanswerable_source") == []


def test_reconfiguring_keeps_the_replay_state_of_an_unchanged_key() -> None:
    agent = world()
    agent.receive(update(1, timestamp=1000))
    known = agent.parameters.mobile_nodes[0]
    renamed = MobileNodeParameters(HOME, "renamed", authentication=known.authentication)
    agent.carry_out(agent.agent.reconfigure((renamed,), agent.now))
    assert acknowledged(agent.receive(update(2, timestamp=1000))).status == Status.ID_MISMATCH
    agent.carry_out(agent.agent.reconfigure((), agent.now))
    agent.drops(update(3, timestamp=1001), "unprotected_binding_update")
    agent.carry_out(agent.agent.reconfigure((renamed,), agent.now))
    assert sent(agent.receive(update(3, timestamp=999)))
    assert agent.plane.tunnels == {HOME: CARE_OF}
