"""IPv6 packets: extension headers, home address option, type 2 routing header, fragments.

Covered: RFC 8200 header walk with bounds, RFC 6275 6.3 (home address option) and 6.4 (type 2
routing header), fragmentation and reassembly as a tunnel end point needs it (RFC 2473 7.2,
RFC 5722 overlap rule). Not covered: jumbograms, routing header types other than 2 with segments
left (refused), authentication header.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from .wire import UNSPECIFIED, Malformed, Refused

__all__ = [
    "DESTINATION_OPTIONS",
    "ESP",
    "EXTENSIONS",
    "FRAGMENT",
    "HEADER_LENGTH",
    "HOME_ADDRESS_OPTION",
    "ICMPV6",
    "IPV6",
    "MINIMUM_MTU",
    "MOBILITY",
    "NO_NEXT_HEADER",
    "UDP",
    "Packet",
    "Reassembler",
    "build",
    "fragments",
    "is_routable_unicast",
    "parse",
]

HEADER_LENGTH = 40
MINIMUM_MTU = 1280

HOP_BY_HOP = 0
TCP = 6
UDP = 17
IPV6 = 41
ROUTING = 43
FRAGMENT = 44
ESP = 50
ICMPV6 = 58
NO_NEXT_HEADER = 59
DESTINATION_OPTIONS = 60
MOBILITY = 135

HOME_ADDRESS_OPTION = 201

# RFC 8200 4.1 lists six extension headers, destination options twice; anything longer is an
# attack on the parser, not a packet.
_MAX_EXTENSION_HEADERS = 8

# 65,535 octets in fragments for the smallest MTU make 54; each new one is compared with all before it.
_MAX_FRAGMENTS = 128

_FIXED = Struct(">IHBB16s16s")
EXTENSIONS = frozenset((HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS, FRAGMENT))


class Packet(NamedTuple):
    """One IPv6 packet, split at its upper-layer header.

    ``flow`` holds the traffic class (8 bits) and the flow label (20 bits) as on the wire.
    ``home_address`` is the address of a home address option, ``routing`` that of a type 2 routing
    header with a segment left; both are claims that nothing has verified yet.
    ``payload`` starts at the header ``next_header`` names; ``offset`` is where that is in the packet.
    """

    source: bytes
    destination: bytes
    next_header: int
    payload: bytes
    hop_limit: int = 64
    flow: int = 0
    home_address: bytes | None = None
    routing: bytes | None = None
    offset: int = HEADER_LENGTH

    @property
    def logical_source(self) -> bytes:
        """The home address where there is one: the source of upper-layer checksums (RFC 6275 6.1.1)."""
        return self.home_address or self.source

    @property
    def logical_destination(self) -> bytes:
        """The type 2 routing header's address where there is one (RFC 6275 6.1.1)."""
        return self.routing or self.destination


def parse(packet: bytes) -> Packet:
    """Split ``packet``; raises :class:`Malformed`.

    Octets past the header's payload length are cut off. A fragment comes back with ``next_header``
    :data:`FRAGMENT` and ``payload`` starting at its fragment header; an atomic fragment (RFC 6946) is
    walked through.
    """
    if len(packet) < HEADER_LENGTH:
        raise Malformed("truncated_ipv6_header", len(packet))
    flow, length, next_header, hop_limit, source, destination = _FIXED.unpack_from(packet)
    if flow >> 28 != 6:
        raise Malformed("not_ipv6")
    end = HEADER_LENGTH + length
    if end > len(packet):
        raise Malformed("truncated_ipv6_payload", 4)
    if source[0] == 0xFF:
        raise Malformed("multicast_source", 8)
    offset = HEADER_LENGTH
    home_address = routing = None
    if next_header in EXTENSIONS:
        named_at, fragmented = 6, False
        for count in range(_MAX_EXTENSION_HEADERS + 1):
            if next_header not in EXTENSIONS:
                break
            if count == _MAX_EXTENSION_HEADERS:
                raise Malformed("too_many_extension_headers", offset)
            if offset + 8 > end:
                raise Malformed("truncated_extension_header", offset)
            if next_header == FRAGMENT:
                if fragmented:
                    raise Malformed("second_fragment_header", offset)
                if packet[offset + 2 : offset + 4] not in (b"\0\0", b"\0\2", b"\0\4", b"\0\6"):
                    break
                fragmented = True
                next_header, named_at, offset = packet[offset], offset, offset + 8
                continue
            if next_header == HOP_BY_HOP and offset != HEADER_LENGTH:
                # RFC 8200 4: the pointer is that of the Next Header value, not of what it names.
                raise Malformed("misplaced_hop_by_hop", named_at, parameter_problem=1)
            after = offset + 8 + packet[offset + 1] * 8
            if after > end:
                raise Malformed("truncated_extension_header", offset)
            if next_header == ROUTING:
                if packet[offset + 3]:
                    if routing is not None:
                        raise Malformed("second_routing_header", offset)
                    routing = _type_2_routing(packet, offset)
            else:
                found = _home_address_option(packet, offset + 2, after, next_header)
                if found is not None:
                    if home_address is not None:
                        raise Malformed("second_home_address_option", offset)
                    home_address = found
            next_header, named_at, offset = packet[offset], offset, after
    return Packet(
        source,
        destination,
        next_header,
        packet[offset:end],
        hop_limit,
        flow & 0x0FFFFFFF,
        home_address,
        routing,
        offset,
    )


def _type_2_routing(packet: bytes, offset: int) -> bytes:
    # RFC 6275 6.4.1: type 2 carries exactly one address, segments left 1.
    if packet[offset + 2] != 2:
        raise Malformed("routing_header_type", offset + 2, parameter_problem=0)
    if packet[offset + 1] != 2:
        raise Malformed("routing_header_length", offset + 1, parameter_problem=0)
    if packet[offset + 3] != 1:
        raise Malformed("routing_header_segments", offset + 3, parameter_problem=0)
    home_address = packet[offset + 8 : offset + 24]
    if not is_routable_unicast(home_address):
        raise Malformed("routing_header_address", offset + 8)
    return home_address


def _home_address_option(packet: bytes, offset: int, end: int, header: int) -> bytes | None:
    """Walk one options header (RFC 8200 4.2); the home address if its option is there."""
    found = None
    while offset < end:
        kind = packet[offset]
        if kind == 0:
            offset += 1
            continue
        if offset + 2 > end:
            raise Malformed("truncated_ipv6_option", offset)
        length = packet[offset + 1]
        if offset + 2 + length > end:
            raise Malformed("truncated_ipv6_option", offset)
        if kind == HOME_ADDRESS_OPTION and header == DESTINATION_OPTIONS:
            if length != 16:
                raise Malformed("home_address_option_length", offset + 1)
            if found is not None:
                raise Malformed("second_home_address_option", offset)
            found = packet[offset + 2 : offset + 18]
            if not is_routable_unicast(found):
                raise Malformed("home_address_option_address", offset + 2)
        elif kind != 1 and kind >> 6:
            # RFC 8200 4.2: the two top bits say what an unknown option demands.
            code = None if kind >> 6 == 1 or (kind >> 6 == 3 and packet[24] == 0xFF) else 2
            raise Malformed("unknown_ipv6_option", offset, parameter_problem=code)
        offset += 2 + length
    return found


def build(
    source: bytes,
    destination: bytes,
    next_header: int,
    payload: bytes,
    *,
    hop_limit: int = 64,
    flow: int = 0,
    home_address: bytes | None = None,
    routing: bytes | None = None,
) -> bytes:
    """The octets of a packet; RH2 before HAO where both are there (RFC 6275 6.3, 6.4).

    ``ValueError`` if the payload does not fit a packet.
    """
    # The paddings are the ones that RFC 6275 6.3's alignment (8n+6) asks for.
    if home_address is not None:
        payload = bytes((next_header, 2, 1, 2, 0, 0, HOME_ADDRESS_OPTION, 16)) + home_address + payload
        next_header = DESTINATION_OPTIONS
    if routing is not None:
        payload = bytes((next_header, 2, 2, 1, 0, 0, 0, 0)) + routing + payload
        next_header = ROUTING
    if len(payload) > 0xFFFF:
        raise ValueError("payload longer than an IPv6 packet can carry")
    return _FIXED.pack(0x60000000 | flow, len(payload), next_header, hop_limit, source, destination) + payload


def is_routable_unicast(value: bytes) -> bool:
    """Not multicast, link-local, loopback, unspecified or IPv4-mapped: fit for a home or care-of address."""
    first = value[0]
    if first == 0xFF or (first == 0xFE and value[1] & 0xC0 == 0x80):
        return False
    return bool(first) or value[:10] != UNSPECIFIED[:10]


def fragments(packet: bytes, mtu: int, identification: int) -> list[bytes]:
    """Cut ``packet`` so that each piece fits ``mtu`` octets (RFC 8200 4.5).

    Destination options and routing headers are few and short here, so everything after the fixed
    header is the fragmentable part, except a routing header that routers on the way must see.
    """
    if len(packet) <= mtu:
        return [packet]
    flow, _, next_header, hop_limit, source, destination = _FIXED.unpack_from(packet)
    start = HEADER_LENGTH
    if next_header == ROUTING:
        start += 8 + packet[start + 1] * 8
    head = packet[HEADER_LENGTH:start]
    inner = head[0] if head else next_header
    if head:
        head = bytes((FRAGMENT,)) + head[1:]
    else:
        next_header = FRAGMENT
    room = (mtu - start - 8) & ~7
    if room < 8:
        raise ValueError("MTU leaves no room for a fragment")
    body = packet[start:]
    pieces = []
    for offset in range(0, len(body), room):
        piece = body[offset : offset + room]
        more = 1 if offset + room < len(body) else 0
        header = bytes((inner, 0)) + (offset | more).to_bytes(2, "big") + identification.to_bytes(4, "big")
        payload = head + header + piece
        pieces.append(_FIXED.pack(flow, len(payload), next_header, hop_limit, source, destination) + payload)
    return pieces


class _Assembly:
    __slots__ = ("deadline", "head", "next_header", "pieces", "size", "total")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.head = b""
        self.next_header = NO_NEXT_HEADER
        self.pieces: dict[int, bytes] = {}
        self.size = 0
        self.total: int | None = None


class Reassembler:
    """Puts fragments back together, within fixed bounds (RFC 8200 4.5, RFC 5722).

    ``capacity`` packets may be incomplete at once, each for ``timeout`` seconds; the oldest gives way.
    An overlap discards the whole packet.
    """

    def __init__(self, capacity: int = 256, timeout: float = 60.0) -> None:
        self._capacity = capacity
        self._timeout = timeout
        self._incomplete: dict[tuple[bytes, bytes, bytes], _Assembly] = {}

    def __len__(self) -> int:
        return len(self._incomplete)

    def add(self, packet: bytes, parsed: Packet, now: float) -> bytes | None:
        """Take one fragment; the whole packet when this one completes it.

        ``parsed`` is :func:`parse`'s view of ``packet``. Raises :class:`Malformed`, or
        :class:`Refused` for an overlap or a packet in too many pieces.
        """
        payload = parsed.payload
        key = (parsed.source, parsed.destination, payload[4:8])
        word = int.from_bytes(payload[2:4], "big")
        offset, more = word & 0xFFF8, word & 1
        piece = payload[8:]
        if more and len(piece) & 7:
            raise Malformed("fragment_length", 4, parameter_problem=0)
        end = offset + len(piece)
        if not piece or parsed.offset - HEADER_LENGTH + end > 0xFFFF:
            raise Malformed("fragment_length", parsed.offset + 2, parameter_problem=0)
        if payload[0] == FRAGMENT:
            raise Malformed("second_fragment_header", parsed.offset)
        self._expire(now)
        assembly = self._incomplete.get(key)
        if assembly is None:
            if len(self._incomplete) >= self._capacity:
                del self._incomplete[next(iter(self._incomplete))]
            assembly = self._incomplete[key] = _Assembly(now + self._timeout)
        if assembly.pieces.get(offset) == piece:
            return None
        overlap = any(start < end and offset < start + len(other) for start, other in assembly.pieces.items())
        if more:
            past_end = assembly.total is not None and end > assembly.total
        else:
            past_end = assembly.total is not None or any(start >= end for start in assembly.pieces)
        if overlap or past_end:
            del self._incomplete[key]
            raise Refused("overlapping_fragments")
        if len(assembly.pieces) == _MAX_FRAGMENTS:
            del self._incomplete[key]
            raise Refused("too_many_fragments")
        assembly.pieces[offset] = piece
        assembly.size += len(piece)
        if not offset:
            assembly.head = packet[: parsed.offset]
            assembly.next_header = payload[0]
        if not more:
            assembly.total = end
        if assembly.total is None or assembly.size != assembly.total or not assembly.head:
            return None
        del self._incomplete[key]
        # The first fragment may have more headers before its fragment header than the others had.
        if len(assembly.head) - HEADER_LENGTH + assembly.total > 0xFFFF:
            raise Malformed("fragment_length", parsed.offset + 2, parameter_problem=0)
        return _join(assembly)

    def _expire(self, now: float) -> None:
        while self._incomplete:
            key = next(iter(self._incomplete))
            if self._incomplete[key].deadline > now:
                return
            del self._incomplete[key]


def _join(assembly: _Assembly) -> bytes:
    """The packet as it was before it was cut: the fragment header taken out of the chain."""
    head = bytearray(assembly.head)
    field, offset = 6, HEADER_LENGTH
    while head[field] != FRAGMENT:
        field, offset = offset, offset + 8 + head[offset + 1] * 8
    head[field] = assembly.next_header
    payload = b"".join(assembly.pieces[start] for start in sorted(assembly.pieces))
    head[4:6] = (len(head) - HEADER_LENGTH + len(payload)).to_bytes(2, "big")
    return bytes(head) + payload
