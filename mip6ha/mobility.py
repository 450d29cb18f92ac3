"""The Mobility Header's frame and its options (RFC 6275 6.1.1, 6.2.1).

Covered: header checks in the order of RFC 6275 9.2, the option walk with its alignment rules.
Not covered: what the messages and options mean (``binding.messages``, ``harp.messages``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from .ipv6 import MOBILITY, NO_NEXT_HEADER
from .wire import Malformed, checksum, verifies

__all__ = ["Message", "Option", "OptionRule", "build", "message_type", "options", "parse", "parse_options"]

_MAX_LENGTH = 8 + 255 * 8


class Message(NamedTuple):
    """A Mobility Header: its type, and the message data behind the 6-octet frame."""

    type: int
    body: bytes


class Option(NamedTuple):
    """A mobility option: its type, and the octets behind its length field."""

    type: int
    data: bytes


class OptionRule(NamedTuple):
    """What a known option type demands: data length (``exact``, or at least), alignment ``x*n + y``."""

    length: int
    exact: bool
    align: int = 1
    at: int = 0


def message_type(data: bytes) -> int | None:
    """The MH type in a Mobility Header's octets, ``None`` if they end before it."""
    return data[2] if len(data) > 2 else None


def parse(data: bytes, source: bytes, destination: bytes) -> Message:
    """Check the frame (RFC 6275 9.2) and split it; raises :class:`Malformed`.

    ``source`` and ``destination`` are the logical ones: the home address in place of the care-of
    address (6.1.1).
    """
    size = len(data)
    if size < 8:
        raise Malformed("truncated_mobility_header", size)
    length = 8 + data[1] * 8
    if length != size:
        if length > size:
            raise Malformed("mobility_header_length", 1, parameter_problem=0)
        data = data[:length]
    if not verifies(source, destination, MOBILITY, data):
        raise Malformed("mobility_header_checksum", 4)
    if data[0] != NO_NEXT_HEADER:
        raise Malformed("mobility_payload_proto", 0, parameter_problem=0)
    return Message(data[2], data[6:])


def build(kind: int, body: bytes, source: bytes, destination: bytes) -> bytes:
    """The octets of a Mobility Header; ``body`` must already fill 8-octet units with the frame."""
    size = 6 + len(body)
    if size & 7 or size > _MAX_LENGTH:
        raise ValueError("a Mobility Header is a multiple of 8 octets, 2048 at most")
    head = bytes((NO_NEXT_HEADER, (size >> 3) - 1, kind, 0))
    sum_ = checksum(source, destination, MOBILITY, head + b"\0\0" + body)
    return head + sum_.to_bytes(2, "big") + body


def parse_options(body: bytes, offset: int, rules: Mapping[int, OptionRule]) -> tuple[Option, ...]:
    """The options of ``body`` from ``offset`` on, padding left out, unknown types kept (6.2.1).

    An option that ``rules`` knows must have the length the rule names; raises :class:`Malformed`.
    """
    found: list[Option] = []
    end = len(body)
    while offset < end:
        kind = body[offset]
        if not kind:
            offset += 1
            continue
        start = offset + 2
        if start > end:
            raise Malformed("truncated_mobility_option", offset)
        length = body[offset + 1]
        offset = start + length
        if offset > end:
            raise Malformed("truncated_mobility_option", start - 2)
        if kind == 1:
            continue
        rule = rules.get(kind)
        if rule is not None and length != rule.length and (rule.exact or length < rule.length):
            raise Malformed("mobility_option_length", start - 1)
        found.append(Option(kind, body[start:offset]))
    return tuple(found)


def _padding(count: int) -> bytes:
    if count == 1:
        return b"\0"
    return bytes((1, count - 2)) + bytes(count - 2) if count else b""


def options(body: bytes, items: Iterable[Option], rules: Mapping[int, OptionRule]) -> bytes:
    """``body`` with ``items`` appended, each at its alignment, padded to whole 8-octet units."""
    position = 6 + len(body)
    parts = [body]
    for kind, data in items:
        rule = rules.get(kind)
        if rule is not None and rule.align > 1:
            gap = (rule.at - position) % rule.align
            parts.append(_padding(gap))
            position += gap
        parts.append(bytes((kind, len(data))) + data)
        position += 2 + len(data)
    parts.append(_padding(-position % 8))
    return b"".join(parts)
