"""Payload under ESP in the kernel with numbers that are lent: what passes, what never does, what is left."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mip6ha import ipv6
from mip6ha.edge.dataplane import PayloadCounted, PayloadLost, PayloadNews
from mip6ha.effects import (
    DefendAddress,
    ExtendPayload,
    LendPayload,
    LentAssociation,
    RecallPayload,
    RoutePrefix,
    SetTunnel,
)
from mip6ha.ipsec import esp
from mip6ha.ipsec.algorithms import by_name
from mip6ha.ipsec.policy import Direction, Use
from mip6ha.ipsec.sad import SecurityAssociation

from .network import CARE_OF_ADDRESS, HOME_ADDRESS, Wire, neighbour
from .test_dataplane import AGENT, BEHIND, CORRESPONDENT, ELSEWHERE, NETWORK, OTHER, Agent, is_quiet
from .test_packets import TRANSFORMS, tunnelled

IN, OUT = 0x1001, 0x1002
UP = tunnelled(HOME_ADDRESS, CORRESPONDENT, b"up")
DOWN = tunnelled(CORRESPONDENT, HOME_ADDRESS, b"down")


class Lender(Agent):
    """Stands in for the core: what it is told, and mobile nodes' ends of the SAs."""

    def lend(
        self,
        home_address: bytes = HOME_ADDRESS,
        transform: str = "aes-gcm-16",
        *,
        esn: bool = True,
        first: int = 1,
        limit: int = 1000,
        step: int = 10,
        window: int = 64,
        spi: int = IN,
        networks: tuple[tuple[bytes, int], ...] = (),
    ) -> Node:
        keys = TRANSFORMS[transform]
        self.do(SetTunnel(home_address, CARE_OF_ADDRESS, protected=True), DefendAddress(home_address))
        associations = tuple(
            LentAssociation(outbound, number, transform, keys, esn, window, first, limit, step)
            for outbound, number in ((False, spi), (True, spi + 1))
        )
        networks = ((home_address, 128), *networks)
        self.do(LendPayload(home_address, CARE_OF_ADDRESS, networks, associations))
        return Node(self, home_address, transform, esn=esn, spi=spi, first=first)

    def news(self) -> list[PayloadNews]:
        payload = self.dataplane._payload
        assert payload is not None
        payload.read_events()
        return payload.news()


class Node:
    """The mobile node's end. ``number`` is the next one that it uses."""

    def __init__(
        self, agent: Lender, home_address: bytes, transform: str, *, esn: bool, spi: int, first: int
    ) -> None:
        self.agent = agent
        self.wire = agent.wire
        self.care_of_address = CARE_OF_ADDRESS
        self.number = first

        def association(number: int, direction: Direction) -> SecurityAssociation:
            return SecurityAssociation(
                spi=number,
                direction=direction,
                use=Use.PAYLOAD,
                home_address=home_address,
                transform=by_name(transform),
                keys=TRANSFORMS[transform],
                esn=esn,
                to_home_agent=direction is Direction.OUT,
            )

        self.out = association(spi, Direction.OUT)
        self.back = association(spi + 1, Direction.IN)
        assert self.back.window is not None
        self.back.window.advance(first - 1)

    def sealed(self, packet: bytes = UP, number: int | None = None) -> bytes:
        if number is None:
            number, self.number = self.number, self.number + 1
        self.out.sequence = number - 1
        payload = esp.protect(self.out, ipv6.IPV6, packet, os.urandom)
        return ipv6.build(self.care_of_address, AGENT, ipv6.ESP, payload)

    def goes_up(self, packet: bytes = UP, number: int | None = None) -> bool:
        """Whether the kernel forwards it."""
        self.wire.send(self.sealed(packet, number))
        try:
            return self.wire.receive(0.5)[8:] == packet[8:]
        except AssertionError:
            return False

    def comes_down(self, packet: bytes = DOWN) -> int:
        """The number under which the kernel has sent it, which is opened."""
        self.wire.send(packet)
        while (parsed := ipv6.parse(self.wire.receive())).next_header != ipv6.ESP:
            pass
        assert (parsed.source, parsed.destination) == (AGENT, self.care_of_address)
        protocol, inner = esp.unprotect(self.back, parsed.payload)
        assert protocol == ipv6.IPV6
        assert inner[8:] == packet[8:]
        assert self.back.window is not None
        return self.back.window.top


@pytest.fixture
def agent(wire: Wire, tmp_path: Path) -> Iterator[Lender]:
    wire.ip(neighbour("2001:db8:a::ff"), neighbour("2001:db8:b::9"))
    made = Lender(wire, tmp_path)
    yield made
    made.close()


def left(agent: Lender) -> list[str]:
    """What of ours the kernel has, in short."""
    filters = agent.wire.filters("mip6test egress")
    found = agent.wire.ip("xfrm state", "xfrm policy").splitlines() + filters.splitlines()
    return [line for line in found if line.startswith("src") or "mirred" in line]


@pytest.mark.parametrize("esn", [False, True], ids=["plain", "esn"])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_the_kernel_seals_and_opens(wire: Wire, agent: Lender, transform: str, esn: bool) -> None:
    # Across the change of subspace where there is one.
    first = (1 << 32) - 2 if esn else 7
    node = agent.lend(transform=transform, esn=esn, first=first, limit=first + 99)
    for number in range(first, first + 5):
        assert node.goes_up(number=number)
        assert node.comes_down() == number
    assert not node.goes_up(number=first + 1)
    assert agent.to_daemon() == []
    agent.do(RecallPayload(HOME_ADDRESS))
    assert not node.goes_up(number=first + 6)
    assert len(agent.to_daemon()) == 1
    wire.send(DOWN)
    assert [packet[8:] for packet in agent.to_daemon()] == [DOWN[8:]]
    assert agent.dataplane.counters.keys() == {"netlink_messages"}
    assert wire.ip("xfrm state", "xfrm policy") == ""


def test_nothing_above_the_limit_is_the_kernels(wire: Wire, agent: Lender) -> None:
    node = agent.lend(first=1, limit=20)
    assert node.goes_up(number=20)
    beyond = node.sealed(number=21)
    wire.send(beyond)
    assert [packet[40:] for packet in agent.to_daemon()] == [beyond[40:]]
    agent.do(ExtendPayload(HOME_ADDRESS, False, IN, 21, 5000, 10))
    assert node.goes_up(number=21)
    assert node.goes_up(number=5000)
    wire.send(node.sealed(number=5001))
    assert len(agent.to_daemon()) == 1


def test_the_steered_range_follows(wire: Wire, agent: Lender) -> None:
    """What can still be accepted is steered, however much is lent; what comes later is the daemon's."""
    node = agent.lend(first=1, limit=100_000)
    assert node.goes_up(number=9000)
    assert agent.news() == [PayloadCounted(HOME_ADDRESS, False, IN, 9000)]
    agent.do(ExtendPayload(HOME_ADDRESS, False, IN, 100_001, 200_000, 10))
    assert node.goes_up(number=9001)
    assert node.goes_up(number=8990)
    wire.send(node.sealed(number=8191))
    assert len(agent.to_daemon()) == 1
    assert node.goes_up(number=200_000)


def test_only_from_its_care_of_address_and_to_the_home_agent(wire: Wire, agent: Lender) -> None:
    node = agent.lend()
    node.care_of_address = ELSEWHERE
    wire.send(node.sealed())
    payload = node.sealed()[40:]
    wire.send(ipv6.build(CARE_OF_ADDRESS, AGENT, ipv6.ESP, payload, home_address=HOME_ADDRESS))
    agent.do(DefendAddress(OTHER))
    wire.send(ipv6.build(CARE_OF_ADDRESS, OTHER, ipv6.ESP, payload))
    assert [packet[24:40] for packet in agent.to_daemon()] == [AGENT, AGENT, OTHER]


def test_inner_sources_of_others_are_dropped(wire: Wire, agent: Lender) -> None:
    node = agent.lend()
    agent.lend(OTHER, spi=0x2001)
    for source in (OTHER, BEHIND, ELSEWHERE, CARE_OF_ADDRESS):
        assert not node.goes_up(tunnelled(source, CORRESPONDENT, b"spoofed"))
    assert node.goes_up()
    assert agent.to_daemon() == []


def test_networks_behind_a_mobile_router(wire: Wire, agent: Lender) -> None:
    agent.do(RoutePrefix(NETWORK, 48, HOME_ADDRESS))
    node = agent.lend(networks=((NETWORK, 48),))
    assert node.goes_up(tunnelled(BEHIND, CORRESPONDENT, b"up"))
    assert node.comes_down(tunnelled(CORRESPONDENT, BEHIND, b"down")) == 1


def test_exactly_what_is_lent_goes_out(wire: Wire, agent: Lender) -> None:
    node = agent.lend(first=100, limit=149)
    assert [node.comes_down() for _ in range(50)] == list(range(100, 150))
    # Half of it was worth a word, and so was every tenth.
    assert {each for each in agent.news() if isinstance(each, PayloadCounted)} == {
        PayloadCounted(HOME_ADDRESS, True, OUT, 149)
    }
    wire.send(DOWN)
    assert is_quiet(wire)
    assert agent.news() == [PayloadLost(HOME_ADDRESS)]
    assert left(agent) == []
    wire.send(DOWN)
    assert len(agent.to_daemon()) == 1
