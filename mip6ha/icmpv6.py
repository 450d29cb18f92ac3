"""ICMPv6: errors, echo, neighbour and router discovery, and the four messages of RFC 6275 6.5 to 6.8.

Covered: parse with checksum, build, and the options of RFC 4861 and RFC 6275 7 that a home agent or a
mobile node needs. Not covered: secure neighbour discovery, redirects, multicast listener discovery.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from .ipv6 import EXTENSIONS, FRAGMENT, HEADER_LENGTH, ICMPV6, MINIMUM_MTU, build, is_routable_unicast
from .wire import UNSPECIFIED, Malformed, Reader, checksum, verifies

__all__ = [
    "ALL_NODES",
    "ALL_ROUTERS",
    "DESTINATION_UNREACHABLE",
    "ECHO_REPLY",
    "ECHO_REQUEST",
    "HOME_AGENT_DISCOVERY_REPLY",
    "HOME_AGENT_DISCOVERY_REQUEST",
    "MOBILE_PREFIX_ADVERTISEMENT",
    "MOBILE_PREFIX_SOLICITATION",
    "NEIGHBOR_ADVERTISEMENT",
    "NEIGHBOR_SOLICITATION",
    "PACKET_TOO_BIG",
    "PARAMETER_PROBLEM",
    "REDIRECT",
    "ROUTER_ADVERTISEMENT",
    "ROUTER_SOLICITATION",
    "TIME_EXCEEDED",
    "Icmp",
    "NeighborMessage",
    "PrefixInformation",
    "RouterAdvertisement",
    "duplicate_address_probe",
    "echo_reply",
    "error",
    "message",
    "mobile_prefix_advertisement",
    "parse",
    "parse_neighbor",
    "parse_prefixes",
    "parse_router_advertisement",
    "prefix_option",
    "router_solicitation",
    "solicited_advertisement",
    "solicited_node",
    "source_link_layer",
    "unsolicited_advertisement",
]

DESTINATION_UNREACHABLE = 1
PACKET_TOO_BIG = 2
TIME_EXCEEDED = 3
PARAMETER_PROBLEM = 4
ECHO_REQUEST = 128
ECHO_REPLY = 129
ROUTER_SOLICITATION = 133
ROUTER_ADVERTISEMENT = 134
NEIGHBOR_SOLICITATION = 135
NEIGHBOR_ADVERTISEMENT = 136
REDIRECT = 137
HOME_AGENT_DISCOVERY_REQUEST = 144
HOME_AGENT_DISCOVERY_REPLY = 145
MOBILE_PREFIX_SOLICITATION = 146
MOBILE_PREFIX_ADVERTISEMENT = 147

ALL_NODES = bytes.fromhex("ff02") + bytes(13) + b"\x01"
ALL_ROUTERS = bytes.fromhex("ff02") + bytes(13) + b"\x02"

_SOLICITED, _OVERRIDE = 0x40, 0x20
_SOURCE_LINK_LAYER = 1
_TARGET_LINK_LAYER = 2
_PREFIX_INFORMATION = 3
_MTU = 5
_HOME_AGENT_INFORMATION = 8

_PREFIX = Struct(">BBII4x16s")


class Icmp(NamedTuple):
    """An ICMPv6 message: type, code, and what stands behind the checksum."""

    type: int
    code: int
    body: bytes


class PrefixInformation(NamedTuple):
    """Prefix Information option (RFC 4861 4.6.2, RFC 6275 7.2); lifetimes in seconds.

    ``flags``: L 0x80, A 0x40, R 0x20 (``prefix`` is then a router's whole address).
    """

    prefix: bytes
    length: int
    flags: int
    valid: int
    preferred: int


class RouterAdvertisement(NamedTuple):
    """Router Advertisement (RFC 4861 4.2, RFC 6275 7.1, 7.4).

    ``flags``: M 0x80, O 0x40, H 0x20. ``preference`` and ``agent_lifetime`` are those of the Home
    Agent Information option, or its defaults (0, the router's lifetime).
    """

    hop_limit: int
    flags: int
    lifetime: int
    prefixes: tuple[PrefixInformation, ...]
    mtu: int | None
    source_link_layer: bytes | None
    preference: int
    agent_lifetime: int

    @property
    def is_home_agent(self) -> bool:
        """The H bit (RFC 6275 7.1)."""
        return bool(self.flags & 0x20)


class NeighborMessage(NamedTuple):
    """A Neighbor Solicitation or Advertisement: its target and flag octet (R 0x80, S 0x40, O 0x20)."""

    target: bytes
    flags: int


def parse(data: bytes, source: bytes, destination: bytes) -> Icmp:
    """Check the sum between the logical addresses and split the message; raises :class:`Malformed`."""
    if len(data) < 8:
        raise Malformed("truncated_icmpv6", len(data))
    if not verifies(source, destination, ICMPV6, data):
        raise Malformed("icmpv6_checksum", 2)
    return Icmp(data[0], data[1], data[4:])


def message(kind: int, code: int, body: bytes, source: bytes, destination: bytes) -> bytes:
    """The octets of an ICMPv6 message between the logical addresses."""
    head = bytes((kind, code))
    sum_ = checksum(source, destination, ICMPV6, head + b"\0\0" + body)
    return head + sum_.to_bytes(2, "big") + body


def error(kind: int, code: int, value: int, source: bytes, offending: bytes) -> bytes | None:
    """An ICMPv6 error packet about ``offending``, ``None`` where RFC 4443 2.4(e) forbids one.

    ``value`` is the 32-bit field of the type: MTU in octets, or pointer.
    """
    if len(offending) < 40:
        return None
    destination = offending[8:24]
    if not is_routable_unicast(destination) and destination[0] != 0xFE:
        return None
    if offending[24] == 0xFF and kind != PACKET_TOO_BIG and not (kind == PARAMETER_PROBLEM and code == 2):
        return None
    if _is_icmpv6_error(offending):
        return None
    body = value.to_bytes(4, "big") + offending[: MINIMUM_MTU - 48]
    return build(source, destination, ICMPV6, message(kind, code, body, source, destination))


def _is_icmpv6_error(packet: bytes) -> bool:
    """Whether an ICMPv6 error or redirect, behind whatever extension headers, is all that this can be."""
    kind, offset = packet[6], HEADER_LENGTH
    while kind in EXTENSIONS and offset + 8 <= len(packet):
        if kind == FRAGMENT:
            if packet[offset + 2 : offset + 4] > b"\0\7":
                return False
            kind, offset = packet[offset], offset + 8
        else:
            kind, offset = packet[offset], offset + 8 + packet[offset + 1] * 8
    if kind != ICMPV6:
        return False
    return len(packet) <= offset or packet[offset] < 128 or packet[offset] == REDIRECT


def echo_reply(request: Icmp, source: bytes, destination: bytes) -> bytes:
    """The answer of ``source`` to an Echo Request from ``destination`` (RFC 4443 4.2)."""
    return build(source, destination, ICMPV6, message(ECHO_REPLY, 0, request.body, source, destination))


def solicited_node(target: bytes) -> bytes:
    """The solicited-node multicast address of ``target`` (RFC 4291 2.7.1)."""
    return bytes.fromhex("ff0200000000000000000001ff") + target[13:]


def duplicate_address_probe(target: bytes) -> bytes:
    """The Neighbor Solicitation of duplicate address detection (RFC 4862 5.4.2), a whole packet."""
    destination = solicited_node(target)
    octets = message(NEIGHBOR_SOLICITATION, 0, bytes(4) + target, UNSPECIFIED, destination)
    return build(UNSPECIFIED, destination, ICMPV6, octets, hop_limit=255)


def unsolicited_advertisement(source: bytes, target: bytes, link_layer: bytes) -> bytes:
    """The Neighbor Advertisement that claims ``target`` for ``link_layer``, to all nodes (RFC 6275 10.4.1).

    Override is set; Router and Solicited are clear, for it speaks for a mobile node.
    """
    return _advertisement(source, ALL_NODES, target, link_layer, _OVERRIDE)


def solicited_advertisement(
    source: bytes, solicitor: bytes, target: bytes, link_layer: bytes, *, override: bool = True
) -> bytes:
    """The answer to a Neighbor Solicitation of ``solicitor`` (RFC 4861 7.2.4), a whole packet.

    The unspecified address, under which somebody probes ``target``, is answered to all nodes. Router is
    clear.
    """
    flags = _OVERRIDE if override else 0
    if solicitor == UNSPECIFIED:
        return _advertisement(source, ALL_NODES, target, link_layer, flags)
    return _advertisement(source, solicitor, target, link_layer, flags | _SOLICITED)


def _advertisement(source: bytes, destination: bytes, target: bytes, link_layer: bytes, flags: int) -> bytes:
    body = bytes((flags, 0, 0, 0)) + target + bytes((_TARGET_LINK_LAYER, 1)) + link_layer
    octets = message(NEIGHBOR_ADVERTISEMENT, 0, body, source, destination)
    return build(source, destination, ICMPV6, octets, hop_limit=255)


def router_solicitation(source: bytes, link_layer: bytes | None) -> bytes:
    """A Router Solicitation to all routers (RFC 4861 4.1), a whole packet."""
    body = bytes(4)
    if link_layer is not None and source != UNSPECIFIED:
        body += bytes((_SOURCE_LINK_LAYER, 1)) + link_layer
    octets = message(ROUTER_SOLICITATION, 0, body, source, ALL_ROUTERS)
    return build(source, ALL_ROUTERS, ICMPV6, octets, hop_limit=255)


def parse_neighbor(icmp: Icmp) -> NeighborMessage:
    """The target of a Neighbor Solicitation or Advertisement; raises :class:`Malformed`."""
    reader = Reader(icmp.body)
    flags = reader.take(4)[0]
    target = reader.take(16)
    for _ in _nd_options(reader):
        pass
    return NeighborMessage(target, flags)


def source_link_layer(icmp: Icmp) -> bytes | None:
    """The Ethernet address that a Neighbor Solicitation says its sender has (RFC 4861 4.6.1).

    Raises :class:`Malformed`.
    """
    for kind, data in _nd_options(Reader(icmp.body, 20)):
        if kind == _SOURCE_LINK_LAYER and len(data) == 6:
            return data
    return None


def parse_router_advertisement(icmp: Icmp) -> RouterAdvertisement:
    """The content of a Router Advertisement; raises :class:`Malformed`."""
    reader = Reader(icmp.body)
    hop_limit, flags, lifetime = reader.u8(), reader.u8(), reader.u16()
    reader.take(8)
    prefixes = []
    mtu = link_layer = None
    preference, agent_lifetime = 0, lifetime
    for kind, data in _nd_options(reader):
        if kind == _PREFIX_INFORMATION:
            prefixes.append(_prefix(data))
        elif kind == _MTU and len(data) == 6:
            mtu = int.from_bytes(data[2:6], "big")
        elif kind == _SOURCE_LINK_LAYER and len(data) >= 6:
            link_layer = data[:6]
        elif kind == _HOME_AGENT_INFORMATION and len(data) == 6:
            preference = int.from_bytes(data[2:4], "big", signed=True)
            agent_lifetime = int.from_bytes(data[4:6], "big")
    return RouterAdvertisement(
        hop_limit, flags, lifetime, tuple(prefixes), mtu, link_layer, preference, agent_lifetime
    )


def _nd_options(reader: Reader) -> list[tuple[int, bytes]]:
    # RFC 4861 4.6: the length counts 8 octets, zero discards the packet.
    found = []
    while reader.remaining:
        kind, units = reader.u8(), reader.u8()
        if not units:
            raise Malformed("neighbor_discovery_option_length", reader.offset - 1)
        found.append((kind, reader.take(units * 8 - 2)))
    return found


def _prefix(data: bytes) -> PrefixInformation:
    if len(data) != 30 or data[0] > 128:
        raise Malformed("prefix_information_option")
    length, flags, valid, preferred, prefix = _PREFIX.unpack(data)
    return PrefixInformation(prefix, length, flags, valid, preferred)


def prefix_option(prefix: PrefixInformation) -> bytes:
    """The octets of a Prefix Information option."""
    return bytes((_PREFIX_INFORMATION, 4)) + _PREFIX.pack(
        prefix.length, prefix.flags, prefix.valid, prefix.preferred, prefix.prefix
    )


def mobile_prefix_advertisement(
    identifier: int, flags: int, prefixes: tuple[PrefixInformation, ...]
) -> bytes:
    """The body of a Mobile Prefix Advertisement (RFC 6275 6.8), for :func:`message`.

    ``flags``: M 0x80, O 0x40.
    """
    head = identifier.to_bytes(2, "big") + bytes((flags, 0))
    return head + b"".join(prefix_option(prefix) for prefix in prefixes)


def parse_prefixes(body: bytes) -> tuple[PrefixInformation, ...]:
    """The prefixes of a Mobile Prefix Advertisement's body; raises :class:`Malformed`."""
    reader = Reader(body, 4)
    return tuple(_prefix(data) for kind, data in _nd_options(reader) if kind == _PREFIX_INFORMATION)
