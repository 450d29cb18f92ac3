"""ESP packets (RFC 4303), transport and tunnel mode alike: what differs is the next header.

Covered: sequence numbers, IVs, padding, ICV, the order window - ICV - advance (3.4.3). Not covered:
selectors (the caller knows the addresses), UDP encapsulation, traffic flow confidentiality padding.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct

from ..wire import Malformed, Refused
from .sad import SecurityAssociation

__all__ = ["overhead", "protect", "spi", "unprotect"]

_HEAD = Struct(">II")
# RFC 4303 2.4: padding counts 1, 2, 3, ...; with the pad length behind it, ready to append.
_PADDING = tuple(bytes(range(1, count + 1)) + bytes((count,)) for count in range(256))


def spi(packet: bytes) -> int:
    """The SPI of an ESP packet; raises :class:`Malformed` where there is none."""
    if len(packet) < 8:
        raise Malformed("truncated_esp", len(packet))
    return int.from_bytes(packet[:4], "big")


def unprotect(association: SecurityAssociation, packet: bytes) -> tuple[int, bytes]:
    """Open an inbound ESP packet: (next header, payload).

    Raises :class:`Malformed`, or :class:`Refused` with ``replayed``, ``beyond_replicated_window``,
    ``bad_icv`` or ``bad_padding``.
    The window advances only when all is well, so that nothing forged can move it.
    """
    transform, window = association.transform, association.window
    if window is None:
        raise Refused("not_an_inbound_sa")
    if len(packet) < 10 + transform.iv_length + transform.icv_length:
        raise Malformed("truncated_esp", len(packet))
    sequence = int.from_bytes(packet[4:8], "big")
    high = b""
    if association.esn:
        sequence = window.extend(sequence)
        high = (sequence >> 32).to_bytes(4, "big")
    if not window.is_new(sequence):
        raise Refused("replayed")
    plaintext = transform.open(association.keys, packet, high)
    end = len(plaintext) - 2
    if end < 0:
        raise Refused("bad_padding")
    count = plaintext[end]
    if count:
        end -= count
        if end < 0 or plaintext[end:-1] != _PADDING[count]:
            raise Refused("bad_padding")
    if sequence > association.limit:
        association.ahead = max(association.ahead, sequence)
        raise Refused("beyond_replicated_window")
    window.advance(sequence)
    association.packets += 1
    return plaintext[-1], plaintext[:end]


def protect(
    association: SecurityAssociation, next_header: int, payload: bytes, random: Callable[[int], bytes]
) -> bytes:
    """Seal ``payload`` with the next sequence number of an outbound SA.

    ``random`` yields that many random octets (the IV of CBC). :class:`Refused` ``sequence_exhausted``
    when the reservation or the key is used up: the number is then not spent.
    """
    sequence = association.sequence + 1
    if sequence > association.limit:
        raise Refused("sequence_exhausted")
    association.sequence = sequence
    association.packets += 1
    transform = association.transform
    head = _HEAD.pack(association.spi, sequence & 0xFFFFFFFF)
    high = (sequence >> 32).to_bytes(4, "big") if association.esn else b""
    if transform.counter_iv:
        iv = (association.iv_prefix << 40 | sequence).to_bytes(8, "big")
    else:
        iv = random(transform.iv_length) if transform.iv_length else b""
    padding = _PADDING[-(len(payload) + 2) % transform.align]
    return transform.seal(association.keys, head, high, iv, payload + padding + bytes((next_header,)))


def overhead(association: SecurityAssociation) -> int:
    """The most octets that :func:`protect` adds to a payload."""
    transform = association.transform
    return 8 + transform.iv_length + transform.align + 1 + transform.icv_length
