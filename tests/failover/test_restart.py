"""Members that come back ask for what they lack, and get that only."""

from __future__ import annotations

from random import Random

import pytest

from mip6ha.failover.digest import BUCKETS, bucket
from mip6ha.harp.messages import Hello, StateReply, StateRequest

from ..node.world import CARE_OF_1, CARE_OF_2
from .world import World, mobile_node


def entries(world: World, source: int) -> list[bytes]:
    """The home addresses whose state a member sent."""
    return [entry.home_address for reply in world.messages(StateReply, source) for entry in reply.entries]


def test_a_restarted_member_gets_everything() -> None:
    world = World(*(mobile_node(index) for index in range(50))).registered()
    world.kill(2)
    world.run(0.1)
    world.said.clear()
    world.start(2)
    world.settle()
    assert sorted(entries(world, 1)) == [node.home_address for node in world.nodes]
    world.same_everywhere()


def test_a_member_that_was_away_gets_what_differs() -> None:
    world = World(*(mobile_node(index) for index in range(50))).registered()
    away = world.members.pop(2)
    world.run(0.2)
    changed = world.nodes[7]
    world.register(changed, CARE_OF_2)
    world.members[2] = away
    world.said.clear()
    world.settle()
    world.run(0.1)
    requests = world.messages(StateRequest, 2)
    assert requests
    assert all(len(each.digest) == 4 * BUCKETS and not each.home_addresses for each in requests)
    sent = set(entries(world, 1))
    assert changed.home_address in sent
    assert {bucket(each) for each in sent} == {bucket(changed.home_address)}
    # The active member asks too, and has something newer already.
    assert set(entries(world, 2)) <= {changed.home_address}
    world.same_everywhere()


def test_with_nothing_changed_nothing_is_sent() -> None:
    world = World(*(mobile_node(index) for index in range(10))).registered()
    away = world.members.pop(2)
    world.run(0.2)
    world.members[2] = away
    world.said.clear()
    world.settle()
    assert entries(world, 1) == entries(world, 2) == []
    world.same_everywhere()


def test_changes_go_on_while_a_member_comes_back() -> None:
    world = World(*(mobile_node(index) for index in range(60)), delay=0.003).registered()
    world.kill(2)
    world.run(0.1)
    world.start(2)
    for step in range(150):
        world.receive(world.nodes[step % 60].update((CARE_OF_1, CARE_OF_2)[step % 2]))
        world.run(0.002)
        if world.is_settled():
            break
    assert world.is_settled()
    world.run(0.2)
    world.same_everywhere()


@pytest.mark.parametrize("kind", [StateRequest, StateReply])
def test_requests_and_answers_that_are_lost_are_repeated(kind: type) -> None:
    world = World(*(mobile_node(index) for index in range(30))).registered()
    world.kill(2)
    world.run(0.1)
    random = Random(1)
    world.lose = lambda said: type(said.message) is kind and random.random() < 0.5
    world.start(2)
    world.settle()
    world.same_everywhere()


def test_a_request_again_is_answered_once() -> None:
    world = World(*(mobile_node(index) for index in range(30))).registered()
    world.kill(2)
    world.run(0.1)
    world.start(2)
    world.until(lambda: world.messages(StateRequest, 2)[-1:] and world.now)
    request = world.messages(StateRequest, 2)[-1]
    world.run(0.002)
    world.said.clear()
    for _ in range(5):
        world.receive_member(2, 1, world.forge(2, 1, request))
    world.settle()
    assert len(entries(world, 1)) <= 30


def test_a_member_killed_during_resynchronisation_starts_again() -> None:
    world = World(*(mobile_node(index) for index in range(60))).registered()
    for moment in range(1, 8):
        world.kill(2)
        world.run(0.05)
        world.start(2)
        world.run(0.002 * moment)
    world.settle()
    world.same_everywhere()
    assert world.active == 1


def test_the_active_member_killed_while_another_one_resynchronises() -> None:
    world = World(*(mobile_node(index) for index in range(60)), members=3).registered()
    world.kill(3)
    world.run(0.1)
    world.start(3)
    world.until(lambda: world.messages(StateRequest, 3))
    world.run(0.002)
    world.kill(1)
    world.settle()
    assert world.active == 2
    world.same_everywhere()
    assert set(world.planes[2].tunnels.values()) == {CARE_OF_1}


def test_each_member_restarted_in_turn_loses_nothing() -> None:
    world = World(*(mobile_node(index) for index in range(5)), members=3).registered()
    for identity in (1, 2, 3, 1):
        world.stop(identity)
        world.until(lambda: world.serving)
        for node in world.nodes:
            assert world.register(node, CARE_OF_2).status == 0
        world.start(identity)
        world.settle()
        world.same_everywhere()


def test_a_member_is_counted_in_only_after_its_first_hello() -> None:
    world = World(mobile_node()).registered()
    world.kill(2)
    world.run(0.1)
    world.lose = lambda said: type(said.message) is Hello and said.source == 2
    member = world.start(2)
    world.receive_member(2, 1, world.forge(2, 1, StateRequest(7)))
    world.run(0.1)
    assert member.machine.term == 0x101
    assert world.members[1].counters["harp_request_of_absent_member"] == 1
    assert world.members[1].replication.alone
