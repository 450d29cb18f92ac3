"""IKEv2 messages: the header, the chain of payloads, the Encrypted payload (RFC 7296 3.1, 3.2, 3.14).

Covered: octets to payload bodies and back, in the clear and under an SA's protection. Not covered: what the
bodies say (``payloads``, ``contents``), messages in several datagrams (``fragments``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import NamedTuple

from ...wire import Malformed
from .numbers import MAJOR_VERSION, PayloadKind
from .transforms import Protection

__all__ = [
    "HEADER_SIZE",
    "Chain",
    "Encrypted",
    "Header",
    "Part",
    "Payload",
    "build_clear",
    "build_header",
    "build_payloads",
    "open_encrypted",
    "parse_chain",
    "parse_header",
    "seal",
    "seal_part",
]

HEADER_SIZE = 28
_HEADER = Struct(">8s8sBBBBII")
_GENERIC = Struct(">BBH")
_RESPONSE, _HIGHER_VERSION, _INITIATOR = 0x20, 0x10, 0x08
_CRITICAL = 0x80
_VERSION = MAJOR_VERSION << 4
# Far more than any exchange has, and few enough to walk.
_MOST_PAYLOADS = 128


class Header(NamedTuple):
    """The IKE header; ``initiator``: from the original initiator of the IKE SA; ``version`` is the octet."""

    spi_i: bytes
    spi_r: bytes
    exchange: int
    initiator: bool
    response: bool
    message_id: int
    version: int = _VERSION

    @property
    def major_version(self) -> int:
        """Two, for whom this speaks."""
        return self.version >> 4


class Payload(NamedTuple):
    """A payload's type and body; ``critical``: refuse the message rather than skip this."""

    kind: int
    body: bytes
    critical: bool = False


class Encrypted(NamedTuple):
    """An Encrypted payload or fragment, closed. ``kind`` is its type, ``first`` that of what is inside.

    ``start`` is the offset in the datagram of what follows the generic header, to the datagram's end.
    """

    kind: int
    first: int
    start: int


class Chain(NamedTuple):
    """Payloads in the clear, and what is encrypted after them."""

    payloads: tuple[Payload, ...]
    encrypted: Encrypted | None


def parse_header(datagram: bytes) -> tuple[Header, int]:
    """The header and the type of the first payload; :class:`Malformed` where lengths do not agree."""
    if len(datagram) < HEADER_SIZE:
        raise Malformed("truncated", len(datagram))
    spi_i, spi_r, first, version, exchange, flags, message_id, length = _HEADER.unpack_from(datagram)
    if length != len(datagram):
        raise Malformed("ike_length", 24)
    if not any(spi_i):
        raise Malformed("ike_spi")
    header = Header(
        spi_i, spi_r, exchange, bool(flags & _INITIATOR), bool(flags & _RESPONSE), message_id, version
    )
    return header, first


def parse_chain(octets: bytes, offset: int, first: int) -> Chain:
    """The payloads from ``offset`` to the end; the encrypted one, where there is one, is the last (3.14)."""
    found: list[Payload] = []
    kind, end = first, len(octets)
    while kind:
        if len(found) == _MOST_PAYLOADS:
            raise Malformed("ike_payloads", offset)
        if offset + 4 > end:
            raise Malformed("truncated", end)
        following, flags, length = _GENERIC.unpack_from(octets, offset)
        if length < 4 or offset + length > end:
            raise Malformed("payload_length", offset + 2)
        if kind in (PayloadKind.ENCRYPTED, PayloadKind.FRAGMENT):
            if offset + length != end:
                raise Malformed("payload_length", offset + 2)
            return Chain(tuple(found), Encrypted(kind, following, offset + 4))
        found.append(Payload(kind, octets[offset + 4 : offset + length], bool(flags & _CRITICAL)))
        kind, offset = following, offset + length
    if offset != end:
        raise Malformed("trailing_octets", offset)
    return Chain(tuple(found), None)


def build_header(header: Header, first: int, length: int) -> bytes:
    """The octets of a header for a message of ``length`` octets in all."""
    flags = (_RESPONSE if header.response else 0) | (_INITIATOR if header.initiator else 0)
    return _HEADER.pack(
        header.spi_i, header.spi_r, first, header.version, header.exchange, flags, header.message_id, length
    )


def build_payloads(payloads: Sequence[Payload]) -> bytes:
    """The octets of a chain of payloads."""
    parts = []
    following = [each.kind for each in payloads[1:]] + [int(PayloadKind.NONE)]
    for payload, after in zip(payloads, following, strict=False):
        flags = _CRITICAL if payload.critical else 0
        parts.append(_GENERIC.pack(after, flags, 4 + len(payload.body)))
        parts.append(payload.body)
    return b"".join(parts)


def _first(payloads: Sequence[Payload]) -> int:
    return payloads[0].kind if payloads else PayloadKind.NONE


def build_clear(header: Header, payloads: Sequence[Payload]) -> bytes:
    """A message in the clear."""
    body = build_payloads(payloads)
    return build_header(header, _first(payloads), HEADER_SIZE + len(body)) + body


def seal(
    header: Header, payloads: Sequence[Payload], protection: Protection, random: Callable[[int], bytes]
) -> bytes:
    """A message with all of ``payloads`` in one Encrypted payload."""
    part = Part(PayloadKind.ENCRYPTED, _first(payloads), b"", build_payloads(payloads))
    return seal_part(header, part, protection, random)


class Part(NamedTuple):
    """What goes into one datagram encrypted: ``numbers`` are a fragment's own, in the clear."""

    kind: int
    first: int
    numbers: bytes
    content: bytes


def seal_part(header: Header, part: Part, protection: Protection, random: Callable[[int], bytes]) -> bytes:
    """A message with one Encrypted payload, or one fragment."""
    length = 4 + len(part.numbers) + protection.sealed_size(len(part.content))
    head = build_header(header, part.kind, HEADER_SIZE + length)
    head += _GENERIC.pack(part.first, 0, length) + part.numbers
    return head + protection.seal(head, part.content, random)


def open_encrypted(datagram: bytes, encrypted: Encrypted, protection: Protection) -> bytes:
    """The chain that an Encrypted payload holds, in octets; its first payload is ``encrypted.first``.

    :class:`~...wire.Refused` ``ike_integrity`` if it does not verify.
    """
    return protection.open(datagram[: encrypted.start], datagram[encrypted.start :])
