"""The Mobility Header's frame and options: checks, alignment, padding."""

from __future__ import annotations

import contextlib
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mip6ha import mobility
from mip6ha.binding.messages import OPTION_RULES
from mip6ha.mobility import Message, Option, OptionRule
from mip6ha.wire import Malformed

from .octets import HOME_ADDRESS, HOME_AGENT, fault, reference_checksum
from .strategies import ADDRESSES, OPTIONS, U8

_BETWEEN = (HOME_ADDRESS, HOME_AGENT)

# RFC 6275 6.2.4 to 6.2.7, RFC 3963 4.3, RFC 4285 5 and 6, RFC 5094 3:
# (x, y) of x*n + y, from the header's first octet.
_ALIGNMENTS = {2: (2, 0), 3: (8, 6), 4: (2, 0), 5: (8, 2), 6: (8, 4), 9: (4, 1), 10: (8, 2), 19: (4, 2)}


def _resummed(data: bytes) -> bytes:
    blank = data[:4] + b"\0\0" + data[6:]
    return data[:4] + reference_checksum(*_BETWEEN, 135, blank).to_bytes(2, "big") + data[6:]


@given(U8, st.integers(0, 20), ADDRESSES, ADDRESSES, st.data())
def test_frames_survive(
    kind: int, units: int, source: bytes, destination: bytes, data: st.DataObject
) -> None:
    body = data.draw(st.binary(min_size=2 + 8 * units, max_size=2 + 8 * units))
    octets = mobility.build(kind, body, source, destination)
    assert octets[:4] == bytes((59, units, kind, 0))
    blank = octets[:4] + b"\0\0" + octets[6:]
    assert int.from_bytes(octets[4:6], "big") == reference_checksum(source, destination, 135, blank)
    assert mobility.message_type(octets) == kind
    assert mobility.parse(octets, source, destination) == Message(kind, body)


@pytest.mark.parametrize("size", [0, 1, 3, 9, 2043, 2050])
def test_bodies_that_fill_no_header_are_our_own_mistake(size: int) -> None:
    with pytest.raises(ValueError, match="multiple of 8 octets, 2048 at most"):
        mobility.build(5, bytes(size), *_BETWEEN)


def test_the_longest_header() -> None:
    octets = mobility.build(5, bytes(2042), *_BETWEEN)
    assert (len(octets), octets[1]) == (2048, 255)


def test_message_type_of_too_few_octets() -> None:
    assert mobility.message_type(b"\x3b\0") is None
    assert mobility.message_type(b"\x3b\0\x07") == 7


def test_octets_behind_the_header_are_not_part_of_it() -> None:
    octets = mobility.build(5, bytes(10), *_BETWEEN)
    assert mobility.parse(octets + b"more", *_BETWEEN) == Message(5, bytes(10))


_GOOD = mobility.build(5, bytes(10), *_BETWEEN)


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"", ("truncated_mobility_header", 0, None)),
        (_GOOD[:7], ("truncated_mobility_header", 7, None)),
        (_GOOD[:8], ("mobility_header_length", 1, 0)),
        (_GOOD[:15], ("mobility_header_length", 1, 0)),
        (_resummed(b"\x3b\xff" + _GOOD[2:]), ("mobility_header_length", 1, 0)),
        (_GOOD[:-1] + b"\x01", ("mobility_header_checksum", 4, None)),
        (_GOOD[:4] + b"\0\0" + _GOOD[6:], ("mobility_header_checksum", 4, None)),
        (_resummed(b"\x3b\x00" + _GOOD[2:]), ("mobility_header_checksum", 4, None)),
        (_resummed(b"\x3a" + _GOOD[1:]), ("mobility_payload_proto", 0, 0)),
    ],
)
def test_broken_frames(octets: bytes, expected: tuple[str, int, int | None]) -> None:
    assert fault(partial(mobility.parse, octets, *_BETWEEN)) == expected


def test_the_checksum_is_between_the_logical_addresses() -> None:
    expected = ("mobility_header_checksum", 4, None)
    assert fault(partial(mobility.parse, _GOOD, HOME_ADDRESS, HOME_ADDRESS)) == expected
    # The sum does not know which address is which, as RFC 1071 has it.
    assert mobility.parse(_GOOD, HOME_AGENT, HOME_ADDRESS).type == 5


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"\x01", ("truncated_mobility_option", 0, None)),
        (b"\0\0\x03", ("truncated_mobility_option", 2, None)),
        (b"\x01\x03\0\0", ("truncated_mobility_option", 0, None)),
        (b"\xc8\x01", ("truncated_mobility_option", 0, None)),
        (b"\x01\0\x03\x10" + bytes(15), ("truncated_mobility_option", 2, None)),
        (b"\x02\x01\0", ("mobility_option_length", 1, None)),
        (b"\x02\x03\0\0\0", ("mobility_option_length", 1, None)),
        (b"\0\x03\x0f" + bytes(15), ("mobility_option_length", 2, None)),
        (b"\x04\x02\0\0", ("mobility_option_length", 1, None)),
        (b"\x06\x11" + bytes(17), ("mobility_option_length", 1, None)),
        (b"\x08\x01\x01", ("mobility_option_length", 1, None)),
        (b"\x09\x04\0\0\0\0", ("mobility_option_length", 1, None)),
        (b"\x0a\x07" + bytes(7), ("mobility_option_length", 1, None)),
        (b"\x13\x04" + bytes(4), ("mobility_option_length", 1, None)),
    ],
)
def test_broken_options(body: bytes, expected: tuple[str, int, int | None]) -> None:
    assert fault(partial(mobility.parse_options, body, 0, OPTION_RULES)) == expected
    reason, offset, answer = expected
    assert fault(partial(mobility.parse_options, b"\xff\xff" + body, 2, OPTION_RULES)) == (
        reason,
        offset + 2,
        answer,
    )


def test_unknown_options_are_kept_and_padding_is_not() -> None:
    body = b"\0\x01\x00\x01\x03\0\0\0\xc8\x00\xc9\x02ab\0"
    assert mobility.parse_options(body, 0, OPTION_RULES) == (Option(200, b""), Option(201, b"ab"))


@given(st.integers(0, 3).map(lambda units: bytes(2 + 8 * units)) | st.binary(max_size=24), OPTIONS)
def test_options_are_aligned_padded_and_survive(body: bytes, items: tuple[Option, ...]) -> None:
    octets = mobility.options(body, items, OPTION_RULES)
    assert octets.startswith(body)
    assert (6 + len(octets)) % 8 == 0
    assert mobility.parse_options(octets, len(body), OPTION_RULES) == items
    # The walk again, by hand: where does each option stand, is all padding well-formed and zero?
    position, found, gap = len(body), 0, 0
    while position < len(octets):
        kind = octets[position]
        if kind == 0:
            position, gap = position + 1, gap + 1
            continue
        length = octets[position + 1]
        if kind == 1:
            assert octets[position + 2 : position + 2 + length] == bytes(length)
            gap += 2 + length
        else:
            x, y = _ALIGNMENTS.get(kind, (1, 0))
            assert (6 + position) % x == y % x
            assert gap < x or gap == 0
            found, gap = found + 1, 0
        position += 2 + length
    assert (position, found) == (len(octets), len(items))
    assert gap < 8


@pytest.mark.parametrize("gap", range(8))
def test_every_gap_is_filled_with_one_padding_option(gap: int) -> None:
    rules = {200: OptionRule(0, exact=False, align=8, at=gap)}
    octets = mobility.options(bytes(2), [Option(200, b"")], rules)
    padding = {0: b"", 1: b"\0"}.get(gap, bytes((1, gap - 2)) + bytes(gap - 2) if gap > 1 else b"")
    assert octets[2 : 4 + gap] == padding + b"\xc8\0"


@given(st.binary(max_size=60), U8)
def test_any_octets_parse_or_are_malformed(data: bytes, kind: int) -> None:
    with contextlib.suppress(Malformed):
        mobility.parse(data, *_BETWEEN)
    with contextlib.suppress(Malformed):
        found = mobility.parse_options(bytes((kind,)) + data, 0, OPTION_RULES)
        assert sum(2 + len(option.data) for option in found) <= 1 + len(data)
