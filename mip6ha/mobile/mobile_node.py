"""The mobile node that makes its packets itself: the page where a packet's way can be read.

``receive`` takes whole IPv6 packets: those of applications (source: the home address), those to the care-of
address, and at home those that the home agent sends straight to the home address. Everything comes back as
effects. Covered: RFC 2473 tunnels, home address options and type 2 routing headers, ESP, in tunnel mode also
in UDP (RFC 3948). Not covered: what is said in messages and when (``signalling``), where keys come from
(``key_exchange``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from .. import icmpv6, udp
from ..ipsec.esp import overhead
from ..ipsec.ike.effects import SendDatagram
from ..ipsec.ike.endpoint import IkeEndpoint
from ..ipsec.ike.numbers import NATT_PORT, PORT
from ..ipsec.policy import Mode
from ..ipsec.sad import SecurityAssociation
from ..ipv6 import (
    ESP,
    FRAGMENT,
    HEADER_LENGTH,
    ICMPV6,
    IPV6,
    MOBILITY,
    UDP,
    Packet,
    Reassembler,
    build,
    fragments,
    parse,
)
from ..tunnel import PathMtu, check_inner, encapsulate, relay_error, too_big, with_outer_congestion
from ..udp import Datagram
from ..wire import Refused
from .effects import (
    AcknowledgedAt,
    AtHome,
    DropCareOfAddress,
    Event,
    LeaveHome,
    LinkEffect,
    LogKeys,
    MobileEffect,
    RemoveTunnel,
    SendMessage,
    SendPacket,
    SetTunnel,
    SignallingEffect,
    UseCareOfAddress,
)
from .key_exchange import KeyEffect, KeyExchange
from .parameters import EmulatorParameters
from .protection import Protection, message_type
from .registration import Registration
from .signalling import Signalling

__all__ = ["MobileNode"]


class MobileNode:
    """One mobile node with one interface. ``counters`` counts drops by reason.

    ``now`` is always the same monotonic clock, in seconds. ``key_exchange`` is there where IKE is.
    """

    def __init__(
        self,
        parameters: EmulatorParameters,
        random: Callable[[int], bytes],
        now: float = 0.0,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._parameters = parameters
        self._home_address = home_address = parameters.home_address
        self._home_agent = parameters.home_agent
        self._signalling = Signalling(parameters, random, self.counters)
        self._protection = Protection(
            home_address,
            parameters.associations,
            random,
            parameters.sequence_floor,
            parameters.negotiated,
        )
        self.key_exchange: KeyExchange | None = None
        if parameters.ike is not None:
            endpoint = IkeEndpoint(parameters.ike, random, now, wall=parameters.wall)
            self.key_exchange = KeyExchange(home_address, endpoint, self._protection, self.counters)
        self._leaving = False
        self._path_mtu = PathMtu(parameters.link_mtu)
        self._reassembler = Reassembler()
        self._fragment_identification = int.from_bytes(random(4), "big")
        self._tunnel: bytes | None = None

    @property
    def registration(self) -> Registration:
        """Where the home registration stands."""
        return self._signalling.registration

    # The way of a packet.

    def receive(self, packet: bytes, now: float) -> list[MobileEffect]:
        """One whole IPv6 packet, of an application or from the link."""
        try:
            parsed = parse(packet)
            if self._is_ours(parsed.source):
                return self._reverse_tunnel(packet, parsed, now)
            return self._from_link(packet, parsed, now)
        except Refused as refused:
            self.counters[refused.reason] += 1
            return []

    def _from_link(self, packet: bytes, parsed: Packet, now: float) -> list[MobileEffect]:
        if parsed.destination == self._home_address:
            if not self._signalling.at_home:
                raise Refused("not_at_home")
        elif parsed.destination != self._signalling.care_of_address:
            raise Refused("not_ours")
        if parsed.next_header == FRAGMENT:
            whole = self._reassembler.add(packet, parsed, now)
            if whole is None:
                return []
            parsed = parse(whole)
        if parsed.routing not in (None, self._home_address):
            raise Refused("routing_header_address")
        association = None
        if parsed.next_header == ESP:
            if parsed.source != self._home_agent:
                raise Refused("esp_source")
            association, parsed = self._opened(parsed, parsed.payload)
        elif parsed.next_header == UDP and self.key_exchange is not None:
            if parsed.source != self._home_agent:
                raise Refused("ike_source")
            datagram = udp.parse(parsed.payload, parsed.source, parsed.destination)
            if datagram.destination_port != NATT_PORT or not udp.is_esp(datagram.payload):
                return self._ike(self.key_exchange, parsed, datagram, now)
            if udp.is_keep_alive(datagram.payload):
                raise Refused("nat_keep_alive")
            association, parsed = self._opened(parsed, datagram.payload)
        if parsed.next_header == IPV6:
            return self._detunnel(parsed, association)
        if parsed.next_header == MOBILITY:
            return self._message(parsed, association, now)
        if parsed.next_header == ICMPV6:
            return self._icmp(parsed, association, now)
        raise Refused("unknown_next_header")

    def _opened(self, parsed: Packet, payload: bytes) -> tuple[SecurityAssociation, Packet]:
        association, next_header, payload = self._protection.open(payload, parsed)
        if self.key_exchange is not None:
            self.key_exchange.heard()
        return association, parsed._replace(next_header=next_header, payload=payload)

    def _ike(self, keys: KeyExchange, parsed: Packet, datagram: Datagram, now: float) -> list[MobileEffect]:
        if datagram.destination_port not in (PORT, NATT_PORT):
            raise Refused("udp_port")
        return self._packets(keys.receive(parsed.source, parsed.destination, datagram, now), now)

    def _detunnel(self, outer: Packet, association: SecurityAssociation | None) -> list[MobileEffect]:
        # RFC 6275 11.3.5: packets out of the tunnel come from the home agent, for the home address.
        if outer.source != self._home_agent:
            raise Refused("tunnel_source")
        inner = check_inner(outer.payload)
        parsed = parse(inner)
        if not self._is_ours(parsed.destination):
            raise Refused("inner_destination")
        kind = message_type(parsed.next_header, parsed.payload)
        if association is None:
            if self._protection.demands(Mode.TUNNEL, parsed.next_header, kind):
                raise Refused("unprotected")
        elif not association.selector.matches(parsed.next_header, kind):
            raise Refused("selector")
        self.counters["received_by_tunnel"] += 1
        return [SendPacket(with_outer_congestion(inner, outer.flow))]

    def _icmp(
        self, parsed: Packet, association: SecurityAssociation | None, now: float
    ) -> list[MobileEffect]:
        source, destination = parsed.source, parsed.logical_destination
        icmp = icmpv6.parse(parsed.payload, source, destination)
        if icmp.type < icmpv6.ECHO_REQUEST:
            return self._tunnel_error(icmp, now)
        if icmp.type == icmpv6.ECHO_REQUEST and destination == self._signalling.care_of_address:
            return [SendPacket(icmpv6.echo_reply(icmp, destination, source))]
        return self._message(parsed, association, now)

    def _message(
        self, parsed: Packet, association: SecurityAssociation | None, now: float
    ) -> list[MobileEffect]:
        if association is None and parsed.source == self._home_agent:
            kind = message_type(parsed.next_header, parsed.payload)
            if self._protection.demands(Mode.TRANSPORT, parsed.next_header, kind):
                raise Refused("unprotected")
        destination = parsed.logical_destination
        effects = self._packets(
            self._signalling.receive(parsed.next_header, parsed.payload, parsed.source, destination, now), now
        )
        if self._leaving and self.key_exchange is not None and not self.registration.may_be_bound:
            effects += self._packets(self.key_exchange.end(now), now)
        return effects

    def _tunnel_error(self, icmp: icmpv6.Icmp, now: float) -> list[MobileEffect]:
        quoted = icmp.body[4:]
        if len(quoted) < HEADER_LENGTH or quoted[8:24] != self._signalling.care_of_address:
            raise Refused("icmpv6_error_not_ours")
        if quoted[24:40] != self._home_agent:
            raise Refused("icmpv6_error_not_ours")
        self.counters["tunnel_errors"] += 1
        effects: list[MobileEffect] = []
        if icmp.type == icmpv6.PACKET_TOO_BIG:
            mtu = int.from_bytes(icmp.body[:4], "big")
            if self._path_mtu.learn(self._home_agent, mtu, now):
                effects.append(Event("tunnel_path_mtu", {"mtu": self._path_mtu.to(self._home_agent, now)}))
        if quoted[6] == IPV6:
            answer = relay_error(icmp, quoted[HEADER_LENGTH:], self._home_agent)
            if answer is not None:
                effects.append(SendPacket(answer))
        return effects

    def _reverse_tunnel(self, packet: bytes, parsed: Packet, now: float) -> list[MobileEffect]:
        care_of_address = self._tunnel
        if care_of_address is None:
            raise Refused("at_home" if self._signalling.at_home else "not_registered")
        inner = check_inner(packet)
        kind = message_type(parsed.next_header, parsed.payload)
        association = self._protection.outbound(Mode.TUNNEL, parsed.next_header, kind)
        if association is None and self.key_exchange is not None:
            use = self._protection.negotiated(Mode.TUNNEL, parsed.next_header, kind)
            if use is not None:
                self.counters["no_sa_for_payload"] += 1
                return self._packets(self.key_exchange.need(use, now), now)
        ports = self.key_exchange.encapsulation if association and self.key_exchange else None
        mtu = self._path_mtu.to(self._home_agent, now)
        room = mtu - HEADER_LENGTH - (overhead(association) if association else 0)
        if ports is not None:
            room -= udp.HEADER_LENGTH
        # The answer names the home agent: the kernel takes no packet from its own address.
        answer = too_big(inner, room, self._home_agent)
        if answer is not None:
            self.counters["too_big"] += 1
            return [SendPacket(answer)]
        outer = encapsulate(inner, care_of_address, self._home_agent)
        effects: list[MobileEffect] = []
        if association is not None:
            next_header, payload, before = self._protection.seal(association, IPV6, inner)
            effects += before
            if ports is not None:
                next_header = UDP
                payload = udp.build(care_of_address, self._home_agent, Datagram(*ports, payload))
            flow = int.from_bytes(outer[:4], "big") & 0x0FFFFFFF
            outer = build(care_of_address, self._home_agent, next_header, payload, flow=flow)
        self.counters["sent_by_tunnel"] += 1
        effects += self._cut(outer, mtu)
        return effects

    def _cut(self, packet: bytes, mtu: int) -> list[SendPacket]:
        self._fragment_identification = self._fragment_identification + 1 & 0xFFFFFFFF
        return [SendPacket(piece) for piece in fragments(packet, mtu, self._fragment_identification)]

    def _is_ours(self, address: bytes) -> bool:
        if address == self._home_address:
            return True
        return any(
            int.from_bytes(address, "big") >> 128 - length == int.from_bytes(prefix, "big") >> 128 - length
            for prefix, length in self._parameters.prefixes
        )

    # What the mobile node decides.

    def carrier(self, up: bool, now: float) -> list[MobileEffect]:
        """The link came or went."""
        return self._packets(self._signalling.carrier(up, now), now)

    def advertisement(self, source: bytes, hop_limit: int, message: bytes, now: float) -> list[MobileEffect]:
        """An ICMPv6 message of type Router Advertisement (RFC 4861 6.1.2), its checksum verified."""
        return self._packets(self._signalling.advertisement(source, hop_limit, message, now), now)

    def address_conflict(self, address: bytes, now: float) -> list[MobileEffect]:
        """Somebody else uses the address that was probed (RFC 4862 5.4.5)."""
        return self._packets(self._signalling.address_conflict(address, now), now)

    def deregister(self, now: float) -> list[MobileEffect]:
        """End the binding while away from home (RFC 6275 11.7.1), and after it the IKE SA, before a stop."""
        self._leaving = True
        return self._packets(self._signalling.deregister(now), now)

    def start(self) -> list[MobileEffect]:
        """Before the first carrier event: sequence numbers are reserved now, for a hand-over has no time."""
        effects: list[MobileEffect] = [self._protection.reservation()] if len(self._protection) else []
        return effects + _link_effects(self._signalling.start())

    def next_deadline(self) -> float | None:
        """When :meth:`on_timer` has something to do."""
        deadline = self._signalling.next_deadline()
        other = self.key_exchange.next_deadline() if self.key_exchange is not None else None
        return other if deadline is None else deadline if other is None else min(deadline, other)

    def on_timer(self, now: float) -> list[MobileEffect]:
        """Whatever is due: solicitations, retransmissions, refreshes, the end of DAD, re-keys."""
        effects = self._packets(self._signalling.on_timer(now), now)
        if self.key_exchange is not None:
            effects += self._packets(self.key_exchange.on_timer(now), now)
        return effects

    def stop(self) -> list[MobileEffect]:
        """Release everything; the counters are in the last event."""
        return _link_effects(self._signalling.stop())

    # What is sent to the home agent.

    def _packets(self, decided: Sequence[SignallingEffect | KeyEffect], now: float) -> list[MobileEffect]:
        effects: list[MobileEffect] = []
        for effect in decided:
            if isinstance(effect, SendMessage):
                effects += self._signal(effect, now)
            elif isinstance(effect, SendDatagram):
                effects += self._datagram(effect, now)
            elif isinstance(effect, SetTunnel):
                self._tunnel = effect.care_of_address
            elif isinstance(effect, RemoveTunnel):
                self._tunnel = None
            elif isinstance(effect, AcknowledgedAt):
                effects += self._acknowledged(effect, now)
            else:
                effects.append(effect)
                effects += self._place(effect, now)
        return effects

    def _place(self, effect: LinkEffect | LogKeys, now: float) -> list[MobileEffect]:
        """IKE goes where we go."""
        if self.key_exchange is None:
            return []
        match effect:
            case UseCareOfAddress(address, _):
                return self._packets(self.key_exchange.at(address, now), now)
            case AtHome():
                return self._packets(self.key_exchange.at(self._home_address, now), now)
            case DropCareOfAddress() | LeaveHome():
                return self._packets(self.key_exchange.at(None, now), now)
        return []

    def _acknowledged(self, effect: AcknowledgedAt, now: float) -> list[MobileEffect]:
        if self.key_exchange is None:
            return []
        return self._packets(self.key_exchange.acknowledged(effect.address, effect.key_management, now), now)

    def _datagram(self, effect: SendDatagram, now: float) -> list[MobileEffect]:
        (local, port), (remote, remote_port), octets = effect
        payload = udp.NON_ESP_MARKER + octets if port == NATT_PORT else octets
        packet = build(local, remote, UDP, udp.build(local, remote, Datagram(port, remote_port, payload)))
        return list(self._cut(packet, self._path_mtu.to(remote, now)))

    def _signal(self, message: SendMessage, now: float) -> list[MobileEffect]:
        protocol, octets, care_of_address = message
        kind = message_type(protocol, octets)
        association = self._protection.outbound(Mode.TRANSPORT, protocol, kind)
        if association is None and self.key_exchange is not None:
            use = self._protection.negotiated(Mode.TRANSPORT, protocol, kind)
            if use is not None:
                return self._packets(self.key_exchange.wait(message, use, now), now)
        try:
            next_header, payload, before = self._protection.seal(association, protocol, octets)
        except Refused as refused:
            self.counters[refused.reason] += 1
            return [Event("not_sent", {"reason": refused.reason})]
        home_address = self._home_address
        packet = build(
            care_of_address or home_address,
            self._home_agent,
            next_header,
            payload,
            home_address=home_address if care_of_address else None,
        )
        effects: list[MobileEffect] = [*before, SendPacket(packet)]
        if association is not None and self.key_exchange is not None:
            effects += self._packets(self.key_exchange.spoken(now), now)
        return effects


def _link_effects(effects: Sequence[SignallingEffect]) -> list[MobileEffect]:
    return [
        each
        for each in effects
        if not isinstance(each, SendMessage | SetTunnel | RemoveTunnel | AcknowledgedAt)
    ]
