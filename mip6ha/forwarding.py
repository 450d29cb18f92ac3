"""Payload through the tunnels of a home agent, in userspace (RFC 6275 10.4.2, 10.4.5, RFC 2473).

Covered: intercepted packets towards care-of addresses, reverse tunnelled packets with the source check,
ESP tunnel mode where policy demands it, path MTU, errors about tunnel packets. Not covered: which
addresses are intercepted (``node``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from . import icmpv6, ipv6, tunnel, udp
from .associations import Associations
from .binding.cache import Binding, BindingCache
from .effects import Effect, NarrowPath, SendPacket
from .ipsec import esp
from .ipsec.ike.numbers import NATT_PORT
from .ipsec.policy import Direction, Mode, Use, selector
from .ipsec.sad import SecurityAssociation
from .ipv6 import (
    ESP,
    EXTENSIONS,
    FRAGMENT,
    HEADER_LENGTH,
    ICMPV6,
    IPV6,
    MOBILITY,
    NO_NEXT_HEADER,
    UDP,
    Packet,
)
from .mobility import message_type
from .udp import Datagram
from .wire import Refused

__all__ = ["Forwarding"]

_MAX_EXTENSION_HEADERS = 8
_NEIGHBOR_DISCOVERY = range(icmpv6.ROUTER_SOLICITATION, icmpv6.REDIRECT + 1)


class Forwarding:
    """The tunnel end point that the home agent is for every binding in ``cache``."""

    def __init__(
        self,
        address: bytes,
        cache: BindingCache,
        associations: Associations,
        link_mtu: int,
        counters: Counter[str],
    ) -> None:
        self._address = address
        self._cache = cache
        self._associations = associations
        self._paths = tunnel.PathMtu(link_mtu)
        self._counters = counters
        self._identification = 0
        self._protected: dict[bytes, tuple[Use, ...]] = {}
        self.encapsulation: Mapping[bytes, tuple[int, int]] = {}
        """The UDP ports, here and there, of home addresses whose ESP goes in UDP (RFC 3948)."""

    def demand_protection(
        self, home_address: bytes, *, demanded: bool, negotiated: tuple[Use, ...] = ()
    ) -> None:
        """Note whether a home address has tunnel mode SAs, so that the others are not asked each time.

        What ``negotiated`` names is refused while there is no SA for it.
        """
        uses = tuple(each for each in negotiated if each.mode is Mode.TUNNEL)
        if demanded or uses:
            self._protected[home_address] = uses
        else:
            self._protected.pop(home_address, None)

    def is_protected(self, home_address: bytes) -> bool:
        """Whether a home address has tunnel mode SAs."""
        return home_address in self._protected

    def is_narrow(self, binding: Binding, now: float) -> bool:
        """Whether tunnel packets to a binding's care-of address may have to be fragmented (RFC 2473 7.1)."""
        most = max(
            (esp.overhead(each) for each in self._associations.database.of(binding.home_address)), default=0
        )
        return self._paths.to(binding.care_of_address, now) < ipv6.MINIMUM_MTU + HEADER_LENGTH + most

    def encapsulate(self, binding: Binding, packet: bytes, now: float, effects: list[Effect]) -> None:
        """Tunnel an intercepted packet to the care-of address."""
        packet = tunnel.check_inner(packet)
        if packet[8] == 0xFE and packet[9] & 0xC0 == 0x80:
            raise Refused("link_local_source")
        protocol, kind = _upper_layer(packet)
        if protocol == ICMPV6 and kind in _NEIGHBOR_DISCOVERY:
            # A neighbour of ours asks whether the home address is still here; it was never to be forwarded.
            raise Refused("neighbor_discovery")
        care_of_address = binding.care_of_address
        association = self._association(binding, Direction.OUT, packet)
        mtu = self._paths.to(care_of_address, now)
        room = mtu - HEADER_LENGTH - (esp.overhead(association) if association is not None else 0)
        ports = self.encapsulation.get(binding.home_address) if association is not None else None
        if ports is not None:
            room -= udp.HEADER_LENGTH
        if len(packet) > room:
            answer = tunnel.too_big(packet, room, self._address)
            if answer is not None:
                self._counters["packet_too_big_sent"] += 1
                effects.append(SendPacket(answer))
                return
        if association is None:
            outer = tunnel.encapsulate(packet, self._address, care_of_address)
        else:
            sealed = self._associations.protect(association, IPV6, packet, effects)
            protocol = ESP
            if ports is not None:
                sealed = udp.build(self._address, care_of_address, Datagram(*ports, sealed))
                protocol = UDP
            outer = ipv6.build(
                self._address, care_of_address, protocol, sealed, flow=tunnel.outer_flow(packet)
            )
        self._counters["tunnelled_out"] += 1
        if len(outer) <= mtu:
            effects.append(SendPacket(outer))
            return
        self._identification = self._identification + 1 & 0xFFFFFFFF
        effects += [SendPacket(piece) for piece in ipv6.fragments(outer, mtu, self._identification)]

    def decapsulate(
        self,
        inner: bytes,
        outer: Packet,
        association: SecurityAssociation | None,
        effects: list[Effect],
    ) -> None:
        """Forward a reverse tunnelled packet, if its source may use this tunnel.

        ``association`` is the tunnel mode SA it came under.
        """
        packet = tunnel.check_inner(inner)
        source = packet[8:24]
        binding = self._binding(source)
        if binding is None:
            raise Refused("reverse_tunnel_without_binding")
        if binding.care_of_address != outer.source:
            raise Refused("reverse_tunnel_source")
        demanded = self._association(binding, Direction.IN, packet)
        if association is not None:
            if association.home_address != binding.home_address:
                raise Refused("selector_mismatch")
            protocol, kind = _upper_layer(packet)
            if not association.selector.matches(protocol, kind):
                raise Refused("selector_mismatch")
        elif demanded is not None:
            raise Refused("unprotected_payload")
        effects.append(SendPacket(tunnel.with_outer_congestion(packet, outer.flow)))
        self._counters["tunnelled_in"] += 1

    def tunnel_error(self, icmp: icmpv6.Icmp, now: float, effects: list[Effect]) -> None:
        """An ICMPv6 error about a packet sent from here (RFC 2473 8.2)."""
        quoted = icmp.body[4:]
        if len(quoted) < HEADER_LENGTH or quoted[8:24] != self._address:
            raise Refused("error_about_foreign_packet")
        care_of_address, protocol = quoted[24:40], quoted[6]
        inner = quoted[HEADER_LENGTH:] if protocol == IPV6 else b""
        if protocol == IPV6:
            binding = self._binding(inner[24:40].ljust(16, b"\0"))
            if binding is None or binding.care_of_address != care_of_address:
                raise Refused("error_about_foreign_packet")
        elif protocol != ESP and not _is_esp_in_udp(protocol, quoted[HEADER_LENGTH:]):
            raise Refused("error_about_signalling")
        if icmp.type == icmpv6.PACKET_TOO_BIG:
            mtu = max(int.from_bytes(icmp.body[:4], "big"), ipv6.MINIMUM_MTU)
            if self._paths.learn(care_of_address, mtu, now):
                effects.append(NarrowPath(care_of_address, mtu, self._paths.age))
            self._counters["path_mtu_updates"] += 1
        answer = tunnel.relay_error(icmp, inner, self._address) if inner else None
        if answer is not None:
            self._counters["tunnel_errors_relayed"] += 1
            effects.append(SendPacket(answer))

    def _binding(self, address: bytes) -> Binding | None:
        """Who is bound with this home address, or with a prefix around it."""
        binding = self._cache.get(address)
        if binding is None or not binding.is_bound:
            binding = self._cache.behind(address)
        return binding if binding is not None and binding.is_bound else None

    def _association(
        self, binding: Binding, direction: Direction, packet: bytes
    ) -> SecurityAssociation | None:
        uses = self._protected.get(binding.home_address)
        if uses is None:
            return None
        protocol, kind = _upper_layer(packet)
        database = self._associations.database
        found = database.select(binding.home_address, direction, Mode.TUNNEL, protocol, kind)
        if found is None and any(
            selector(use, to_home_agent=direction is Direction.IN).matches(protocol, kind) for use in uses
        ):
            raise Refused("no_sa_for_payload")
        return found


def _is_esp_in_udp(protocol: int, quoted: bytes) -> bool:
    """Whether what is quoted behind the fixed header, maybe not all of it, is ESP from port 4500."""
    source_port, payload = int.from_bytes(quoted[:2], "big"), quoted[udp.HEADER_LENGTH :]
    return protocol == UDP and source_port == NATT_PORT and len(payload) >= 4 and udp.is_esp(payload)


def _upper_layer(packet: bytes) -> tuple[int, int | None]:
    """Upper-layer protocol and message type of a packet in transit.

    Whether its extension headers are well-formed is for its destination to judge; those that no packet has
    make it one of an unknown protocol (59), and a later fragment is one of protocol 44.
    """
    protocol, offset = packet[6], HEADER_LENGTH
    for _ in range(_MAX_EXTENSION_HEADERS):
        if protocol not in EXTENSIONS:
            break
        if offset + 8 > len(packet):
            return NO_NEXT_HEADER, None
        if protocol != FRAGMENT:
            protocol, offset = packet[offset], offset + 8 + packet[offset + 1] * 8
        elif packet[offset + 2 : offset + 4] > b"\0\7":
            return FRAGMENT, None
        else:
            protocol, offset = packet[offset], offset + 8
    else:
        return NO_NEXT_HEADER, None
    if protocol == MOBILITY:
        return MOBILITY, message_type(packet[offset:])
    return protocol, packet[offset] if protocol == ICMPV6 and offset < len(packet) else None
