"""What a member has, in a few octets: so that two members exchange only what differs.

Covered: a sum over (home address, version) in buckets, kept up with every change. Not covered: attacks on
the sum, for members trust each other. With equal sums two members have the same versions, save for a
chance of one in 2^32 for each bucket that differs.

A weight is the version times a factor of the home address's own, modulo a prime: a hash of both would do as
well, and would cost more than everything else that a change of version does.
"""

from __future__ import annotations

from struct import Struct
from zlib import crc32

from .context import Version

__all__ = ["BUCKETS", "Digest", "bucket"]

BUCKETS = 62
"""As many sums of 4 octets as fit one mobility option."""

_PRIME = (1 << 32) - 5
# How many generations later a term counts as; any number that generations do not come near.
_TERM = 0x9E3779B1
_SUMS = Struct(f">{BUCKETS}I")


def bucket(home_address: bytes) -> int:
    """The bucket that a home address belongs to."""
    return crc32(home_address) % BUCKETS


def _number(version: Version | None) -> int:
    """A version as a number, 0 for none: there is no generation 0."""
    return 0 if version is None else version[0] * _TERM + version[1]


class Digest:
    """The sums of one member."""

    __slots__ = ("_sums",)

    def __init__(self) -> None:
        self._sums = [0] * BUCKETS

    def change(self, home_address: bytes, old: Version | None, new: Version | None) -> None:
        """A version changed; ``None`` where there was, or is, none."""
        code = crc32(home_address)
        # Squared, for checksums of neighbouring addresses are differences of each other.
        factor = code * code % _PRIME + 1
        index = code % BUCKETS
        self._sums[index] = (self._sums[index] + factor * (_number(new) - _number(old))) % _PRIME

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
