"""A changed configuration of a set: what is removed is gone everywhere, and no old copy brings it back."""

from __future__ import annotations

from dataclasses import replace

from mip6ha.binding.cache import State
from mip6ha.failover.context import Version
from mip6ha.parameters import MobileNodeParameters

from ..node.world import GCM, MobileNode, keys_of
from .world import World, mobile_node


def reload(world: World, identity: int, *nodes: MobileNodeParameters) -> None:
    world.carry_out(identity, world.member(identity).reconfigure(nodes, world.now))
    if identity in world.serving:
        world.flush(identity)


def without(world: World, node: MobileNode) -> tuple[MobileNodeParameters, ...]:
    return tuple(each.parameters for each in world.nodes if each is not node)


def is_gone(world: World, identity: int, node: MobileNode) -> bool:
    agent = world.member(identity).home_agent
    home_address = node.home_address
    tunnels = world.planes[identity].tunnels
    return (
        not agent.associations.database.of(home_address)
        and agent.cache.get(home_address) is None
        and home_address not in agent.mobile_nodes
        and home_address not in tunnels
    )


def rekeyed(node: MobileNode) -> MobileNodeParameters:
    described = tuple(replace(each, keys=keys_of(GCM, each.spi + 1)) for each in node.parameters.associations)
    return node.changed(associations=described)


def test_a_removed_mobile_node_is_gone_on_every_member() -> None:
    first, second = mobile_node(0), mobile_node(1)
    world = World(first, second).registered()
    reload(world, world.active, *without(world, first))
    world.run(0.05)
    for identity in (1, 2):
        assert is_gone(world, identity, first)
        assert not is_gone(world, identity, second)
    versions = {world.member(identity).contexts.version(first.home_address) for identity in (1, 2)}
    assert len(versions) == 1
    assert world.is_settled()
    world.kill(world.active)
    world.until(lambda: world.serving)
    world.receive(first.update())
    assert world.member(world.active).counters["unknown_spi"] == 1
    assert world.register(second).status == 0


def test_the_old_copy_of_a_member_that_was_away_brings_nothing_back() -> None:
    node = mobile_node()
    world = World(node, members=3).registered()
    active = world.active
    away = next(each for each in world.members if each != active)
    world.split(away)
    # So that it does not serve by itself.
    world.member(away).machine.eligible = False
    reload(world, active)
    world.cut.clear()
    world.run(0.3)
    world.settle()
    assert all(is_gone(world, identity, node) for identity in world.members)


def test_what_the_other_side_of_a_split_has_left_of_it_brings_nothing_back() -> None:
    node = mobile_node()
    world = World(node).registered()
    old, new = world.active, world.standby
    world.split(old)
    world.until(lambda: new in world.serving)
    reload(world, new)
    assert is_gone(world, new, node)
    # Meanwhile the other one goes on.
    world.receive(node.update(), old)
    world.cut.clear()
    world.run(0.3)
    world.settle()
    assert world.active == new
    assert is_gone(world, old, node)
    assert is_gone(world, new, node)


def test_a_mobile_node_that_comes_back_is_served_everywhere_with_all_its_parameters() -> None:
    node = mobile_node()
    world = World(node).registered()
    active, standby = world.active, world.standby
    reload(world, active)
    world.run(0.05)
    assert is_gone(world, standby, node)
    reload(world, active, node.parameters)
    world.run(0.05)
    for identity in (active, standby):
        agent = world.member(identity).home_agent
        assert node.home_address in agent.mobile_nodes
        assert agent.associations.are_made_of(node.home_address, node.parameters.associations)
        assert agent.mobile_nodes.get(node.home_address) is node.parameters
    assert world.register(node).status == 0


def test_new_keys_come_with_the_active_member() -> None:
    node = mobile_node()
    world = World(node).registered()
    changed = rekeyed(node)
    reload(world, world.standby, changed)
    world.run(0.05)
    # Contexts say what counts: they still have the old ones.
    standby = world.member(world.standby).home_agent
    assert standby.associations.are_made_of(node.home_address, node.parameters.associations)
    reload(world, world.active, changed)
    world.run(0.05)
    assert standby.associations.are_made_of(node.home_address, changed.associations)


def test_a_standby_brings_in_its_changes_when_it_is_active() -> None:
    removed, stays, comes = mobile_node(0), mobile_node(1), mobile_node(2)
    world = World(removed, stays).registered()
    standby = world.standby
    reload(world, standby, stays.parameters, comes.parameters)
    agent = world.member(standby).home_agent
    assert not is_gone(world, standby, removed)
    # Nobody has a context of this one.
    assert comes.home_address in agent.mobile_nodes
    world.kill(world.active)
    world.until(lambda: is_gone(world, standby, removed))
    assert world.register(comes).status == 0
    assert world.register(stays).status == 0


def test_what_the_active_member_brought_in_before_ends_no_registration() -> None:
    node = mobile_node()
    world = World(node).registered()
    renamed = node.changed(name="another")
    reload(world, world.standby, renamed)
    standby = world.member(world.standby)
    world.kill(world.active)
    world.until(lambda: standby.machine.serves)
    world.run(0.05)
    binding = standby.home_agent.cache.get(node.home_address)
    assert binding is not None
    assert binding.state is State.BOUND
    assert standby.home_agent.name_of(node.home_address) == "another"


def test_removal_is_a_version_like_any_other() -> None:
    node = mobile_node()
    world = World(node).registered()
    active = world.member(world.active)
    before = active.contexts.version(node.home_address)
    assert before is not None
    reload(world, world.active)
    assert active.contexts.version(node.home_address) == Version(before.term, before.generation + 1)
    record = active.contexts.record(node.home_address)
    assert record is not None
    context = active.contexts.read(record[0], draft=False)
    assert context is not None
    assert context.gone
    assert (context.binding, context.associations, context.timestamp) == (None, (), 0)
