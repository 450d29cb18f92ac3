"""Mobile routers (RFC 3963): prefixes explicit and implicit, statuses 140 to 143, routes, loops."""

from __future__ import annotations

from typing import Any

import pytest

from mip6ha.binding.messages import MobileNetworkPrefix, OptionType, Status, mobile_network_prefix_option
from mip6ha.effects import (
    AnnounceAddress,
    DefendAddress,
    ReleaseAddress,
    RemoveTunnel,
    RoutePrefix,
    SetTunnel,
    UnroutePrefix,
)
from mip6ha.mobility import Option
from mip6ha.wire import address

from .world import (
    CARE_OF_1,
    CARE_OF_2,
    CORRESPONDENT,
    A,
    H,
    MobileNode,
    R,
    World,
    dataplane,
    echo,
    only_packet,
    prefix,
)

WIDE, NARROW, OTHER = prefix("2001:db8:aa::/48"), prefix("2001:db8:aa:1::/64"), prefix("2001:db8:bb::/56")
HOME = address("2001:db8:a::100")


def brings(*prefixes: MobileNetworkPrefix) -> dict[str, Any]:
    return {"flags": A | H | R, "options": [mobile_network_prefix_option(each) for each in prefixes]}


def router(*prefixes: MobileNetworkPrefix, last: str = "100", spi: int = 0x2000) -> MobileNode:
    return MobileNode(f"2001:db8:a::{last}", spi=spi, prefixes=prefixes)


def test_implicit_mode_takes_the_configured_prefixes() -> None:
    node = router(WIDE, OTHER)
    world = World(node)
    found = world.receive(node.update(flags=A | H | R))
    assert dataplane(found) == [
        RoutePrefix(*WIDE, HOME),
        RoutePrefix(*OTHER, HOME),
        SetTunnel(HOME, CARE_OF_1),
        DefendAddress(HOME),
        AnnounceAddress(HOME),
    ]
    answer = node.acknowledged(found)
    assert (answer.status, answer.flags) == (0, 0x40)


def test_explicit_mode_takes_what_was_asked_for_once() -> None:
    node = router(WIDE, NARROW, OTHER)
    world = World(node)
    found = world.receive(node.update(**brings(NARROW, NARROW)))
    assert dataplane(found)[:2] == [RoutePrefix(*NARROW, HOME), SetTunnel(HOME, CARE_OF_1)]
    assert world.binding(node).prefixes == (NARROW,)


def test_without_r_no_prefix_is_routed() -> None:
    node = router(WIDE)
    world = World(node)
    answer = node.register(world, options=[mobile_network_prefix_option(WIDE)])
    assert (answer.flags, world.plane.routes) == (0, set())


def test_status_140_for_a_mobile_node_that_may_be_no_router() -> None:
    node = MobileNode()
    world = World(node)
    answer = node.acknowledged(world.receive(node.update(**brings(WIDE))))
    assert (answer.status, answer.flags) == (Status.MOBILE_ROUTER_OPERATION_NOT_PERMITTED, 0)


@pytest.mark.parametrize("length", [0, 48, 127, 129, 255])
def test_status_141_for_a_prefix_with_host_bits_or_no_length(length: int) -> None:
    node = router(WIDE)
    world = World(node)
    bad = Option(
        OptionType.MOBILE_NETWORK_PREFIX, bytes((0, length)) + address("2001:db8:aa::1")[:15] + b"\xff"
    )
    answer = node.acknowledged(world.receive(node.update(flags=A | H | R, options=[bad])))
    assert answer.status == Status.INVALID_PREFIX
    assert len(world.agent.cache) == 0


@pytest.mark.parametrize("asked", [(OTHER,), (WIDE, OTHER), (NARROW,), (prefix("2001:db8:aa::/47"),)])
def test_status_142_for_a_prefix_of_somebody_else(asked: tuple[MobileNetworkPrefix, ...]) -> None:
    node = router(WIDE)
    world = World(node)
    answer = node.acknowledged(world.receive(node.update(**brings(*asked))))
    assert answer.status == Status.NOT_AUTHORIZED_FOR_PREFIX


def test_status_143_while_another_router_has_the_prefix() -> None:
    first, second = router(WIDE), router(WIDE, last="101", spi=0x3000)
    world = World(first, second)
    first.register(world, flags=A | H | R)
    answer = second.acknowledged(world.receive(second.update(CARE_OF_2, flags=A | H | R)))
    assert answer.status == Status.FORWARDING_SETUP_FAILED
    assert dataplane(world.receive(first.update(flags=A | H | R))) == []
    world.receive(first.home())
    assert world.plane.routes == set()
    second.register(world, CARE_OF_2, flags=A | H | R)
    assert world.plane.routes == {WIDE}


def test_the_longest_prefix_wins_in_both_directions() -> None:
    wide, narrow = router(WIDE), router(NARROW, last="101", spi=0x3000)
    world = World(wide, narrow)
    wide.register(world, CARE_OF_1, flags=A | H | R)
    inside, outside = address("2001:db8:aa:1::5"), address("2001:db8:aa:2::5")
    assert only_packet(world.receive(echo(CORRESPONDENT, inside)))[24:40] == CARE_OF_1
    narrow.register(world, CARE_OF_2, flags=A | H | R)
    assert only_packet(world.receive(echo(CORRESPONDENT, inside)))[24:40] == CARE_OF_2
    assert only_packet(world.receive(echo(CORRESPONDENT, outside)))[24:40] == CARE_OF_1
    packet = echo(inside, CORRESPONDENT)
    assert only_packet(world.receive(narrow.tunnel(packet, CARE_OF_2))) == packet
    world.drops(wide.tunnel(packet, CARE_OF_1), "reverse_tunnel_source")
    world.receive(narrow.home())
    assert only_packet(world.receive(echo(CORRESPONDENT, inside)))[24:40] == CARE_OF_1


def test_a_move_takes_the_prefixes_along_and_a_refresh_may_change_them() -> None:
    node = router(WIDE, OTHER)
    world = World(node)
    node.register(world, **brings(WIDE))
    assert dataplane(world.receive(node.update(CARE_OF_2, **brings(WIDE)))) == [SetTunnel(HOME, CARE_OF_2)]
    assert dataplane(world.receive(node.update(CARE_OF_2, **brings(OTHER)))) == [
        UnroutePrefix(*WIDE),
        RoutePrefix(*OTHER, HOME),
        SetTunnel(HOME, CARE_OF_2),
    ]
    assert next(world.agent.bindings(world.now))["mobile_network_prefixes"] == ["2001:db8:bb::/56"]
    world.drops(echo(CORRESPONDENT, address("2001:db8:aa::1")), "no_binding")


def test_an_end_of_any_kind_takes_the_routes_back() -> None:
    for end in ("home", "expiry", "stop"):
        node = router(WIDE, OTHER)
        world = World(node)
        node.register(world, flags=A | H | R)
        if end == "home":
            found = dataplane(world.receive(node.home()))
        elif end == "expiry":
            found = dataplane(world.advance(60))[2:]
        else:
            found = world.carry_out(world.agent.stop(world.now))[:4]
        assert found == [
            RemoveTunnel(HOME),
            UnroutePrefix(*WIDE),
            UnroutePrefix(*OTHER),
            ReleaseAddress(HOME),
        ]


def test_the_prefix_is_taken_while_duplicate_address_detection_runs_but_not_routed() -> None:
    node = router(WIDE)
    world = World(node, duplicate_address_detection=True)
    world.receive(node.update(flags=A | H | R))
    assert world.plane.routes == set()
    world.drops(echo(CORRESPONDENT, address("2001:db8:aa::1")), "no_binding")
    world.advance(1)
    assert world.plane.routes == {WIDE}


# Loops: status 174 before one can close.


def test_a_care_of_address_that_is_another_home_address() -> None:
    first, second = MobileNode(), MobileNode("2001:db8:a::101", spi=0x3000)
    world = World(first, second)
    first.register(world)
    answer = second.acknowledged(world.receive(second.update(HOME)))
    assert answer.status == Status.INVALID_CARE_OF_ADDRESS


def test_a_care_of_address_inside_the_prefixes_just_brought() -> None:
    node = router(WIDE)
    world = World(node)
    answer = node.acknowledged(world.receive(node.update(address("2001:db8:aa::9"), flags=A | H | R)))
    assert answer.status == Status.INVALID_CARE_OF_ADDRESS
    assert len(world.agent.cache) == 0


@pytest.mark.parametrize("first_to_close", [0, 1])
def test_two_routers_behind_each_other(first_to_close: int) -> None:
    nodes = [router(WIDE), router(OTHER, last="101", spi=0x3000)]
    inside = [address("2001:db8:aa::9"), address("2001:db8:bb::9")]
    world = World(*nodes)
    closes, waits = nodes[first_to_close], nodes[1 - first_to_close]
    # Either may be nested in the other, even before that one is registered; only the second closes a loop.
    waits.register(world, inside[first_to_close], flags=A | H | R)
    answer = closes.acknowledged(world.receive(closes.update(inside[1 - first_to_close], flags=A | H | R)))
    assert answer.status == Status.INVALID_CARE_OF_ADDRESS


def test_a_loop_through_a_care_of_address_that_becomes_a_home_address() -> None:
    first, second = router(WIDE), router(OTHER, last="101", spi=0x3000)
    world = World(first, second)
    first.register(world, second.home_address, flags=A | H | R)
    answer = second.acknowledged(world.receive(second.update(address("2001:db8:aa::9"), flags=A | H | R)))
    assert answer.status == Status.INVALID_CARE_OF_ADDRESS


def test_honest_nesting_works_up_to_a_depth() -> None:
    routers = [
        router(prefix(f"2001:db8:{n:x}::/48"), last=f"{n:x}", spi=0x3000 + 4 * n) for n in range(0x100, 0x10A)
    ]
    world = World(*routers)
    source, statuses = CARE_OF_1, []
    for n, node in enumerate(routers, 0x100):
        statuses.append(node.acknowledged(world.receive(node.update(source, flags=A | H | R))).status)
        source = address(f"2001:db8:{n:x}::5")
    assert statuses == [0] * 8 + [Status.INVALID_CARE_OF_ADDRESS] + [0]
