"""The mobile node: the page where the packet's way can be read.

``receive`` takes whole IPv6 packets: those of applications (source: the home address), those to the care-of
address, and at home those that the home agent sends straight to the home address. Everything comes back as
effects. Covered: RFC 6275 11 as far as a home agent needs it, RFC 2473 tunnels, ESP with manual keys,
explicit prefixes of RFC 3963. Not covered: route optimisation, home agent discovery, IKE.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from .. import icmpv6, mobility
from ..binding import messages
from ..binding.messages import BindingAcknowledgement, BindingError, BindingRefreshRequest, MessageType
from ..ipsec.esp import overhead
from ..ipsec.policy import Mode, Use
from ..ipsec.sad import SecurityAssociation
from ..ipv6 import (
    ESP,
    FRAGMENT,
    HEADER_LENGTH,
    ICMPV6,
    IPV6,
    MOBILITY,
    Packet,
    Reassembler,
    build,
    fragments,
    parse,
)
from ..tunnel import PathMtu, check_inner, encapsulate, relay_error, too_big, with_outer_congestion
from ..wire import Malformed, Refused, text
from .effects import (
    AnnounceAddress,
    AtHome,
    DropCareOfAddress,
    EndProbe,
    Event,
    LeaveHome,
    MobileEffect,
    ProbeAddress,
    SendPacket,
    SolicitRouter,
    UseCareOfAddress,
)
from .movement import Movement
from .parameters import EmulatorParameters
from .prefix_discovery import PrefixDiscovery
from .protection import Protection
from .registration import Registration, SendUpdate, State, Step

__all__ = ["MobileNode"]

_DAD_TIME = 1.0
"""RetransTimer x DupAddrDetectTransmits in seconds (RFC 4862 5.1)."""


class MobileNode:
    """One mobile node with one interface. ``counters`` counts drops by reason."""

    def __init__(self, parameters: EmulatorParameters, random: Callable[[int], bytes]) -> None:
        self.counters: Counter[str] = Counter()
        self._parameters = parameters
        self._home_address = home_address = parameters.home_address
        self._home_agent = parameters.home_agent
        self._movement = Movement(home_address, parameters.interface_identifier)
        self.registration = Registration(
            home_address,
            lifetime=parameters.lifetime,
            sequence=int.from_bytes(random(2), "big"),
            link_local=parameters.link_local,
            prefixes=parameters.prefixes,
            refused_delay=parameters.refused_delay,
        )
        self._protection = Protection(
            home_address, parameters.associations, random, parameters.sequence_floor
        )
        self._discovery = PrefixDiscovery(random)
        self._discovered = False
        self._path_mtu = PathMtu(parameters.link_mtu)
        self._reassembler = Reassembler()
        self._fragment_identification = int.from_bytes(random(4), "big")
        self._care_of_address: bytes | None = None
        self._at_home = False
        self._probing: tuple[bytes, float] | None = None

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
            if not self._at_home:
                raise Refused("not_at_home")
        elif parsed.destination != self._care_of_address:
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
            association, next_header, payload = self._protection.open(parsed.payload)
            _check_selector(association, next_header, payload, parsed)
            parsed = parsed._replace(next_header=next_header, payload=payload)
        if parsed.next_header == IPV6:
            return self._detunnel(parsed, association)
        if parsed.next_header == MOBILITY:
            return self._mobility(parsed, association, now)
        if parsed.next_header == ICMPV6:
            return self._icmp(parsed, association, now)
        raise Refused("unknown_next_header")

    def _detunnel(self, outer: Packet, association: SecurityAssociation | None) -> list[MobileEffect]:
        # RFC 6275 11.3.5: packets out of the tunnel come from the home agent, for the home address.
        if outer.source != self._home_agent:
            raise Refused("tunnel_source")
        inner = check_inner(outer.payload)
        parsed = parse(inner)
        if not self._is_ours(parsed.destination):
            raise Refused("inner_destination")
        kind = _message_type(parsed.next_header, parsed.payload)
        if association is None:
            if self._protection.demands(Mode.TUNNEL, parsed.next_header, kind):
                raise Refused("unprotected")
        elif not association.selector.matches(parsed.next_header, kind):
            raise Refused("selector")
        self.counters["received_by_tunnel"] += 1
        return [SendPacket(with_outer_congestion(inner, outer.flow))]

    def _mobility(
        self, parsed: Packet, association: SecurityAssociation | None, now: float
    ) -> list[MobileEffect]:
        message = mobility.parse(parsed.payload, parsed.source, parsed.logical_destination)
        if parsed.source != self._home_agent:
            raise Refused("mobility_source")
        if association is None and self._protection.demands(Mode.TRANSPORT, MOBILITY, message.type):
            raise Refused("unprotected")
        body = messages.parse_body(message)
        if isinstance(body, BindingError):
            return self._carry_out(self.registration.error(body, now))
        if parsed.logical_destination != self._home_address:
            # RFC 6275 9.5.4, 11.7.4: these carry a routing header, or are sent to the home address.
            raise Refused("missing_routing_header")
        if isinstance(body, BindingAcknowledgement):
            return self._acknowledged(body, now)
        if isinstance(body, BindingRefreshRequest):
            return self._carry_out(self.registration.refresh_requested(now))
        raise Refused("unexpected_mobility_message")

    def _acknowledged(self, body: BindingAcknowledgement, now: float) -> list[MobileEffect]:
        ending = self.registration.state is State.DEREGISTERING
        effects = self._carry_out(self.registration.acknowledged(body, now))
        state = self.registration.state
        if ending and state is State.IDLE and self._at_home:
            # RFC 6275 11.5.5: neighbours still have the home agent's link-layer address.
            effects.append(AnnounceAddress(self._home_address))
        if state is State.REGISTERED and not self._discovered and self._protection.uses(Use.PREFIX):
            self._discovered = True
            effects += self._solicit_prefixes(self._discovery.begin(now))
        return effects

    def _icmp(
        self, parsed: Packet, association: SecurityAssociation | None, now: float
    ) -> list[MobileEffect]:
        source, destination = parsed.source, parsed.logical_destination
        icmp = icmpv6.parse(parsed.payload, source, destination)
        if icmp.type < icmpv6.ECHO_REQUEST:
            return self._tunnel_error(icmp, now)
        if icmp.type == icmpv6.ECHO_REQUEST and destination == self._care_of_address:
            return [SendPacket(icmpv6.echo_reply(icmp, destination, source))]
        if icmp.type != icmpv6.MOBILE_PREFIX_ADVERTISEMENT:
            raise Refused("unexpected_icmpv6")
        if association is None and self._protection.demands(Mode.TRANSPORT, ICMPV6, icmp.type):
            raise Refused("unprotected")
        if source != self._home_agent or destination != self._home_address:
            raise Refused("mobile_prefix_advertisement_address")
        prefixes = self._discovery.advertised(icmp.body)
        described = [
            {
                "prefix": f"{text(prefix.prefix)}/{prefix.length}",
                "flags": prefix.flags,
                "valid": prefix.valid,
                "preferred": prefix.preferred,
            }
            for prefix in prefixes
        ]
        return [Event("mobile_prefix_advertisement", {"prefixes": described})]

    def _tunnel_error(self, icmp: icmpv6.Icmp, now: float) -> list[MobileEffect]:
        quoted = icmp.body[4:]
        if len(quoted) < HEADER_LENGTH or quoted[8:24] != self._care_of_address:
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
        # RFC 6275 11.3.1: without a binding the home agent would drop it anyway.
        binding, care_of_address = self.registration.binding, self._care_of_address
        if care_of_address is None or binding is None or binding.care_of_address != care_of_address:
            raise Refused("at_home" if self._at_home else "not_registered")
        inner = check_inner(packet)
        kind = _message_type(parsed.next_header, parsed.payload)
        association = self._protection.outbound(Mode.TUNNEL, parsed.next_header, kind)
        mtu = self._path_mtu.to(self._home_agent, now)
        room = mtu - HEADER_LENGTH - (overhead(association) if association else 0)
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
            flow = int.from_bytes(outer[:4], "big") & 0x0FFFFFFF
            outer = build(care_of_address, self._home_agent, next_header, payload, flow=flow)
        self.counters["sent_by_tunnel"] += 1
        self._fragment_identification = self._fragment_identification + 1 & 0xFFFFFFFF
        effects += map(SendPacket, fragments(outer, mtu, self._fragment_identification))
        return effects

    def _is_ours(self, address: bytes) -> bool:
        if address == self._home_address:
            return True
        return any(
            int.from_bytes(address, "big") >> 128 - length == int.from_bytes(prefix, "big") >> 128 - length
            for prefix, length in self._parameters.prefixes
        )

    # Where the mobile node is.

    def carrier(self, up: bool, now: float) -> list[MobileEffect]:
        """The link came or went."""
        effects: list[MobileEffect] = [Event("carrier", {"up": up})]
        if self._movement.carrier(up, now):
            effects += self._moved(now)
        return effects + self._solicit(now)

    def advertisement(self, source: bytes, hop_limit: int, message: bytes, now: float) -> list[MobileEffect]:
        """An ICMPv6 message of type Router Advertisement (RFC 4861 6.1.2), its checksum verified."""
        try:
            if hop_limit != 255:
                raise Refused("advertisement_hop_limit")
            if source[0] != 0xFE or source[1] & 0xC0 != 0x80:
                raise Refused("advertisement_source")
            if len(message) < 16 or message[:2] != bytes((icmpv6.ROUTER_ADVERTISEMENT, 0)):
                raise Malformed("truncated_router_advertisement", len(message))
            icmp = icmpv6.Icmp(message[0], message[1], message[4:])
            content = icmpv6.parse_router_advertisement(icmp)
            if not self._movement.advertised(source, content, now):
                return []
        except Refused as refused:
            self.counters[refused.reason] += 1
            return []
        attachment = self._movement.attachment
        fields: dict[str, object] = {
            "router": text(source),
            "prefixes": [f"{text(prefix.prefix)}/{prefix.length}" for prefix in content.prefixes],
            "home": attachment is not None and attachment.at_home,
        }
        return [Event("router_advertisement", fields), *self._moved(now), *self._solicit(now)]

    def address_conflict(self, address: bytes, now: float) -> list[MobileEffect]:
        """Somebody else uses the address that was probed (RFC 4862 5.4.5)."""
        if self._probing is None or self._probing[0] != address:
            return []
        self._probing = None
        return [EndProbe(address), Event("care_of_address_conflict", {"address": text(address)})]

    def _moved(self, now: float) -> list[MobileEffect]:
        effects = self._forget_attachment()
        attachment = self._movement.attachment
        if attachment is None:
            return effects
        if attachment.at_home:
            self._at_home = True
            effects.append(AtHome(attachment.router))
            effects.append(Event("at_home", {"router": text(attachment.router)}))
            if self.registration.may_be_bound:
                return effects + self._carry_out(self.registration.deregister(now))
            return [*effects, AnnounceAddress(self._home_address)]
        if self._parameters.care_of_dad:
            self._probing = attachment.address, now + _DAD_TIME
            return [*effects, ProbeAddress(attachment.address)]
        return effects + self._use_care_of_address(now)

    def _use_care_of_address(self, now: float) -> list[MobileEffect]:
        attachment = self._movement.attachment
        if attachment is None:
            return []
        self._care_of_address = address = attachment.address
        fields: dict[str, object] = {"address": text(address), "router": text(attachment.router)}
        return [
            UseCareOfAddress(address, attachment.router),
            Event("care_of_address", fields),
            *self._carry_out(self.registration.register(address, now)),
        ]

    def _forget_attachment(self) -> list[MobileEffect]:
        effects: list[MobileEffect] = []
        self.registration.suspend()
        self._discovery.stop()
        if self._probing is not None:
            effects.append(EndProbe(self._probing[0]))
            self._probing = None
        if self._care_of_address is not None:
            effects.append(DropCareOfAddress(self._care_of_address))
            self._care_of_address = None
        if self._at_home:
            self._at_home = False
            effects.append(LeaveHome())
        return effects

    def _solicit(self, now: float) -> list[MobileEffect]:
        return [SolicitRouter()] if self._movement.solicits(now) else []

    # What is sent to the home agent.

    def _carry_out(self, steps: Sequence[Step]) -> list[MobileEffect]:
        effects: list[MobileEffect] = []
        for step in steps:
            if not isinstance(step, SendUpdate):
                effects.append(step)
                continue
            octets = messages.build(step.update, self._home_address, self._home_agent)
            effects += self._signal(step.care_of_address, MOBILITY, MessageType.BINDING_UPDATE, octets)
        return effects

    def _signal(
        self, care_of_address: bytes | None, protocol: int, kind: int, octets: bytes
    ) -> list[MobileEffect]:
        association = self._protection.outbound(Mode.TRANSPORT, protocol, kind)
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
        return [*before, SendPacket(packet)]

    def _solicit_prefixes(self, body: bytes) -> list[MobileEffect]:
        kind = icmpv6.MOBILE_PREFIX_SOLICITATION
        octets = icmpv6.message(kind, 0, body, self._home_address, self._home_agent)
        return self._signal(self._care_of_address, ICMPV6, kind, octets)

    def deregister(self, now: float) -> list[MobileEffect]:
        """End the binding while away from home (RFC 6275 11.7.1), before a stop."""
        if self._care_of_address is None or not self.registration.may_be_bound:
            return []
        return self._carry_out(self.registration.deregister(now, self._care_of_address))

    # Time.

    def start(self) -> list[MobileEffect]:
        """Before the first carrier event: sequence numbers are reserved now, for a hand-over has no time."""
        effects: list[MobileEffect] = [self._protection.reservation()] if len(self._protection) else []
        return [*effects, Event("started", {"home_address": text(self._home_address)})]

    def next_deadline(self) -> float | None:
        """When :meth:`on_timer` has something to do."""
        deadlines = (
            self._movement.next_deadline(),
            self.registration.next_deadline(),
            self._discovery.next_deadline(),
            self._probing and self._probing[1],
        )
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def on_timer(self, now: float) -> list[MobileEffect]:
        """Whatever is due: solicitations, retransmissions, refreshes, the end of DAD."""
        effects: list[MobileEffect] = []
        if self._movement.expired(now):
            effects.append(Event("router_lost", {}))
            effects += self._moved(now)
        effects += self._solicit(now)
        if self._probing is not None and now >= self._probing[1]:
            effects.append(EndProbe(self._probing[0]))
            self._probing = None
            effects += self._use_care_of_address(now)
        effects += self._carry_out(self.registration.on_timer(now))
        body = self._discovery.on_timer(now)
        if body is not None and self._care_of_address is not None:
            effects += self._solicit_prefixes(body)
        return effects

    def stop(self) -> list[MobileEffect]:
        """Release everything; the counters are in the last event."""
        counters = dict(sorted(self.counters.items()))
        return [*self._forget_attachment(), Event("stopped", {"counters": counters})]


def _message_type(protocol: int, payload: bytes) -> int | None:
    if protocol == MOBILITY:
        return mobility.message_type(payload)
    return payload[0] if protocol == ICMPV6 and payload else None


def _check_selector(
    association: SecurityAssociation, next_header: int, payload: bytes, outer: Packet
) -> None:
    # RFC 4301 5.2 step 4: what came out must be what the SA is for.
    if association.mode is Mode.TUNNEL:
        if next_header != IPV6:
            raise Refused("selector")
        return
    kind = _message_type(next_header, payload)
    to_home_address = outer.logical_destination == association.home_address
    if not to_home_address or not association.selector.matches(next_header, kind):
        raise Refused("selector")
