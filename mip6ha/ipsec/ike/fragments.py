"""IKE messages in several datagrams (RFC 7383).

Covered: cutting a message into encrypted fragments, putting verified ones together within limits. Not
covered: path MTU discovery (RFC 7383 2.5.2): the limit is a parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ...wire import Malformed, Reader, Refused
from .message import HEADER_SIZE, Encrypted, Header, Part, Payload, build_payloads, seal, seal_part
from .numbers import PayloadKind
from .transforms import Protection

__all__ = [
    "MOST_FRAGMENTS",
    "MOST_OCTETS",
    "Fragment",
    "Reassembly",
    "fragment_numbers",
    "open_fragment",
    "seal_within",
]

MOST_FRAGMENTS = 64
"""Fragments of one message, at most; a peer that needs more has a message that nobody has."""
MOST_OCTETS = 0x10000
"""Octets of one message put together, at most: as much as one datagram might have held."""
_NUMBERS = 4


class Fragment(NamedTuple):
    """A verified fragment; ``first`` is the first payload's type in fragment 1 and zero in the others."""

    number: int
    total: int
    first: int
    content: bytes


def seal_within(
    header: Header,
    payloads: Sequence[Payload],
    protection: Protection,
    random: Callable[[int], bytes],
    limit: int | None,
) -> tuple[bytes, ...]:
    """The datagrams of a message: one, or encrypted fragments of at most ``limit`` octets each.

    ``None`` as limit: the peer knows no fragments. ``ValueError`` where even 64 are too few.
    """
    plaintext = build_payloads(payloads)
    whole = HEADER_SIZE + 4 + protection.sealed_size(len(plaintext))
    if limit is None or whole <= limit:
        return (seal(header, payloads, protection, random),)
    # What fits: the sealed size grows in steps with a block cipher, so the last step down is looked for.
    overhead = HEADER_SIZE + 4 + _NUMBERS
    size = max(0, limit - overhead - protection.sealed_size(0))
    while overhead + protection.sealed_size(size + 1) <= limit:
        size += 1
    if size < 1 or -(-len(plaintext) // size) > MOST_FRAGMENTS:
        raise ValueError("a message does not fit into fragments of that size")
    pieces = [plaintext[at : at + size] for at in range(0, len(plaintext), size)]
    return tuple(
        seal_part(
            header,
            Part(
                PayloadKind.FRAGMENT,
                payloads[0].kind if number == 1 else PayloadKind.NONE,
                number.to_bytes(2, "big") + len(pieces).to_bytes(2, "big"),
                piece,
            ),
            protection,
            random,
        )
        for number, piece in enumerate(pieces, 1)
    )


def fragment_numbers(datagram: bytes, encrypted: Encrypted) -> tuple[int, int]:
    """Number and total of a closed fragment (RFC 7383 2.5); :class:`Malformed` where they cannot be."""
    reader = Reader(datagram, encrypted.start)
    number, total = reader.u16(), reader.u16()
    if not 1 <= number <= total or total > MOST_FRAGMENTS:
        raise Malformed("fragment_number", encrypted.start)
    return number, total


def open_fragment(datagram: bytes, encrypted: Encrypted, protection: Protection) -> Fragment:
    """Verify and open one fragment."""
    number, total = fragment_numbers(datagram, encrypted)
    start = encrypted.start + _NUMBERS
    content = protection.open(datagram[:start], datagram[start:])
    return Fragment(number, total, encrypted.first, content)


class Reassembly:
    """The fragments of one message so far. Only verified ones come here, so a stranger fills nothing."""

    __slots__ = ("_pieces", "_size", "_total", "message_id")

    def __init__(self, message_id: int) -> None:
        self.message_id = message_id
        self._total = 0
        self._size = 0
        self._pieces: dict[int, Fragment] = {}

    def add(self, fragment: Fragment) -> tuple[int, bytes] | None:
        """Take in a fragment: the first payload's type and the whole chain once all are there.

        :class:`Refused` ``duplicate_fragment``, ``stale_fragment`` or ``fragments_too_long``.
        """
        # RFC 7383 2.6: more fragments than before is a smaller size tried by the peer, and begins anew.
        if fragment.total < self._total:
            raise Refused("stale_fragment")
        if fragment.total > self._total:
            self._total, self._size = fragment.total, 0
            self._pieces.clear()
        if fragment.number in self._pieces:
            raise Refused("duplicate_fragment")
        if self._size + len(fragment.content) > MOST_OCTETS:
            raise Refused("fragments_too_long")
        self._size += len(fragment.content)
        self._pieces[fragment.number] = fragment
        if len(self._pieces) < self._total:
            return None
        ordered = [self._pieces[number] for number in range(1, self._total + 1)]
        return ordered[0].first, b"".join(each.content for each in ordered)
