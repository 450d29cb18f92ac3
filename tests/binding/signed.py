"""Binding Updates under RFC 4285, put together by hand with the standard library."""

from __future__ import annotations

import hmac
import struct
from hashlib import sha1

from mip6ha.wire import address

from ..octets import CARE_OF_ADDRESS, HOME_ADDRESS, HOME_AGENT, reference_checksum

KEY = bytes.fromhex("00112233445566778899aabbccddeeff00112233")
SPI = 0x00000100
SOURCE = address("2001:db8:d::9")


def update(
    sequence: int = 7,
    *,
    lifetime: int = 15,
    timestamp: int | None = None,
    alternate: bytes | None = CARE_OF_ADDRESS,
    covered_address: bytes = CARE_OF_ADDRESS,
    key: bytes = KEY,
    spi: int = SPI,
    behind: bytes = b"\1\2\0\0",
) -> bytes:
    """A Binding Update put together by hand, octet by octet."""
    body = struct.pack(">HHH", sequence, 0xC000, lifetime)
    if timestamp is not None:
        body += b"\1\2\0\0" + struct.pack(">BBQ", 10, 8, timestamp)  # 8n+2
    if alternate is not None:
        while (6 + len(body)) % 8 != 6:  # 8n+6
            body += b"\0"
        body += b"\3\x10" + alternate
    while (6 + len(body)) % 4 != 1:
        body += b"\0"
    body += struct.pack(">BBBI", 9, 17, 1, spi)
    size = 6 + len(body) + 12 + len(behind)
    behind += b"\1" + bytes(((-size % 8) - 2,)) + bytes((-size % 8) - 2) if size % 8 else b""
    size += -size % 8
    head = bytes((59, size // 8 - 1, 5, 0, 0, 0))
    data = hmac.digest(key, covered_address + HOME_ADDRESS + head + body, sha1)[:12]
    whole = head + body + data + behind
    sum_ = reference_checksum(HOME_ADDRESS, HOME_AGENT, 135, whole)
    return whole[:4] + sum_.to_bytes(2, "big") + whole[6:]
