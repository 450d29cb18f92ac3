"""Bidirectional IPv6-in-IPv6 tunnels (RFC 2473) towards care-of addresses, for either end.

Covered: encapsulation with the traffic class (RFC 6040), tunnel path MTU with Packet Too Big towards the
source or fragments outside, translation of ICMPv6 errors about tunnel packets. Not covered: tunnel
encapsulation limit option, hop limit of inner packets (whoever forwards them decrements it), ESP.
"""

from __future__ import annotations

from . import icmpv6
from .ipv6 import HEADER_LENGTH, IPV6, MINIMUM_MTU, build
from .wire import Malformed, Refused

__all__ = [
    "PathMtu",
    "check_inner",
    "encapsulate",
    "outer_flow",
    "relay_error",
    "too_big",
    "with_outer_congestion",
]

_ECN = 0x3


def check_inner(packet: bytes) -> bytes:
    """``packet`` cut to its length, fit to be forwarded; raises :class:`Malformed` or :class:`Refused`.

    What must not leave a tunnel: link-local and multicast destinations, sources nobody can answer.
    """
    if len(packet) < HEADER_LENGTH or packet[0] >> 4 != 6:
        raise Malformed("truncated_inner_packet", len(packet))
    end = HEADER_LENGTH + int.from_bytes(packet[4:6], "big")
    if end > len(packet):
        raise Malformed("truncated_inner_packet", 4)
    first = packet[24]
    if first == 0xFF or (first == 0xFE and packet[25] & 0xC0 == 0x80) or packet[24:40] == bytes(16):
        raise Refused("inner_destination")
    return packet[:end]


def encapsulate(inner: bytes, source: bytes, destination: bytes) -> bytes:
    """``inner`` in an outer header; the traffic class is copied (RFC 2473 6.4, RFC 6040 4.1)."""
    return build(source, destination, IPV6, inner, flow=outer_flow(inner))


def outer_flow(inner: bytes) -> int:
    """Traffic class and flow label (zero) for the outer header of ``inner``."""
    return ((inner[0] & 0xF) << 4 | inner[1] >> 4) << 20


def with_outer_congestion(inner: bytes, outer_flow: int) -> bytes:
    """``inner`` as it leaves the tunnel: a congestion mark of the outer header moves in (RFC 6040 4.2).

    ``outer_flow`` is the outer packet's traffic class and flow label. :class:`Refused` where the inner
    packet cannot carry the mark.
    """
    if outer_flow >> 20 & _ECN != _ECN or inner[1] >> 4 & _ECN == _ECN:
        return inner
    if not inner[1] >> 4 & _ECN:
        raise Refused("congestion_experienced")
    return inner[:1] + bytes((inner[1] | _ECN << 4,)) + inner[2:]


class PathMtu:
    """What Packet Too Big taught about paths (RFC 8201).

    At most ``capacity`` of them, each for ``age`` seconds.
    """

    def __init__(self, link_mtu: int, capacity: int = 4096, age: float = 600.0) -> None:
        self.link_mtu = link_mtu
        self.age = age
        self._capacity = capacity
        self._known: dict[bytes, tuple[int, float]] = {}

    def to(self, destination: bytes, now: float) -> int:
        """The largest packet that the path takes, in octets."""
        if not self._known:
            return self.link_mtu
        known = self._known.get(destination)
        if known is None:
            return self.link_mtu
        if known[1] <= now:
            del self._known[destination]
            return self.link_mtu
        return known[0]

    def learn(self, destination: bytes, mtu: int, now: float) -> bool:
        """Take in a Packet Too Big about a packet to ``destination``; whether it lowered anything."""
        mtu = max(mtu, MINIMUM_MTU)
        if mtu >= self.to(destination, now):
            return False
        if destination not in self._known and len(self._known) >= self._capacity:
            del self._known[next(iter(self._known))]
        self._known[destination] = mtu, now + self.age
        return True


def too_big(inner: bytes, room: int, source: bytes) -> bytes | None:
    """The Packet Too Big for an inner packet that does not fit ``room`` octets (RFC 2473 7.1).

    ``None`` where there must be none: the packet fits, or is at most 1280 octets, so that the outer packet is
    fragmented instead. :class:`Refused` when it is too big and nobody may be told.
    """
    if len(inner) <= room or len(inner) <= MINIMUM_MTU:
        return None
    answer = icmpv6.error(icmpv6.PACKET_TOO_BIG, 0, max(room, MINIMUM_MTU), source, inner)
    if answer is None:
        raise Refused("too_big")
    return answer


def relay_error(icmp: icmpv6.Icmp, inner: bytes, source: bytes) -> bytes | None:
    """What the source of ``inner`` is told about an ICMPv6 error on its tunnel packet (RFC 2473 8.3).

    ``inner`` is the original packet as far as the error quoted it.
    """
    if icmp.type == icmpv6.PACKET_TOO_BIG:
        mtu = int.from_bytes(icmp.body[:4], "big") - HEADER_LENGTH
        length = HEADER_LENGTH + int.from_bytes(inner[4:6], "big") if len(inner) >= 6 else 0
        if length <= MINIMUM_MTU:
            return None
        return icmpv6.error(icmpv6.PACKET_TOO_BIG, 0, max(mtu, MINIMUM_MTU), source, inner)
    # The tunnel's inside is one hop for the source: whatever went wrong there, the address is unreachable.
    return icmpv6.error(icmpv6.DESTINATION_UNREACHABLE, 3, 0, source, inner)
