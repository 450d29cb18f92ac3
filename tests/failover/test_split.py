"""A set that is cut in two and heals: one active, nothing acknowledged lost, nothing used or taken twice."""

from __future__ import annotations

import pytest

from mip6ha.failover.states import Role
from mip6ha.harp.messages import StateReply, StateRequest
from mip6ha.ipsec.policy import Use

from ..node.world import CARE_OF_1, CARE_OF_2, CORRESPONDENT, echo
from .world import Said, World, mobile_node, spi_and_number

_PAYLOAD = (Use.SIGNALLING, Use.PAYLOAD)


def cut(world: World) -> World:
    """Both sides serve."""
    world.split(1)
    world.run(0.2)
    assert world.serving == [1, 2]
    return world


def healed(world: World) -> World:
    world.cut.clear()
    world.run(0.05)
    world.settle()
    world.run(0.1)
    world.same_everywhere()
    return world


def answered(world: World, identity: int, packet: bytes) -> int:
    """The status of the answer to ``packet`` from one side."""
    before = len(world.answers)
    world.receive(packet, identity)
    world.run(0.05)
    (answer,) = world.answers[before:]
    assert answer.member == identity
    (node,) = (each for each in world.nodes if spi_and_number(answer.packet)[0] in each.inbound)
    status = node.open(answer.packet).message.status
    assert isinstance(status, int)
    return status


def test_after_healing_one_is_active_the_one_of_the_higher_term() -> None:
    world = cut(World(mobile_node()).registered())
    world.cut.clear()
    world.run(0.05)
    assert world.serving == [2]
    assert world.members[1].machine.role is Role.STANDBY
    assert world.members[1].machine.term == world.members[2].machine.term == 0x202
    (notice,) = world.names("higher_term")
    assert notice.member == 1
    assert not world.planes[1].owns


def test_what_was_probed_before_a_split_and_accepted_after_it_is_handed_over() -> None:
    world = World(mobile_node(), agent={"duplicate_address_detection": True}).settle()
    node = world.nodes[0]
    world.receive(node.update())
    world.run(0.5)
    cut(world)
    world.run(1.0)
    assert node.open(world.answers[-1].packet).message.status == 0
    healed(world)
    (active,) = world.serving
    binding = world.members[active].home_agent.cache.get(node.home_address)
    assert binding is not None
    assert binding.is_bound


def test_what_one_side_accepted_outlives_the_answer_of_a_standby_of_the_other() -> None:
    world = World(mobile_node(), members=3).registered()
    node = world.nodes[0]
    cut(world)
    assert answered(world, 1, node.update(CARE_OF_2)) == 0
    # Asked while this one was active, answered under the term of another one.
    record = world.members[3].contexts.record(node.home_address)
    assert record is not None
    before = world.contexts(1)
    answer = StateReply(7, True, (record[0],), world.members[3].machine.term)
    world.receive_member(3, 1, world.forge(3, 1, answer))
    assert world.members[1].machine.role is Role.STANDBY
    assert world.members[1].counters["harp_unasked_state"] == 1
    assert world.contexts(1) == before
    healed(world)
    assert world.serving == [2]
    binding = world.members[2].home_agent.cache.get(node.home_address)
    assert binding is not None
    assert binding.care_of_address == CARE_OF_2


def test_each_side_hands_over_what_it_accepted() -> None:
    world = cut(World(mobile_node(0), mobile_node(1), mobile_node(2)).registered())
    old, new, both = world.nodes
    assert answered(world, 1, old.update(CARE_OF_2)) == 0
    assert answered(world, 2, new.update(CARE_OF_2)) == 0
    assert answered(world, 2, both.update(CARE_OF_1)) == 0
    assert answered(world, 1, both.update(CARE_OF_2)) == 0
    healed(world)
    assert world.planes[2].tunnels == dict.fromkeys((each.home_address for each in world.nodes), CARE_OF_2)
    for node in world.nodes:
        assert world.register(node, CARE_OF_2).status == 0


def test_the_later_update_wins_wherever_it_came_from() -> None:
    world = cut(World(mobile_node()).registered())
    (node,) = world.nodes
    assert answered(world, 1, node.update(CARE_OF_1)) == 0
    assert answered(world, 2, node.update(CARE_OF_2)) == 0
    healed(world)
    assert world.planes[2].tunnels == {node.home_address: CARE_OF_2}


@pytest.mark.parametrize("phase", range(12))
def test_nothing_is_lost_whoever_asks_first(phase: int) -> None:
    """The old active member may learn the new one's generations before it has handed over its own."""
    world = cut(World(mobile_node()).registered())
    (node,) = world.nodes
    world.run(phase * 0.0009)
    assert answered(world, 2, node.update(CARE_OF_1)) == 0
    assert answered(world, 1, node.update(CARE_OF_2)) == 0
    until = world.now + 0.03 if phase % 2 else 0.0
    world.lose = lambda said: type(said.message) is StateRequest and said.source == 2 and said.time < until
    healed(world)
    assert world.planes[2].tunnels == {node.home_address: CARE_OF_2}


def test_an_active_member_that_dies_before_it_has_heard_replaces_nothing() -> None:
    world = World(mobile_node(), members=3).registered()
    (node,) = world.nodes
    world.split(1)
    world.run(0.2)
    assert answered(world, 2, node.update(CARE_OF_1)) == 0
    assert answered(world, 1, node.update(CARE_OF_2)) == 0
    world.lose = lambda said: type(said.message) is StateReply and said.source == 1
    world.cut.clear()
    world.run(0.04)
    assert world.serving == [2]
    world.kill(2)
    world.lose = lambda said: False
    world.run(2.0)
    world.settle()
    world.run(0.1)
    assert world.planes[world.active].tunnels == {node.home_address: CARE_OF_2}
    world.same_everywhere()


@pytest.mark.parametrize("lost", range(4))
def test_messages_that_are_lost_while_handing_over_are_sent_again(lost: int) -> None:
    world = cut(World(*(mobile_node(index) for index in range(40))).registered())
    for node in world.nodes:
        world.receive(node.update(CARE_OF_2), 1)
    count = 0

    def lose(said: Said) -> bool:
        nonlocal count
        if said.source != 1 or type(said.message) is not StateReply:
            return False
        count += 1
        return count - 1 == lost

    world.lose = lose
    healed(world)
    assert count > lost
    assert set(world.planes[2].tunnels.values()) == {CARE_OF_2}
    assert world.members[2].counters["contexts_merged"] == 40


def test_the_side_that_stands_down_sends_no_answer_that_still_waits() -> None:
    world = World(mobile_node(), members=3).registered()
    (node,) = world.nodes
    # Member 1 hears 3 but nobody hears it.
    world.cut = {(1, 2), (1, 3)}
    world.receive(node.update(CARE_OF_2), 1)
    answers = len(world.answers)
    announced = len(world.planes[1].announced)
    world.run(0.2)
    assert 1 not in world.serving
    assert len(world.answers) == answers
    assert len(world.planes[1].announced) == announced
    world.cut.clear()
    healed(world)
    # What was not acknowledged may be there or not; what is there is the same everywhere.
    assert world.register(node).status == 0


def test_numbers_and_nonces_of_both_sides_differ() -> None:
    world = cut(World(mobile_node(0, *_PAYLOAD)).registered())
    (node,) = world.nodes
    inner = echo(CORRESPONDENT, node.home_address)
    # ``World.carry_out`` asserts that none is used twice.
    for _ in range(200):
        world.receive(inner, 1)
        world.receive(inner, 2)
    assert len({member for _, member, _ in world.answers[-400:]}) == 2
    healed(world)
    for _ in range(200):
        world.receive(inner)
        world.run(0.001)


def test_updates_of_one_side_are_replays_after_healing() -> None:
    world = cut(World(mobile_node()).registered())
    (node,) = world.nodes
    packets = [node.update(CARE_OF_2) for _ in range(5)]
    for packet in packets:
        assert answered(world, 1, packet) == 0
    healed(world)
    for packet in packets:
        world.receive(packet)
    assert world.members[2].counters["replayed"] == 5


@pytest.mark.parametrize("touched", [False, True])
def test_payload_of_one_side_is_a_replay_after_healing(touched: bool) -> None:
    node = mobile_node(0, *_PAYLOAD)
    world = World(node).registered()
    inner = echo(node.home_address, CORRESPONDENT)
    for _ in range(10):
        world.receive(node.tunnel(inner, use=Use.PAYLOAD))
        world.run(0.01)
    cut(world)
    packets = [node.tunnel(inner, use=Use.PAYLOAD) for _ in range(500)]
    for packet in packets:
        world.receive(packet, 1)
    if touched:
        # The other side has changed the same context.
        assert answered(world, 2, node.update(CARE_OF_1)) == 0
    healed(world)
    answers = len(world.answers)
    for packet in packets:
        world.receive(packet)
        world.run(0.001)
    assert len(world.answers) == answers
    for _ in range(120):
        world.receive(node.tunnel(inner, use=Use.PAYLOAD))
        world.run(0.004)
    assert len(world.answers) - answers >= 120 - 96


def test_a_cut_in_one_direction_ends_with_one_active_member() -> None:
    world = World(mobile_node()).registered()
    world.cut = {(1, 2)}
    world.run(0.5)
    assert world.serving == [2]
    healed(world)
    world.cut = {(1, 2)}
    world.run(0.5)
    assert world.serving == [2]


def test_of_three_the_two_that_hear_each_other_go_on() -> None:
    world = World(mobile_node(0), mobile_node(1), members=3).registered()
    world.split(1)
    world.run(0.3)
    assert sorted(world.serving) == [1, 2]
    world.receive(world.nodes[0].update(CARE_OF_2), 2)
    world.run(0.05)
    assert world.planes[3].tunnels[world.nodes[0].home_address] == CARE_OF_2
    assert world.members[2].status(world.now)["degraded"] is False
    assert world.members[1].status(world.now)["degraded"] is True
    healed(world)
