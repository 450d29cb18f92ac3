"""Tunnels and the size of packets: Packet Too Big, fragments outside, errors from within (RFC 2473 7, 8)."""

from __future__ import annotations

import pytest

from mip6ha import icmpv6, ipv6
from mip6ha.icmpv6 import Icmp
from mip6ha.ipsec.policy import Use
from mip6ha.ipv6 import ESP, FRAGMENT, ICMPV6, IPV6, UDP
from mip6ha.wire import address

from .world import (
    CARE_OF_1,
    CARE_OF_2,
    CORRESPONDENT,
    HOME_AGENT,
    bound,
    echo,
    only_packet,
    sent,
)

HOME = address("2001:db8:a::100")
ROUTER = address("2001:db8:e::1")


def sized(size: int) -> bytes:
    """An intercepted packet of ``size`` octets."""
    return echo(CORRESPONDENT, HOME, size - 48)


def error(packet: bytes, source: bytes = HOME_AGENT, destination: bytes = CORRESPONDENT) -> Icmp:
    """The ICMPv6 error in ``packet``."""
    parsed = ipv6.parse(packet)
    assert (parsed.source, parsed.destination) == (source, destination)
    return icmpv6.parse(parsed.payload, source, destination)


def about(packet: bytes, kind: int, value: int, code: int = 0, source: bytes = ROUTER) -> bytes:
    """A router's ICMPv6 error about ``packet``."""
    made = icmpv6.error(kind, code, value, source, packet)
    assert made is not None
    return made


def test_a_packet_that_fits_exactly_and_one_octet_more() -> None:
    world, _ = bound()
    assert len(only_packet(world.receive(sized(1460)))) == 1500
    answer = error(only_packet(world.receive(sized(1461))))
    assert (answer.type, answer.code) == (icmpv6.PACKET_TOO_BIG, 0)
    assert answer.body == (1460).to_bytes(4, "big") + sized(1461)[: 1280 - 48]
    assert (world.count("packet_too_big_sent"), world.count("tunnelled_out")) == (1, 1)


def test_esp_takes_its_share() -> None:
    world, node = bound(Use.BINDING, Use.PAYLOAD)
    answer = error(only_packet(world.receive(sized(1460))))
    told = int.from_bytes(answer.body[:4], "big")
    assert 1400 < told < 1460
    outer = only_packet(world.receive(sized(told)))
    assert len(outer) <= 1500
    assert node.inner(outer) == sized(told)
    spent = node.inbound[0x2003].packets
    assert spent == 1  # nothing was sealed for what was refused


@pytest.mark.parametrize("uses", [(Use.BINDING,), (Use.BINDING, Use.PAYLOAD)])
def test_up_to_1280_octets_fragments_outside_carry_it(uses: tuple[Use, ...]) -> None:
    world, node = bound(*uses, link_mtu=1280)
    pieces = sent(world.receive(sized(1280)))
    assert len(pieces) == 2
    assert all(len(piece) <= 1280 and piece[24:40] == CARE_OF_1 for piece in pieces)
    reassembler = ipv6.Reassembler()
    whole = None
    for piece in pieces:
        parsed = ipv6.parse(piece)
        assert parsed.next_header == FRAGMENT
        whole = reassembler.add(piece, parsed, 0.0)
    assert whole is not None
    assert node.inner(whole) == sized(1280)
    answer = error(only_packet(world.receive(sized(1281))))
    assert answer.body[:4] == (1280).to_bytes(4, "big")
    # The next packet's fragments are not to be mixed with these.
    again = sent(world.receive(sized(1280)))
    assert again[0][44:48] != pieces[0][44:48]


def test_multicast_and_error_senders_get_no_packet_too_big() -> None:
    world, _ = bound()
    octets = icmpv6.message(1, 0, bytes(1500), CORRESPONDENT, HOME)
    assert world.drops(ipv6.build(CORRESPONDENT, HOME, ICMPV6, octets), "too_big") == []


def test_packet_too_big_from_the_path_is_learnt_relayed_and_forgotten() -> None:
    world, _ = bound()
    outer = only_packet(world.receive(sized(1460)))
    found = world.receive(about(outer, icmpv6.PACKET_TOO_BIG, 1400))
    relayed = error(only_packet(found))
    assert (relayed.type, relayed.body[:4]) == (icmpv6.PACKET_TOO_BIG, (1360).to_bytes(4, "big"))
    assert relayed.body[4:] == sized(1460)[: len(relayed.body) - 4]
    assert (world.count("path_mtu_updates"), world.count("tunnel_errors_relayed")) == (1, 1)
    assert error(only_packet(world.receive(sized(1361)))).body[:4] == (1360).to_bytes(4, "big")
    assert len(only_packet(world.receive(sized(1360)))) == 1400
    world.now += 599  # past the end of the registration, whose timer has not been asked yet
    assert len(only_packet(world.receive(sized(1360)))) == 1400
    world.now += 1
    assert len(only_packet(world.receive(sized(1460)))) == 1500


def test_a_packet_too_big_never_raises_the_mtu_nor_lowers_it_below_1280() -> None:
    world, _ = bound()
    outer = only_packet(world.receive(sized(1460)))
    world.receive(about(outer, icmpv6.PACKET_TOO_BIG, 9000))
    assert len(only_packet(world.receive(sized(1460)))) == 1500
    world.receive(about(outer, icmpv6.PACKET_TOO_BIG, 68))
    assert error(only_packet(world.receive(sized(1460)))).body[:4] == (1280).to_bytes(4, "big")
    assert len(sent(world.receive(sized(1280)))) == 2


def test_the_sender_of_a_small_packet_is_not_told() -> None:
    world, _ = bound()
    outer = only_packet(world.receive(sized(1280)))
    assert sent(world.receive(about(outer, icmpv6.PACKET_TOO_BIG, 1280))) == []
    assert world.count("path_mtu_updates") == 1


def test_packet_too_big_about_esp_is_learnt_and_told_at_the_next_packet() -> None:
    world, _ = bound(Use.BINDING, Use.PAYLOAD)
    outer = only_packet(world.receive(sized(1400)))
    assert outer[6] == ESP
    assert sent(world.receive(about(outer, icmpv6.PACKET_TOO_BIG, 1300))) == []
    assert error(only_packet(world.receive(sized(1400)))).type == icmpv6.PACKET_TOO_BIG


def test_packet_too_big_about_esp_in_udp_is_learnt_too() -> None:
    """RFC 3948 2.1: behind port 4500 is ESP, unless it begins like IKE."""
    world, _ = bound(Use.BINDING, Use.PAYLOAD)
    world.agent.forwarding.encapsulation = {HOME: (4500, 4500)}
    outer = only_packet(world.receive(sized(1390)))
    assert outer[6] == UDP
    for not_esp in (bytes(4), b""):
        quoted = outer[:48] + not_esp
        octets = icmpv6.message(2, 0, (1280).to_bytes(4, "big") + quoted, ROUTER, HOME_AGENT)
        world.drops(ipv6.build(ROUTER, HOME_AGENT, ICMPV6, octets), "error_about_signalling")
    assert sent(world.receive(about(outer, icmpv6.PACKET_TOO_BIG, 1300))) == []
    assert error(only_packet(world.receive(sized(1390)))).type == icmpv6.PACKET_TOO_BIG


def test_a_move_leaves_the_old_path_behind() -> None:
    world, node = bound()
    outer = only_packet(world.receive(sized(1460)))
    world.receive(about(outer, icmpv6.PACKET_TOO_BIG, 1400))
    node.register(world, CARE_OF_2)
    assert len(only_packet(world.receive(sized(1460)))) == 1500


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (icmpv6.DESTINATION_UNREACHABLE, 0),
        (icmpv6.DESTINATION_UNREACHABLE, 3),
        (icmpv6.TIME_EXCEEDED, 0),
        (icmpv6.PARAMETER_PROBLEM, 1),
    ],
)
def test_other_errors_within_the_tunnel_become_address_unreachable(kind: int, code: int) -> None:
    world, _ = bound()
    outer = only_packet(world.receive(sized(200)))
    relayed = error(only_packet(world.receive(about(outer, kind, 0, code))))
    assert (relayed.type, relayed.code) == (icmpv6.DESTINATION_UNREACHABLE, 3)
    assert relayed.body == bytes(4) + sized(200)


def test_errors_about_errors_are_not_relayed() -> None:
    world, _ = bound()
    octets = icmpv6.message(1, 0, bytes(100), CORRESPONDENT, HOME)
    outer = only_packet(world.receive(ipv6.build(CORRESPONDENT, HOME, ICMPV6, octets)))
    assert sent(world.receive(about(outer, icmpv6.TIME_EXCEEDED, 0))) == []


@pytest.mark.parametrize(
    ("quoted", "reason"),
    [
        (ipv6.build(CORRESPONDENT, HOME, 17, bytes(8)), "error_about_foreign_packet"),
        (ipv6.build(HOME_AGENT, CARE_OF_2, IPV6, echo(CORRESPONDENT, HOME)), "error_about_foreign_packet"),
        (ipv6.build(HOME_AGENT, CARE_OF_1, IPV6, echo(HOME, CORRESPONDENT)), "error_about_foreign_packet"),
        (ipv6.build(HOME_AGENT, CARE_OF_1, IPV6, b""), "error_about_foreign_packet"),
        (ipv6.build(HOME_AGENT, CARE_OF_1, IPV6, bytes(30)), "error_about_foreign_packet"),
        (ipv6.build(HOME_AGENT, CARE_OF_1, 58, bytes(8)), "error_about_signalling"),
        (ipv6.build(HOME_AGENT, CARE_OF_1, 135, bytes(8), routing=HOME), "error_about_signalling"),
        (bytes(12), "error_about_foreign_packet"),
    ],
)
def test_errors_that_nobody_can_have_meant(quoted: bytes, reason: str) -> None:
    world, _ = bound()
    octets = icmpv6.message(2, 0, (1280).to_bytes(4, "big") + quoted, ROUTER, HOME_AGENT)
    assert world.drops(ipv6.build(ROUTER, HOME_AGENT, ICMPV6, octets), reason) == []
    assert len(only_packet(world.receive(sized(1460)))) == 1500


def test_an_error_about_a_mobile_network_behind_an_unbound_home_address() -> None:
    # A mobile node with an entry but no registration, whose address a mobile network prefix covers.
    world, _ = bound()
    quoted = ipv6.build(HOME_AGENT, CARE_OF_1, IPV6, sized(1460))
    world.advance(60)
    octets = icmpv6.message(2, 0, (1280).to_bytes(4, "big") + quoted[:1000], ROUTER, HOME_AGENT)
    world.drops(ipv6.build(ROUTER, HOME_AGENT, ICMPV6, octets), "error_about_foreign_packet")
