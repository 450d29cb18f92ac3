"""Planned switches: there and back, every refusal, what is lost under way, hold-down, pre-emption."""

from __future__ import annotations

import pytest

from mip6ha.failover.states import Role
from mip6ha.harp.messages import Control, ControlStatus, ControlType, StateAcknowledge

from ..node.world import CARE_OF_2, CORRESPONDENT, echo
from .world import World, mobile_node


def controls(world: World) -> list[tuple[int, int, int]]:
    """(sender, type, status) of every switch message, in order."""
    return [
        (each.source, each.message.type, each.message.status)
        for each in world.said
        if isinstance(each.message, Control)
    ]


def ready(members: int = 2, **settings: float | bool) -> World:
    """A set in which switches are allowed."""
    world = World(mobile_node(0), mobile_node(1), members=members, hold_down=0.01, **settings)  # type: ignore[arg-type]
    return world.registered()


def over(world: World, identity: int) -> str:
    why, effects = world.members[identity].switchover(world.now)
    world.carry_out(identity, effects)
    world.flush(identity)
    return why


def back(world: World, identity: int, to: int | None = None) -> str:
    why, effects = world.members[identity].switchback(world.now, to)
    world.carry_out(identity, effects)
    world.flush(identity)
    return why


def test_there_and_back() -> None:
    world = ready()
    assert over(world, 2) == ""
    assert world.until(lambda: world.serving == [2]) <= 3 * world.delay + 1e-6
    world.settle()
    world.same_everywhere()
    assert world.register(world.nodes[0], CARE_OF_2).status == 0
    world.run(0.1)
    assert back(world, 2) == ""
    world.until(lambda: world.serving == [1])
    world.settle()
    world.same_everywhere()
    assert world.register(world.nodes[0]).status == 0
    assert controls(world) == [
        (2, ControlType.SWO_REQ, 0),
        (1, ControlType.SWO_REP, 0),
        (2, ControlType.SW_COMP, 0),
        (2, ControlType.SWB_REQ, 0),
        (1, ControlType.SWB_REP, 0),
        (1, ControlType.SW_COMP, 0),
    ]
    assert [each.name for each in world.notices if each.name.startswith("switch")] == [
        "switch_begins",
        "switch_complete",
    ] * 2


def test_no_packet_is_lost_and_somebody_serves_all_the_time() -> None:
    world = ready()
    node = world.nodes[0]
    over(world, 2)
    lost = 0
    for _ in range(100):
        assert world.serving
        before = len(world.answers)
        # The member that last announced the address has the traffic.
        world.receive(echo(CORRESPONDENT, node.home_address), max(world.serving))
        lost += len(world.answers) == before
        world.run(0.0002)
    assert lost == 0
    assert world.serving == [2]


def test_while_it_yields_a_member_takes_no_registrations() -> None:
    world = ready()
    world.lose = lambda said: isinstance(said.message, Control) and said.source == 1
    over(world, 2)
    world.run(0.005)
    member = world.members[1]
    assert member.machine.role is Role.YIELDING
    node = world.nodes[0]
    before = world.contexts(1)
    answers = len(world.answers)
    world.receive(node.update(CARE_OF_2), 1)
    assert member.counters["yielding"] == 1
    assert world.contexts(1) == before
    world.receive(echo(CORRESPONDENT, node.home_address), 1)
    assert len(world.answers) == answers + 1


def test_while_it_yields_a_member_says_nothing_to_the_home_link() -> None:
    nodes = [mobile_node(index) for index in range(30)]
    world = World(*nodes, announcements_per_second=100, hold_down=0.01).registered()
    world.kill(1)
    world.until(lambda: world.serving == [2])
    world.start(1)
    world.until(lambda: world.members[1].machine.eligible)
    world.lose = lambda said: isinstance(said.message, Control) and said.source == 2
    plane = world.planes[2]
    plane.announced.clear()
    assert over(world, 1) == ""
    world.run(0.9)
    assert world.members[2].machine.role is Role.YIELDING
    # The successor may have been heard there already, and neighbours believe whoever speaks last.
    assert not plane.announced
    world.run(1.0)
    # Nothing came of it: it goes on where it was.
    assert world.serving == [2]
    assert len(set(plane.announced)) > 10


def test_the_other_claims_only_when_it_has_acknowledged_all() -> None:
    world = ready()
    world.lose = lambda said: isinstance(said.message, StateAcknowledge)
    world.receive(world.nodes[0].update(CARE_OF_2))
    answers = len(world.answers)
    over(world, 2)
    world.run(0.1)
    assert world.serving == [1]
    assert (1, ControlType.SWO_REP, 0) not in controls(world)
    world.lose = lambda said: False
    world.until(lambda: world.serving == [2])
    assert len(world.answers) == answers + 1
    world.settle()
    world.same_everywhere()


def test_a_lost_reply_ends_the_switch_and_nothing_else() -> None:
    world = ready()
    world.lose = lambda said: isinstance(said.message, Control) and said.source == 1
    over(world, 2)
    world.run(0.9)
    assert world.members[1].home_agent.frozen == "yielding"
    world.run(0.2)
    assert world.members[1].machine.role is Role.ACTIVE
    (notice,) = world.names("switch_failed")
    assert notice.fields["reason"] == "no answer"
    assert world.register(world.nodes[0]).status == 0
    assert world.members[1].machine.term == 0x101


def test_asked_again_it_answers_again() -> None:
    world = ready()
    world.lose = lambda said: isinstance(said.message, Control) and said.source == 1
    over(world, 2)
    world.run(0.1)
    world.lose = lambda said: False
    assert over(world, 2) == ""
    world.until(lambda: world.serving == [2])


def test_a_lost_request_leaves_everything_as_it_is() -> None:
    world = ready()
    world.lose = lambda said: isinstance(said.message, Control)
    over(world, 2)
    world.run(2.0)
    assert world.serving == [1]
    assert world.members[1].machine.role is Role.ACTIVE


def test_a_lost_completion_is_not_missed() -> None:
    world = ready()
    world.lose = lambda said: isinstance(said.message, Control) and said.message.type == ControlType.SW_COMP
    over(world, 2)
    world.until(lambda: world.serving == [2])
    world.settle()
    world.same_everywhere()


def test_a_lost_offer_times_out() -> None:
    world = ready()
    world.lose = lambda said: isinstance(said.message, Control)
    assert back(world, 1) == ""
    world.run(1.1)
    assert world.members[1].machine.role is Role.ACTIVE
    assert world.register(world.nodes[0]).status == 0


def test_the_successor_dies() -> None:
    world = ready()
    assert back(world, 1) == ""
    world.kill(2)
    world.run(1.2)
    assert world.members[1].machine.role is Role.ACTIVE
    assert world.register(world.nodes[0]).status == 0


def test_the_one_that_yields_dies() -> None:
    world = ready()
    world.lose = lambda said: isinstance(said.message, Control)
    back(world, 1)
    world.kill(1)
    world.until(lambda: world.serving == [2])
    world.lose = lambda said: False
    assert world.register(world.nodes[0]).status == 0


# -- refusals --------------------------------------------------------------------------------------


def asked(world: World, source: int, destination: int, term: int | None = 0x101) -> list[int]:
    """Statuses of the answers to an SWO-REQ."""
    world.said.clear()
    request = Control(ControlType.SWO_REQ, term=term)
    world.receive_member(source, destination, world.forge(source, destination, request))
    return [status for _, kind, status in controls(world) if kind == ControlType.SWO_REP]


def test_129_while_changes_are_held_down() -> None:
    world = World(mobile_node(), hold_down=60.0).registered()
    assert over(world, 2) == ""
    world.run(0.1)
    assert world.serving == [1]
    assert controls(world) == [
        (2, ControlType.SWO_REQ, 0),
        (1, ControlType.SWO_REP, ControlStatus.ADMINISTRATIVELY_PROHIBITED),
    ]
    (notice,) = world.names("switch_refused")
    assert (notice.member, notice.fields["status"]) == (2, 129)


def test_130_from_a_member_that_is_not_active() -> None:
    world = ready(members=3)
    assert asked(world, 2, 3) == [ControlStatus.NOT_ACTIVE]
    assert world.serving == [1]


def test_131_to_a_member_that_has_not_all_state() -> None:
    world = ready()
    world.members[1].replication.doubt(2)
    assert asked(world, 2, 1) == [ControlStatus.NOT_STANDBY]
    assert world.members[1].machine.role is Role.ACTIVE


def test_131_from_a_standby_that_cannot() -> None:
    world = ready()
    world.members[2].machine.eligible = world.members[2].machine.complete = False
    back(world, 1)
    world.run(0.01)
    assert (2, ControlType.SWB_REP, ControlStatus.NOT_STANDBY) in controls(world)
    (notice,) = world.names("switch_failed")
    assert notice.fields["reason"] == "refused with 131"
    assert world.members[1].machine.role is Role.ACTIVE
    assert world.members[1].home_agent.frozen == ""


@pytest.mark.parametrize(("identity", "why"), [(1, "this member is active"), (3, "does not have all state")])
def test_what_an_operator_is_told_of_a_switchover(identity: int, why: str) -> None:
    world = ready(members=3)
    world.members[3].machine.eligible = False
    assert why in over(world, identity)
    assert controls(world) == []


def test_what_an_operator_is_told_of_a_switchback() -> None:
    world = ready()
    assert "not active" in back(world, 2)
    assert "no such member" in back(world, 1, 9)
    world.members[1].replication.doubt(2)
    assert "no such member" in back(world, 1)
    assert world.members[1].machine.role is Role.ACTIVE
    assert controls(world) == []


def test_the_best_synchronised_member_is_the_one_by_default() -> None:
    world = ready(members=3)
    back(world, 1)
    world.until(lambda: world.serving == [2])
    world.run(0.2)
    world.settle()
    assert back(world, 2, 3) == ""
    world.until(lambda: world.serving == [3])


# -- hold-down and pre-emption ---------------------------------------------------------------------


def test_each_switch_doubles_the_hold_down() -> None:
    world = World(mobile_node(), hold_down=1.0).registered()
    waits = []
    for _ in range(3):
        standby = world.standby
        begin = world.now
        while world.standby == standby:
            over(world, standby)
            world.run(0.1)
        waits.append(world.now - begin)
        world.settle()
    # Each member counts its own changes: one, one, then three.
    assert waits == [pytest.approx(1.0, abs=0.3), pytest.approx(1.0, abs=0.3), pytest.approx(4.0, abs=0.5)]


def test_a_failure_never_waits_for_a_hold_down() -> None:
    world = World(mobile_node(), hold_down=300.0).registered()
    world.kill(1)
    assert world.until(lambda: world.serving) < 0.05


def test_a_recovered_member_with_a_higher_preference_does_not_preempt() -> None:
    world = ready()
    world.kill(1)
    world.until(lambda: world.serving)
    world.start(1)
    world.run(5.0)
    assert world.serving == [2]


def test_unless_that_is_wanted_and_it_has_all_state() -> None:
    world = World(*(mobile_node(index) for index in range(20)), preempt=True, hold_down=1.0).registered()
    world.kill(1)
    world.until(lambda: world.serving)
    took_over = world.now
    world.run(0.1)
    world.start(1)
    world.until(lambda: world.serving == [1])
    assert world.now - took_over >= 1.0
    world.settle()
    world.same_everywhere()
    world.run(10.0)
    assert world.serving == [1]
    assert len(world.names("active")) == 3


def test_preemption_waits_for_the_rank() -> None:
    world = World(mobile_node(), preempt=True, hold_down=0.1).registered()
    world.run(5.0)
    assert world.serving == [1]
    assert controls(world) == []
