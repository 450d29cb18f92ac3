"""Octets: the bounded reader, the internet checksum, and the one error for bad input.

Covered: what every codec of the package shares. Not covered: any protocol.
IPv6 addresses are 16 octets (``bytes``) everywhere inside the cores; text forms exist only
at the edge and in what people read (:func:`text`).
"""

from __future__ import annotations

from ipaddress import IPv6Address
from struct import Struct

__all__ = ["UNSPECIFIED", "Malformed", "Reader", "Refused", "address", "checksum", "text", "verifies"]

UNSPECIFIED = bytes(16)

_U16 = Struct(">H")
_U32 = Struct(">I")
_U64 = Struct(">Q")


class Refused(Exception):
    """A packet is dropped; ``reason`` is the name of the counter that counts it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Malformed(Refused):
    """Input breaks its specification.

    ``offset`` is the octet at fault, counted from the start of what the raising parser was
    given. ``parameter_problem`` is the code of the ICMPv6 Parameter Problem that RFC 8200 or
    RFC 6275 9.2 asks for, ``None`` where the packet is discarded in silence.
    """

    def __init__(self, reason: str, offset: int = 0, parameter_problem: int | None = None) -> None:
        super().__init__(reason)
        self.offset = offset
        self.parameter_problem = parameter_problem

    def __str__(self) -> str:
        return f"{self.reason} at octet {self.offset}"


class Reader:
    """A cursor over octets that raises :class:`Malformed` instead of running past the end."""

    __slots__ = ("_data", "_end", "offset")

    def __init__(self, data: bytes, offset: int = 0, end: int | None = None) -> None:
        self._data = data
        self._end = len(data) if end is None else min(end, len(data))
        self.offset = offset

    @property
    def remaining(self) -> int:
        """Octets left."""
        return self._end - self.offset

    def take(self, count: int) -> bytes:
        """The next ``count`` octets."""
        start = self.offset
        if count < 0 or start + count > self._end:
            raise Malformed("truncated", start)
        self.offset = start + count
        return self._data[start : start + count]

    def u8(self) -> int:
        """The next octet."""
        return self.take(1)[0]

    def u16(self) -> int:
        """The next 16 bits, network order."""
        return int(_U16.unpack(self.take(2))[0])

    def u32(self) -> int:
        """The next 32 bits, network order."""
        return int(_U32.unpack(self.take(4))[0])

    def u64(self) -> int:
        """The next 64 bits, network order."""
        return int(_U64.unpack(self.take(8))[0])

    def rest(self) -> bytes:
        """Everything that is left."""
        return self.take(self._end - self.offset)


# RFC 1071: the one's complement sum of 16-bit words is the number itself modulo 2^16 - 1, which
# CPython computes over a whole packet in one C loop.
def _sum(source: bytes, destination: bytes, next_header: int, data: bytes) -> int:
    padded = source + destination + data
    if len(data) & 1:
        padded += b"\0"
    return int.from_bytes(padded, "big") + len(data) + next_header


def checksum(source: bytes, destination: bytes, next_header: int, data: bytes) -> int:
    """The checksum over ``data`` (checksum field zero) and its IPv6 pseudo-header (RFC 8200 8.1)."""
    return -_sum(source, destination, next_header, data) % 0xFFFF


def verifies(source: bytes, destination: bytes, next_header: int, data: bytes) -> bool:
    """Whether ``data`` with its checksum in place adds up (RFC 8200 8.1)."""
    return _sum(source, destination, next_header, data) % 0xFFFF == 0


def address(value: str) -> bytes:
    """The 16 octets of an address in text form; ``ValueError`` if it is none."""
    return IPv6Address(value).packed


def text(value: bytes) -> str:
    """The canonical text form (RFC 5952) of 16 octets."""
    return str(IPv6Address(value))
