"""A kernel dataplane in the wire's namespace without its daemon, and mobile nodes' ends of what is lent."""

from __future__ import annotations

import os
import time
from pathlib import Path

from mip6ha import icmpv6, ipv6
from mip6ha.config import EdgeConfiguration
from mip6ha.edge.kernel_dataplane import KernelDataplane
from mip6ha.effects import DefendAddress, LendPayload, LentAssociation, SetTunnel
from mip6ha.ipsec import esp
from mip6ha.ipsec.algorithms import by_name
from mip6ha.ipsec.policy import Direction, Use
from mip6ha.ipsec.sad import SecurityAssociation
from mip6ha.lending import PayloadNews
from mip6ha.wire import address

from .network import CARE_OF_ADDRESS, HOME_ADDRESS, Wire, neighbour, tunnelled
from .test_packets import TRANSFORMS

AGENT = address("2001:db8:a::77")
CORRESPONDENT = address("2001:db8:a::ff")
ELSEWHERE = address("2001:db8:b::9")
NETWORK = address("2001:db8:77::")
BEHIND = address("2001:db8:77::5")
OTHER = address("2001:db8:a::200")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Agent:
    """A kernel dataplane in the wire's namespace, and what it reports."""

    def __init__(self, wire: Wire, directory: Path, group: int | None = None) -> None:
        wire.ip(neighbour("2001:db8:a::ff"), neighbour("2001:db8:b::9"))
        self.wire = wire
        self.clock = Clock()
        self.edge = EdgeConfiguration(
            "home", "mip6test", directory / "socket", directory, None, group, dataplane="kernel"
        )
        self.reports: list[dict[str, int]] = []
        self.open()

    def open(self) -> None:
        with self.wire.inside():
            self.dataplane = KernelDataplane(AGENT, self.edge, clock=self.clock)
        self.do(DefendAddress(AGENT))

    def do(self, *effects: object) -> int:
        """Carry out; how many netlink messages that took."""
        before = self.dataplane.counters["netlink_messages"]
        with self.wire.inside():
            for effect in effects:
                self.dataplane.carry_out(effect)  # type: ignore[arg-type]
            self.dataplane.flush()
        return self.dataplane.counters["netlink_messages"] - before

    def repair(self) -> dict[str, int]:
        self.reports.clear()
        with self.wire.inside():
            for _ in self.dataplane.repair(self.reports.append):
                pass
        return self.reports[0] if self.reports else {}

    def tend(self) -> None:
        with self.wire.inside():
            self.dataplane.tend()

    def kill(self) -> None:
        """As if the process were killed: descriptors close, nothing is undone."""
        self.dataplane.tun.close()
        self.dataplane.kernel.close()
        if self.dataplane.home_link is not None:
            self.dataplane.home_link.close()

    def close(self) -> None:
        with self.wire.inside():
            self.dataplane.close()

    def to_daemon(self) -> list[bytes]:
        time.sleep(0.1)
        found = []
        while (packet := self.dataplane.tun.read()) is not None:
            found.append(packet)
        return found


def received(wire: Wire) -> ipv6.Packet:
    """The next packet on the wire that is not ICMPv6 of the kernel's neighbours."""
    while True:
        parsed = ipv6.parse(wire.receive())
        if parsed.next_header != ipv6.ICMPV6:
            return parsed


def is_quiet(wire: Wire) -> bool:
    """Whether nothing comes but what the kernel says to its neighbours."""
    try:
        found = ipv6.parse(wire.receive(0.2))
        while found.next_header == ipv6.ICMPV6:
            found = ipv6.parse(wire.receive(0.2))
    except AssertionError:
        return True
    return False


def told(wire: Wire) -> int:
    """The MTU that the correspondent is told."""
    while True:
        parsed = ipv6.parse(wire.receive())
        if parsed.destination == CORRESPONDENT and parsed.next_header == ipv6.ICMPV6:
            message = icmpv6.parse(parsed.payload, parsed.source, parsed.destination)
            if message.type == icmpv6.PACKET_TOO_BIG:
                return int.from_bytes(message.body[:4], "big")


IN, OUT = 0x1001, 0x1002
LISTED = ("xfrm state", "xfrm policy")
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
    ) -> Node:
        keys = TRANSFORMS[transform]
        self.do(SetTunnel(home_address, CARE_OF_ADDRESS, protected=True), DefendAddress(home_address))
        associations = tuple(
            LentAssociation(outbound, number, transform, keys, esn, window, first, limit, step)
            for outbound, number in ((False, spi), (True, spi + 1))
        )
        self.do(LendPayload(home_address, associations))
        return Node(self, home_address, transform, esn=esn, spi=spi, first=first)

    def to_daemon(self) -> list[bytes]:
        # Not what the kernel has to say about multicast.
        return [packet for packet in super().to_daemon() if packet[24] != 0xFF]

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


def left(agent: Lender) -> list[str]:
    """What of ours the kernel has, in short."""
    filters = agent.wire.filters("mip6test egress")
    # Not in one batch: the second listing would be empty.
    found = [line for what in LISTED for line in agent.wire.ip(what).splitlines()] + filters.splitlines()
    return [line for line in found if line.startswith("src") or "mirred" in line]


def numbers(wire: Wire, patience: float = 0.05) -> list[int]:
    """Those of the ESP packets on the wire."""
    found = []
    try:
        while True:
            packet = wire.receive(patience)
            if packet[6] == ipv6.ESP:
                found.append(int.from_bytes(packet[44:48], "big"))
    except AssertionError:
        return found
