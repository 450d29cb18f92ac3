"""What captures show without any key: every frame, and SPI, sequence number and IV of every ESP packet.

It reads capture files by itself, because a probe a millisecond is more than tshark gets through in a lab run.
Not covered: what is inside ESP (`dissection`), link types other than Ethernet, IPv4.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from ipaddress import IPv6Address
from pathlib import Path
from typing import NamedTuple

__all__ = [
    "Captured",
    "EspNumbers",
    "Outer",
    "Reuse",
    "address",
    "esp_numbers",
    "is_ike",
    "outer",
    "read_pcap",
    "reuse",
    "write_pcap",
]

HOP_BY_HOP, ROUTING, FRAGMENT, ESP, ICMPV6, NO_NEXT, DESTINATION_OPTIONS = 0, 43, 44, 50, 58, 59, 60
IPV6_IN_IPV6, UDP, MOBILITY = 41, 17, 135
IKE, NATT = 500, 4500

_MAGIC = {0xA1B2C3D4: 1e-6, 0xA1B23C4D: 1e-9}
_FILE = struct.Struct("<IHHiIII")
_RECORD = struct.Struct("<IIII")
_ETHERNET, _ETHERTYPE_IPV6, _HEADER = 14, 0x86DD, 40
_SNAP, _LINKTYPE_ETHERNET = 262144, 1
_IV = 8
_UDP_HEADER, _NON_ESP_MARKER = 8, bytes(4)


class Captured(NamedTuple):
    """A frame with IPv6 in it, from the Ethernet header on; `time` is seconds since 1970."""

    time: float
    frame: bytes

    @property
    def packet(self) -> bytes:
        """The IPv6 packet."""
        return self.frame[_ETHERNET:]

    @property
    def sender(self) -> bytes:
        """Source MAC address."""
        return self.frame[6:12]

    @property
    def source(self) -> bytes:
        """Source address of the outer header."""
        return self.frame[_ETHERNET + 8 : _ETHERNET + 24]

    @property
    def destination(self) -> bytes:
        """Destination address of the outer header."""
        return self.frame[_ETHERNET + 24 : _ETHERNET + 40]


class Outer(NamedTuple):
    """The protocol behind a packet's own extension headers, and where it begins."""

    protocol: int
    offset: int


class EspNumbers(NamedTuple):
    """What ESP shows to everybody (RFC 4303 2): `iv` is the 8 octets of the AEADs (RFC 4106 3.1)."""

    spi: int
    sequence: int
    iv: bytes


class Reuse(NamedTuple):
    """How many (SPI, sequence number) and (SPI, IV) were seen again, among how many ESP packets."""

    packets: int
    sequences: int
    ivs: int

    @property
    def total(self) -> int:
        """Whatever was used twice."""
        return self.sequences + self.ivs


def address(text: str) -> bytes:
    """The 16 octets of an address."""
    return IPv6Address(text).packed


def read_pcap(path: Path) -> Iterator[Captured]:
    """The IPv6 frames of a capture file, also of one that is still being written: its end may be cut."""
    with path.open("rb") as file:
        head = file.read(_FILE.size)
        if len(head) < _FILE.size:
            return
        magic, *_, link_type = _FILE.unpack(head)
        if magic not in _MAGIC or link_type != _LINKTYPE_ETHERNET:
            raise ValueError(f"{path.name} is no little-endian Ethernet capture")
        unit = _MAGIC[magic]
        while len(record := file.read(_RECORD.size)) == _RECORD.size:
            seconds, fraction, length, _ = _RECORD.unpack(record)
            frame = file.read(length)
            if len(frame) < length:
                return
            if length >= _ETHERNET + _HEADER and frame[12] << 8 | frame[13] == _ETHERTYPE_IPV6:
                yield Captured(seconds + fraction * unit, frame)


def write_pcap(path: Path, frames: Iterable[Captured]) -> None:
    """A capture file with these frames, in microseconds."""
    with path.open("wb") as file:
        file.write(_FILE.pack(0xA1B2C3D4, 2, 4, 0, 0, _SNAP, _LINKTYPE_ETHERNET))
        for each in frames:
            seconds, fraction = divmod(round(each.time * 1e6), 1_000_000)
            file.write(_RECORD.pack(seconds, fraction, len(each.frame), len(each.frame)) + each.frame)


def outer(packet: bytes) -> Outer:
    """Walk a packet's extension headers (RFC 8200 4); what is cut off ends the walk as "no next header"."""
    protocol, offset = packet[6], _HEADER
    while protocol in (HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS, FRAGMENT):
        if offset + 8 > len(packet):
            return Outer(NO_NEXT, offset)
        length = 8 if protocol == FRAGMENT else (packet[offset + 1] + 1) * 8
        protocol, offset = packet[offset], offset + length
    return Outer(protocol, offset)


def esp_numbers(packet: bytes) -> EspNumbers | None:
    """SPI, sequence number and IV of an ESP packet, in UDP or not; None for any other."""
    protocol, offset = outer(packet)
    if protocol == UDP and NATT in _udp_ports(packet, offset):
        protocol, offset = ESP, offset + _UDP_HEADER
    if protocol != ESP or len(packet) < offset + 8 + _IV or packet[offset : offset + 4] == _NON_ESP_MARKER:
        return None
    spi, sequence = struct.unpack_from(">II", packet, offset)
    return EspNumbers(spi, sequence, packet[offset + 8 : offset + 8 + _IV])


def is_ike(packet: bytes) -> bool:
    """Whether it is an IKE message: on port 4500 neither ESP nor a keep-alive is (RFC 3948 2)."""
    protocol, offset = outer(packet)
    ports = _udp_ports(packet, offset) if protocol == UDP else ()
    begin = offset + _UDP_HEADER
    return IKE in ports or (NATT in ports and packet[begin : begin + 4] == _NON_ESP_MARKER)


def _udp_ports(packet: bytes, offset: int) -> tuple[int, ...]:
    """Source and destination port of the UDP header at an offset, none where it is cut off."""
    return struct.unpack_from(">HH", packet, offset) if len(packet) >= offset + _UDP_HEADER else ()


def reuse(frames: Iterable[Captured], *sources: bytes) -> Reuse:
    """What some addresses used twice under one SPI. `frames` are one link's, so each packet is there once."""
    sequences: Counter[tuple[int, int]] = Counter()
    ivs: Counter[tuple[int, bytes]] = Counter()
    for each in frames:
        if each.source in sources and (numbers := esp_numbers(each.packet)) is not None:
            sequences[numbers.spi, numbers.sequence] += 1
            ivs[numbers.spi, numbers.iv] += 1
    return Reuse(sequences.total(), sequences.total() - len(sequences), ivs.total() - len(ivs))
