"""Prefix discovery, home agent discovery, Binding Errors, echo: what else a home agent answers."""

from __future__ import annotations

import pytest

from mip6ha import icmpv6, ipv6
from mip6ha.binding import messages
from mip6ha.binding.messages import BindingError, CareOfTestInit, HomeTestInit
from mip6ha.binding.registration import HomePrefix
from mip6ha.icmpv6 import PrefixInformation, parse_prefixes
from mip6ha.ipsec.policy import Use
from mip6ha.ipv6 import ICMPV6, MOBILITY
from mip6ha.mobility import build
from mip6ha.parameters import OtherHomeAgent
from mip6ha.wire import address

from .world import (
    CARE_OF_1,
    CARE_OF_2,
    CORRESPONDENT,
    HOME_AGENT,
    HOME_PREFIX,
    MobileNode,
    World,
    echo,
    only_packet,
)

HOME = address("2001:db8:a::100")
ANYCAST = address("2001:db8:a:0:fdff:ffff:ffff:fffe")


# Mobile prefix discovery (10.6)


def test_a_protected_solicitation_gets_a_protected_advertisement() -> None:
    node = MobileNode()
    world = World(node, home_prefixes=(HOME_PREFIX, HomePrefix(address("2001:db8:f::"), 64, 1000, 500)))
    node.register(world)
    answer = node.open(only_packet(world.receive(node.solicitation(identifier=0xBEEF))))
    assert answer.spi == 0x2003
    assert (answer.packet.destination, answer.packet.routing) == (CARE_OF_1, HOME)
    assert answer.message.type == icmpv6.MOBILE_PREFIX_ADVERTISEMENT
    assert answer.message.body[:4] == b"\xbe\xef\0\0"
    assert parse_prefixes(answer.message.body) == (
        PrefixInformation(HOME_AGENT, 64, 0xE0, 2_592_000, 604_800),
        PrefixInformation(address("2001:db8:f::"), 64, 0xC0, 1000, 500),
    )
    assert world.count("prefix_advertisements") == 1


def test_a_plain_solicitation_is_served_only_where_policy_asks_for_no_protection() -> None:
    node = MobileNode("2001:db8:a::100", Use.BINDING)
    world = World(node)
    node.register(world)
    answer = node.open(only_packet(world.receive(node.solicitation())))
    assert (answer.spi, answer.message.type) == (None, icmpv6.MOBILE_PREFIX_ADVERTISEMENT)
    node = MobileNode()
    world = World(node)
    node.register(world)
    assert world.drops(node.solicitation(seal=False), "unprotected_prefix_solicitation") == []


def test_a_solicitation_needs_a_binding_with_that_care_of_address() -> None:
    node = MobileNode("2001:db8:a::100", Use.BINDING)
    world = World(node)
    world.drops(node.solicitation(), "prefix_solicitation_without_binding")
    node.register(world)
    world.drops(node.solicitation(CARE_OF_2), "prefix_solicitation_without_binding")
    world.drops(node.solicitation(HOME), "unprotected_prefix_solicitation")
    world.receive(node.home())
    world.drops(node.solicitation(), "prefix_solicitation_without_binding")


def test_the_prefix_sa_takes_solicitations_only() -> None:
    node = MobileNode()
    world = World(node)
    node.register(world)
    octets = icmpv6.message(icmpv6.ECHO_REQUEST, 0, bytes(4), HOME, HOME_AGENT)
    node.outbound[Use.PREFIX].selector = node.outbound[Use.PREFIX].selector._replace(type=None)
    assert world.receive(node.wrap(ICMPV6, octets, CARE_OF_1)) == []
    assert world.count("selector_mismatch") == 1


# Home agent discovery (10.5)


def discovery(source: bytes = CARE_OF_1, kind: int = 144, body: bytes = b"\x12\x34\0\0") -> bytes:
    octets = icmpv6.message(kind, 0, body, source, ANYCAST)
    return ipv6.build(source, ANYCAST, ICMPV6, octets)


def test_the_anycast_address_answers_with_the_home_agents_best_first() -> None:
    others = tuple(
        OtherHomeAgent(address(f"2001:db8:a::{n}"), preference) for n, preference in ((2, 20), (3, -5))
    )
    world = World(preference=10, home_agents=others)
    assert ANYCAST in world.plane.defended
    parsed = ipv6.parse(only_packet(world.receive(discovery())))
    assert (parsed.source, parsed.destination) == (HOME_AGENT, CARE_OF_1)
    reply = icmpv6.parse(parsed.payload, HOME_AGENT, CARE_OF_1)
    assert reply.type == icmpv6.HOME_AGENT_DISCOVERY_REPLY
    assert reply.body == b"\x12\x34\0\0" + others[0].address + HOME_AGENT + others[1].address
    assert world.count("home_agent_discoveries") == 1


def test_a_reply_never_exceeds_the_minimum_mtu() -> None:
    others = tuple(OtherHomeAgent(address(f"2001:db8:a::{n:x}"), 0) for n in range(2, 200))
    packet = only_packet(World(home_agents=others).receive(discovery()))
    assert len(packet) <= 1280
    assert HOME_AGENT in packet[48:]


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (discovery(kind=128), "home_agent_discovery_request"),
        (discovery(body=b""), "truncated_icmpv6"),
        (discovery()[:-1] + b"\1", "icmpv6_checksum"),
        (ipv6.build(CARE_OF_1, ANYCAST, 17, bytes(8)), "unexpected_message"),
        (discovery(address("::")), "unanswerable_source"),
        (discovery(address("::1")), "unanswerable_source"),
    ],
)
def test_the_anycast_address_does_nothing_else(packet: bytes, reason: str) -> None:
    assert World().drops(packet, reason) == []


# Binding Errors (9.3.3)


def errors(world: World, packet: bytes, reason: str) -> BindingError:
    parsed = ipv6.parse(only_packet(world.drops(packet, reason)))
    assert (parsed.source, parsed.destination, parsed.routing) == (HOME_AGENT, packet[8:24], None)
    message = messages.parse(parsed.payload, HOME_AGENT, parsed.destination)
    assert isinstance(message, BindingError)
    return message


def test_binding_error_1_for_a_home_address_option_without_binding() -> None:
    node = MobileNode()
    world = World(node)
    reason = "home_address_option_without_binding"
    body = messages.build(HomeTestInit(bytes(8)), HOME, HOME_AGENT)
    cases = (
        ipv6.build(CARE_OF_1, HOME_AGENT, MOBILITY, body, home_address=HOME),
        ipv6.build(CARE_OF_1, HOME_AGENT, 17, bytes(8), home_address=HOME),
        ipv6.build(CARE_OF_1, HOME_AGENT, 59, b"", home_address=HOME),
        ipv6.build(
            CARE_OF_1,
            HOME_AGENT,
            ICMPV6,
            icmpv6.message(128, 0, bytes(4), HOME, HOME_AGENT),
            home_address=HOME,
        ),
    )
    for packet in cases:
        assert errors(world, packet, reason) == (1, HOME, ())
    node.register(world, CARE_OF_2)  # bound elsewhere is no better
    for packet in cases:
        assert errors(world, packet, reason) == (1, HOME, ())


def test_binding_error_2_for_an_unknown_message_type() -> None:
    node = MobileNode("2001:db8:a::100", Use.SIGNALLING)
    world = World(node)
    reason = "unknown_mobility_header_type"
    plain = ipv6.build(CARE_OF_1, HOME_AGENT, MOBILITY, build(99, bytes(2), CARE_OF_1, HOME_AGENT))
    assert errors(world, plain, reason) == (2, bytes(16), ())
    node.register(world)
    octets = build(99, bytes(2), HOME, HOME_AGENT)
    plain = ipv6.build(CARE_OF_1, HOME_AGENT, MOBILITY, octets, home_address=HOME)
    assert errors(world, plain, reason) == (2, HOME, ())
    found = world.receive(node.wrap(MOBILITY, octets, CARE_OF_1))
    assert messages.parse(only_packet(found)[40:], HOME_AGENT, CARE_OF_1) == (2, HOME, ())


def test_binding_errors_are_rate_limited_and_recover() -> None:
    world = World()
    packet = ipv6.build(CARE_OF_1, HOME_AGENT, 17, bytes(8), home_address=HOME)
    answers = sum(len(world.receive(packet)) for _ in range(500))
    assert (answers, world.count("binding_errors"), world.count("errors_suppressed")) == (200, 200, 300)
    world.advance(1)
    assert sum(len(world.receive(packet)) for _ in range(500)) == 100
    assert world.count("home_address_option_without_binding") == 1000


def test_nobody_is_told_who_cannot_be() -> None:
    for source in ("::", "fe80::1", "::1"):
        world = World()
        packet = ipv6.build(address(source), HOME_AGENT, 17, bytes(8), home_address=HOME)
        assert world.drops(packet, "home_address_option_without_binding") == []
        assert world.count("errors_suppressed") == 1


# Everything else


def test_the_home_agent_answers_echo_requests() -> None:
    world = World()
    parsed = ipv6.parse(only_packet(world.receive(echo(CORRESPONDENT, HOME_AGENT, 100))))
    assert (parsed.source, parsed.destination) == (HOME_AGENT, CORRESPONDENT)
    reply = icmpv6.parse(parsed.payload, HOME_AGENT, CORRESPONDENT)
    assert reply.type == icmpv6.ECHO_REPLY
    assert reply.body == echo(CORRESPONDENT, HOME_AGENT, 100)[44:]


@pytest.mark.parametrize("message", [HomeTestInit(bytes(8)), CareOfTestInit(bytes(8)), BindingError(1, HOME)])
def test_messages_for_correspondents_and_mobile_nodes_are_not_for_it(message: messages.Body) -> None:
    octets = messages.build(message, CORRESPONDENT, HOME_AGENT)
    packet = ipv6.build(CORRESPONDENT, HOME_AGENT, MOBILITY, octets)
    assert World().drops(packet, "unexpected_message") == []


@pytest.mark.parametrize(
    ("next_header", "payload", "home_address", "pointer"), [(17, bytes(8), None, 6), (6, bytes(20), None, 6)]
)
def test_other_protocols_get_a_parameter_problem(
    next_header: int, payload: bytes, home_address: bytes | None, pointer: int
) -> None:
    packet = ipv6.build(CORRESPONDENT, HOME_AGENT, next_header, payload, home_address=home_address)
    found = World().drops(packet, "unknown_next_header")
    parsed = ipv6.parse(only_packet(found))
    problem = icmpv6.parse(parsed.payload, HOME_AGENT, CORRESPONDENT)
    assert (problem.type, problem.code) == (icmpv6.PARAMETER_PROBLEM, 1)
    assert problem.body == pointer.to_bytes(4, "big") + packet


def test_parameter_problems_are_rate_limited_too() -> None:
    world = World()
    packet = ipv6.build(CORRESPONDENT, HOME_AGENT, 17, bytes(8))
    assert sum(len(world.receive(packet)) for _ in range(300)) == 200
    assert world.count("errors_suppressed") == 100


@pytest.mark.parametrize("source", ["::", "fe80::1", "::1"])
def test_an_echo_request_from_nowhere_gets_nothing(source: str) -> None:
    assert World().drops(echo(address(source), HOME_AGENT), "unexpected_message") == []
