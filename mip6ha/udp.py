"""UDP, and what shares port 4500: IKE, ESP in UDP and NAT keep-alives (RFC 768, RFC 3948).

Covered: parse with checksum, build, telling apart what comes to port 4500, the non-ESP marker. Not covered:
datagrams without checksum, which IPv6 has only for tunnels that ask for it (RFC 6935), jumbograms, UDP-Lite.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from .ipv6 import UDP
from .wire import Malformed, checksum, verifies

__all__ = [
    "HEADER_LENGTH",
    "KEEP_ALIVE",
    "NON_ESP_MARKER",
    "Datagram",
    "build",
    "is_esp",
    "is_keep_alive",
    "parse",
    "unmarked",
]

NON_ESP_MARKER = bytes(4)
"""What stands before an IKE message on port 4500, where an SPI would stand otherwise (RFC 3948 2.2)."""
KEEP_ALIVE = b"\xff"
"""The whole payload of a NAT keep-alive (RFC 3948 2.3)."""

_HEADER = Struct(">HHHH")
HEADER_LENGTH = _HEADER.size


class Datagram(NamedTuple):
    """A UDP datagram: its ports and what it carries."""

    source_port: int
    destination_port: int
    payload: bytes


def parse(data: bytes, source: bytes, destination: bytes) -> Datagram:
    """Check the sum between the addresses and split the datagram; raises :class:`Malformed`.

    Octets past the header's length are cut off.
    """
    if len(data) < _HEADER.size:
        raise Malformed("truncated_udp", len(data))
    source_port, destination_port, length, sum_ = _HEADER.unpack_from(data)
    if not _HEADER.size <= length <= len(data):
        raise Malformed("udp_length", 4)
    # RFC 8200 8.1: zero would mean that there is none.
    if not sum_ or not verifies(source, destination, UDP, data[:length]):
        raise Malformed("udp_checksum", 6)
    return Datagram(source_port, destination_port, data[_HEADER.size : length])


def build(source: bytes, destination: bytes, datagram: Datagram) -> bytes:
    """The octets of a datagram between the addresses; ``ValueError`` if it is too long for UDP."""
    source_port, destination_port, payload = datagram
    length = _HEADER.size + len(payload)
    if length > 0xFFFF:
        raise ValueError(f"{len(payload)} octets do not fit a UDP datagram")
    head = _HEADER.pack(source_port, destination_port, length, 0)
    # A sum that comes out as zero is sent as its other form (RFC 8200 8.1).
    sum_ = checksum(source, destination, UDP, head + payload) or 0xFFFF
    return head[:6] + sum_.to_bytes(2, "big") + payload


def is_keep_alive(payload: bytes) -> bool:
    """Whether a payload from port 4500 is a NAT keep-alive, which means nothing (RFC 3948 2.3)."""
    return payload == KEEP_ALIVE


def is_esp(payload: bytes) -> bool:
    """Whether a payload from port 4500 is an ESP packet, from its SPI on, and not IKE (RFC 3948 2.1)."""
    return payload[:4] != NON_ESP_MARKER


def unmarked(payload: bytes) -> bytes:
    """The IKE message behind the non-ESP marker."""
    return payload[len(NON_ESP_MARKER) :]
