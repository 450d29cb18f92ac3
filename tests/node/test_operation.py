"""Configuration, restarts and stops of a home agent; what people read of it."""

from __future__ import annotations

import json

import pytest

from mip6ha.associations import RESERVATION
from mip6ha.effects import (
    AnnounceAddress,
    DefendAddress,
    ReleaseAddress,
    RemoveTunnel,
    ReserveSequences,
    SendPacket,
)
from mip6ha.ipsec import esp
from mip6ha.ipsec.policy import Direction, Use
from mip6ha.ipsec.sad import SecurityAssociation
from mip6ha.node import HomeAgent
from mip6ha.wire import address

from .world import (
    CARE_OF_1,
    CARE_OF_2,
    CORRESPONDENT,
    HOME_AGENT,
    A,
    H,
    MobileNode,
    R,
    World,
    dataplane,
    echo,
    only_packet,
    prefix,
    seeded,
    sent,
)

HOME = address("2001:db8:a::100")
ANYCAST = address("2001:db8:a:0:fdff:ffff:ffff:fffe")


def esp_sequence(packet: bytes) -> int:
    """The outer ESP sequence number behind a type 2 routing header."""
    assert packet[6] == 43
    return int.from_bytes(packet[68:72], "big")


def outbound(world: World, spi: int = 0x2001) -> SecurityAssociation:
    return next(each for each in world.agent.associations.database if each.spi == spi)


# Start and stop


def test_start_reserves_numbers_before_it_owns_addresses() -> None:
    world = World()
    agent = HomeAgent(world.parameters, seeded("start"), 0.0)
    assert agent.start(0.0) == [
        ReserveSequences(RESERVATION),
        DefendAddress(HOME_AGENT),
        DefendAddress(ANYCAST),
        AnnounceAddress(HOME_AGENT),
    ]


def test_stop_lets_go_of_everything() -> None:
    nodes = [
        MobileNode(
            f"2001:db8:a::1{n:02x}", spi=0x3000 + 4 * n, prefixes=(prefix(f"2001:db8:{n + 16:x}::/48"),)
        )
        for n in range(5)
    ]
    world = World(*nodes)
    for node in nodes:
        node.register(world, flags=A | H | R)
    world.carry_out(world.agent.stop(world.now))
    plane = world.plane
    assert (plane.tunnels, plane.defended, plane.routes, plane.probed) == ({}, set(), set(), set())


# Sequence numbers of manual keys


def test_a_restart_begins_above_everything_that_may_have_been_used() -> None:
    node = MobileNode()
    world = World(node)
    node.register(world)
    floor = world.plane.reserved
    world = World(node, sequence_floor=floor)
    assert world.plane.reserved == floor + RESERVATION
    packet = only_packet(world.receive(node.update()))
    assert esp_sequence(packet) == floor + 1
    # What would have happened otherwise: the mobile node takes the answer for a replay.
    assert node.open(packet).message.status == 0
    low = World(node)
    with pytest.raises(Exception, match="replayed"):
        node.open(only_packet(low.receive(node.update())))


def test_the_next_block_is_reserved_before_the_packet_that_needs_it() -> None:
    node = MobileNode()
    world = World(node)
    node.register(world)
    association = outbound(world)
    association.sequence = association.limit = RESERVATION
    found = world.receive(node.update())
    assert [type(effect) for effect in found] == [ReserveSequences, SendPacket]
    assert found[0] == ReserveSequences(2 * RESERVATION)
    assert esp_sequence(sent(found)[0]) == RESERVATION + 1
    assert [type(effect) for effect in world.receive(node.update())] == [SendPacket]


def test_one_reservation_serves_every_sa() -> None:
    node = MobileNode()
    world = World(node)
    node.register(world)
    for spi in (0x2001, 0x2003):
        outbound(world, spi).sequence = outbound(world, spi).limit
    assert ReserveSequences(2 * RESERVATION) in world.receive(node.update())
    assert [type(effect) for effect in world.receive(node.solicitation())] == [SendPacket]


def test_a_reservation_made_for_a_packet_that_is_then_dropped_still_stands() -> None:
    node = MobileNode("2001:db8:a::100", Use.BINDING, Use.PAYLOAD)
    world = World(node)
    node.register(world)
    tunnel = outbound(world, 0x2003)
    tunnel.sequence = tunnel.limit = RESERVATION
    found = world.receive(echo(CORRESPONDENT, HOME))
    assert [type(effect) for effect in found] == [ReserveSequences, SendPacket]


def test_a_used_up_sa_answers_nothing_but_the_registration_stands_whole() -> None:
    node = MobileNode()
    world = World(node)
    most = (1 << 32) - 1
    world.agent.associations._reserved = world.plane.reserved = most
    outbound(world).sequence = outbound(world).limit = most
    found = world.receive(node.update())
    assert sent(found) == []
    assert world.plane.tunnels == {HOME: CARE_OF_1}
    assert world.count("sequence_exhausted") == 1
    assert dataplane(world.receive(node.home())) == [RemoveTunnel(HOME), ReleaseAddress(HOME)]


def test_a_used_up_sa_does_not_stop_the_clock() -> None:
    node, other = MobileNode(), MobileNode("2001:db8:a::101", spi=0x3000)
    world = World(node, other, duplicate_address_detection=True)
    most = (1 << 32) - 1
    world.agent.associations._reserved = world.plane.reserved = most
    outbound(world).sequence = outbound(world).limit = most
    world.receive(node.update())
    world.receive(other.update())
    found = world.advance(1)
    assert len(sent(found)) == 1
    assert set(world.plane.tunnels) == {HOME, other.home_address}


# Reconfiguration


def test_who_stays_notices_nothing() -> None:
    kept, gone, new = (MobileNode(f"2001:db8:a::10{n}", spi=0x3000 + 16 * n, name=f"mn{n}") for n in range(3))
    world = World(kept, gone)
    kept.register(world)
    gone.register(world, CARE_OF_2)
    found = world.carry_out(world.agent.reconfigure((kept.parameters, new.parameters), world.now))
    world.check()
    assert found == [RemoveTunnel(gone.home_address), ReleaseAddress(gone.home_address)]
    world.drops(gone.update(CARE_OF_2), "unknown_spi")
    assert dataplane(world.receive(kept.update())) == []
    new.register(world)
    assert [each["name"] for each in world.agent.bindings(world.now)] == ["mn0", "mn2"]


def test_a_changed_mobile_node_keeps_what_belongs_to_its_keys() -> None:
    node = MobileNode()
    world = World(node)
    old = node.update(CARE_OF_2)
    world.receive(old)
    node.register(world)
    spent = outbound(world).sequence
    world.carry_out(world.agent.reconfigure((node.changed(name="renamed"),), world.now))
    world.check()
    assert world.plane.tunnels == {}
    world.drops(old, "replayed")
    packet = only_packet(world.receive(node.update()))
    assert esp_sequence(packet) == spent + 1
    assert node.open(packet).message.status == 0


def test_a_changed_sa_starts_anew_and_its_neighbours_do_not() -> None:
    node = MobileNode()
    world = World(node)
    node.register(world)
    node.open(only_packet(world.receive(node.solicitation())))
    fresh = MobileNode("2001:db8:a::100", Use.BINDING, Use.PREFIX, Use.PAYLOAD)
    world.carry_out(world.agent.reconfigure((fresh.parameters,), world.now))
    assert outbound(world, 0x2001).sequence == 1
    assert outbound(world, 0x2005).sequence == 1  # above everything that was ever dismissed
    node.register(world)
    world.drops(node.tunnel(echo(HOME, CORRESPONDENT)), "unprotected_payload")


def test_keys_that_come_back_do_not_repeat_a_number() -> None:
    # A repeated number is a repeated nonce of AES-GCM.
    node = MobileNode()
    world = World(node)
    for _ in range(3):
        node.register(world)
    used = outbound(world).sequence
    world.carry_out(world.agent.reconfigure((), world.now))
    world.carry_out(world.agent.reconfigure((node.parameters,), world.now))
    world.check()
    assert esp_sequence(only_packet(world.receive(node.update()))) == used + 1


def test_spis_may_change_hands() -> None:
    first, second = MobileNode("2001:db8:a::100"), MobileNode("2001:db8:a::101", spi=0x3000)
    world = World(first, second)
    swapped = (MobileNode("2001:db8:a::100", spi=0x3000), MobileNode("2001:db8:a::101", spi=0x2000))
    world.carry_out(world.agent.reconfigure(tuple(node.parameters for node in swapped), world.now))
    for node in swapped:
        node.register(world)


def test_dismissed_while_probing() -> None:
    node = MobileNode()
    world = World(node, duplicate_address_detection=True)
    world.receive(node.update())
    world.carry_out(world.agent.reconfigure((), world.now))
    world.check()
    assert world.advance(5) == []
    assert len(world.agent.associations.database) == 0


# What people read


def test_views_are_json_and_hold_no_keys() -> None:
    node = MobileNode("2001:db8:a::100", Use.BINDING, Use.PAYLOAD, prefixes=(prefix("2001:db8:aa::/48"),))
    world = World(node)
    node.register(world, flags=A | H | R)
    world.advance(10)
    views = (
        list(world.agent.bindings(world.now)),
        list(world.agent.security_associations()),
        world.agent.status(world.now),
    )
    shown = json.dumps(views) + repr(world.parameters) + repr(list(world.agent.associations.database))
    for each in node.parameters.associations:
        assert each.keys.encryption.hex() not in shown
        assert repr(each.keys.encryption) not in shown
    bindings, associations, status = views
    assert bindings == [
        {
            "home_address": "2001:db8:a::100",
            "care_of_address": "2001:db8:b::42",
            "state": "bound",
            "sequence": 1,
            "lifetime_s": 60,
            "expires_in_s": 50.0,
            "flags": ["acknowledge", "home_registration", "mobile_router"],
            "mobile_network_prefixes": ["2001:db8:aa::/48"],
            "name": "mn",
        }
    ]
    assert associations[0] == {
        "home_address": "2001:db8:a::100",
        "spi": "0x00002000",
        "direction": "in",
        "use": "binding",
        "mode": "transport",
        "algorithm": "aes-gcm-16",
        "esn": False,
        "sequence": 1,
        "packets": 1,
        "lent": False,
    }
    assert [each["mode"] for each in associations] == ["transport", "transport", "tunnel", "tunnel"]
    assert status == {
        "home_agent": "2001:db8:a::1",
        "mobile_nodes": 1,
        "bindings": 1,
        "security_associations": 4,
    }


def test_directions_are_those_of_the_owner() -> None:
    node = MobileNode()
    world = World(node)
    for association in world.agent.associations.database:
        assert (association.window is not None) == (association.direction is Direction.IN)
    assert esp.overhead(outbound(world)) <= 40
