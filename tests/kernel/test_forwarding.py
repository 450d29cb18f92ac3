"""A binding in the kernel: one tunnel device, a route and a filter for each mobile node (docs/kernel.md)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mip6ha import ipv6
from mip6ha.wire import address

from .network import CARE_OF_ADDRESS, HOME_ADDRESS, HOME_AGENT, Wire, neighbour, tunnelled

TABLE = 13501
CORRESPONDENT = address("2001:db8:a::ff")
OTHER = address("2001:db8:a::200")
HERE, THERE, HOME = "2001:db8:a::1", "2001:db8:b:0:ec1e:83ff:fee7:1faf", "2001:db8:a::100"


@pytest.fixture
def agent(wire: Wire) -> Iterator[Wire]:
    """What a home agent has for every mobile node together."""
    wire.switch("conf/all/forwarding", "1")
    wire.ip("link add mip6 type ip6tnl external", "link set mip6 up", neighbour("2001:db8:a::ff"))
    wire.tc("qdisc add dev mip6 clsact", "filter add dev mip6 ingress pref 100 matchall action drop")
    yield wire
    wire.ip("link delete mip6")


def bind(agent: Wire) -> None:
    """What it has for one of them."""
    agent.ip(f"route add {HOME}/128 dev mip6 encap ip6 src {HERE} dst {THERE} hoplimit 64 table {TABLE}")
    agent.tc(
        "filter add dev mip6 ingress protocol ipv6 pref 10 "
        f"flower enc_src_ip {THERE} enc_dst_ip {HERE} src_ip {HOME}/128 action pass"
    )


def reverse(agent: Wire, care_of_address: bytes, source: bytes) -> None:
    inner = tunnelled(source, CORRESPONDENT, b"out")
    agent.send(ipv6.build(care_of_address, HOME_AGENT, ipv6.IPV6, inner))


def test_both_ways_through_one_device(agent: Wire) -> None:
    bind(agent)
    agent.ip(f"rule add pref 13500 lookup {TABLE}")
    try:
        agent.send(tunnelled(CORRESPONDENT, HOME_ADDRESS, b"in"))
        outer = ipv6.parse(agent.receive())
        assert (outer.source, outer.destination) == (HOME_AGENT, CARE_OF_ADDRESS)
        # No Tunnel Encapsulation Limit option: it costs 8 octets.
        assert (outer.next_header, outer.offset) == (ipv6.IPV6, ipv6.HEADER_LENGTH)
        inner = ipv6.parse(outer.payload)
        assert (inner.source, inner.destination, inner.hop_limit) == (CORRESPONDENT, HOME_ADDRESS, 63)
        reverse(agent, CARE_OF_ADDRESS, HOME_ADDRESS)
        inner = ipv6.parse(agent.receive())
        assert (inner.source, inner.destination, inner.payload[8:]) == (HOME_ADDRESS, CORRESPONDENT, b"out")
    finally:
        agent.ip("rule delete pref 13500")


def test_only_a_bound_source_from_its_care_of_address(agent: Wire) -> None:
    bind(agent)
    reverse(agent, CARE_OF_ADDRESS, OTHER)
    reverse(agent, OTHER, HOME_ADDRESS)
    reverse(agent, CARE_OF_ADDRESS, HOME_ADDRESS)
    assert ipv6.parse(agent.receive()).payload[8:] == b"out"
    assert agent.is_quiet()


def test_a_warm_standby_becomes_active_with_one_rule(agent: Wire) -> None:
    bind(agent)
    agent.ip(neighbour(HOME))
    # Nothing looks into the table: the address is one of the link's.
    agent.send(tunnelled(CORRESPONDENT, HOME_ADDRESS, b"in"))
    assert ipv6.parse(agent.receive()).destination == HOME_ADDRESS
    agent.ip(f"rule add pref 13500 lookup {TABLE}")
    try:
        agent.send(tunnelled(CORRESPONDENT, HOME_ADDRESS, b"in"))
        assert ipv6.parse(agent.receive()).destination == CARE_OF_ADDRESS
    finally:
        agent.ip("rule delete pref 13500")
