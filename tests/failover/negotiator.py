"""A mobile node that negotiates from its care-of address and then registers with a home agent core."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Protocol

from mip6ha import ipv6, udp
from mip6ha.binding import messages
from mip6ha.ipsec import esp
from mip6ha.ipsec.algorithms import by_name
from mip6ha.ipsec.ike.effects import Effect, InstallChild, RemoveChild, SendDatagram
from mip6ha.ipsec.ike.endpoint import IkeEndpoint
from mip6ha.ipsec.ike.message import parse_header
from mip6ha.ipsec.ike.numbers import Exchange
from mip6ha.ipsec.ike.parameters import Timing
from mip6ha.ipsec.ike.sa import IkeSa, State
from mip6ha.ipsec.policy import Direction
from mip6ha.ipsec.sad import SecurityAssociation
from mip6ha.ipv6 import ESP, IPV6, MOBILITY, UDP
from mip6ha.udp import Datagram

from ..ipsec.ike.world import CALM, WALL, parameters_of, peer_of
from ..node.world import CARE_OF_1, HOME_AGENT, A, H, K, seeded
from .world import Answer, home

NEVER = replace(CALM, retransmit=1e6)
"""No retransmission comes by itself."""


class Network(Protocol):
    """Where the home agent is: ``answers`` are all packets that it ever sent."""

    now: float
    answers: list[Answer]

    def receive(self, packet: bytes) -> None:
        """A packet arrives there."""

    def run(self, seconds: float) -> None:
        """Time passes."""


class Negotiator:
    """A mobile node without keys: it negotiates from its care-of address, then registers."""

    def __init__(self, world: Network, timing: Timing = NEVER, **credentials: Any) -> None:
        self.world = world
        self.care_of_address = CARE_OF_1
        self.home_address = home(0)
        peer = peer_of("mn", home_addresses=(self.home_address,), **credentials)
        self.random = seeded("negotiator")
        self.endpoint = IkeEndpoint(
            parameters_of("mn", peer, timing=timing), self.random, world.now, wall=lambda: WALL
        )
        self.effects: list[Effect] = []
        self.sent: list[SendDatagram] = []
        self.received: list[bytes] = []
        self.outbound: list[SecurityAssociation] = []
        self.inbound: dict[int, SecurityAssociation] = {}
        self.sequence = self.lost = 0
        self.delay = 0.0
        self.inner: list[bytes] = []
        self._read = len(world.answers)

    # Packets.

    def do(self, effects: Iterable[Effect]) -> None:
        for each in effects:
            self.effects.append(each)
            match each:
                case SendDatagram():
                    self.sent.append(each)
                    self.send(each)
                case InstallChild(_, installation, inbound, outbound):
                    child = installation.child
                    transform = by_name(installation.transform)
                    for spi, direction, keys in (
                        (child.spi_in, Direction.IN, inbound),
                        (child.spi_out, Direction.OUT, outbound),
                    ):
                        association = SecurityAssociation(
                            spi=spi,
                            direction=direction,
                            use=child.use,
                            home_address=self.home_address,
                            transform=transform,
                            keys=keys,
                            esn=child.esn,
                            to_home_agent=direction is Direction.OUT,
                        )
                        if direction is Direction.IN:
                            self.inbound[spi] = association
                        else:
                            self.outbound.append(association)
                case RemoveChild(_, child):
                    del self.inbound[child.spi_in]
                    self.outbound = [one for one in self.outbound if one.spi != child.spi_out]

    def send(self, datagram: SendDatagram) -> None:
        (source, port), (destination, other) = datagram.local, datagram.remote
        marker = udp.NON_ESP_MARKER if other == 4500 else b""
        octets = udp.build(source, destination, Datagram(port, other, marker + datagram.octets))
        self.world.receive(ipv6.build(source, destination, UDP, octets))

    def listen(self) -> list[Any]:
        """Take in what has come since; messages of Mobile IPv6 are returned."""
        found = []
        while self._read < len(self.world.answers):
            answer = self.world.answers[self._read]
            if answer.time > self.world.now - self.delay:
                break
            self._read += 1
            parsed = ipv6.parse(answer.packet)
            if parsed.next_header == UDP:
                datagram = udp.parse(parsed.payload, parsed.source, parsed.destination)
                source = parsed.source, datagram.source_port
                here = parsed.destination, datagram.destination_port
                marked = datagram.source_port == 4500
                octets = udp.unmarked(datagram.payload) if marked else datagram.payload
                self.received.append(octets)
                self.do(self.endpoint.receive(octets, source, here, self.world.now))
            elif parsed.next_header == ESP:
                association = self.inbound.get(esp.spi(parsed.payload))
                if association is None:
                    self.lost += 1
                    continue
                next_header, octets = esp.unprotect(association, parsed.payload)
                if next_header == IPV6:
                    self.inner.append(octets)
                    continue
                assert next_header == MOBILITY
                found.append(messages.parse(octets, HOME_AGENT, parsed.logical_destination))
        return found

    def run(self, seconds: float = 0.1) -> list[Any]:
        """Let time pass, and hear what is said."""
        found = []
        end = self.world.now + seconds
        while self.world.now < end:
            self.world.run(min(0.005, end - self.world.now))
            found += self.listen()
        return found

    # What it does.

    def begin(self) -> None:
        self.do(self.endpoint.initiate("ha", (self.care_of_address, 500), self.world.now))
        self.run()

    def register(self, flags: int = A | H | K, association: SecurityAssociation | None = None) -> list[Any]:
        """A Binding Update under the newest SA; the answers."""
        self.sequence += 1
        update = messages.BindingUpdate(self.sequence, flags, 15)
        octets = messages.build(update, self.home_address, HOME_AGENT)
        sealed = esp.protect(association or self.outbound[-1], MOBILITY, octets, self.random)
        packet = ipv6.build(self.care_of_address, HOME_AGENT, ESP, sealed, home_address=self.home_address)
        self.world.receive(packet)
        return self.run()

    @property
    def ike_sa(self) -> IkeSa:
        (found,) = (one for one in self.endpoint.ike_sas.values() if one.state is State.ESTABLISHED)
        return found

    def child_spi(self) -> int:
        (found,) = self.ike_sa.live_children()
        return found.spi_in

    def exchanges(self) -> list[Exchange]:
        return [Exchange(parse_header(each.octets)[0].exchange) for each in self.sent]
