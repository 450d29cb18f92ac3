"""Terms from an arbiter: nobody serves without its lease."""

from __future__ import annotations

import pytest

from mip6ha.effects import ClaimTerm, StandDown
from mip6ha.failover.states import Role
from mip6ha.harp.messages import StateReply

from ..node.world import CORRESPONDENT, echo
from .world import World, mobile_node


class Arbitrated:
    """A set whose terms this class hands out; leases last ``lease`` seconds."""

    def __init__(self, members: int = 2, lease: float = 1.0) -> None:
        self.lease = lease
        self.term = 0
        self.world = World(mobile_node(), members=members, arbiter=True)

    def claimed(self) -> tuple[int, int]:
        """The next claim: (member, term)."""
        self.world.claims.clear()
        self.world.until(lambda: self.world.claims)
        return self.world.claims[0]

    def answer(self, identity: int, term: int, *, granted: bool = True, lease: float | None = None) -> None:
        world = self.world
        until = world.now + (self.lease if lease is None else lease)
        member = world.members[identity]
        world.carry_out(identity, member.claim_answered(term, granted, until, world.now))
        world.flush(identity)
        if granted:
            self.term = term

    def serving(self) -> World:
        """The world with an active member and its lease."""
        self.answer(*self.claimed())
        self.renewed(0.3)
        return self.world

    def renewed(self, seconds: float) -> None:
        """Time passes while the active member's lease is renewed."""
        end = self.world.now + seconds
        while self.world.now < end:
            for identity in self.world.serving:
                self.world.members[identity].lease_renewed(self.world.now + self.lease, self.world.now)
            self.world.run(min(0.1, end - self.world.now))


def test_a_claim_goes_to_the_arbiter_and_nothing_happens_before_its_answer() -> None:
    arbitrated = Arbitrated()
    identity, term = arbitrated.claimed()
    world = arbitrated.world
    assert (identity, term) == (1, 0x101)
    member = world.members[1]
    assert member.machine.role is Role.CLAIMING
    assert not world.planes[1].owns
    world.receive(world.nodes[0].update(), 1)
    assert member.counters["not_active"] == 1
    arbitrated.answer(identity, term)
    assert (member.machine.role, member.machine.term) == (Role.ACTIVE, 0x101)
    assert world.planes[1].owns


def test_a_refusal_teaches_the_term() -> None:
    arbitrated = Arbitrated()
    identity, _ = arbitrated.claimed()
    arbitrated.answer(identity, 0x502, granted=False)
    member = arbitrated.world.members[identity]
    assert (member.machine.role, member.machine.term) == (Role.STANDBY, 0x502)
    assert not arbitrated.world.planes[identity].owns
    world = arbitrated.world
    world.claims.clear()
    world.until(lambda: any(each == identity for each, _ in world.claims))
    assert (identity, 0x601) in world.claims


def test_an_answer_that_comes_after_the_lease_is_a_refusal() -> None:
    arbitrated = Arbitrated()
    identity, term = arbitrated.claimed()
    arbitrated.answer(identity, term, lease=-0.001)
    assert arbitrated.world.members[identity].machine.role is Role.STANDBY
    assert arbitrated.world.serving == []


def test_no_answer_at_all_ends_the_claim() -> None:
    arbitrated = Arbitrated()
    identity, _ = arbitrated.claimed()
    member = arbitrated.world.members[identity]
    arbitrated.world.run(1.99)
    assert member.status(arbitrated.world.now)["role"] == "claiming"
    arbitrated.world.run(0.02)
    assert member.machine.role is Role.STANDBY


def test_an_answer_to_a_claim_that_is_over_changes_nothing() -> None:
    arbitrated = Arbitrated()
    identity, term = arbitrated.claimed()
    world = arbitrated.world
    world.run(2.01)
    before = world.snapshot(identity)
    assert world.members[identity].claim_answered(term, True, world.now + 1, world.now) == []
    assert world.snapshot(identity) == before


def test_another_active_member_ends_the_claim() -> None:
    arbitrated = Arbitrated()
    world = arbitrated.serving()
    world.members[2].machine.active = None
    world.split(1)
    world.until(lambda: any(isinstance(each, tuple) and each[0] == 2 for each in world.claims))
    assert world.members[2].status(world.now)["role"] == "claiming"
    world.cut.clear()
    arbitrated.renewed(0.2)
    assert world.members[2].machine.role is Role.STANDBY
    assert world.serving == [1]


@pytest.mark.parametrize("first", ["timer", "packet", "message"])
def test_without_its_lease_a_member_stops_serving(first: str) -> None:
    arbitrated = Arbitrated()
    world = arbitrated.serving()
    node = world.nodes[0]
    world.receive(node.update())
    world.run(0.05)
    answers = len(world.answers)
    member = world.members[1]
    # It is paused beyond its lease; what then comes first must find it without.
    world.now += 2.0
    if first == "packet":
        for packet in (node.update(), echo(CORRESPONDENT, node.home_address)):
            world.carry_out(1, member.receive(packet, world.now))
        assert member.counters["not_active"] == 2
    elif first == "message":
        world.flush(1)
    effects = member.on_timer(world.now)
    # Nobody else serves yet, so nothing on its way may go on.
    assert StandDown(succeeded=False) in effects
    world.carry_out(1, effects)
    assert member.machine.role is Role.STANDBY
    assert len(world.answers) == answers
    assert not world.planes[1].owns
    assert [each.name for each in world.notices if each.member == 1][-1] == "lease_lost"


def test_an_answer_that_waited_does_not_leave_without_the_lease() -> None:
    arbitrated = Arbitrated()
    world = arbitrated.serving()
    node = world.nodes[0]
    world.lose = lambda said: isinstance(said.message, StateReply)
    world.receive(node.update())
    world.lose = lambda said: False
    answers = len(world.answers)
    member = world.members[1]
    world.members.pop(2)
    world.now += 2.0
    world.carry_out(1, member.on_timer(world.now))
    world.run(0.5)
    assert len(world.answers) == answers


def test_a_renewed_lease_goes_on_and_an_older_one_shortens_nothing() -> None:
    arbitrated = Arbitrated()
    world = arbitrated.serving()
    arbitrated.renewed(5.0)
    assert world.serving == [1]
    world.members[1].lease_renewed(world.now - 1, world.now)
    world.run(0.5)
    assert world.serving == [1]
    world.run(0.6)
    assert world.serving == []
    # A lease that is gone is not renewed.
    world.members[1].lease_renewed(world.now + 10, world.now)
    assert world.serving == []


def test_cut_off_from_all_the_active_member_stops_and_another_one_follows() -> None:
    arbitrated = Arbitrated(members=3)
    world = arbitrated.serving()
    assert world.register(world.nodes[0]).status == 0
    world.split(1)
    world.run(1.2)
    assert 1 not in world.serving
    identity, term = arbitrated.claimed()
    assert identity in {2, 3}
    arbitrated.answer(identity, term)
    assert world.serving == [identity]
    assert world.register(world.nodes[0]).status == 0


def test_only_members_with_an_arbiter_ask_it() -> None:
    world = World(mobile_node()).settle()
    assert not any(isinstance(each, ClaimTerm) for each in world.claims)
    assert world.claims == []
