"""Home registrations as a mobile node sees them: RFC 6275 10.3, step by step, with every status."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mip6ha.binding.messages import OptionType, Status, alternate_care_of_address, refresh_advice
from mip6ha.binding.registration import HomePrefix
from mip6ha.effects import (
    AnnounceAddress,
    DefendAddress,
    Event,
    ReleaseAddress,
    RemoveTunnel,
    SendPacket,
    SetTunnel,
)
from mip6ha.ipsec.algorithms import Transform
from mip6ha.ipsec.policy import Use
from mip6ha.mobility import Option
from mip6ha.wire import address

from .world import (
    CARE_OF_1,
    CARE_OF_2,
    CBC,
    GCM,
    HOME_AGENT,
    HOME_PREFIX,
    A,
    H,
    K,
    L,
    MobileNode,
    R,
    World,
    dataplane,
    only_packet,
    prefix,
)

LINK_LOCAL = address("fe80::100")


@pytest.mark.parametrize("protection", [GCM, CBC], ids=["gcm", "cbc"])
@pytest.mark.parametrize("use", [Use.BINDING, Use.SIGNALLING])
def test_a_registration_forwards_then_defends_then_answers(use: Use, protection: Transform) -> None:
    node = MobileNode("2001:db8:a::100", use, protection=protection)
    world = World(node)
    found = world.receive(node.update())
    assert dataplane(found) == [
        SetTunnel(node.home_address, CARE_OF_1),
        DefendAddress(node.home_address),
        AnnounceAddress(node.home_address),
    ]
    assert type(found[-1]) is SendPacket
    answer = node.open(only_packet(found))
    assert answer.message == (Status.ACCEPTED, 0, 1, 15, ())
    assert answer.spi == 0x2001
    assert (answer.packet.source, answer.packet.destination) == (HOME_AGENT, CARE_OF_1)
    assert answer.packet.routing == node.home_address
    assert answer.packet.home_address is None
    assert world.count("registrations") == 1


# 1. and 2.: who is served


def test_an_update_without_esp_is_dropped_in_silence() -> None:
    node = MobileNode()
    world = World(node)
    node.outbound.clear()
    assert world.drops(node.update(), "unprotected_binding_update") == []


def test_status_132_for_a_home_address_off_every_home_prefix() -> None:
    node = MobileNode("2001:db8:f::100")
    world = World(node)
    answer = node.acknowledged(world.receive(node.update(sequence=7)))
    assert answer == (Status.NOT_HOME_SUBNET, 0, 7, 0, ())
    assert len(world.agent.cache) == 0


def test_any_of_several_home_prefixes_serves() -> None:
    node = MobileNode("2001:db8:f::100")
    world = World(node, home_prefixes=(HOME_PREFIX, HomePrefix(address("2001:db8:f::"), 64)))
    node.register(world)


def test_status_133_for_a_deregistration_of_nothing() -> None:
    node = MobileNode()
    world = World(node)
    answer = node.acknowledged(world.receive(node.home(5)))
    assert answer == (Status.NOT_HOME_AGENT_FOR_THIS_MOBILE_NODE, 0, 5, 0, ())
    assert len(world.agent.cache) == 0


def test_status_130_when_the_cache_is_full_and_again_room_after_an_end() -> None:
    first, second = MobileNode("2001:db8:a::100"), MobileNode("2001:db8:a::101", spi=0x3000)
    world = World(first, second, max_bindings=1)
    first.register(world)
    refused = second.acknowledged(world.receive(second.update(CARE_OF_2)))
    assert refused.status == Status.INSUFFICIENT_RESOURCES
    assert world.count("refused_130") == 1
    first.register(world)  # a refresh needs no room
    world.receive(first.home())
    second.register(world, CARE_OF_2)


def test_without_h_an_update_is_a_correspondents_business() -> None:
    node = MobileNode()
    world = World(node)
    found = world.receive(node.update(flags=A))
    assert (found, world.count("not_a_home_registration"), len(world.agent.cache)) == ([], 1, 0)


def test_status_139_when_h_or_r_changes_under_a_registration() -> None:
    node = MobileNode(prefixes=(prefix("2001:db8:aa::/48"),))
    world = World(node)
    node.register(world)
    for flags in (A, A | H | R):
        answer = node.acknowledged(world.receive(node.update(flags=flags)))
        assert answer.status == Status.REGISTRATION_TYPE_CHANGE_DISALLOWED
    assert world.binding(node).sequence == 1


# 3.: sequence numbers


@pytest.mark.parametrize(
    ("last", "new", "accepted"),
    [
        (10, 11, True),
        (10, 10, False),
        (10, 9, False),
        (10, 10 + 0x7FFF, True),
        (10, 10 + 0x8000, False),
        (65535, 0, True),
        (65535, 65535, False),
        (0, 65535, False),
        (65535, 0x7FFE, True),
        (65535, 0x7FFF, False),
        (0x8000, 0, False),
        (0x8001, 0, True),
    ],
)
def test_a_sequence_number_must_be_greater_modulo_65536(last: int, new: int, *, accepted: bool) -> None:
    node = MobileNode()
    world = World(node)
    node.register(world, sequence=last)
    before = world.plane.tunnels.copy()
    answer = node.acknowledged(world.receive(node.update(CARE_OF_2, new)))
    if accepted:
        assert (answer.status, answer.sequence) == (Status.ACCEPTED, new)
        assert world.binding(node).care_of_address == CARE_OF_2
    else:
        assert answer == (Status.SEQUENCE_OUT_OF_WINDOW, 0, last, 0, ())
        assert world.plane.tunnels == before
        assert (world.binding(node).sequence, world.binding(node).care_of_address) == (last, CARE_OF_1)


def test_the_sequence_number_outlives_the_registration() -> None:
    node = MobileNode()
    world = World(node)
    node.register(world, sequence=100)
    world.advance(60)
    assert world.plane.tunnels == {}
    answer = node.acknowledged(world.receive(node.update(sequence=100)))
    assert (answer.status, answer.sequence) == (Status.SEQUENCE_OUT_OF_WINDOW, 100)
    node.register(world, sequence=101)
    world.receive(node.home(102))
    assert node.acknowledged(world.receive(node.update(sequence=102))).status == 135


# 4.: the care-of address


def test_the_alternate_care_of_address_wins_and_the_source_is_answered() -> None:
    node = MobileNode()
    world = World(node)
    found = world.receive(node.update(CARE_OF_1, alternate=CARE_OF_2))
    assert SetTunnel(node.home_address, CARE_OF_2) in found
    # RFC 6275 9.5.4: the answer does not follow the binding.
    packet = node.open(only_packet(found)).packet
    assert (packet.destination, packet.routing) == (CARE_OF_1, node.home_address)


def test_without_an_alternate_the_source_is_the_care_of_address() -> None:
    node = MobileNode()
    world = World(node)
    assert SetTunnel(node.home_address, CARE_OF_1) in world.receive(node.update(alternate=None))


def test_a_registration_from_the_home_address_is_answered_there() -> None:
    # A mobile node that is home on one link and registers an address on another.
    node = MobileNode()
    world = World(node)
    packet = node.open(only_packet(world.receive(node.update(node.home_address, alternate=CARE_OF_2)))).packet
    assert (packet.destination, packet.routing) == (node.home_address, None)


@pytest.mark.parametrize(
    "care_of_address", ["ff0e::1", "fe80::1", "::", "::1", "::ffff:192.0.2.1", "2001:db8:a::1", "ff02::1"]
)
def test_status_174_for_an_impossible_care_of_address(care_of_address: str) -> None:
    node = MobileNode()
    world = World(node)
    found = world.receive(node.update(CARE_OF_1, 3, alternate=address(care_of_address)))
    assert node.acknowledged(found) == (Status.INVALID_CARE_OF_ADDRESS, 0, 3, 0, ())
    assert len(world.agent.cache) == 0


def test_a_refused_move_leaves_the_registration_alone() -> None:
    node = MobileNode()
    world = World(node)
    node.register(world)
    before = world.state().bindings
    node.acknowledged(world.receive(node.update(CARE_OF_2, alternate=address("ff0e::1"))))
    assert world.state().bindings == before


# 6.: lifetimes


@pytest.mark.parametrize(
    ("asked", "maximum", "valid", "granted", "status"),
    [
        (15, 3600, 2_592_000, 15, 0),
        (65535, 3600, 2_592_000, 900, 0),
        (65535, 262_140, 2_592_000, 65535, 0),
        (1, 3600, 2_592_000, 1, 0),
        (15, 4, 2_592_000, 1, 0),
        (15, 3, 2_592_000, 1, 0),
        (15, 3600, 30, 7, 1),
        (15, 3600, 60, 15, 0),
        (15, 3600, 3, 1, 1),
    ],
)
def test_the_lifetime_granted(asked: int, maximum: int, valid: int, granted: int, status: int) -> None:
    node = MobileNode()
    home = HomePrefix(HOME_PREFIX.prefix, 64, valid, valid)
    world = World(node, max_lifetime=maximum, home_prefixes=(home,))
    answer = node.register(world, lifetime=asked)
    assert (answer.status, answer.lifetime) == (status, granted)
    assert world.advance(granted * 4 - 0.5) == [AnnounceAddress(node.home_address)] * min(
        2, int(granted * 4 - 0.5)
    )
    assert world.plane.tunnels
    world.advance(0.5)
    assert not world.plane.tunnels


def test_k_is_not_promised_because_no_ike_can_follow_the_care_of_address() -> None:
    node = MobileNode()
    assert node.register(World(node), flags=A | H | K).flags == 0


def test_without_a_the_home_agent_answers_all_the_same() -> None:
    node = MobileNode()
    assert node.register(World(node), flags=H).status == 0


# 7.: installing


def test_refreshes_touch_nothing_but_the_clock() -> None:
    node = MobileNode()
    world = World(node)
    node.register(world)
    world.advance(50)
    for _ in range(3):
        found = world.receive(node.update())
        assert [type(effect) for effect in found] == [SendPacket]
        world.advance(50)
    assert world.count("refreshes") == 3
    assert world.plane.tunnels
    world.advance(10.5)
    assert not world.plane.tunnels


def test_a_move_replaces_the_tunnel_only() -> None:
    node = MobileNode()
    world = World(node)
    node.register(world)
    world.advance(5)
    found = world.receive(node.update(CARE_OF_2))
    assert dataplane(found) == [SetTunnel(node.home_address, CARE_OF_2)]
    assert node.open(only_packet(found)).packet.destination == CARE_OF_2
    assert world.count("moves") == 1


def test_the_home_address_is_claimed_three_times_a_second_apart() -> None:
    node = MobileNode()
    world = World(node)
    node.register(world)
    for _ in range(2):
        assert world.advance(0.9) == []
        assert world.advance(0.1) == [AnnounceAddress(node.home_address)]
    assert world.advance(10) == []


def test_l_defends_the_link_local_address_too_and_stays_as_it_was() -> None:
    node = MobileNode()
    world = World(node)
    found = world.receive(node.update(flags=A | H | L))
    assert dataplane(found)[1:] == [
        DefendAddress(node.home_address),
        AnnounceAddress(node.home_address),
        DefendAddress(LINK_LOCAL),
        AnnounceAddress(LINK_LOCAL),
    ]
    assert dataplane(world.receive(node.update())) == []
    found = world.receive(node.home())
    assert dataplane(found) == [
        RemoveTunnel(node.home_address),
        ReleaseAddress(node.home_address),
        ReleaseAddress(LINK_LOCAL),
    ]


def test_refresh_advice_in_the_answer_only_when_shorter_than_the_lifetime() -> None:
    node = MobileNode()
    world = World(node, refresh_advice=40)
    answer = node.register(world)
    assert answer.options == (Option(OptionType.BINDING_REFRESH_ADVICE, b"\0\x0a"),)
    assert refresh_advice(answer.options) == 40
    assert node.register(world, lifetime=10).options == ()
    assert node.acknowledged(world.receive(node.home())).options == ()


def test_unknown_options_are_skipped() -> None:
    node = MobileNode()
    world = World(node)
    node.register(world, options=(Option(77, b"who knows"), Option(200, b"")))
    assert alternate_care_of_address(node.message(1, alternate=CARE_OF_1).options) == CARE_OF_1


def test_events_tell_operators_what_happened() -> None:
    node = MobileNode()
    world = World(node)
    told = []
    for packet in (
        node.update(),
        node.update(),
        node.update(CARE_OF_2),
        node.home(),
        node.update(sequence=1),
    ):
        told += [effect for effect in world.agent.receive(packet, world.now) if isinstance(effect, Event)]
    assert [event.name for event in told] == ["registered", "moved", "deregistered", "registration_refused"]
    assert told[2].fields == {
        "home_address": "2001:db8:a::100",
        "care_of_address": "2001:db8:d::42",
        "sequence": 4,
        "at_home": True,
    }
    assert told[3].fields == {"home_address": "2001:db8:a::100", "status": 135}


def test_a_virtual_home_link_has_nobody_to_ask_or_to_tell() -> None:
    node = MobileNode()
    world = World(node, virtual_home_link=True, duplicate_address_detection=True)
    found = world.receive(node.update())
    assert dataplane(found) == [SetTunnel(node.home_address, CARE_OF_1), DefendAddress(node.home_address)]
    assert node.acknowledged(found).status == 0
    assert world.advance(30) == []
    assert world.plane.announced == []


def test_a_suspended_mobile_node_is_administratively_prohibited() -> None:
    node = MobileNode()
    world = World(node)
    (served,) = world.agent.parameters.mobile_nodes
    world.agent.reconfigure((replace(served, suspended=True),), world.now)
    assert node.acknowledged(world.receive(node.update())).status == Status.ADMINISTRATIVELY_PROHIBITED
    assert world.agent.status(world.now)["bindings"] == 0
    world.agent.reconfigure((served,), world.now)
    assert node.acknowledged(world.receive(node.update())).status == Status.ACCEPTED
