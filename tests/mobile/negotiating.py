"""A mobile node and a home agent that negotiate their SAs, on a simulated clock, over links with latency."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

from mip6ha import ipv6, udp
from mip6ha.effects import Effect, Event, SendPacket
from mip6ha.ipsec.ike.identities import Identity
from mip6ha.ipsec.ike.message import parse_header
from mip6ha.ipsec.ike.numbers import NATT_PORT, PORT
from mip6ha.ipsec.ike.parameters import ChildPolicy, Parameters, Peer, Scope, Timing
from mip6ha.ipsec.ike.proposals import esp_offer, ike_offer
from mip6ha.ipsec.policy import Use, selector
from mip6ha.mobile.effects import AtHome, DropCareOfAddress, LeaveHome, MobileEffect, UseCareOfAddress
from mip6ha.mobile.mobile_node import MobileNode
from mip6ha.mobile.parameters import EmulatorParameters
from mip6ha.node import HomeAgent
from mip6ha.parameters import HomeAgentParameters, HomePrefix, MobileNodeParameters
from mip6ha.wire import address

from .timeline import (
    CORRESPONDENT,
    HOME_ADDRESS,
    HOME_AGENT,
    HOME_PREFIX,
    IDENTIFIER,
    advertised,
    seeded,
)

LATENCY = 0.005
AGENT = Identity.parse("ha.example.org")
PSK = b"nobody else knows this"
ESP_OFFER = esp_offer([(20, 128)], group=[31])
IKE_OFFER = ike_offer([(20, 128)], [5], [31])
TIMING = Timing(jitter=0.0)
EVERYWHERE = bytes(16), b"\xff" * 16


def child(use: Use, *, mobile_node: bool) -> ChildPolicy:
    """The child for a use, as one end has it (RFC 4877 4.2 to 4.4)."""
    to_agent, back = selector(use, to_home_agent=True), selector(use, to_home_agent=False)
    addresses = EVERYWHERE if use.mode.value == "tunnel" else (HOME_AGENT, HOME_AGENT)
    home = (Scope(to_agent.protocol or 0, to_agent.type),)
    agent = (Scope(back.protocol or 0, back.type, *addresses),)
    ends = (home, agent) if mobile_node else (agent, home)
    return ChildPolicy(use.value, use, (ESP_OFFER,), *ends)


@dataclass
class Fate:
    """What happens to packets on the way; ``None`` for one that is lost, else seconds of latency."""

    decide: Callable[[bytes], float | None] = lambda packet: LATENCY
    ike: list[tuple[int, int]] = field(default_factory=list)
    """Exchange type and message id of every IKE message that was sent."""

    def of(self, packet: bytes) -> float | None:
        """Note an IKE message, and say when it arrives."""
        message = ike_message(packet)
        if message is not None:
            header, _ = parse_header(message)
            self.ike.append((header.exchange, header.message_id))
        return self.decide(packet)


def ike_message(packet: bytes) -> bytes | None:
    """The IKE message in a packet that is not a fragment."""
    parsed = ipv6.parse(packet)
    if parsed.next_header != ipv6.UDP:
        return None
    datagram = udp.parse(parsed.payload, parsed.source, parsed.destination)
    if datagram.destination_port == PORT:
        return datagram.payload
    if datagram.destination_port == NATT_PORT and not udp.is_esp(datagram.payload):
        return udp.unmarked(datagram.payload)
    return None


class World:
    """``events`` are the mobile node's, as (time, event); ``delivered`` is what reached neither end."""

    def __init__(
        self,
        *uses: Use,
        timing: Timing = TIMING,
        agent_timing: Timing | None = None,
        psk: bytes = PSK,
        lifetime: int = 60,
        encapsulate: bool = False,
        fragment_size: int = 1232,
        identity: str = "mn@example.org",
    ) -> None:
        self.now = 0.0
        self.uses = uses or (Use.SIGNALLING,)
        self.fate = Fate()
        self.events: list[tuple[float, Event]] = []
        self.delivered: list[bytes] = []
        self.where: set[bytes] = set()
        self._agent_timing = agent_timing or timing
        self._encapsulate = encapsulate
        self._fragment_size = fragment_size
        self._identity = Identity.parse(identity)
        self._count = 0
        self._under_way: list[tuple[float, int, bytes]] = []
        self._births = 0
        self.agent = self.home_agent()
        self.agent.start(0.0)
        peer = Peer(
            "ha",
            self._identity,
            AGENT,
            self._children(True),
            (HOME_AGENT, PORT),
            psk,
            home_addresses=(HOME_ADDRESS,),
        )
        parameters = EmulatorParameters(
            HOME_ADDRESS, 64, HOME_AGENT, IDENTIFIER, lifetime=lifetime, ike=self._ike(peer, timing)
        )
        self.node = MobileNode(parameters, seeded("node"))
        if self.node.key_exchange is None:
            raise AssertionError("no endpoint")
        self.endpoint = self.node.key_exchange.endpoint
        self.run(self.node.start())

    def _children(self, mobile_node: bool) -> tuple[ChildPolicy, ...]:
        return tuple(child(use, mobile_node=mobile_node) for use in self.uses)

    def _ike(self, peer: Peer, timing: Timing) -> Parameters:
        return Parameters(
            (IKE_OFFER,),
            (peer,),
            timing,
            fragment_size=self._fragment_size,
            encapsulate=self._encapsulate,
        )

    def home_agent(self) -> HomeAgent:
        """One that knows the configuration and nothing else."""
        self._births += 1
        peer = Peer(
            "mn", AGENT, self._identity, self._children(False), psk=PSK, home_addresses=(HOME_ADDRESS,)
        )
        parameters = HomeAgentParameters(
            HOME_AGENT,
            (HomePrefix(HOME_PREFIX, 64),),
            (MobileNodeParameters(HOME_ADDRESS, "mn", negotiated=self.uses),),
            duplicate_address_detection=False,
            ike=self._ike(peer, self._agent_timing),
        )
        return HomeAgent(parameters, seeded(f"agent {self._births}"), self.now)

    def restart_agent(self) -> None:
        """The home agent has lost everything."""
        self.agent = self.home_agent()
        self.agent.start(self.now)

    # What happens.

    def run(self, effects: list[MobileEffect]) -> None:
        """Carry out the mobile node's effects."""
        for effect in effects:
            match effect:
                case Event():
                    self.events.append((self.now, effect))
                case SendPacket(packet):
                    if packet[24:40] == HOME_ADDRESS:
                        self.delivered.append(packet)
                    else:
                        self._carry(packet)
                case UseCareOfAddress(care_of_address, _):
                    self.where = {care_of_address}
                case AtHome():
                    self.where = {HOME_ADDRESS}
                case DropCareOfAddress() | LeaveHome():
                    self.where = set()

    def run_agent(self, effects: list[Effect]) -> None:
        """Carry out the home agent's."""
        for effect in effects:
            if isinstance(effect, SendPacket):
                self._carry(effect.packet)

    def _carry(self, packet: bytes) -> None:
        latency = self.fate.of(packet)
        if latency is not None:
            self._count += 1
            heapq.heappush(self._under_way, (self.now + latency, self._count, packet))

    def _arrive(self, packet: bytes) -> None:
        destination = packet[24:40]
        if destination == HOME_AGENT:
            self.run_agent(self.agent.receive(packet, self.now))
        elif destination in self.where:
            self.run(self.node.receive(packet, self.now))
        elif destination == CORRESPONDENT:
            self.delivered.append(packet)

    def wait(self, seconds: float) -> None:
        """Let packets arrive and timers fire in their order."""
        end = self.now + seconds
        while True:
            due = [
                (at, rank)
                for rank, at in enumerate(
                    (
                        self._under_way[0][0] if self._under_way else None,
                        self.node.next_deadline(),
                        self.agent.next_deadline(),
                    )
                )
                if at is not None and at <= end
            ]
            if not due:
                break
            at, rank = min(due)
            self.now = max(self.now, at)
            if rank == 0:
                self._arrive(heapq.heappop(self._under_way)[2])
            elif rank == 1:
                self.run(self.node.on_timer(self.now))
            else:
                self.run_agent(self.agent.on_timer(self.now))
        self.now = end

    def plug(self, prefix: bytes, router: bytes) -> None:
        """Arrive on a link."""
        self.run(self.node.carrier(True, self.now))
        self.run(self.node.advertisement(router, 255, advertised(prefix, router), self.now))

    def unplug(self) -> None:
        """Lose the link."""
        self.run(self.node.carrier(False, self.now))

    # What can be seen.

    def named(self, name: str) -> list[Event]:
        """The mobile node's events of a name."""
        return [event for _, event in self.events if event.name == name]

    def names(self) -> list[str]:
        """Of all of its events."""
        return [event.name for _, event in self.events]

    def care_of_address(self) -> bytes | None:
        """Where the home agent believes it to be."""
        bound = [each["care_of_address"] for each in self.agent.bindings(self.now)]
        return address(str(bound[0])) if bound else None

    def talks(self) -> bool:
        """A datagram each way between an application and its correspondent, by way of the home agent."""
        there = application(HOME_ADDRESS, CORRESPONDENT)
        back = application(CORRESPONDENT, HOME_ADDRESS)
        self.delivered.clear()
        self.run(self.node.receive(there, self.now))
        self.run_agent(self.agent.receive(back, self.now))
        self.wait(4 * LATENCY)
        return sorted(packet[8:] for packet in self.delivered) == sorted((there[8:], back[8:]))


def application(source: bytes, destination: bytes, length: int = 100) -> bytes:
    """A packet that neither end cares about."""
    return ipv6.build(source, destination, ipv6.NO_NEXT_HEADER, bytes(length - 40))
