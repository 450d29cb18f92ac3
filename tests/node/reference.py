"""The signalling of the reference implementations, decrypted from their captures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from mip6ha import icmpv6, ipv6
from mip6ha.binding import messages
from mip6ha.ipsec import esp
from mip6ha.ipsec.algorithms import Keys, Transform
from mip6ha.ipsec.policy import Direction, Use
from mip6ha.ipsec.sad import SecurityAssociation
from mip6ha.ipv6 import ESP, ICMPV6, MOBILITY, Packet
from mip6ha.wire import address

from ..captured import CBC_INTEGRITY_KEY, CBC_KEY, GCM_KEY, VECTORS, ipv6_packets
from .world import CBC, GCM, HOME_AGENT

HOME = address("2001:db8:a::100")
USES = ((0x2000, Use.BINDING), (0x2002, Use.PREFIX), (0x2004, Use.PAYLOAD))


class Opened(NamedTuple):
    outer: Packet
    spi: int
    sequence: int
    protocol: int
    octets: bytes
    message: object


def protection(kind: str) -> tuple[Transform, Keys]:
    return (GCM, Keys(GCM_KEY)) if kind == "gcm" else (CBC, Keys(CBC_KEY, CBC_INTEGRITY_KEY))


def opened(packet: bytes, kind: str) -> Opened | None:
    """A signalling packet decrypted without regard to replays; ``None`` for anything else."""
    parsed = ipv6.parse(packet)
    protocol, octets, spi, sequence = parsed.next_header, parsed.payload, 0, 0
    if protocol == ESP:
        spi, sequence = esp.spi(octets), int.from_bytes(octets[4:8], "big")
        transform, keys = protection(kind)
        association = SecurityAssociation(
            spi=spi,
            direction=Direction.IN,
            use=Use.PAYLOAD,
            home_address=HOME,
            transform=transform,
            keys=keys,
        )
        protocol, octets = esp.unprotect(association, octets)
    ends = parsed.logical_source, parsed.logical_destination
    if protocol == MOBILITY:
        return Opened(parsed, spi, sequence, protocol, octets, messages.parse(octets, *ends))
    if protocol == ICMPV6 and octets[0] in (146, 147):
        return Opened(parsed, spi, sequence, protocol, octets, icmpv6.parse(octets, *ends))
    return None


def signalling(name: str, kind: str) -> Iterator[tuple[bytes, Opened]]:
    """Signalling packets from and to the home agent, each with what is in it."""
    for packet in ipv6_packets(VECTORS / name).values():
        if HOME_AGENT in (packet[8:24], packet[24:40]) and (found := opened(packet, kind)):
            yield packet, found
