"""Payload both ways: plain and under ESP, sources checked, policies enforced, congestion and hop limits."""

from __future__ import annotations

import pytest

from mip6ha import icmpv6, ipv6
from mip6ha.binding import messages
from mip6ha.binding.messages import CareOfTestInit, HomeTest, HomeTestInit
from mip6ha.ipsec.algorithms import Transform
from mip6ha.ipsec.policy import Use
from mip6ha.ipv6 import ESP, ICMPV6, IPV6, MOBILITY
from mip6ha.wire import address

from .world import (
    CARE_OF_1,
    CARE_OF_2,
    CBC,
    CORRESPONDENT,
    GCM,
    HOME_AGENT,
    MobileNode,
    World,
    bound,
    echo,
    only_packet,
    sent,
)

HOME = address("2001:db8:a::100")
OTHER_HOME = address("2001:db8:a::101")


def test_towards_the_mobile_node() -> None:
    world, _ = bound()
    packet = echo(CORRESPONDENT, HOME, hop_limit=7)
    outer = ipv6.parse(only_packet(world.receive(packet)))
    assert (outer.source, outer.destination, outer.next_header) == (HOME_AGENT, CARE_OF_1, IPV6)
    assert outer.payload == packet
    # RFC 2473 6.3: a tunnel is one hop, whose header has a hop limit of its own.
    assert (outer.hop_limit, packet[7]) == (64, 7)
    assert world.count("tunnelled_out") == 1


def test_from_the_mobile_node() -> None:
    world, node = bound()
    packet = echo(HOME, CORRESPONDENT, hop_limit=9)
    # Whoever forwards it takes one off its hop limit, once.
    assert world.receive(node.tunnel(packet)) == world.receive(node.tunnel(packet))
    assert sent(world.receive(node.tunnel(packet))) == [packet]
    assert world.count("tunnelled_in") == 3


def test_an_encapsulation_limit_option_is_what_other_implementations_send() -> None:
    world, _ = bound()
    packet = echo(HOME, CORRESPONDENT)
    options = bytes((IPV6, 0, 4, 1, 4, 1, 1, 0))
    outer = ipv6.build(CARE_OF_1, HOME_AGENT, 60, options + packet)
    assert sent(world.receive(outer)) == [packet]


def test_octets_behind_the_inner_packet_do_not_leave_the_tunnel() -> None:
    world, node = bound()
    packet = echo(HOME, CORRESPONDENT)
    assert sent(world.receive(node.tunnel(packet + b"leak"))) == [packet]


def test_after_a_move_only_the_new_address_counts() -> None:
    world, node = bound()
    node.register(world, CARE_OF_2)
    assert only_packet(world.receive(echo(CORRESPONDENT, HOME)))[24:40] == CARE_OF_2
    world.drops(node.tunnel(echo(HOME, CORRESPONDENT), CARE_OF_1), "reverse_tunnel_source")
    assert sent(world.receive(node.tunnel(echo(HOME, CORRESPONDENT), CARE_OF_2)))


@pytest.mark.parametrize(
    ("inner_source", "outer_source", "reason"),
    [
        (HOME, CARE_OF_2, "reverse_tunnel_source"),
        (OTHER_HOME, CARE_OF_1, "reverse_tunnel_without_binding"),
        (CORRESPONDENT, CARE_OF_1, "reverse_tunnel_without_binding"),
        (HOME_AGENT, CARE_OF_1, "reverse_tunnel_without_binding"),
        (CARE_OF_1, CARE_OF_1, "reverse_tunnel_without_binding"),
        (address("fe80::100"), CARE_OF_1, "reverse_tunnel_without_binding"),
        (address("::"), CARE_OF_1, "reverse_tunnel_without_binding"),
        (HOME, HOME, "reverse_tunnel_source"),
    ],
)
def test_a_forged_source_inside_or_outside(inner_source: bytes, outer_source: bytes, reason: str) -> None:
    world, node = bound()
    assert world.drops(node.tunnel(echo(inner_source, CORRESPONDENT), outer_source), reason) == []


def test_nobody_speaks_through_the_tunnel_of_another() -> None:
    first, second = MobileNode("2001:db8:a::100"), MobileNode("2001:db8:a::101", spi=0x3000)
    world = World(first, second)
    first.register(world, CARE_OF_1)
    second.register(world, CARE_OF_2)
    world.drops(first.tunnel(echo(OTHER_HOME, CORRESPONDENT), CARE_OF_1), "reverse_tunnel_source")


@pytest.mark.parametrize("destination", ["fe80::1", "ff02::1", "ff0e::1", "::"])
def test_what_must_not_leave_the_tunnel(destination: str) -> None:
    world, node = bound()
    assert world.drops(node.tunnel(echo(HOME, address(destination))), "inner_destination") == []


def test_link_local_senders_are_not_tunnelled() -> None:
    world, _ = bound()
    assert world.drops(echo(address("fe80::1"), HOME), "link_local_source") == []


@pytest.mark.parametrize(
    "inner", [b"", b"\x60" + bytes(38), b"\x45" + bytes(60), echo(HOME, CORRESPONDENT)[:-1]]
)
def test_no_packet_inside(inner: bytes) -> None:
    world, node = bound()
    assert world.drops(node.tunnel(inner), "truncated_inner_packet") == []


@pytest.mark.parametrize("kind", range(133, 138))
@pytest.mark.parametrize("behind", [b"", bytes((ICMPV6, 0, 1, 4, 0, 0, 0, 0))])
def test_neighbour_discovery_is_never_tunnelled(kind: int, behind: bytes) -> None:
    """A probe whether a neighbour is still reachable goes to its unicast address (RFC 4861 7.3)."""
    world, _ = bound()
    octets = icmpv6.message(kind, 0, bytes(4) + HOME, CORRESPONDENT, HOME)
    packet = ipv6.build(CORRESPONDENT, HOME, 60 if behind else ICMPV6, behind + octets, hop_limit=254)
    assert world.drops(packet, "neighbor_discovery") == []


def test_nothing_for_nobody() -> None:
    node = MobileNode()
    world = World(node)
    world.drops(echo(CORRESPONDENT, HOME), "no_binding")
    world.drops(echo(CORRESPONDENT, OTHER_HOME), "no_binding")
    world.drops(node.tunnel(echo(HOME, CORRESPONDENT)), "reverse_tunnel_without_binding")


# ESP in tunnel mode


@pytest.mark.parametrize("protection", [GCM, CBC], ids=["gcm", "cbc"])
def test_all_payload_under_esp_both_ways(protection: Transform) -> None:
    world, node = bound(Use.BINDING, Use.PAYLOAD, protection=protection)
    packet = echo(CORRESPONDENT, HOME)
    outer = only_packet(world.receive(packet))
    assert (outer[6], outer[8:24], outer[24:40]) == (ESP, HOME_AGENT, CARE_OF_1)
    assert node.inner(outer) == packet
    back = echo(HOME, CORRESPONDENT)
    assert sent(world.receive(node.tunnel(back, CARE_OF_1, Use.PAYLOAD))) == [back]
    world.drops(node.tunnel(back), "unprotected_payload")


def test_only_return_routability_under_esp() -> None:
    world, node = bound(Use.BINDING, Use.RETURN_ROUTABILITY)
    test_init = messages.build(HomeTestInit(bytes(8)), HOME, CORRESPONDENT)
    test_init = ipv6.build(HOME, CORRESPONDENT, MOBILITY, test_init)
    test = messages.build(HomeTest(1, bytes(8), bytes(8)), CORRESPONDENT, HOME)
    test = ipv6.build(CORRESPONDENT, HOME, MOBILITY, test)
    outer = only_packet(world.receive(test))
    assert (outer[6], node.inner(outer)) == (ESP, test)
    assert sent(world.receive(node.tunnel(test_init, CARE_OF_1, Use.RETURN_ROUTABILITY))) == [test_init]
    world.drops(node.tunnel(test_init), "unprotected_payload")
    # Everything else goes without, and must.
    payload = echo(CORRESPONDENT, HOME)
    assert only_packet(world.receive(payload))[6] == IPV6
    back = echo(HOME, CORRESPONDENT)
    assert sent(world.receive(node.tunnel(back))) == [back]
    found = world.receive(node.tunnel(back, CARE_OF_1, Use.RETURN_ROUTABILITY))
    assert (found, world.count("selector_mismatch")) == ([], 1)
    other = messages.build(CareOfTestInit(bytes(8)), HOME, CORRESPONDENT)
    other = ipv6.build(HOME, CORRESPONDENT, MOBILITY, other)
    assert sent(world.receive(node.tunnel(other))) == [other]


def test_both_policies_together_choose_the_narrower() -> None:
    world, node = bound(Use.BINDING, Use.RETURN_ROUTABILITY, Use.PAYLOAD)
    test = messages.build(HomeTest(1, bytes(8), bytes(8)), CORRESPONDENT, HOME)
    test = ipv6.build(CORRESPONDENT, HOME, MOBILITY, test)
    assert only_packet(world.receive(test))[40:44] == (0x2003).to_bytes(4, "big")
    assert only_packet(world.receive(echo(CORRESPONDENT, HOME)))[40:44] == (0x2005).to_bytes(4, "big")
    assert node.inner(only_packet(world.receive(test))) == test


def test_esp_tunnels_need_a_binding_from_there_before_any_cryptography() -> None:
    world, node = bound(Use.BINDING, Use.PAYLOAD)
    packet = node.tunnel(echo(HOME, CORRESPONDENT), CARE_OF_2, Use.PAYLOAD)
    world.drops(packet, "reverse_tunnel_source")
    world.receive(node.home())
    packet = node.tunnel(echo(HOME, CORRESPONDENT), CARE_OF_1, Use.PAYLOAD)
    world.drops(packet, "reverse_tunnel_source")


def test_an_esp_tunnel_serves_only_its_own_home_address() -> None:
    first = MobileNode("2001:db8:a::100", Use.BINDING, Use.PAYLOAD)
    second = MobileNode("2001:db8:a::101", Use.BINDING, Use.PAYLOAD, spi=0x3000)
    world = World(first, second)
    first.register(world)
    second.register(world)  # behind the same care-of address
    inner = echo(OTHER_HOME, CORRESPONDENT)
    assert world.receive(first.tunnel(inner, CARE_OF_1, Use.PAYLOAD)) == []
    assert world.count("selector_mismatch") == 1
    assert sent(world.receive(second.tunnel(inner, CARE_OF_1, Use.PAYLOAD))) == [inner]


def test_signalling_inside_an_esp_tunnel_is_payload_and_vice_versa_nothing() -> None:
    world, node = bound(Use.BINDING, Use.PAYLOAD)
    sealed = ipv6.parse(node.update(CARE_OF_2)).payload
    assert world.receive(ipv6.build(CARE_OF_2, HOME_AGENT, ESP, sealed, home_address=OTHER_HOME)) == []
    node.outbound[Use.BINDING].selector = node.outbound[Use.PAYLOAD].selector
    found = world.receive(node.wrap(IPV6, echo(HOME, CORRESPONDENT), CARE_OF_1))
    assert (found, world.count("selector_mismatch")) == ([], 1)


@pytest.mark.parametrize("use", [None, Use.PAYLOAD])
def test_extension_headers_in_transit_are_for_the_destination_to_judge(use: Use | None) -> None:
    world, node = bound(*((Use.BINDING, use) if use else (Use.BINDING,)))
    for headers in (
        bytes((59, 0, 0x9E, 4, 0, 0, 0, 0)),  # an unknown option that asks for an ICMPv6 error
        bytes((60, 255)) + bytes(6),  # longer than the packet
        bytes((60, 0, 1, 4, 0, 0, 0, 0)) * 12,  # too many
        bytes((60, 0)),  # cut short
    ):
        inner = ipv6.build(HOME, CORRESPONDENT, 60, headers)
        assert sent(world.receive(node.tunnel(inner, CARE_OF_1, use))) == [inner]
        inner = ipv6.build(CORRESPONDENT, HOME, 60, headers)
        assert node.inner(only_packet(world.receive(inner))) == inner


def test_fragments_in_transit() -> None:
    world, node = bound(Use.BINDING, Use.PAYLOAD)
    for piece in ipv6.fragments(echo(HOME, CORRESPONDENT, 2000), 1280, 7):
        assert sent(world.receive(node.tunnel(piece, CARE_OF_1, Use.PAYLOAD))) == [piece]


# Congestion (RFC 6040)


@pytest.mark.parametrize("traffic_class", [0, 1, 2, 3, 0xB8, 0xBA])
def test_the_traffic_class_is_copied_outwards(traffic_class: int) -> None:
    for uses in ((Use.BINDING,), (Use.BINDING, Use.PAYLOAD)):
        world, _ = bound(*uses)
        packet = echo(CORRESPONDENT, HOME, flow=traffic_class << 20 | 0x12345)
        assert ipv6.parse(only_packet(world.receive(packet))).flow == traffic_class << 20


@pytest.mark.parametrize(
    ("inner", "outer", "result"),
    [
        (0, 0, 0),
        (0, 1, 0),
        (0, 2, 0),
        (0, 3, None),
        (1, 3, 3),
        (2, 3, 3),
        (3, 0, 3),
        (3, 3, 3),
        (2, 0, 2),
        (1, 2, 1),
        (0xBA, 0x03, 0xBB),
    ],
)
@pytest.mark.parametrize("use", [None, Use.PAYLOAD])
def test_congestion_outside_moves_inside(inner: int, outer: int, result: int | None, use: Use | None) -> None:
    world, node = bound(*((Use.BINDING, use) if use else (Use.BINDING,)))
    packet = echo(HOME, CORRESPONDENT, flow=inner << 20 | 0xABCDE)
    found = sent(world.receive(node.tunnel(packet, CARE_OF_1, use, flow=outer << 20)))
    if result is None:
        assert (found, world.count("congestion_experienced")) == ([], 1)
        assert world.count("tunnelled_in") == 0
    else:
        assert found == [echo(HOME, CORRESPONDENT, flow=result << 20 | 0xABCDE)]


# Reassembly: the tunnel's exit puts its packets together (RFC 2473 7.2)


@pytest.mark.parametrize("use", [None, Use.PAYLOAD])
@pytest.mark.parametrize("backwards", [False, True])
def test_fragments_of_a_reverse_tunnel_packet(use: Use | None, *, backwards: bool) -> None:
    world, node = bound(*((Use.BINDING, use) if use else (Use.BINDING,)))
    packet = echo(HOME, CORRESPONDENT, 3000)
    pieces = ipv6.fragments(node.tunnel(packet, CARE_OF_1, use), 1280, 99)
    assert len(pieces) == 3
    if backwards:
        pieces.reverse()
    assert [world.receive(piece) for piece in pieces[:-1]] == [[], []]
    assert sent(world.receive(pieces[-1])) == [packet]


def test_fragments_of_an_update() -> None:
    world, node = bound()
    pieces = ipv6.fragments(node.update(), 104, 1)
    assert len(pieces) > 1
    found = [world.receive(piece) for piece in pieces]
    assert found[:-1] == [[]] * (len(pieces) - 1)
    assert node.acknowledged(found[-1]).status == 0


def test_overlapping_fragments_and_fragments_in_fragments() -> None:
    world, node = bound()
    first, second, *_ = ipv6.fragments(node.tunnel(echo(HOME, CORRESPONDENT, 3000)), 1280, 5)
    world.receive(first)
    overlapping = bytearray(second)
    overlapping[42:44] = (8 | 1).to_bytes(2, "big")
    world.drops(bytes(overlapping), "overlapping_fragments")
    nested = ipv6.build(CARE_OF_1, HOME_AGENT, 44, bytes((44, 0, 0, 1, 0, 0, 0, 9)) + bytes(8))
    world.drops(nested, "second_fragment_header")


def test_a_fragment_that_never_completes_is_forgotten() -> None:
    world, node = bound()
    packet = node.tunnel(echo(HOME, CORRESPONDENT, 3000))
    pieces = ipv6.fragments(packet, 1280, 5)
    for piece in pieces[:-1]:
        world.receive(piece)
    world.now += 61
    node.sequence = 0
    assert world.receive(pieces[-1]) == []
    assert world.count("tunnelled_in") == 0


def test_the_home_agent_itself_is_reached_through_the_tunnel() -> None:
    # What comes out is routed back to it, and answered through the tunnel again.
    world, node = bound()
    packet = only_packet(world.receive(node.tunnel(echo(HOME, HOME_AGENT))))
    answer = only_packet(world.receive(packet))
    assert icmpv6.parse(answer[40:], HOME_AGENT, HOME).type == icmpv6.ECHO_REPLY
    assert ipv6.parse(answer).next_header == ICMPV6
    assert node.inner(only_packet(world.receive(answer))) == answer
