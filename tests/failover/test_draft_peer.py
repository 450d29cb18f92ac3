"""Members that send nothing but what the draft has: bindings replicate all the same."""

from __future__ import annotations

from mip6ha.harp.messages import Hello, StateReply, StateRequest

from ..harp.strategies import DRAFT
from ..node.world import CARE_OF_1, CARE_OF_2, A, H, R, prefix
from .world import World, mobile_node

_NETWORK = prefix("2001:db8:aa::/48")


def draft(*members: int) -> World:
    """A set in which ``members`` know only the draft: they send nothing of ours, and skip it."""
    each = {identity: {"extensions": False, "numbers": DRAFT} for identity in members}
    return World(mobile_node(0, prefixes=(_NETWORK,)), each=each)


def started(world: World) -> World:
    world.until(lambda: world.serving)
    world.run(0.1)
    assert world.active == 1
    return world


def test_none_of_ours_is_on_the_wire() -> None:
    world = started(draft(1, 2))
    world.register(world.nodes[0])
    world.kill(2)
    world.run(0.1)
    world.start(2)
    world.run(0.2)
    for hello in world.messages(Hello):
        assert (hello.term, hello.synchronized) == (None, None)
    for request in world.messages(StateRequest):
        assert request.digest == b""
    replies = world.messages(StateReply)
    assert any(reply.entries for reply in replies)
    for reply in replies:
        assert reply.term is None
        assert all((entry.context, entry.generation) == (b"", 0) for entry in reply.entries)


def test_bindings_replicate_before_they_are_acknowledged() -> None:
    world = started(draft(1, 2))
    node = world.nodes[0]
    world.receive(node.update(CARE_OF_1, flags=A | H | R))
    assert world.answers == []
    world.run(0.05)
    assert len(world.answers) == 1
    assert world.planes[2].tunnels == {node.home_address: CARE_OF_1}
    assert world.planes[2].routes == {_NETWORK}
    assert world.members[2].counters["bindings_applied"] == 1
    world.receive(node.home())
    world.run(0.05)
    assert world.planes[2].tunnels == {}


def test_a_takeover_knows_the_binding() -> None:
    world = started(draft(1, 2))
    node = world.nodes[0]
    world.register(node)
    world.kill(1)
    world.run(0.2)
    assert world.serving == [2]
    assert world.planes[2].tunnels == {node.home_address: CARE_OF_1}
    assert world.register(node, CARE_OF_2).status == 0


def test_a_standby_that_has_its_answer_asks_no_more() -> None:
    world = started(draft(1, 2))
    world.register(world.nodes[0])
    world.run(0.1)
    assert world.members[2].machine.eligible
    world.said.clear()
    world.run(10.0)
    assert world.messages(StateRequest, 2) == []


def test_a_standby_that_missed_something_asks_again() -> None:
    world = started(draft(1, 2))
    away = world.members.pop(2)
    world.run(0.1)
    world.register(world.nodes[0], CARE_OF_2)
    world.members[2] = away
    world.run(3.0)
    assert world.planes[2].tunnels == {world.nodes[0].home_address: CARE_OF_2}


def test_an_older_binding_that_comes_late_is_not_taken() -> None:
    world = started(draft(1, 2))
    node = world.nodes[0]
    world.register(node)
    world.late = lambda said: (
        0.05 * any(entry.sequence == 2 for entry in getattr(said.message, "entries", ()))
    )
    world.receive(node.update(CARE_OF_2))
    world.run(0.005)
    world.receive(node.update(CARE_OF_1))
    world.run(0.2)
    for identity in (1, 2):
        assert world.planes[identity].tunnels == {node.home_address: CARE_OF_1}
    assert world.members[2].counters["contexts_known"] >= 1


def test_one_that_knows_more_follows_one_that_does_not() -> None:
    world = started(draft(1))
    node = world.nodes[0]
    world.register(node)
    assert world.members[2].machine.active == 1
    assert world.planes[2].tunnels == {node.home_address: CARE_OF_1}


def test_one_that_does_not_follows_one_that_knows_more() -> None:
    world = started(draft(2))
    node = world.nodes[0]
    world.register(node)
    world.run(0.1)
    assert world.members[2].machine.active == 1
    assert world.members[2].machine.eligible
    assert world.planes[2].tunnels == {node.home_address: CARE_OF_1}
