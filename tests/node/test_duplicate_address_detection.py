"""Duplicate address detection as a timeline (RFC 6275 10.3.1): a state with a deadline, not a wait."""

from __future__ import annotations

from typing import Any

import pytest

from mip6ha.binding.messages import Status
from mip6ha.effects import (
    AnnounceAddress,
    DefendAddress,
    EndProbe,
    ProbeAddress,
    ReleaseAddress,
    RemoveTunnel,
    SendPacket,
    SetTunnel,
)
from mip6ha.wire import address

from .world import CARE_OF_1, CARE_OF_2, CORRESPONDENT, A, H, L, MobileNode, World, dataplane, echo, sent

LINK_LOCAL = address("fe80::100")
HOME = address("2001:db8:a::100")


def world_of(node: MobileNode, **settings: Any) -> World:
    return World(node, duplicate_address_detection=True, **settings)


def test_probe_then_a_second_later_everything_at_once_in_order() -> None:
    node = MobileNode()
    world = world_of(node)
    assert world.receive(node.update()) == [ProbeAddress(HOME)]
    assert world.advance(0.999) == []
    found = world.advance(0.001)
    assert found[:-1] == [
        EndProbe(HOME),
        SetTunnel(HOME, CARE_OF_1),
        DefendAddress(HOME),
        AnnounceAddress(HOME),
    ]
    assert type(found[-1]) is SendPacket
    assert node.acknowledged(found) == (Status.ACCEPTED, 0, 1, 15, ())


def test_retransmissions_while_it_runs_get_one_answer_with_the_latest_sequence_and_address() -> None:
    node = MobileNode()
    world = world_of(node)
    world.receive(node.update(CARE_OF_1))
    world.advance(0.5)
    assert world.receive(node.update(CARE_OF_1)) == []
    assert world.receive(node.update(CARE_OF_2, lifetime=10)) == []
    found = world.advance(0.5)
    assert SetTunnel(HOME, CARE_OF_2) in found
    assert node.open(sent(found)[0]).packet.destination == CARE_OF_2
    assert len(sent(found)) == 1
    world = world_of(node := MobileNode())
    world.receive(node.update())
    world.receive(node.update(lifetime=10))
    assert node.acknowledged(world.advance(1)) == (Status.ACCEPTED, 0, 2, 10, ())


def test_an_old_sequence_while_it_runs_is_refused_and_changes_nothing() -> None:
    node = MobileNode()
    world = world_of(node)
    world.receive(node.update(sequence=9))
    refused = node.acknowledged(world.receive(node.update(CARE_OF_2, 9)))
    assert (refused.status, refused.sequence) == (135, 9)
    assert SetTunnel(HOME, CARE_OF_1) in world.advance(1)


def test_the_lifetime_counts_from_the_answer() -> None:
    node = MobileNode()
    world = world_of(node)
    node.register(world, lifetime=1)
    world.advance(3.9)
    assert world.plane.tunnels
    world.advance(0.1)
    assert not world.plane.tunnels


def test_nothing_is_forwarded_before_the_answer() -> None:
    node = MobileNode()
    world = world_of(node)
    world.receive(node.update())
    world.drops(echo(CORRESPONDENT, HOME), "no_binding")
    world.drops(node.tunnel(echo(HOME, CORRESPONDENT)), "reverse_tunnel_without_binding")


@pytest.mark.parametrize("flags", [A | H, A | H | L])
def test_a_conflict_is_status_134_with_the_latest_sequence(flags: int) -> None:
    node = MobileNode()
    world = world_of(node)
    world.receive(node.update(flags=flags))
    world.receive(node.update(CARE_OF_2, flags=flags))
    found = world.conflict(HOME)
    ended = [EndProbe(HOME), EndProbe(LINK_LOCAL)] if flags & L else [EndProbe(HOME)]
    assert dataplane(found) == ended
    answer = node.open(sent(found)[0])
    assert answer.message == (Status.DUPLICATE_ADDRESS_DETECTION_FAILED, 0, 2, 0, ())
    assert (answer.packet.destination, answer.packet.routing) == (CARE_OF_2, HOME)
    assert world.count("refused_134") == 1
    assert world.advance(100) == []
    assert world.receive(node.update()) == [ProbeAddress(HOME)]  # it may try again


def test_with_l_both_addresses_are_probed_and_either_may_conflict() -> None:
    node = MobileNode()
    world = world_of(node)
    assert world.receive(node.update(flags=A | H | L)) == [ProbeAddress(HOME), ProbeAddress(LINK_LOCAL)]
    # A retransmission without L does not change what is being probed.
    assert world.receive(node.update(flags=A | H)) == []
    assert node.acknowledged(world.conflict(LINK_LOCAL)).status == 134
    node.register(world, flags=A | H | L)
    assert {HOME, LINK_LOCAL} <= world.plane.defended


def test_a_conflict_that_comes_too_late_or_concerns_nobody_is_nothing() -> None:
    node = MobileNode()
    world = world_of(node)
    assert world.conflict(HOME) == []
    node.register(world)
    assert world.conflict(HOME) == []
    assert world.conflict(CORRESPONDENT) == []


def test_an_address_already_defended_is_not_probed_again() -> None:
    node = MobileNode()
    world = world_of(node)
    node.register(world)
    for source in (CARE_OF_1, CARE_OF_2):
        found = world.receive(node.update(source))
        assert not any(isinstance(effect, ProbeAddress) for effect in found)
        assert node.acknowledged(found).status == 0


def test_after_a_deregistration_it_is_probed_again() -> None:
    node = MobileNode()
    world = world_of(node)
    node.register(world)
    world.receive(node.home())
    assert world.receive(node.update()) == [ProbeAddress(HOME)]


def test_a_deregistration_ends_it() -> None:
    node = MobileNode()
    world = world_of(node)
    world.receive(node.update())
    found = world.receive(node.home())
    assert dataplane(found) == [EndProbe(HOME)]
    assert node.acknowledged(found) == (Status.ACCEPTED, 0, 2, 0, ())
    assert world.advance(5) == []


def test_probing_registrations_count_against_the_limit() -> None:
    first, second = MobileNode("2001:db8:a::100"), MobileNode("2001:db8:a::101", spi=0x3000)
    world = World(first, second, duplicate_address_detection=True, max_bindings=1)
    world.receive(first.update())
    assert second.acknowledged(world.receive(second.update())).status == Status.INSUFFICIENT_RESOURCES


def test_many_at_once_each_with_its_own_deadline() -> None:
    nodes = [MobileNode(f"2001:db8:a::1:{n:x}", spi=0x3000 + 4 * n) for n in range(20)]
    world = World(*nodes, duplicate_address_detection=True)
    for node in nodes:
        world.receive(node.update())
        world.advance(0.01)
    found = world.advance(1)
    assert [effect.home_address for effect in found if isinstance(effect, SetTunnel)] == [
        node.home_address for node in nodes
    ]


def test_stop_while_it_runs_leaves_no_probe() -> None:
    node = MobileNode()
    world = world_of(node)
    world.receive(node.update())
    assert world.carry_out(world.agent.stop(world.now))[0] == EndProbe(HOME)
    assert (world.plane.probed, world.plane.defended) == (set(), set())


def test_stop_releases_what_is_bound() -> None:
    node = MobileNode()
    world = world_of(node)
    node.register(world)
    assert world.carry_out(world.agent.stop(world.now))[:2] == [RemoveTunnel(HOME), ReleaseAddress(HOME)]
    assert world.plane.defended == set()
