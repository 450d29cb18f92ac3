"""Contexts out of one home agent and into another: whole, nothing left of what was, counters only forward."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from mip6ha import replica
from mip6ha.binding.cache import State
from mip6ha.binding.messages import MobileNetworkPrefix
from mip6ha.effects import DefendAddress, Effect, EndProbe, ReleaseAddress, SetTunnel
from mip6ha.failover.context import AssociationState, Context, Version, encode
from mip6ha.harp.messages import StateEntry
from mip6ha.ipsec.policy import Use
from mip6ha.ipsec.replay import ReplayWindow
from mip6ha.node import HomeAgent
from mip6ha.numbering import SharedAssociations
from mip6ha.parameters import HomeAgentParameters
from mip6ha.wire import Malformed

from ..node.world import (
    CARE_OF_1,
    CARE_OF_2,
    HOME_AGENT,
    HOME_PREFIX,
    A,
    Dataplane,
    H,
    L,
    MobileNode,
    R,
    prefix,
    seeded,
)
from .world import home, mobile_node

NOW = 1000.0
VERSION = Version(0x101, 1)
_NETWORK = prefix("2001:db8:aa::/48")


class Place:
    """A home agent with shared numbers, and its dataplane."""

    def __init__(self, *nodes: MobileNode, identity: int = 1, serves: bool = True, **settings: Any) -> None:
        self.associations = SharedAssociations(HOME_AGENT, seeded(f"place {identity}"), 0, identity, 2)
        chosen: dict[str, Any] = {"duplicate_address_detection": False} | settings
        parameters = HomeAgentParameters(
            HOME_AGENT, (HOME_PREFIX,), tuple(node.parameters for node in nodes), **chosen
        )
        self.agent = HomeAgent(parameters, seeded("agent"), NOW, self.associations)
        self.plane = Dataplane()
        if serves:
            self.associations.begin(0x100 | identity)

    def carry_out(self, found: Iterable[Effect]) -> list[Effect]:
        done = list(found)
        for effect in done:
            self.plane.carry_out(effect)
        bound = [each for each in self.agent.cache if each.is_bound]
        assert self.plane.tunnels == {each.home_address: each.care_of_address for each in bound}
        assert self.plane.defended == set().union(*(each.defended for each in bound))
        assert self.plane.routes == {each for binding in bound for each in binding.prefixes}
        assert self.agent.cache.registered == len(bound)
        return done

    def receive(self, packet: bytes, now: float = NOW) -> None:
        self.carry_out(self.agent.receive(packet, now))

    def export(self, home_address: bytes, now: float = NOW, version: Version = VERSION) -> Context:
        return replica.export(self.agent, home_address, version, now)

    def install(self, context: Context, now: float = NOW) -> list[Effect]:
        return self.carry_out(replica.install(self.agent, context, now))

    def window(self, spi: int) -> ReplayWindow:
        association = self.agent.associations.inbound(spi)
        assert association is not None
        assert association.window is not None
        return association.window


def registered(node: MobileNode, **fields: Any) -> Place:
    place = Place(node)
    place.receive(node.update(CARE_OF_1, **fields))
    return place


def test_what_was_installed_is_what_was_exported() -> None:
    node = mobile_node(0, *(use for use in Use if use is not Use.HARP), prefixes=(_NETWORK,))
    place, other = registered(node, flags=A | H | R), Place(identity=2, serves=False)
    context = place.export(node.home_address, NOW + 1)
    assert context.binding is not None
    assert (context.binding.remaining, context.binding.prefixes) == (59_000, (_NETWORK,))
    assert len(context.associations) == 10
    other.install(context, NOW + 100)
    assert other.export(node.home_address, NOW + 100) == context
    binding = other.agent.cache.get(node.home_address)
    assert binding is not None
    assert binding.expires == NOW + 159
    assert other.agent.name_of(node.home_address) == "mn0"


def test_a_wide_window_fits_a_record_and_opens_nothing() -> None:
    node = mobile_node()
    described = tuple(replace(each, window=65536) for each in node.parameters.associations)
    node.parameters = node.changed(associations=described)
    place, other = registered(node), Place(identity=2, serves=False)
    window = place.window(0x10000)
    window.top, window.bitmap = 70_000, (1 << 65536) - 1 - (1 << 5)
    context = place.export(node.home_address)
    assert len(encode(context)) < 600
    other.install(context)
    installed = other.window(0x10000)
    assert installed.is_new(70_000 - 5)
    assert not any(installed.is_new(number) for number in range(1, 70_001) if number != 70_000 - 5)


def test_a_mobile_node_that_never_registered_has_associations_alone() -> None:
    node = mobile_node()
    context = Place(node).export(node.home_address)
    assert (context.binding, len(context.associations)) == (None, 2)
    other = Place(identity=2, serves=False)
    assert other.install(context) == []
    assert other.export(node.home_address) == context


def test_installing_replaces_all_there_was() -> None:
    node, wide = mobile_node(0), mobile_node(0, Use.BINDING, Use.PREFIX, Use.PAYLOAD)
    other = registered(wide)
    place = registered(node)
    place.receive(node.update(CARE_OF_2))
    context = place.export(node.home_address)
    found = other.install(context)
    assert found == [SetTunnel(node.home_address, CARE_OF_2)]
    assert other.export(node.home_address) == context
    assert len(other.agent.associations.database) == 2
    # The SPIs that are gone are free.
    assert other.agent.associations.inbound(0x10002) is None


def test_a_refresh_does_nothing_to_forwarding() -> None:
    node = mobile_node()
    place, other = registered(node), Place(identity=2, serves=False)
    other.install(place.export(node.home_address))
    place.receive(node.update(CARE_OF_1))
    assert other.install(place.export(node.home_address)) == []
    assert other.agent.cache.registered == 1


def test_a_deregistration_takes_everything_back() -> None:
    node = mobile_node(0, prefixes=(_NETWORK,))
    place, other = registered(node, flags=A | H | R), Place(identity=2, serves=False)
    other.install(place.export(node.home_address))
    assert other.plane.routes == {_NETWORK}
    place.receive(node.home())
    other.install(place.export(node.home_address))
    assert not other.plane.tunnels
    assert not other.plane.defended
    assert not other.plane.routes
    binding = other.agent.cache.get(node.home_address)
    assert binding is not None
    assert (binding.state, binding.ended, binding.sequence) == (State.UNBOUND, True, 2)


@pytest.mark.parametrize(("first", "second"), [(A | H, A | H | L), (A | H | L, A | H)])
def test_an_end_and_a_beginning_may_come_as_one(first: int, second: int) -> None:
    node = mobile_node()
    place, other = registered(node, flags=first), Place(identity=2, serves=False)
    other.install(place.export(node.home_address))
    place.receive(node.home())
    place.receive(node.update(CARE_OF_1, flags=second))
    (effect,) = other.install(place.export(node.home_address))
    assert isinstance(effect, DefendAddress if second & L else ReleaseAddress)


def test_a_probe_under_way_is_nobody_s_state() -> None:
    node = mobile_node()
    place = Place(node, duplicate_address_detection=True)
    place.agent.receive(node.update(), NOW)
    assert place.export(node.home_address).binding is None
    for effect in place.agent.end_probes():
        assert isinstance(effect, EndProbe)
    assert place.export(node.home_address).binding is None


def test_a_probe_under_way_leaves_what_was_before() -> None:
    node = mobile_node()
    place = registered(node)
    place.receive(node.update(lifetime=0))
    before = place.export(node.home_address).binding
    assert before is not None
    policy = place.agent.registrations.policy
    place.agent.registrations.policy = replace(policy, probes=True)
    for _ in range(2):
        place.agent.receive(node.update(CARE_OF_2), NOW)
        assert place.export(node.home_address).binding == before
    place.agent.end_probes()
    assert place.export(node.home_address).binding == before
    # What was given up counts for nothing: the same number may come again, where another member serves.
    binding = place.agent.cache.get(node.home_address)
    assert binding is not None
    assert binding.sequence == before.sequence


def test_the_lifetime_left_is_never_more_than_what_was_granted() -> None:
    node = mobile_node()
    context = registered(node).export(node.home_address)
    assert context.binding is not None
    longer = structs.replace(context, binding=structs.replace(context.binding, remaining=1 << 60))
    other = Place(identity=2, serves=False)
    other.install(longer)
    binding = other.agent.cache.get(node.home_address)
    assert binding is not None
    assert binding.expires == NOW + 60


def test_an_spi_of_another_mobile_node_is_not_taken() -> None:
    mine, other_node = mobile_node(0), mobile_node(1)
    place = Place(mine, other_node)
    for node in (mine, other_node):
        place.receive(node.update())
    before = [place.export(each.home_address) for each in (mine, other_node)]
    stolen = structs.replace(before[0], associations=before[1].associations, name="thief")
    with pytest.raises(Malformed, match="context_spi"):
        replica.install(place.agent, stolen, NOW)
    assert [place.export(each.home_address) for each in (mine, other_node)] == before


def test_a_draft_binding_leaves_associations_alone() -> None:
    node = mobile_node()
    place = Place(node, identity=2, serves=False)
    before = place.export(node.home_address).associations
    entry = StateEntry(node.home_address, CARE_OF_1, A | H, 9, 10, (MobileNetworkPrefix(*_NETWORK),))
    place.carry_out(replica.install_draft(place.agent, entry, NOW))
    context = place.export(node.home_address)
    assert context.associations == before
    assert context.binding is not None
    assert (context.binding.sequence, context.binding.lifetime, context.binding.prefixes) == (
        9,
        10,
        (_NETWORK,),
    )
    place.carry_out(replica.install_draft(place.agent, entry._replace(lifetime=0, sequence=10), NOW))
    assert not place.plane.tunnels


@pytest.mark.parametrize(
    ("own", "other", "newer"),
    [
        (None, 5, True),
        (-1, 5, True),
        (5, 5, False),
        (5, 6, True),
        (6, 5, False),
        (0xFFFF, 0, True),
        (0, 0xFFFF, False),
    ],
)
def test_the_later_binding_update_is_newer(own: int | None, other: int, newer: bool) -> None:
    node = mobile_node()
    binding = None
    if own is not None:
        binding = Place(node).agent.cache.entry(node.home_address)
        binding.sequence = own
    state = registered(node, sequence=other).export(node.home_address).binding
    assert replica.newer_binding(binding, state) == newer
    assert not replica.newer_binding(binding, None)


# -- merging ---------------------------------------------------------------------------------------

_USES = (Use.SIGNALLING, Use.PAYLOAD)


def _with(context: Context, counters: tuple[int, ...], bits: tuple[int, ...]) -> Context:
    states: list[AssociationState] = []
    for state, counter, bitmap in zip(context.associations, counters, bits, strict=True):
        octets = bitmap.to_bytes(8, "big")
        if state.outbound:
            states.append(structs.replace(state, counter=counter))
        elif Use(state.use) is Use.PAYLOAD:
            states.append(structs.replace(state, counter=counter, limit=counter + 64))
        else:
            states.append(structs.replace(state, counter=counter, bitmap=octets))
    return structs.replace(context, associations=tuple(states))


_COUNTERS = st.tuples(*[st.integers(0, 5000)] * 4)
_BITS = st.tuples(*[st.integers(0, (1 << 64) - 1)] * 4)


def _accepted(window: ReplayWindow) -> set[int]:
    return {number for number in range(1, 6000) if window.is_new(number)}


@settings(max_examples=40)
@given(_COUNTERS, _BITS, _COUNTERS, _BITS)
def test_merging_only_closes_windows_and_raises_reservations(
    own: tuple[int, ...], own_bits: tuple[int, ...], theirs: tuple[int, ...], their_bits: tuple[int, ...]
) -> None:
    node = mobile_node(0, *_USES)
    place = Place(node)
    context = place.export(node.home_address)
    place.install(_with(context, own, own_bits))
    database = place.agent.associations.database
    windows = {each.spi: _accepted(each.window) for each in database if each.window}
    reserved = {each.spi: each.reserved for each in database if not each.window}
    other = _with(context, theirs, their_bits)
    foreign = Place(node, identity=2)
    foreign.install(other)
    changed = replica.merge_counters(place.agent, other)
    for each in database:
        if each.window is None:
            theirs_reserved = next(state.counter for state in other.associations if state.spi == each.spi)
            assert each.reserved == max(reserved[each.spi], theirs_reserved)
            assert each.sequence >= theirs_reserved or reserved[each.spi] >= theirs_reserved
            continue
        found = _accepted(each.window)
        assert found <= windows[each.spi]
        assert found <= _accepted(foreign.window(each.spi))
        if each.use is Use.PAYLOAD:
            limit = next(state.limit for state in other.associations if state.spi == each.spi)
            assert all(number > limit for number in found)
    # Whoever takes over from here accepts no more than that.
    third = Place(node, identity=3)
    third.install(place.export(node.home_address))
    third.agent.associations.begin(0x103)
    for each in database:
        if each.window is not None:
            third.agent.associations.inbound(each.spi)
            assert _accepted(third.window(each.spi)) <= _accepted(each.window)
    # Again it brings nothing new.
    assert not replica.merge_counters(place.agent, other)
    if not changed:
        assert windows == {each.spi: _accepted(each.window) for each in database if each.window}


def test_merging_what_is_unknown_here_changes_nothing() -> None:
    node, stranger = mobile_node(0), mobile_node(1)
    context = registered(stranger).export(home(1))
    assert not replica.merge_counters(Place(node).agent, context)
