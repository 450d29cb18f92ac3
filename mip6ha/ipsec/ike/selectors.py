"""Traffic selectors and their narrowing (RFC 7296 2.9, 3.13).

Covered: ranges of addresses and ports, the type and code of ICMPv6, the message type of a Mobility Header in
both encodings that peers use: the type as a plain port, and in the upper octet of the port (RFC 4301
4.4.1.1). A narrowed selector keeps the encoding that the peer offered. Not covered: security labels, Fibre
Channel; a selector of a type that is not IP's is skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...wire import Malformed, Reader

__all__ = [
    "ANY_PORT",
    "ICMPV6",
    "MOBILITY",
    "TrafficSelector",
    "build_selectors",
    "covers",
    "icmp_ports",
    "mobility_ports",
    "mobility_type",
    "narrow",
    "parse_selectors",
]

MOBILITY = 135
ICMPV6 = 58
ANY_PORT = (0, 0xFFFF)
_OPAQUE = (0xFFFF, 0)
_LENGTHS = {7: 4, 8: 16}
_MOST_SELECTORS = 32


class TrafficSelector(NamedTuple):
    """Protocol (0: any), ports and addresses, both ends included; 4 octets of address or 16."""

    protocol: int
    first_port: int
    last_port: int
    first: bytes
    last: bytes

    @property
    def ports(self) -> tuple[int, int]:
        """The range of ports, or what stands in its place."""
        return self.first_port, self.last_port


def icmp_ports(kind: int, code: int | None = None) -> tuple[int, int]:
    """A type (and code) of ICMPv6 as a range of ports (3.13.1)."""
    return (kind << 8, kind << 8 | 0xFF) if code is None else (kind << 8 | code, kind << 8 | code)


def mobility_ports(kind: int | None) -> tuple[int, int]:
    """A message type of the Mobility Header, as Linux and strongSwan want it: a plain port."""
    return ANY_PORT if kind is None else (kind, kind)


def mobility_type(ports: tuple[int, int]) -> int | None:
    """The message type that ports of protocol 135 mean in either encoding; ``None`` for any.

    :class:`Malformed` where they mean neither all types nor one.
    """
    first, last = ports
    if ports == ANY_PORT:
        return None
    if first == last and first < 0x100:
        return first
    if first >> 8 == last >> 8 and first & 0xFF == 0 and last & 0xFF in (0, 0xFF):
        return first >> 8
    raise Malformed("mobility_selector")


def parse_selectors(body: bytes) -> tuple[TrafficSelector, ...]:
    """The selectors of a TS payload's body; those of unknown types are left out."""
    reader = Reader(body)
    count = reader.u8()
    reader.take(3)
    if not 1 <= count <= _MOST_SELECTORS:
        raise Malformed("selector_count")
    found = []
    for _ in range(count):
        at = reader.offset
        kind, protocol, length = reader.u8(), reader.u8(), reader.u16()
        if length < 4:
            raise Malformed("selector_length", at)
        content = Reader(reader.take(length - 4))
        size = _LENGTHS.get(kind)
        if size is None:
            continue
        if content.remaining != 4 + 2 * size:
            raise Malformed("selector_length", at)
        selector = TrafficSelector(
            protocol, content.u16(), content.u16(), content.take(size), content.take(size)
        )
        if selector.first > selector.last:
            raise Malformed("selector_range", at)
        if selector.first_port > selector.last_port and selector.ports != _OPAQUE:
            raise Malformed("selector_range", at)
        found.append(selector)
    if reader.remaining:
        raise Malformed("selector_count", reader.offset)
    return tuple(found)


def build_selectors(selectors: Sequence[TrafficSelector]) -> bytes:
    """The body of a TS payload."""
    parts = [bytes((len(selectors), 0, 0, 0))]
    for protocol, first_port, last_port, first, last in selectors:
        parts.append(
            bytes((7 if len(first) == 4 else 8, protocol))
            + (8 + 2 * len(first)).to_bytes(2, "big")
            + first_port.to_bytes(2, "big")
            + last_port.to_bytes(2, "big")
            + first
            + last
        )
    return b"".join(parts)


def narrow(
    offered: Sequence[TrafficSelector], allowed: Sequence[TrafficSelector]
) -> tuple[TrafficSelector, ...]:
    """What of ``offered`` is also in ``allowed`` (2.9); empty where nothing is."""
    found: dict[TrafficSelector, None] = {}
    for theirs in offered:
        for ours in allowed:
            common = _common(theirs, ours)
            if common is not None:
                found[common] = None
    return tuple(found)


def covers(allowed: Sequence[TrafficSelector], selectors: Sequence[TrafficSelector]) -> bool:
    """Whether each of ``selectors`` is wholly within one of ``allowed``."""
    return bool(selectors) and all(any(_common(each, one) == each for one in allowed) for each in selectors)


def _common(theirs: TrafficSelector, ours: TrafficSelector) -> TrafficSelector | None:
    if len(theirs.first) != len(ours.first):
        return None
    first, last = max(theirs.first, ours.first), min(theirs.last, ours.last)
    if first > last:
        return None
    if not theirs.protocol:
        protocol, ports = ours.protocol, _common_ports(0, theirs.ports, ours.ports)
    elif ours.protocol in (0, theirs.protocol):
        protocol, ports = theirs.protocol, _common_ports(theirs.protocol, theirs.ports, ours.ports)
    else:
        return None
    return None if ports is None else TrafficSelector(protocol, *ports, first, last)


def _common_ports(protocol: int, theirs: tuple[int, int], ours: tuple[int, int]) -> tuple[int, int] | None:
    if ours == ANY_PORT:
        return theirs
    if theirs == ANY_PORT:
        return ours
    if protocol == MOBILITY:
        try:
            return theirs if mobility_type(theirs) == mobility_type(ours) else None
        except Malformed:
            # Neither one type nor all of them: there is no message that this selects for both ends.
            return None
    if _OPAQUE in (theirs, ours):
        return theirs if theirs == ours else None
    first, last = max(theirs[0], ours[0]), min(theirs[1], ours[1])
    return (first, last) if first <= last else None
