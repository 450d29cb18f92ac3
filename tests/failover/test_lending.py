"""Payload is lent by a member that serves, and no number before the others know of it."""

from __future__ import annotations

from mip6ha.effects import Effect, LendPayload, RecallPayload
from mip6ha.harp.messages import StateAcknowledge
from mip6ha.ipsec.policy import Direction, Mode, Use
from mip6ha.ipsec.sad import SecurityAssociation
from mip6ha.lending import PayloadCounted

from ..node.world import CARE_OF_2, CORRESPONDENT, MobileNode, echo
from .world import World, mobile_node

_PAYLOAD = (Use.SIGNALLING, Use.PAYLOAD)
_RTT = 0.0025


def _world(**settings: object) -> tuple[World, MobileNode]:
    node = mobile_node(0, *_PAYLOAD)
    world = World(node, agent={"lends_payload": True}, **settings)  # type: ignore[arg-type]
    return world.registered(), node


def _out(world: World, node: MobileNode) -> None:
    world.receive(echo(CORRESPONDENT, node.home_address))


def _lend(world: World, node: MobileNode) -> dict[tuple[bool, int], int]:
    """Let payload pass until it is lent; the last numbers that are."""
    for _ in range(5):
        _out(world, node)
        world.receive(node.tunnel(echo(node.home_address, CORRESPONDENT), use=Use.PAYLOAD))
        world.run(_RTT)
    return world.planes[world.active].lent[node.home_address]


def _until_it_waits(world: World, node: MobileNode) -> None:
    for _ in range(10):
        _out(world, node)
        if node.home_address in world.members[world.active].home_agent.lending:
            break
        world.run(_RTT)
    assert world.planes[world.active].lent == {}


def _spi(lent: dict[tuple[bool, int], int], *, outbound: bool) -> int:
    (found,) = (spi for direction, spi in lent if direction is outbound)
    return found


def _association(world: World, node: MobileNode, *, outbound: bool) -> SecurityAssociation:
    """The active member's SA for payload in one direction."""
    (found,) = (
        each
        for each in world.members[world.active].associations.database.of(node.home_address)
        if each.mode is Mode.TUNNEL and (each.direction is Direction.OUT) is outbound
    )
    return found


def test_numbers_are_lent_when_the_standby_has_heard_of_them() -> None:
    world, node = _world()
    lent = _lend(world, node)
    (heard,) = (
        each
        for each in world.members[world.standby].associations.database.of(node.home_address)
        if each.spi == _spi(lent, outbound=False)
    )
    assert heard.limit == lent[False, heard.spi]


def test_who_only_sends_is_lent_numbers_of_both_directions() -> None:
    world, node = _world()
    out = _association(world, node, outbound=True)
    # What is left of the block is too little to lend, and nothing uses it up.
    out.sequence = out.limit - 1
    for _ in range(5):
        world.receive(node.tunnel(echo(node.home_address, CORRESPONDENT), use=Use.PAYLOAD))
        world.run(_RTT)
    lent = world.planes[world.active].lent[node.home_address]
    assert lent[True, out.spi] > out.limit


def test_more_of_them_wait_as_well() -> None:
    world, node = _world()
    lent = _lend(world, node)
    member, spi = world.members[world.active], _spi(lent, outbound=False)
    before = dict(lent)
    top = lent[False, spi]
    counted = PayloadCounted(node.home_address, False, spi, top)
    world.carry_out(world.active, member.payload_news(counted, world.now))
    world.flush(world.active)
    assert lent == before
    world.run(_RTT)
    assert lent[False, spi] == top + 64
    out = _spi(lent, outbound=True)
    counted = PayloadCounted(node.home_address, True, out, 1)
    world.carry_out(world.active, member.payload_news(counted, world.now))
    world.flush(world.active)
    assert lent[True, out] == before[True, out]
    world.run(_RTT)
    assert lent[True, out] > before[True, out]


def test_they_wait_with_asynchronous_answers_too() -> None:
    world, node = _world(synchronous=False)
    world.late = lambda said: 0.05 if type(said.message) is StateAcknowledge else 0.0
    for _ in range(20):
        _out(world, node)
        world.run(0.001)
    assert world.planes[world.active].lent == {}
    for _ in range(5):
        world.run(0.2)
        _out(world, node)
    assert world.planes[world.active].lent


def test_what_waits_is_not_lent_when_it_was_called_back() -> None:
    world, node = _world()
    _until_it_waits(world, node)
    effects: list[Effect] = []
    world.members[world.active].home_agent.lending.recall(node.home_address, effects)
    assert effects == [RecallPayload(node.home_address)]
    world.run(0.1)
    assert world.planes[world.active].lent == {}


def test_a_move_meanwhile_counts() -> None:
    world, node = _world()
    _until_it_waits(world, node)
    world.register(node, CARE_OF_2)
    world.run(0.1)
    plane = world.planes[world.active]
    assert node.home_address in plane.lent
    assert plane.tunnels == {node.home_address: CARE_OF_2}


def test_who_takes_over_begins_anew_above_everything_lent() -> None:
    world, node = _world()
    lent = dict(_lend(world, node))
    first = world.active
    world.kill(first)
    world.run(2.0)
    assert world.active != first
    again = _lend(world, node)
    assert all(limit > lent[key] for key, limit in again.items())


def test_who_stands_down_has_lent_nothing() -> None:
    world, node = _world()
    _lend(world, node)
    first = world.active
    world.run(3.0)
    refused, effects = world.members[world.standby].switchover(world.now)
    assert not refused
    world.carry_out(world.standby, effects)
    world.run(1.0)
    assert world.active != first
    assert world.planes[first].lent == {}
    assert node.home_address not in world.members[first].home_agent.lending
    assert _lend(world, node)


def test_what_a_restarted_member_may_have_used_ends_loans() -> None:
    world, node = _world()
    lent = dict(_lend(world, node))
    other = world.standby
    world.kill(other)
    world.floors[other] = 1 << 20
    world.start(other)
    world.run(1.0)
    again = _lend(world, node)
    assert again[True, _spi(again, outbound=True)] > 1 << 20 > lent[True, _spi(lent, outbound=True)]


def test_a_loan_that_cannot_be_confirmed_is_one_of_a_member_alone() -> None:
    world, node = _world()
    _lend(world, node)
    world.kill(world.standby)
    world.run(2.0)
    lent = world.planes[world.active].lent[node.home_address]
    spi = _spi(lent, outbound=False)
    top = lent[False, spi]
    counted = PayloadCounted(node.home_address, False, spi, top)
    found = world.members[world.active].payload_news(counted, world.now)
    assert not any(isinstance(each, LendPayload) for each in found)
    world.carry_out(world.active, found)
    assert lent[False, spi] == top + 64
