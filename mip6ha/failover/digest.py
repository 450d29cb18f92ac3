"""What a member has, in a few octets: so that two members exchange only what differs.

Covered: a sum over (home address, version) in buckets, kept up with every change. Not covered: attacks on
the sum, for members trust each other. With equal sums two members have the same versions, save for a
chance of one in 2^32 for each bucket that differs.
"""

from __future__ import annotations

from hashlib import blake2b
from struct import Struct
from zlib import crc32

from .context import Version

__all__ = ["BUCKETS", "Digest", "bucket"]

BUCKETS = 62
"""As many sums of 4 octets as fit one mobility option."""

_VERSION = Struct(">QQ")
_SUMS = Struct(f">{BUCKETS}I")


def bucket(home_address: bytes) -> int:
    """The bucket that a home address belongs to."""
    return crc32(home_address) % BUCKETS


def _weight(home_address: bytes, version: Version) -> int:
    octets = home_address + _VERSION.pack(*version)
    return int.from_bytes(blake2b(octets, digest_size=4).digest(), "big")


class Digest:
    """The sums of one member."""

    __slots__ = ("_sums",)

    def __init__(self) -> None:
        self._sums = [0] * BUCKETS

    def change(self, home_address: bytes, old: Version | None, new: Version | None) -> None:
        """A version changed; ``None`` where there was, or is, none."""
        index = bucket(home_address)
        total = self._sums[index]
        if old is not None:
            total -= _weight(home_address, old)
        if new is not None:
            total += _weight(home_address, new)
        self._sums[index] = total & 0xFFFFFFFF

    def octets(self) -> bytes:
        """For another member to compare."""
        return _SUMS.pack(*self._sums)

    def differing(self, octets: bytes) -> frozenset[int]:
        """The buckets in which another member's sums differ; all of them where it sent none."""
        if len(octets) != _SUMS.size:
            return frozenset(range(BUCKETS))
        return frozenset(
            index for index, other in enumerate(_SUMS.unpack(octets)) if other != self._sums[index]
        )
