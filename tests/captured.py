"""Captured packets, and what tshark prints of them."""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).parent / "vectors"
CAPTURES = sorted(VECTORS.glob("umip-*.pcap"))

CBC_KEY = bytes.fromhex("0f0e0d0c0b0a09080706050403020100")
CBC_INTEGRITY_KEY = bytes(range(32))
GCM_KEY = CBC_KEY + bytes.fromhex("a0a1a2a3")

Fields = dict[str, list[str]]


def frames(path: Path) -> list[bytes]:
    """The Ethernet frames of a pcap file with microseconds, little endian."""
    data = path.read_bytes()
    magic, link_type = struct.unpack_from("<I16xI", data)
    assert (magic, link_type) == (0xA1B2C3D4, 1)
    found, offset = [], 24
    while offset < len(data):
        captured, length = struct.unpack_from("<8xII", data, offset)
        assert captured == length, "a frame was cut off"
        found.append(data[offset + 16 : offset + 16 + captured])
        offset += 16 + captured
    return found


def ipv6_packets(path: Path) -> dict[int, bytes]:
    """The IPv6 packets of a capture by frame number, without what Ethernet padded."""
    return {
        number: frame[14 : 54 + int.from_bytes(frame[18:20], "big")]
        for number, frame in enumerate(frames(path), 1)
        if frame[12:14] == b"\x86\xdd"
    }


def esp_sa_lines() -> dict[str, str]:
    """tshark's preference for the SAs of a kind of capture: every SPI has the same keys there."""
    cbc, integrity, gcm = CBC_KEY.hex(), CBC_INTEGRITY_KEY.hex(), GCM_KEY.hex()
    return {
        "cbc": f'"AES-CBC [RFC3602]","0x{cbc}","HMAC-SHA-256-128 [RFC4868]","0x{integrity}"',
        "gcm": f'"AES-GCM with 16 octet ICV [RFC4106]","0x{gcm}","NULL",""',
    }


def tshark(path: Path) -> dict[int, Fields]:
    """Every field that tshark prints, by frame number; ESP decrypted and its ICV checked."""
    keys = esp_sa_lines()["gcm" if "gcm" in path.name else "cbc"]
    command = [
        "tshark",
        "-n",
        "-o",
        "esp.enable_encryption_decode:TRUE",
        "-o",
        "esp.enable_authentication_check:TRUE",
        "-o",
        f'uat:esp_sa:"IPv6","*","*","*",{keys}',
        "-r",
        str(path),
        "-T",
        "json",
    ]
    printed = subprocess.run(command, check=True, capture_output=True).stdout
    found = {}
    # The JSON repeats keys, so objects are read as pairs.
    for frame in json.loads(printed, object_pairs_hook=_Pairs):
        fields: Fields = {}
        for name, value in _flat(frame):
            fields.setdefault(name, []).append(value)
        found[int(fields["frame.number"][0])] = fields
    return found


class _Pairs(list[tuple[str, Any]]):
    pass


def _flat(pairs: _Pairs) -> Iterator[tuple[str, str]]:
    for name, value in pairs:
        if isinstance(value, _Pairs):
            yield from _flat(value)
        else:
            for one in value if isinstance(value, list) else [value]:
                yield name, str(one)
