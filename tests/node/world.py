"""A home agent core, a model of its dataplane, and scripted mobile nodes, on one simulated clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from hashlib import sha256
from math import isfinite
from typing import Any, NamedTuple

from mip6ha import effects, icmpv6, ipv6
from mip6ha.binding import messages
from mip6ha.binding.cache import Binding, State
from mip6ha.binding.messages import BindingAcknowledgement, BindingUpdate, MobileNetworkPrefix
from mip6ha.effects import Effect, Event, ReserveSequences, SendPacket
from mip6ha.ipsec import esp
from mip6ha.ipsec.algorithms import Keys, Transform, transform
from mip6ha.ipsec.policy import Direction, Mode, Use
from mip6ha.ipsec.sad import SecurityAssociation
from mip6ha.ipv6 import ESP, ICMPV6, IPV6, MOBILITY
from mip6ha.mobility import Option
from mip6ha.node import HomeAgent
from mip6ha.parameters import (
    AssociationParameters,
    HomeAgentParameters,
    HomePrefix,
    MobileNodeParameters,
)
from mip6ha.wire import address

HOME_AGENT = address("2001:db8:a::1")
HOME_PREFIX = HomePrefix(address("2001:db8:a::"), 64)
CORRESPONDENT = address("2001:db8:c::2")
CARE_OF_1 = address("2001:db8:b::42")
CARE_OF_2 = address("2001:db8:d::42")
A, H, L, K, R = 0x8000, 0x4000, 0x2000, 0x1000, 0x0400

GCM = transform("aes-gcm-16")
CBC = transform("aes-cbc", "hmac-sha2-256-128")


def prefix(text: str) -> MobileNetworkPrefix:
    network, length = text.split("/")
    return MobileNetworkPrefix(address(network), int(length))


def seeded(seed: str) -> Callable[[int], bytes]:
    """Octets that are the same in every run."""
    count = 0

    def random(length: int) -> bytes:
        nonlocal count
        count += 1
        octets = b"".join(
            sha256(f"{seed}/{count}/{part}".encode()).digest() for part in range(length // 32 + 1)
        )
        return octets[:length]

    return random


def keys_of(protection: Transform, spi: int) -> Keys:
    """The test keys of an SA: a function of its SPI."""
    octets = seeded(f"keys {spi}")
    return Keys(octets(protection.encryption_lengths[0]), octets(protection.integrity_length))


class Answer(NamedTuple):
    """A message that the home agent sent, opened."""

    packet: ipv6.Packet
    message: Any
    spi: int | None


class Snapshot(NamedTuple):
    """All that a home agent remembers, comparable."""

    bindings: list[list[object]]
    associations: list[tuple[int, int, int, int]]
    deadline: float | None
    tunnels: dict[bytes, bytes]


class Dataplane:
    """What the effects have made of the world; every effect must fit what is there."""

    def __init__(self) -> None:
        self.tunnels: dict[bytes, bytes] = {}
        self.defended: set[bytes] = set()
        self.probed: set[bytes] = set()
        self.routes: set[tuple[bytes, int]] = set()
        self.reserved = 0
        self.announced: list[bytes] = []
        self.lent: dict[bytes, dict[tuple[bool, int], int]] = {}
        self._most: dict[tuple[bytes, bool, int], int] = {}

    def carry_out(self, effect: Effect) -> None:
        match effect:
            case effects.SetTunnel(home_address, care_of_address):
                assert self.tunnels.get(home_address) != care_of_address or self.routes
                self.tunnels[home_address] = care_of_address
            case effects.RemoveTunnel(home_address):
                assert home_address not in self.lent
                del self.tunnels[home_address]
            case effects.LendPayload(home_address, associations):
                assert home_address not in self.lent
                assert home_address in self.tunnels
                self.lent[home_address] = {}
                for each in associations:
                    self._lend(home_address, each.outbound, each.spi, each.first, each.limit)
            case effects.ExtendPayload(home_address, outbound, spi, first, limit):
                assert (outbound, spi) in self.lent[home_address]
                self._lend(home_address, outbound, spi, first, limit)
            case effects.RecallPayload(home_address):
                self.lent.pop(home_address, None)
            case effects.DefendAddress(value):
                assert value not in self.defended
                self.defended.add(value)
            case effects.ReleaseAddress(value):
                self.defended.remove(value)
            case effects.AnnounceAddress(value):
                assert value in self.defended
                self.announced.append(value)
            case effects.ProbeAddress(value):
                assert value not in self.probed
                assert value not in self.defended
                self.probed.add(value)
            case effects.EndProbe(value):
                self.probed.remove(value)
            case effects.RoutePrefix(value, length, _):
                assert (value, length) not in self.routes
                self.routes.add((value, length))
            case effects.UnroutePrefix(value, length):
                self.routes.remove((value, length))
            case effects.ReserveSequences(limit):
                assert limit > self.reserved
                self.reserved = limit
            case effects.SendPacket(packet):
                assert len(packet) == 40 + int.from_bytes(packet[4:6], "big")

    def _lend(self, home_address: bytes, outbound: bool, spi: int, first: int, limit: int) -> None:
        # No number twice, whatever became of the loan before.
        assert self._most.get((home_address, outbound, spi), 0) < first <= limit
        self._most[home_address, outbound, spi] = self.lent[home_address][outbound, spi] = limit


class World:
    """One home agent that serves ``nodes``; ``settings`` are fields of its parameters."""

    def __init__(self, *nodes: MobileNode, seed: str = "world", **settings: Any) -> None:
        chosen: dict[str, Any] = {
            "home_prefixes": (HOME_PREFIX,),
            "duplicate_address_detection": False,
        } | settings
        self.parameters = HomeAgentParameters(
            address=HOME_AGENT, mobile_nodes=tuple(node.parameters for node in nodes), **chosen
        )
        self.now = 1000.0
        self.agent = HomeAgent(self.parameters, seeded(seed), self.now)
        self.plane = Dataplane()
        self.served = {HOME_AGENT}
        self.carry_out(self.agent.start(self.now))
        self.own = set(self.plane.defended)

    def carry_out(self, found: list[Effect]) -> list[Effect]:
        for effect in found:
            self.plane.carry_out(effect)
        return found

    def receive(self, packet: bytes) -> list[Effect]:
        """Feed one packet; its effects without the events."""
        found = self.carry_out(self.agent.receive(packet, self.now))
        self.check()
        return without_events(found)

    def advance(self, seconds: float) -> list[Effect]:
        """Let time pass, timers firing when they are due; their effects without the events."""
        end = self.now + seconds
        found: list[Effect] = []
        while (deadline := self.agent.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            found += self.carry_out(self.agent.on_timer(self.now))
            self.check()
        self.now = end
        return without_events(found)

    def conflict(self, value: bytes) -> list[Effect]:
        found = self.carry_out(self.agent.address_conflict(value, self.now))
        self.check()
        return without_events(found)

    def binding(self, node: MobileNode) -> Binding:
        found = self.agent.cache.get(node.home_address)
        assert found is not None
        return found

    def count(self, name: str) -> int:
        return self.agent.counters[name]

    def check(self) -> None:
        """What holds between any two inputs."""
        cache, plane = self.agent.cache, self.plane
        live = [binding for binding in cache if binding.state is not State.UNBOUND]
        bound = [binding for binding in live if binding.is_bound]
        assert cache.registered == len(live)
        assert plane.tunnels == {binding.home_address: binding.care_of_address for binding in bound}
        assert plane.defended == self.own.union(*(binding.defended for binding in bound))
        assert plane.probed == set().union(
            *(binding.defended for binding in live if binding.state is State.PROBING)
        )
        assert plane.routes == {each for binding in bound for each in binding.prefixes}
        for binding in live:
            assert isfinite(binding.deadline)
            assert binding.wakes <= binding.deadline
            for network, length in binding.prefixes:
                assert cache.behind(network) is not None, length
        for association in self.agent.associations.database:
            if association.direction is Direction.OUT:
                assert association.sequence <= min(association.limit, plane.reserved)

    def state(self) -> Snapshot:
        """Everything a dropped packet must leave alone, comparable. Counters are apart."""
        agent = self.agent
        return Snapshot(
            [
                [getattr(binding, name) for name in Binding.__slots__]
                for binding in sorted(agent.cache, key=lambda binding: binding.home_address)
            ],
            [
                (each.spi, each.sequence, *((each.window.top, each.window.bitmap) if each.window else (0, 0)))
                for each in agent.associations.database
            ],
            agent.next_deadline(),
            self.plane.tunnels.copy(),
        )

    def drops(self, packet: bytes, reason: str) -> list[Effect]:
        """Feed ``packet``: it must count ``reason``, and change nothing. Returns what was answered."""
        before, counted = self.state(), self.agent.counters.copy()
        found = self.receive(packet)
        changed = self.agent.counters - counted
        changed -= dict.fromkeys(("binding_errors", "errors_suppressed"), 1)
        assert dict(changed) == {reason: 1}
        assert self.state() == before
        assert all(isinstance(effect, SendPacket) for effect in found)
        return found


class MobileNode:
    """The other side of one mobile node's SAs: builds what it sends, opens what it gets."""

    def __init__(
        self,
        home_address: str | bytes = "2001:db8:a::100",
        *uses: Use,
        spi: int = 0x2000,
        protection: Transform = GCM,
        name: str = "mn",
        **settings: Any,
    ) -> None:
        self.home_address = address(home_address) if isinstance(home_address, str) else home_address
        uses = uses or (Use.BINDING, Use.PREFIX)
        described = []
        self.outbound: dict[Use, SecurityAssociation] = {}
        self.inbound: dict[int, SecurityAssociation] = {}
        for rank, use in enumerate(uses):
            for direction in (Direction.IN, Direction.OUT):
                number = spi + 2 * rank + (direction is Direction.OUT)
                keys = keys_of(protection, number)
                described.append(AssociationParameters(number, direction, use, protection, keys))
                mirrored = SecurityAssociation(
                    spi=number,
                    direction=Direction.OUT if direction is Direction.IN else Direction.IN,
                    use=use,
                    home_address=self.home_address,
                    transform=protection,
                    keys=keys,
                    to_home_agent=direction is Direction.IN,
                )
                if direction is Direction.IN:
                    self.outbound[use] = mirrored
                else:
                    self.inbound[number] = mirrored
        self.parameters = MobileNodeParameters(self.home_address, name, tuple(described), **settings)
        self.random = seeded(f"mobile node {self.home_address.hex()}")
        self.sequence = 0

    def changed(self, **settings: Any) -> MobileNodeParameters:
        return replace(self.parameters, **settings)

    def message(self, sequence: int, **fields: Any) -> BindingUpdate:
        """A Binding Update: ``lifetime`` in units, ``flags``, ``alternate`` address, more ``options``."""
        options = tuple(fields.get("options", ()))
        if fields.get("alternate") is not None:
            options = (Option(messages.OptionType.ALTERNATE_CARE_OF_ADDRESS, fields["alternate"]), *options)
        return BindingUpdate(sequence, fields.get("flags", A | H), fields.get("lifetime", 15), options)

    def update(self, source: bytes = CARE_OF_1, sequence: int | None = None, **fields: Any) -> bytes:
        """The whole packet of a Binding Update from ``source``; at home that is the home address."""
        if sequence is None:
            sequence = self.sequence = self.sequence + 1 & 0xFFFF
        fields.setdefault("alternate", source)
        octets = messages.build(self.message(sequence, **fields), self.home_address, HOME_AGENT)
        return self.wrap(MOBILITY, octets, source)

    def home(self, sequence: int | None = None) -> bytes:
        """The de-registration of a mobile node that is back home."""
        return self.update(self.home_address, sequence, lifetime=0)

    def wrap(
        self, protocol: int, octets: bytes, source: bytes, *, claimed: bytes | None = None, seal: bool = True
    ) -> bytes:
        """``octets`` from the home address in an IPv6 packet, under the SA that selects them."""
        kind = octets[2] if protocol == MOBILITY else octets[0]
        association = self.sending(Mode.TRANSPORT, protocol, kind)
        if association is not None and seal:
            octets, protocol = esp.protect(association, protocol, octets, self.random), ESP
        home_address = claimed or self.home_address
        return ipv6.build(
            source,
            HOME_AGENT,
            protocol,
            octets,
            home_address=None if source == home_address else home_address,
        )

    def sending(self, mode: Mode, protocol: int, kind: int | None) -> SecurityAssociation | None:
        for use in Use:
            association = self.outbound.get(use)
            if association and association.mode is mode and association.selector.matches(protocol, kind):
                return association
        return None

    def solicitation(self, source: bytes = CARE_OF_1, identifier: int = 0x1234, **how: Any) -> bytes:
        body = identifier.to_bytes(2, "big") + bytes(2)
        octets = icmpv6.message(
            icmpv6.MOBILE_PREFIX_SOLICITATION, 0, body, how.get("claimed") or self.home_address, HOME_AGENT
        )
        return self.wrap(ICMPV6, octets, source, **how)

    def tunnel(
        self, inner: bytes, source: bytes = CARE_OF_1, use: Use | None = None, *, flow: int = 0
    ) -> bytes:
        """A reverse tunnelled packet, under the tunnel mode SA of ``use``."""
        if use is None:
            return ipv6.build(source, HOME_AGENT, IPV6, inner, flow=flow)
        sealed = esp.protect(self.outbound[use], IPV6, inner, self.random)
        return ipv6.build(source, HOME_AGENT, ESP, sealed, flow=flow)

    def inner(self, packet: bytes) -> bytes:
        """What is in a packet from the home agent's tunnel."""
        parsed = ipv6.parse(packet)
        if parsed.next_header == ESP:
            kind, octets = esp.unprotect(self.inbound[esp.spi(parsed.payload)], parsed.payload)
            assert kind == IPV6
            return octets
        assert parsed.next_header == IPV6
        return parsed.payload

    def open(self, packet: bytes) -> Answer:
        """A packet from the home agent, decrypted and parsed, checksums checked."""
        parsed = ipv6.parse(packet)
        kind, octets, spi = parsed.next_header, parsed.payload, None
        if kind == ESP:
            spi = esp.spi(octets)
            kind, octets = esp.unprotect(self.inbound[spi], octets)
        destination = parsed.logical_destination
        if kind == MOBILITY:
            return Answer(parsed, messages.parse(octets, parsed.source, destination), spi)
        assert kind == ICMPV6
        return Answer(parsed, icmpv6.parse(octets, parsed.source, destination), spi)

    def acknowledged(self, found: Iterable[Effect]) -> BindingAcknowledgement:
        """The one Binding Acknowledgement among ``found``."""
        message = self.open(only_packet(found)).message
        assert isinstance(message, BindingAcknowledgement)
        return message

    def register(self, world: World, source: bytes = CARE_OF_1, **fields: Any) -> BindingAcknowledgement:
        """Register and wait for the answer, duplicate address detection included."""
        found = world.receive(self.update(source, **fields))
        if not sent(found):
            found = world.advance(1.0)
        answer = self.acknowledged(found)
        assert answer.status < messages.ACCEPTED, answer
        return answer


def without_events(found: Iterable[Effect]) -> list[Effect]:
    return [effect for effect in found if not isinstance(effect, Event)]


def sent(found: Iterable[Effect]) -> list[bytes]:
    return [effect.packet for effect in found if isinstance(effect, SendPacket)]


def only_packet(found: Iterable[Effect]) -> bytes:
    packets = sent(found)
    assert len(packets) == 1
    return packets[0]


def dataplane(found: Iterable[Effect]) -> list[Effect]:
    """Effects that are neither packets nor bookkeeping."""
    return [effect for effect in found if not isinstance(effect, SendPacket | ReserveSequences | Event)]


def echo(source: bytes, destination: bytes, size: int = 8, **fields: Any) -> bytes:
    """An Echo Request with ``size`` octets of data, the data deterministic."""
    body = b"\0\1\0\1" + bytes(n & 0xFF for n in range(size))
    octets = icmpv6.message(icmpv6.ECHO_REQUEST, 0, body, source, destination)
    return ipv6.build(source, destination, ICMPV6, octets, **fields)


def bound(*uses: Use, protection: Transform = GCM, **settings: Any) -> tuple[World, MobileNode]:
    """A world with one mobile node, registered. ``settings`` are fields of the home agent's parameters."""
    node = MobileNode("2001:db8:a::100", *(uses or (Use.BINDING,)), protection=protection)
    world = World(node, **settings)
    node.register(world)
    return world, node
