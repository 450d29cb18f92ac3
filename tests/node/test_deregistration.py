"""How a registration ends or is asked to go on: de-registration, expiry, requests (RFC 6275 10.3.2)."""

from __future__ import annotations

import pytest

from mip6ha.binding.messages import Status
from mip6ha.effects import ReleaseAddress, RemoveTunnel, SendPacket
from mip6ha.ipsec.policy import Use
from mip6ha.wire import address

from .world import CARE_OF_1, MobileNode, World, dataplane, only_packet, sent

# 8.: de-registration


def test_back_home_the_address_is_released_before_the_answer_goes_straight_there() -> None:
    node = MobileNode()
    world = World(node)
    node.register(world)
    found = world.receive(node.home())
    assert dataplane(found) == [RemoveTunnel(node.home_address), ReleaseAddress(node.home_address)]
    assert type(found[-1]) is SendPacket
    answer = node.open(only_packet(found))
    assert answer.message == (Status.ACCEPTED, 0, 2, 0, ())
    assert (answer.packet.destination, answer.packet.routing) == (node.home_address, None)
    assert answer.spi == 0x2001


@pytest.mark.parametrize("alternate", [CARE_OF_1, None, address("2001:db8:a::100")])
def test_a_deregistration_from_away_is_answered_there(alternate: bytes | None) -> None:
    node = MobileNode()
    world = World(node)
    node.register(world)
    found = world.receive(node.update(lifetime=0, alternate=alternate))
    answer = node.open(only_packet(found))
    assert answer.message == (Status.ACCEPTED, 0, 2, 0, ())
    assert (answer.packet.destination, answer.packet.routing) == (CARE_OF_1, node.home_address)
    assert world.plane.tunnels == {}


def test_the_home_address_as_care_of_address_deregisters_whatever_the_lifetime() -> None:
    node = MobileNode()
    world = World(node)
    node.register(world)
    answer = node.acknowledged(world.receive(node.update(alternate=node.home_address)))
    assert (answer.status, answer.lifetime) == (0, 0)
    assert world.plane.tunnels == {}


def test_a_repeated_deregistration_succeeds_again_and_does_nothing() -> None:
    node = MobileNode()
    world = World(node)
    node.register(world)
    world.receive(node.home())
    for _ in range(2):
        found = world.receive(node.home())
        assert dataplane(found) == []
        assert node.acknowledged(found).status == Status.ACCEPTED
    world.advance(1000)
    assert node.acknowledged(world.receive(node.home())).status == Status.ACCEPTED


def test_a_deregistration_after_an_expiry_is_133() -> None:
    node = MobileNode()
    world = World(node)
    node.register(world)
    world.advance(61)
    assert node.acknowledged(world.receive(node.home())).status == 133


# 10.: expiry, refresh


def test_expiry_undoes_the_registration_without_a_word() -> None:
    node = MobileNode()
    world = World(node)
    node.register(world)
    world.advance(30)
    assert world.advance(30) == [RemoveTunnel(node.home_address), ReleaseAddress(node.home_address)]
    assert world.count("expiries") == 1
    assert list(world.agent.bindings(world.now)) == []
    assert world.agent.next_deadline() is None


def test_a_shorter_lifetime_brings_the_expiry_forward() -> None:
    node = MobileNode()
    world = World(node)
    node.register(world, lifetime=900)
    world.advance(10)
    node.register(world, lifetime=1)
    world.advance(4)
    assert world.plane.tunnels == {}


def test_a_refresh_request_before_the_end_once_for_each_registration() -> None:
    node = MobileNode("2001:db8:a::100", Use.SIGNALLING)
    world = World(node, refresh_request=10)
    node.register(world)
    world.advance(49)
    asked = node.open(only_packet(world.advance(1)))
    assert asked.message == ((),)
    assert type(asked.message).__name__ == "BindingRefreshRequest"
    assert (asked.packet.destination, asked.packet.routing) == (CARE_OF_1, node.home_address)
    assert asked.spi == 0x2001
    node.register(world)
    assert sent(world.advance(49)) == []
    assert len(sent(world.advance(1))) == 1
    assert sent(world.advance(5)) == []
    assert world.count("refresh_requests") == 2


def test_a_refresh_request_never_comes_before_half_the_lifetime() -> None:
    node = MobileNode()
    world = World(node, refresh_request=100)
    node.register(world)
    assert sent(world.advance(29.9)) == []
    # The SA is for BU and BA only: what it does not select goes as it is.
    assert node.open(only_packet(world.advance(0.1))).spi is None
