"""What a mobile node is told waits until whoever may take over knows it."""

from __future__ import annotations

import pytest

from mip6ha.binding.cache import State
from mip6ha.effects import ReserveSequences, SendPacket, SetTunnel
from mip6ha.harp.messages import StateAcknowledge, StateReply
from mip6ha.harp.sync import Progress
from mip6ha.ipsec.policy import Use

from ..node.world import CARE_OF_1, CARE_OF_2, CORRESPONDENT, echo
from .world import Said, World, mobile_node


def test_the_answer_leaves_after_the_standby_has_the_binding() -> None:
    world = World(mobile_node()).registered()
    node = world.nodes[0]
    answers = len(world.answers)
    begin = world.now
    world.receive(node.update(CARE_OF_2))
    # Nothing of it has happened yet, on either side.
    assert len(world.answers) == answers
    assert world.planes[1].tunnels == {node.home_address: CARE_OF_1}
    assert world.members[1].replication.holding == 1
    world.run(world.delay + 1e-6)
    assert world.planes[2].tunnels == {node.home_address: CARE_OF_2}
    assert len(world.answers) == answers
    world.run(world.delay + 1e-6)
    assert len(world.answers) == answers + 1
    assert world.answers[-1].time == pytest.approx(begin + 2 * world.delay)
    assert world.planes[1].tunnels == {node.home_address: CARE_OF_2}
    world.same_everywhere()


def test_it_waits_for_every_standby() -> None:
    world = World(mobile_node(), members=3).registered()
    world.late = lambda said: 0.004 if said.source == 3 and type(said.message) is StateAcknowledge else 0.0
    begin = world.now
    world.register(world.nodes[0])
    assert world.now == pytest.approx(begin + 2 * world.delay + 0.004)


def test_reservations_do_not_wait() -> None:
    world = World(mobile_node()).registered()
    member = world.members[1]
    member.associations._reserved = 0
    effects = []
    for _ in range(200):
        effects = member.receive(world.nodes[0].update(), world.now)
        if effects:
            break
    assert [type(each) for each in effects] == [ReserveSequences]


@pytest.mark.parametrize("kind", [StateReply, StateAcknowledge])
def test_a_lost_message_delays_the_answer_and_loses_nothing(kind: type) -> None:
    world = World(mobile_node()).registered()
    lost: list[Said] = []

    def lose(said: Said) -> bool:
        if type(said.message) is kind and not lost:
            lost.append(said)
            return True
        return False

    world.lose = lose
    begin = world.now
    assert world.register(world.nodes[0], CARE_OF_2).status == 0
    retransmission = world.groups[1].retransmission
    assert world.now - begin == pytest.approx(retransmission + 2 * world.delay, abs=1e-4)
    world.same_everywhere()


def test_a_way_longer_than_the_retransmission_timer_costs_one_round_trip() -> None:
    world = World(mobile_node(), delay=0.2, hello_interval=0.1, start_wait=1.0).settle()
    begin = world.now
    assert world.register(world.nodes[0]).status == 0
    assert world.now - begin == pytest.approx(0.4)
    assert world.members[1].counters["standby_stalled"] == 0


def test_when_the_standby_fails_the_answer_leaves() -> None:
    world = World(mobile_node()).registered()
    world.kill(2)
    begin = world.now
    assert world.register(world.nodes[0], CARE_OF_2).status == 0
    assert world.now - begin < 0.05
    assert world.members[1].status(world.now)["degraded"] is True


def test_degraded_is_visible_and_counted() -> None:
    world = World(mobile_node()).registered()
    member = world.members[1]
    assert member.status(world.now)["degraded"] is False
    assert member.counters["commits_alone"] == 0
    world.kill(2)
    world.run(0.1)
    assert member.status(world.now)["degraded"] is True
    answers = len(world.answers)
    world.receive(world.nodes[0].update())
    assert len(world.answers) == answers + 1
    assert member.counters["commits_alone"] == 1


def test_a_standby_that_hears_but_acknowledges_nothing_is_given_up_after_a_second() -> None:
    world = World(mobile_node()).registered()
    world.lose = lambda said: type(said.message) is StateAcknowledge
    begin = world.now
    world.register(world.nodes[0], CARE_OF_2)
    member = world.members[1]
    assert 1.0 <= world.now - begin < 1.1
    assert member.counters["standby_stalled"] == 1
    assert member.replication.peers[2].progress is Progress.SYNCHRONIZING
    assert member.status(world.now)["degraded"] is True
    answers = len(world.answers)
    world.receive(world.nodes[0].update())
    assert len(world.answers) == answers + 1
    # It must not claim before others: it is not told that it has all.
    world.run(0.1)
    assert not world.members[2].machine.eligible
    world.lose = lambda said: False
    world.settle()
    world.same_everywhere()


def test_without_synchronous_nobody_waits() -> None:
    world = World(mobile_node(), synchronous=False).registered()
    answers = len(world.answers)
    world.receive(world.nodes[0].update(CARE_OF_2))
    assert len(world.answers) == answers + 1
    assert world.members[2].home_agent.cache.get(world.nodes[0].home_address).care_of_address == CARE_OF_1  # type: ignore[union-attr]
    world.run(0.1)
    world.same_everywhere()


def test_many_at_once_share_messages() -> None:
    world = World(*(mobile_node(index) for index in range(40))).registered()
    world.said.clear()
    for node in world.nodes:
        member = world.members[1]
        world.carry_out(1, member.receive(node.update(CARE_OF_2), world.now))
    world.flush(1)
    world.run(0.05)
    replies = world.messages(StateReply, 1)
    assert sum(len(each.entries) for each in replies) == 40
    assert len(replies) <= 12
    world.same_everywhere()


def test_refusals_wait_too_for_they_move_the_window() -> None:
    world = World(mobile_node()).registered()
    node = world.nodes[0]
    answers = len(world.answers)
    world.receive(node.update(CARE_OF_2, 1))
    assert len(world.answers) == answers
    world.run(0.05)
    assert node.open(world.answers[-1].packet).message.status == 135
    world.same_everywhere()


def test_a_flood_is_refused_before_memory_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mip6ha.commits._MOST_HELD", 10)
    world = World(mobile_node()).registered()
    node, member = world.nodes[0], world.members[1]
    world.lose = lambda said: type(said.message) is StateAcknowledge
    for _ in range(30):
        world.receive(node.update())
    assert member.replication.holding == 11
    assert member.counters["standby_too_slow"] == 19
    world.lose = lambda said: False
    world.run(0.5)
    assert member.home_agent.frozen == ""
    assert world.register(node).status == 0
    world.same_everywhere()


def test_payload_does_not_wait_for_anybody() -> None:
    world = World(mobile_node()).registered()
    node = world.nodes[0]
    world.lose = lambda said: type(said.message) is StateAcknowledge
    world.receive(node.update())
    answers = len(world.answers)
    world.receive(echo(CORRESPONDENT, node.home_address))
    world.receive(node.tunnel(echo(node.home_address, CORRESPONDENT)))
    assert len(world.answers) == answers + 2


def test_a_binding_that_ends_by_itself_ends_everywhere() -> None:
    world = World(mobile_node()).registered()
    world.register(world.nodes[0], lifetime=1)
    world.run(4.5)
    assert world.planes[1].tunnels == {}
    world.kill(1)
    world.run(0.2)
    assert world.planes[2].tunnels == {}
    assert world.members[2].counters["expiries"] == 1


def test_duplicate_address_detection_is_the_active_member_s() -> None:
    world = World(mobile_node(), agent={"duplicate_address_detection": True}).settle()
    node = world.nodes[0]
    world.receive(node.update())
    # The standby has to know the replay window first.
    assert not world.planes[1].probed
    world.run(0.01)
    assert world.planes[1].probed == {node.home_address}
    world.run(0.5)
    assert world.answers == []
    world.run(0.6)
    assert node.open(world.answers[-1].packet).message.status == 0
    world.same_everywhere()
    binding = world.members[2].home_agent.cache.get(node.home_address)
    assert binding is not None
    assert binding.state is State.BOUND


def test_a_conflict_is_answered_after_the_standby_knows() -> None:
    world = World(mobile_node(), agent={"duplicate_address_detection": True}).settle()
    node = world.nodes[0]
    world.receive(node.update())
    member = world.members[1]
    found = member.address_conflict(node.home_address, world.now)
    assert not any(isinstance(each, SendPacket | SetTunnel) for each in found)
    world.carry_out(1, found)
    world.flush(1)
    world.run(0.05)
    assert node.open(world.answers[-1].packet).message.status == 134
    assert world.members[2].address_conflict(node.home_address, world.now) == []


def test_a_deregistration_is_known_before_it_is_answered() -> None:
    world = World(mobile_node()).registered()
    node = world.nodes[0]
    world.receive(node.home())
    world.run(0.05)
    assert node.open(world.answers[-1].packet).message.status == 0
    for plane in world.planes.values():
        assert plane.tunnels == {}
    world.same_everywhere()


def test_a_member_whose_keys_are_used_up_counts_it_and_lives() -> None:
    world = World(mobile_node()).registered()
    member = world.members[1]
    for each in member.channel.associations.database:
        if each.window is None:
            each.sequence = each.limit = (1 << 32) - 1
    world.run(0.2)
    assert member.counters["harp_sequence_exhausted"] > 0
    # Nobody hears it any more, so that another one serves.
    assert 2 in world.serving


@pytest.mark.parametrize("use", [Use.PAYLOAD])
def test_outbound_payload_starts_when_its_block_is_known(use: Use) -> None:
    world = World(mobile_node(0, Use.SIGNALLING, use)).registered()
    node = world.nodes[0]
    inner = echo(CORRESPONDENT, node.home_address)
    answers = len(world.answers)
    world.receive(inner)
    assert len(world.answers) == answers
    world.run(0.05)
    for _ in range(100):
        world.receive(inner)
    assert len(world.answers) == answers + 100
    assert node.inner(world.answers[-1].packet)[40:] == inner[40:]
