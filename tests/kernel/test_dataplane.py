"""The home agent's kernel dataplane on a kernel: what its effects make of packets, and what is left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mip6ha import icmpv6, ipv6
from mip6ha.effects import (
    DefendAddress,
    NarrowPath,
    ReleaseAddress,
    RemoveTunnel,
    RoutePrefix,
    SendPacket,
    SetTunnel,
    StandDown,
    TakeOver,
    UnroutePrefix,
)

from .agent import AGENT, BEHIND, CORRESPONDENT, ELSEWHERE, NETWORK, OTHER, Agent, is_quiet, received, told
from .network import CARE_OF_ADDRESS, HOME_ADDRESS, Wire, tunnelled


@pytest.fixture
def agent(wire: Wire, tmp_path: Path) -> Iterator[Agent]:
    with closing(Agent(wire, tmp_path)) as made:
        yield made


@pytest.fixture
def member(wire: Wire, tmp_path: Path) -> Iterator[Agent]:
    with closing(Agent(wire, tmp_path, group=1)) as made:
        yield made


def bound(agent: Agent, care_of_address: bytes = CARE_OF_ADDRESS) -> int:
    return agent.do(SetTunnel(HOME_ADDRESS, care_of_address), DefendAddress(HOME_ADDRESS))


def down(wire: Wire, destination: bytes = HOME_ADDRESS) -> ipv6.Packet:
    wire.send(tunnelled(CORRESPONDENT, destination, b"down"))
    return received(wire)


def up(wire: Wire, source: bytes, care_of_address: bytes) -> None:
    inner = tunnelled(source, CORRESPONDENT, b"up")
    wire.send(ipv6.build(care_of_address, AGENT, ipv6.IPV6, inner))


def comes_up(wire: Wire, source: bytes = HOME_ADDRESS, care_of_address: bytes = CARE_OF_ADDRESS) -> bool:
    up(wire, source, care_of_address)
    return not is_quiet(wire)


def test_payload_is_the_kernels_both_ways(wire: Wire, agent: Agent) -> None:
    bound(agent)
    outer = down(wire)
    assert (outer.source, outer.destination, outer.next_header) == (AGENT, CARE_OF_ADDRESS, ipv6.IPV6)
    assert outer.hop_limit == 64
    assert ipv6.parse(outer.payload).destination == HOME_ADDRESS
    assert comes_up(wire)
    assert agent.to_daemon() == []


def test_signalling_is_the_daemons(wire: Wire, agent: Agent) -> None:
    bound(agent)
    packets = [
        ipv6.build(CARE_OF_ADDRESS, AGENT, ipv6.MOBILITY, bytes(16), home_address=HOME_ADDRESS),
        ipv6.build(CARE_OF_ADDRESS, AGENT, ipv6.ESP, bytes(32), home_address=HOME_ADDRESS),
        ipv6.build(HOME_ADDRESS, AGENT, ipv6.ESP, bytes(32)),
        ipv6.build(CARE_OF_ADDRESS, AGENT, ipv6.MOBILITY, bytes(16)),
        ipv6.build(ELSEWHERE, AGENT, ipv6.ICMPV6, bytes(16)),
    ]
    for packet in packets:
        wire.send(packet)
    # Only the hop limit has changed.
    assert [each[:7] + each[8:] for each in agent.to_daemon()] == [each[:7] + each[8:] for each in packets]


def test_only_a_bound_source_from_its_care_of_address(wire: Wire, agent: Agent) -> None:
    bound(agent)
    assert not comes_up(wire, OTHER)
    assert not comes_up(wire, HOME_ADDRESS, ELSEWHERE)
    assert not comes_up(wire, BEHIND)
    assert comes_up(wire)


def test_a_move_and_a_refresh(wire: Wire, agent: Agent) -> None:
    assert bound(agent) == 2
    assert bound(agent) == 0
    # A route, a new filter, and the old one.
    assert bound(agent, ELSEWHERE) == 3
    assert down(wire).destination == ELSEWHERE
    assert not comes_up(wire)
    assert comes_up(wire, care_of_address=ELSEWHERE)


def test_prefixes_follow_their_home_address(wire: Wire, agent: Agent) -> None:
    assert agent.do(RoutePrefix(NETWORK, 48, HOME_ADDRESS), SetTunnel(HOME_ADDRESS, CARE_OF_ADDRESS)) == 4
    assert down(wire, BEHIND).destination == CARE_OF_ADDRESS
    assert comes_up(wire, BEHIND)
    assert agent.do(SetTunnel(HOME_ADDRESS, ELSEWHERE)) == 6
    assert down(wire, BEHIND).destination == ELSEWHERE
    assert comes_up(wire, BEHIND, ELSEWHERE)
    assert agent.do(UnroutePrefix(NETWORK, 48)) == 2
    assert not comes_up(wire, BEHIND, ELSEWHERE)


def test_what_needs_esp_is_the_daemons(wire: Wire, agent: Agent) -> None:
    bound(agent)
    protected = SetTunnel(HOME_ADDRESS, CARE_OF_ADDRESS, protected=True)
    # The route goes to the daemon, the filter goes.
    assert agent.do(RoutePrefix(NETWORK, 48, HOME_ADDRESS), protected) == 3
    for destination in (HOME_ADDRESS, BEHIND):
        wire.send(tunnelled(CORRESPONDENT, destination, b"down"))
        assert [packet[24:40] for packet in agent.to_daemon()] == [destination]
    assert not comes_up(wire)
    assert not comes_up(wire, BEHIND)
    wire.send(ipv6.build(CARE_OF_ADDRESS, AGENT, ipv6.ESP, bytes(32)))
    assert len(agent.to_daemon()) == 1
    bound(agent)
    assert down(wire).destination == CARE_OF_ADDRESS
    assert comes_up(wire)


def test_without_a_tunnel_the_daemon_gets_it(wire: Wire, agent: Agent) -> None:
    agent.do(DefendAddress(HOME_ADDRESS))
    wire.send(tunnelled(CORRESPONDENT, HOME_ADDRESS, b"down"))
    (packet,) = agent.to_daemon()
    assert packet[24:40] == HOME_ADDRESS
    agent.do(SetTunnel(HOME_ADDRESS, CARE_OF_ADDRESS))
    assert down(wire).destination == CARE_OF_ADDRESS
    agent.do(RemoveTunnel(HOME_ADDRESS))
    wire.send(tunnelled(CORRESPONDENT, HOME_ADDRESS, b"down"))
    assert len(agent.to_daemon()) == 1


def test_what_the_daemon_gives_back_is_the_kernels(wire: Wire, agent: Agent) -> None:
    bound(agent)
    inner = tunnelled(HOME_ADDRESS, CORRESPONDENT, b"up")
    agent.do(SendPacket(ipv6.build(CARE_OF_ADDRESS, AGENT, ipv6.IPV6, inner)))
    assert received(wire).source == HOME_ADDRESS


def test_fragments_of_tunnel_packets(wire: Wire, agent: Agent) -> None:
    bound(agent)
    inner = tunnelled(HOME_ADDRESS, CORRESPONDENT, bytes(1400))
    for piece in ipv6.fragments(ipv6.build(CARE_OF_ADDRESS, AGENT, ipv6.IPV6, inner), 1280, 7):
        wire.send(piece)
    assert len(received(wire).payload) == 1408


def sized(size: int) -> bytes:
    return tunnelled(CORRESPONDENT, HOME_ADDRESS, bytes(size - 48))


def test_what_does_not_fit_is_answered(wire: Wire, agent: Agent) -> None:
    bound(agent)
    wire.send(sized(1460))
    assert len(received(wire).payload) == 1460
    wire.send(sized(1461))
    assert told(wire) == 1460


def test_a_narrower_path(wire: Wire, agent: Agent) -> None:
    bound(agent)
    agent.do(NarrowPath(CARE_OF_ADDRESS, 1400, 600.0))
    wire.send(sized(1360))
    assert len(received(wire).payload) == 1360
    wire.send(sized(1361))
    assert told(wire) == 1360
    # A tunnel packet with 1280 octets has to be fragmented: that is the core's.
    agent.do(NarrowPath(CARE_OF_ADDRESS, 1300, 600.0))
    wire.send(sized(1280))
    assert [len(packet) for packet in agent.to_daemon()] == [1280]
    assert comes_up(wire)
    agent.clock.now += 600
    agent.tend()
    wire.send(sized(1240))
    assert len(received(wire).payload) == 1240


def test_the_last_hop_ends_at_the_tunnel(wire: Wire, agent: Agent) -> None:
    """RFC 2473 3.1: entering a tunnel is forwarding."""
    bound(agent)
    packet = bytearray(tunnelled(CORRESPONDENT, HOME_ADDRESS, b"down"))
    packet[7] = 1
    wire.send(bytes(packet))
    while (parsed := ipv6.parse(wire.receive())).destination != CORRESPONDENT:
        pass
    assert parsed.payload[0] == icmpv6.TIME_EXCEEDED


def listing(wire: Wire) -> str:
    tables = wire.ip("route show table all proto 135", "rule", "link show", "addr show", "xfrm state")
    return "\n".join(
        line for line in tables.splitlines() if "mip6" in line or "135" in line or "13" in line[:6]
    )


def test_nothing_is_left(wire: Wire, tmp_path: Path) -> None:
    before = listing(wire)
    agent = Agent(wire, tmp_path, group=1)
    agent.do(TakeOver())
    for number in range(1000):
        bound(agent, CARE_OF_ADDRESS if number % 2 else ELSEWHERE)
        if number % 3 == 0:
            agent.do(RoutePrefix(NETWORK, 48, HOME_ADDRESS), SetTunnel(HOME_ADDRESS, ELSEWHERE))
            agent.do(UnroutePrefix(NETWORK, 48))
        agent.do(RemoveTunnel(HOME_ADDRESS), ReleaseAddress(HOME_ADDRESS))
    assert not {name: count for name, count in agent.dataplane.counters.items() if name != "netlink_messages"}
    bound(agent)
    agent.close()
    assert listing(wire) == before


# -- members of a set ----------------------------------------------------------------------------------------


def test_a_standby_is_quiet_and_takes_over_with_two_messages(wire: Wire, member: Agent) -> None:
    for number in range(1, 500):
        home_address = HOME_ADDRESS[:14] + (0x1000 + number).to_bytes(2, "big")
        member.do(SetTunnel(home_address, CARE_OF_ADDRESS), DefendAddress(home_address))
    bound(member)
    wire.send(tunnelled(CORRESPONDENT, HOME_ADDRESS, b"down"))
    up(wire, HOME_ADDRESS, CARE_OF_ADDRESS)
    assert is_quiet(wire)
    assert member.do(TakeOver()) == 2
    assert down(wire).destination == CARE_OF_ADDRESS
    assert comes_up(wire)
    assert member.do(StandDown()) == 0
    # What is on its way goes on for a moment.
    assert comes_up(wire)
    member.clock.now += 1
    member.tend()
    up(wire, HOME_ADDRESS, CARE_OF_ADDRESS)
    wire.send(tunnelled(CORRESPONDENT, HOME_ADDRESS, b"down"))
    assert is_quiet(wire)


def test_without_a_successor_nothing_goes_on(wire: Wire, member: Agent) -> None:
    bound(member)
    member.do(TakeOver())
    assert comes_up(wire)
    assert member.do(StandDown(succeeded=False)) == 2
    up(wire, HOME_ADDRESS, CARE_OF_ADDRESS)
    wire.send(tunnelled(CORRESPONDENT, HOME_ADDRESS, b"down"))
    assert is_quiet(wire)
    assert member.do(TakeOver()) == 2
    assert comes_up(wire)


# -- what others do ------------------------------------------------------------------------------------------


def test_what_a_killed_process_left_forwards_and_is_adopted(wire: Wire, agent: Agent) -> None:
    bound(agent)
    other = HOME_ADDRESS[:15] + b"\x55"
    agent.do(SetTunnel(other, CARE_OF_ADDRESS))
    agent.kill()
    assert down(wire).destination == CARE_OF_ADDRESS
    assert comes_up(wire)
    agent.open()
    assert comes_up(wire)
    # What comes back from a peer or a journal is there already.
    assert bound(agent) == 0
    assert agent.repair() == {}
    assert comes_up(wire, other)
    agent.clock.now += 10
    assert agent.repair() == {"filter": 1, "route": 1}
    assert not comes_up(wire, other)
    assert comes_up(wire)
    assert agent.repair() == {}


DAMAGE = {
    "route deleted": (["route del 2001:db8:a::100/128 dev mip6"], [], "route"),
    "route changed": (
        [
            "route replace 2001:db8:a::100/128 dev mip6 encap ip6 src 2001:db8:a::77 dst 2001:db8:b::666 "
            "metric 64 proto 135"
        ],
        [],
        "route",
    ),
    "filters deleted": ([], ["filter del dev mip6 ingress pref 1000"], "filter"),
    "filter of somebody": (
        [],
        [
            "filter add dev mip6 ingress protocol ipv6 pref 1000 handle 0x7777 flower "
            "enc_src_ip 2001:db8:b::666 enc_dst_ip 2001:db8:a::77 src_ip 2001:db8:a::100 action pass"
        ],
        "filter",
    ),
    "queue deleted": ([], ["qdisc del dev mip6 clsact"], "filter"),
    "address deleted": (["addr del 2001:db8:a::77/128 dev mip6"], [], "address"),
    "address made local": (
        ["route add local 2001:db8:a::77/128 dev mip6 table local"],
        [],
        "own_route",
    ),
    "rules deleted": (["rule del pref 13499", "rule del pref 13497"], [], "rule"),
    "delivery deleted": (["route flush table 13756"], [], "route"),
    "device down": (["link set mip6 down"], [], "device_state"),
    "device deleted": (["link del mip6"], [], "device"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_by_hand_is_repaired(wire: Wire, agent: Agent, damage: str) -> None:
    commands, traffic, kind = DAMAGE[damage]
    agent.clock.now += 10
    bound(agent)
    assert agent.repair() == {}
    wire.ip(*commands)
    wire.tc(*traffic)
    assert kind in agent.repair()
    assert down(wire).destination == CARE_OF_ADDRESS
    assert comes_up(wire)
    assert not comes_up(wire, care_of_address=ELSEWHERE)
    wire.send(ipv6.build(CARE_OF_ADDRESS, AGENT, ipv6.MOBILITY, bytes(16)))
    assert len(agent.to_daemon()) == 1
    assert agent.dataplane.counters[f"repaired_{kind}"]
    assert agent.repair() == {}
