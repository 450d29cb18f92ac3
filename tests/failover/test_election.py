"""Who serves: starts, failures, restarts, pauses and planned stops of whole members."""

from __future__ import annotations

import pytest

from mip6ha.effects import AnnounceAddress, StoreTerm, TakeOver
from mip6ha.failover.states import Role
from mip6ha.harp.messages import Hello

from ..node.world import HOME_AGENT
from .world import INTERVAL, START_WAIT, World, mobile_node


def test_a_member_alone_serves_after_the_start_wait() -> None:
    world = World(members=2, start=False)
    world.start(1)
    world.run(START_WAIT - 0.001)
    assert world.serving == []
    world.run(0.002)
    assert world.serving == [1]
    status = world.members[1].status(world.now)
    assert (status["role"], status["term"], status["degraded"]) == ("active", 0x101, True)


def test_two_that_start_at_once_end_with_one_the_preferred() -> None:
    world = World(mobile_node(), each={1: {"preference": 1}, 2: {"preference": 9}}).settle()
    assert world.active == 2
    assert len(world.names("active")) == 1
    status = world.members[2].status(world.now)
    assert status["degraded"] is False
    assert world.members[1].machine.role is Role.STANDBY


def test_with_equal_preferences_the_higher_address_goes_first() -> None:
    assert World(members=3, preference=7).settle().active == 3


def test_a_term_is_stored_before_anything_is_done_under_it() -> None:
    world = World(members=1)
    world.run(START_WAIT - 0.01)
    member = world.members[1]
    world.now += 0.02
    found = [
        each
        for each in member.on_timer(world.now)
        if isinstance(each, StoreTerm | TakeOver | AnnounceAddress)
    ]
    assert found == [StoreTerm(0x101), TakeOver(), AnnounceAddress(HOME_AGENT)]


def test_a_start_beside_an_active_member_interrupts_nothing() -> None:
    world = World(mobile_node(), each={2: {"preference": 99}})
    world.kill(2)
    world.settle()
    world.register(world.nodes[0])
    world.start(2)
    world.settle()
    assert world.active == 1
    assert len(world.names("active")) == 1
    world.same_everywhere()


def test_the_best_synchronised_standby_takes_over_within_its_interval() -> None:
    world = World(mobile_node(), members=3).registered()
    assert world.active == 1
    world.kill(1)
    elapsed = world.until(lambda: world.serving)
    assert world.active == 2
    assert elapsed <= 3 * INTERVAL + world.delay
    world.run(0.5)
    assert [each.member for each in world.names("active")] == [1, 2]
    assert world.members[3].machine.active == 2


def test_the_second_standby_follows_when_the_first_is_gone_too() -> None:
    world = World(mobile_node(), members=3).registered()
    world.kill(1)
    world.kill(2)
    elapsed = world.until(lambda: world.serving)
    assert world.active == 3
    assert elapsed <= 5 * INTERVAL


@pytest.mark.parametrize("factor", [2.0, 3.0, 5.0])
def test_failure_takes_as_many_intervals_as_configured(factor: float) -> None:
    world = World(failure_factor=factor).settle()
    world.run(1.0)
    world.kill(world.active)
    elapsed = world.until(lambda: world.serving)
    assert (factor - 1) * INTERVAL < elapsed <= factor * INTERVAL + world.delay


def test_terms_only_grow_and_none_is_taken_twice() -> None:
    world = World(mobile_node(), members=3).settle()
    for _ in range(6):
        gone = world.active
        world.kill(gone)
        world.until(lambda: world.serving)
        world.run(0.2)
        world.start(gone)
        world.settle()
    terms = [each.fields["term"] for each in world.names("active")]
    assert len(terms) == 7
    assert terms == sorted(set(terms), key=lambda each: int(str(each)))


def test_a_restarted_member_knows_the_term_it_had_stored() -> None:
    world = World().settle()
    for identity in (1, 2):
        world.kill(identity)
    world.run(1.0)
    world.start(2)
    world.run(START_WAIT + 0.01)
    assert world.members[2].machine.term == 0x202


def test_silence_of_a_standby_is_told() -> None:
    world = World().settle()
    world.kill(2)
    world.run(0.1)
    (notice,) = world.names("member_failed")
    assert (notice.member, notice.fields["member"]) == (1, 2)
    assert world.members[1].status(world.now)["degraded"] is True


@pytest.mark.parametrize("lost", [0, 1])
def test_two_hellos_that_are_lost_are_no_failure(lost: int) -> None:
    world = World().settle()
    world.lose = lambda said: type(said.message) is Hello and said.message.sequence % 3 != lost
    world.run(1.0)
    assert world.names("member_failed") == []
    assert len(world.names("active")) == 1


# -- leaving ---------------------------------------------------------------------------------------


def test_a_planned_stop_is_taken_over_at_once() -> None:
    world = World(mobile_node()).registered()
    world.stop(1)
    elapsed = world.until(lambda: world.serving)
    assert world.active == 2
    assert elapsed <= world.delay + 1e-6
    assert world.register(world.nodes[0]).status == 0


def test_a_standby_that_leaves_is_not_waited_for() -> None:
    world = World(mobile_node()).registered()
    world.stop(2)
    world.run(world.delay)
    assert world.members[1].replication.alone
    assert world.register(world.nodes[0]).status == 0


def test_a_stopped_member_does_nothing_more() -> None:
    world = World().settle()
    member = world.members[2]
    world.carry_out(2, member.stop(world.now))
    assert member.next_deadline() is None
    assert member.on_timer(world.now + 1) == []
    assert member.receive_member(bytes(16), bytes(64), world.now) == []
    assert member.machine.role is Role.STOPPED


# -- restarts that nobody misses -------------------------------------------------------------------


def test_who_was_restarted_unnoticed_is_not_eligible_before_it_has_all() -> None:
    world = World(mobile_node(0), mobile_node(1)).registered()
    for at in range(5):
        world.lose = lambda said: type(said.message) is not Hello
        world.kill(2)
        world.start(2)
        world.run(0.002 + at * INTERVAL / 2)
        assert not world.members[2].machine.eligible
        world.lose = lambda said: False
        world.settle()
        world.same_everywhere()


def test_without_state_it_claims_last() -> None:
    world = World(
        mobile_node(), members=3, each={2: {"preference": 200}, 1: {"preference": 300}}
    ).registered()
    world.lose = lambda said: type(said.message) is not Hello and said.destination == 2
    world.kill(2)
    world.start(2)
    world.run(0.015)
    world.kill(1)
    world.until(lambda: world.serving)
    assert world.active == 3


# -- pauses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["timer", "packet", "message", "flush"])
def test_a_member_forgives_the_silence_of_its_own_pause(first: str) -> None:
    world = World(mobile_node()).registered()
    member = world.members[2]
    paused = world.members.pop(2)
    world.run(1.0)
    world.members[2] = paused
    messages = [each.packet for each in world.said if each.time > world.now - 0.5 and each.source == 1]
    # A socket buffer has room for some.
    if first == "packet":
        world.receive(bytes(60), 2)
    elif first == "message":
        world.receive_member(1, 2, messages[0])
    elif first == "flush":
        world.flush(2)
    world.carry_out(2, member.on_timer(world.now))
    assert member.machine.role is Role.STANDBY
    world.run(1.0)
    assert world.active == 1
    assert len(world.names("active")) == 1


def test_an_active_member_that_was_paused_too_long_stands_down() -> None:
    world = World(mobile_node()).registered()
    paused = world.members.pop(1)
    world.until(lambda: world.serving)
    world.register(world.nodes[0])
    world.run(1.0)
    world.members[1] = paused
    world.settle()
    assert world.active == 2
    world.same_everywhere()


def test_a_dead_active_member_is_noticed_after_a_pause_all_the_same() -> None:
    world = World(mobile_node()).registered()
    world.kill(1)
    paused = world.members.pop(2)
    world.run(1.0)
    world.members[2] = paused
    assert world.until(lambda: world.serving) <= 3 * INTERVAL


def test_who_has_no_home_link_takes_over_nothing() -> None:
    world = World(mobile_node()).registered()
    active, standby = world.active, world.standby
    term = world.members[active].machine.term
    world.members[standby].home_link(False, world.now)
    assert not world.members[standby].machine.eligible
    world.split(standby)
    world.run(1.0)
    assert world.serving == [active]
    world.cut.clear()
    world.run(1.0)
    assert world.serving == [active]
    assert world.members[active].machine.term == term
    # With its link back, it is as good as any.
    world.members[standby].home_link(True, world.now)
    world.run(0.1)
    world.kill(active)
    world.run(0.1)
    assert world.serving == [standby]


def test_who_gets_its_home_link_back_takes_over_then() -> None:
    world = World(mobile_node()).registered()
    standby = world.standby
    world.members[standby].home_link(False, world.now)
    world.kill(world.active)
    world.run(1.0)
    assert not world.serving
    world.members[standby].home_link(True, world.now)
    world.run(0.2)
    assert world.serving == [standby]
