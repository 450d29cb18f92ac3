"""Election on its own: who claims when, and under which term."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mip6ha.failover.machine import HIGHEST_TERM, Machine, epoch
from mip6ha.failover.states import Event, Role
from mip6ha.harp.hello import Neighbor
from mip6ha.harp.messages import Hello

from .world import member_address

INTERVAL, FACTOR, START_WAIT = 0.1, 3.0, 1.0


class Member:
    """A machine and its neighbors, told by hand; ``preferences`` are theirs, by id."""

    def __init__(
        self, identity: int, preferences: dict[int, int], preference: int = 0, term: int = 0
    ) -> None:
        self.neighbors = {
            each: Neighbor(each, member_address(each), preferences[each], INTERVAL, FACTOR)
            for each in preferences
        }
        self.machine = Machine(
            identity,
            (preference, member_address(identity)),
            self.neighbors,
            interval=INTERVAL,
            factor=FACTOR,
            start_wait=START_WAIT,
            term=term,
            now=0.0,
        )

    def hear(
        self,
        identity: int,
        now: float,
        *,
        active: bool = False,
        term: int | None = 0,
        synchronized: tuple[int, ...] | None = None,
    ) -> None:
        neighbor = self.neighbors[identity]
        hello = Hello(
            neighbor.sequence + 1 & 0xFFFF,
            neighbor.preference,
            1800,
            100,
            1,
            active,
            False,
            True,
            term,
            synchronized,
        )
        assert neighbor.take(hello, now)
        if term is not None and term > self.machine.term:
            self.machine.learn(term, now)
        self.machine.heard(neighbor, now)

    def standby(self, ranked: tuple[int, ...] = (), term: int = 0x103) -> Member:
        """Follow member 3, which says that ``ranked`` have all its state."""
        self.machine.complete = True
        self.hear(3, 1.0, active=True, term=term, synchronized=ranked)
        assert self.machine.role is Role.STANDBY
        return self


def test_alone_after_the_start_wait() -> None:
    machine = Member(1, {2: 0}).machine
    assert machine.role is Role.STARTING
    assert machine.claim_at(0.5) == START_WAIT


def test_with_others_the_start_takes_twice_as_long() -> None:
    member = Member(1, {2: -1})
    member.hear(2, 0.9)
    assert member.machine.claim_at(1.0) == 2 * START_WAIT
    # It went away again.
    assert member.machine.claim_at(1.3) == START_WAIT


def test_two_that_start_at_once_do_not_claim_at_once() -> None:
    high, low = Member(1, {2: 0}, preference=5), Member(2, {1: 5})
    high.hear(2, 1.9)
    low.hear(1, 1.9)
    assert high.machine.claim_at(2.0) == 2 * START_WAIT
    assert low.machine.claim_at(2.0) == 2 * START_WAIT + INTERVAL


def test_a_start_beside_an_active_member_is_no_start() -> None:
    member = Member(1, {2: 0, 3: 0}, preference=99)
    member.hear(3, 0.1, active=True, term=0x203, synchronized=(1, 2))
    machine = member.machine
    assert (machine.role, machine.term, machine.active) == (Role.STANDBY, 0x203, 3)
    assert machine.claim_at(100.0) is None


def test_who_has_not_had_all_since_the_start_is_not_eligible_whatever_is_said() -> None:
    member = Member(1, {3: 0})
    member.hear(3, 0.1, active=True, term=0x203, synchronized=(1,))
    assert not member.machine.eligible
    member.machine.complete = True
    member.hear(3, 0.2, active=True, term=0x203, synchronized=(1,))
    assert member.machine.eligible
    member.hear(3, 0.3, active=True, term=0x203, synchronized=())
    assert not member.machine.eligible


def test_ranking_is_by_preference_then_by_the_higher_address() -> None:
    ranked = (1, 2, 4, 5)
    preferences = {1: 0, 2: 7, 4: 7, 5: -3}
    waits = {}
    for identity in ranked:
        others = {each: preferences[each] for each in ranked if each != identity} | {3: 0}
        member = Member(identity, others, preferences[identity]).standby(ranked)
        for each in others:
            member.hear(each, 1.2, active=each == 3, term=0x103, synchronized=ranked)
        assert member.machine.claim_at(1.2) is None
        for each in set(others) - {3}:
            member.hear(each, 1.45, term=0x103)
        member.machine.check(1.51)
        assert member.machine.orphaned == 1.51
        claim = member.machine.claim_at(1.51)
        assert claim is not None
        waits[identity] = round((claim - 1.51) / INTERVAL)
    assert waits == {4: 0, 2: 1, 1: 2, 5: 3}


def test_standbys_that_failed_too_are_not_waited_for() -> None:
    member = Member(1, {2: 9, 3: 0}).standby((1, 2))
    member.machine.check(9.0)
    assert member.machine.claim_at(9.0) == 9.0


def test_who_lacks_state_lets_all_others_go_first() -> None:
    member = Member(1, {2: -9, 3: 0}, preference=99).standby((2,))
    member.hear(2, 1.35, term=0x103)
    member.machine.check(1.4)
    claim = member.machine.claim_at(1.4)
    assert claim is not None
    assert claim - 1.4 == pytest.approx((2 * FACTOR + 2) * INTERVAL)


def test_check_tells_the_failure_once() -> None:
    machine = Member(1, {3: 0}).standby((1,)).machine
    assert not machine.check(1.29)
    assert machine.check(1.31)
    assert machine.active is None
    assert not machine.check(1.32)


def test_an_active_member_that_stands_down_leaves_its_place() -> None:
    member = Member(1, {3: 0}).standby((1,))
    member.hear(3, 1.1, term=0x103)
    assert member.machine.active is None
    assert member.machine.claim_at(1.1) == 1.1


def test_an_active_member_of_a_lower_term_is_none() -> None:
    member = Member(1, {2: 0, 3: 0}).standby((1,), term=0x203)
    member.hear(2, 1.1, active=True, term=0x102, synchronized=(1,))
    assert member.machine.active == 3
    assert member.machine.eligible


def test_an_active_member_without_terms_is_followed_but_not_obeyed() -> None:
    standby = Member(1, {3: 0})
    standby.machine.complete = True
    standby.hear(3, 1.0, active=True, term=None)
    assert (standby.machine.active, standby.machine.eligible) == (3, True)
    active = Member(1, {3: 0}).machine
    active.do(Event.CLAIM)
    active.take(0x101)
    neighbor = Neighbor(3, member_address(3), 9, INTERVAL, FACTOR)
    neighbor.active = True
    active.heard(neighbor, 1.0)
    assert (active.role, active.active) == (Role.ACTIVE, 1)


@pytest.mark.parametrize("served", [False, True])
def test_a_higher_term_ends_whatever_was(served: bool) -> None:
    machine = Member(1, {3: 0}).standby((1,)).machine
    machine.do(Event.CLAIM)
    if served:
        machine.take(machine.next_term())
    assert machine.learn(0x903, 5.0) == served
    assert (machine.role, machine.term, machine.active) == (Role.STANDBY, 0x903, None)
    assert not machine.eligible
    assert machine.orphaned == 5.0


def test_giving_up_leaves_nobody() -> None:
    machine = Member(1, {3: 0}).standby((1,)).machine
    machine.do(Event.CLAIM)
    machine.give_up(Event.CLAIM_LOST, 7.0)
    assert (machine.role, machine.active, machine.eligible, machine.orphaned) == (
        Role.STANDBY,
        None,
        False,
        7.0,
    )


def test_taking_a_term() -> None:
    machine = Member(1, {3: 0}).standby((1,)).machine
    term = machine.next_term()
    assert term == 0x201
    machine.do(Event.CLAIM)
    machine.take(term)
    assert (machine.role, machine.term, machine.active, machine.eligible) == (Role.ACTIVE, 0x201, 1, True)
    assert machine.complete
    assert machine.claim_at(99.0) is None


@given(st.integers(0, HIGHEST_TERM), st.integers(1, 255), st.integers(1, 255))
def test_a_claimed_term_is_higher_and_nobody_else_s(term: int, one: int, other: int) -> None:
    first, second = (Member(each, {}, term=term).machine.next_term() for each in (one, other))
    assert first > term
    assert epoch(first) == epoch(term) + 1
    assert first & 0xFF == one
    assert (first == second) == (one == other)
