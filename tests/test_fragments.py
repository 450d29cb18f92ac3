"""Fragmentation and reassembly (RFC 8200 4.5, RFC 5722, RFC 6946)."""

from __future__ import annotations

import random
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mip6ha import ipv6
from mip6ha.ipv6 import FRAGMENT, Reassembler
from mip6ha.wire import Malformed, Refused

from .octets import (
    CARE_OF_ADDRESS,
    CORRESPONDENT,
    HOME_ADDRESS,
    HOME_AGENT,
    extension,
    fault,
    fragment,
    packet,
)


def _add(reassembler: Reassembler, octets: bytes, now: float = 0.0) -> bytes | None:
    return reassembler.add(octets, ipv6.parse(octets), now)


def _piece(offset: int, more: bool, piece: bytes, identification: int = 1, **rest: bytes) -> bytes:
    return packet(FRAGMENT, fragment(ipv6.UDP, identification, offset, more, piece), **rest)  # type: ignore[arg-type]


def _refused(reassembler: Reassembler, octets: bytes, now: float = 0.0) -> str:
    with pytest.raises(Refused) as caught:
        _add(reassembler, octets, now)
    return caught.value.reason


@given(
    size=st.integers(1200, 5000),
    mtu=st.integers(1280, 1500),
    routing=st.none() | st.just(HOME_ADDRESS),
    home_address=st.none() | st.just(CORRESPONDENT),
    order=st.randoms(use_true_random=False),
)
def test_fragments_come_back_as_the_packet_in_any_order(
    size: int, mtu: int, routing: bytes | None, home_address: bytes | None, order: random.Random
) -> None:
    whole = ipv6.build(
        CORRESPONDENT,
        CARE_OF_ADDRESS,
        ipv6.UDP,
        bytes(n & 0xFF for n in range(size)),
        flow=0xABCDE,
        hop_limit=17,
        routing=routing,
        home_address=home_address,
    )
    pieces = ipv6.fragments(whole, mtu, 0x01020304)
    if len(whole) <= mtu:
        assert pieces == [whole]
        return
    assert len(pieces) > 1
    assert all(len(piece) <= mtu for piece in pieces)
    assert sum(len(piece) for piece in pieces[:-1]) >= (mtu - 7) * (len(pieces) - 1)
    for piece in pieces:
        parsed = ipv6.parse(piece)
        assert (parsed.next_header, parsed.flow, parsed.hop_limit) == (FRAGMENT, 0xABCDE, 17)
        # Routers on the way need the routing header, so it stands before the fragment header.
        assert (parsed.routing, parsed.home_address) == (routing, None)
        assert parsed.payload[4:8] == b"\1\2\3\4"
    reassembler = Reassembler()
    order.shuffle(pieces)
    duplicated = [piece for piece in pieces[:-1] for _ in range(2)]
    assert [_add(reassembler, piece) for piece in duplicated] == [None] * len(duplicated)
    assert _add(reassembler, pieces[-1]) == whole
    assert len(reassembler) == 0


def test_an_mtu_without_room_is_our_own_mistake() -> None:
    whole = packet(ipv6.UDP, bytes(100))
    assert len(ipv6.fragments(whole, 56, 1)) == 13
    with pytest.raises(ValueError, match="no room"):
        ipv6.fragments(whole, 55, 1)


def test_packets_are_told_apart_by_source_destination_and_identification() -> None:
    reassembler = Reassembler()
    firsts = [
        _piece(0, True, b"a" * 8),
        _piece(0, True, b"b" * 8, identification=2),
        _piece(0, True, b"c" * 8, source=HOME_AGENT),
        _piece(0, True, b"d" * 8, destination=CARE_OF_ADDRESS),
    ]
    for octets in firsts:
        assert _add(reassembler, octets) is None
    assert len(reassembler) == 4
    assert _add(reassembler, _piece(8, False, b"!", source=HOME_AGENT)) == packet(
        ipv6.UDP, b"cccccccc!", source=HOME_AGENT
    )
    assert len(reassembler) == 3


@pytest.mark.parametrize(
    "pieces",
    [
        [(0, True, 16), (8, True, 16)],
        [(8, True, 16), (0, True, 16)],
        [(0, True, 32), (8, True, 8)],
        [(8, True, 8), (0, True, 32)],
        [(0, True, 8), (0, True, 16)],
        [(16, False, 8), (24, True, 8)],
        [(16, False, 8), (32, False, 8)],
        [(16, False, 8), (8, True, 16)],
        [(0, True, 8), (800, True, 8), (16, False, 8)],
        [(16, True, 8), (8, False, 4)],
    ],
)
def test_overlap_discards_the_whole_packet(pieces: list[tuple[int, bool, int]]) -> None:
    reassembler = Reassembler()
    *before, last = [
        _piece(offset, more, bytes((n,)) * size) for n, (offset, more, size) in enumerate(pieces)
    ]
    for octets in before:
        assert _add(reassembler, octets) is None
    assert _refused(reassembler, last) == "overlapping_fragments"
    assert len(reassembler) == 0


def test_a_piece_beyond_the_end_never_fills_a_gap() -> None:
    # Three pieces whose sizes add up to the total, though octets 8 to 15 are missing.
    reassembler = Reassembler()
    assert _add(reassembler, _piece(0, True, b"a" * 8)) is None
    assert _add(reassembler, _piece(16, False, b"c" * 8)) is None
    assert _refused(reassembler, _piece(800, True, b"x" * 8)) == "overlapping_fragments"


def test_an_exact_duplicate_changes_nothing() -> None:
    reassembler = Reassembler()
    for _ in range(3):
        assert _add(reassembler, _piece(0, True, b"a" * 8)) is None
    assert _add(reassembler, _piece(8, False, b"b")) == packet(ipv6.UDP, b"aaaaaaaab")


def test_lengths_that_cannot_be() -> None:
    reassembler = Reassembler()
    add = partial(_add, reassembler)
    assert fault(partial(add, _piece(0, True, b"a" * 9))) == ("fragment_length", 4, 0)
    assert fault(partial(add, _piece(8, False, b""))) == ("fragment_length", 42, 0)
    assert fault(partial(add, _piece(0xFFF8, False, b"a" * 8))) == ("fragment_length", 42, 0)
    assert fault(partial(add, _piece(0xFFF8, True, b"a" * 8))) == ("fragment_length", 42, 0)
    routed = packet(ipv6.ROUTING, extension(FRAGMENT, bytes(6)) + fragment(17, 1, 0xFFF0, False, b"a" * 8))
    assert fault(partial(add, routed)) == ("fragment_length", 50, 0)
    assert len(reassembler) == 0


def test_the_longest_packet_there_can_be() -> None:
    reassembler = Reassembler()
    body = bytes(n * 7 & 0xFF for n in range(65535))
    pieces = ipv6.fragments(packet(ipv6.UDP, body), 1280, 5)
    assert [_add(reassembler, octets) for octets in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert _add(reassembler, pieces[-1]) == packet(ipv6.UDP, body)


def test_a_first_fragment_with_more_headers_than_the_others_does_not_overflow_the_length() -> None:
    reassembler = Reassembler()
    half = 0x8000
    head = extension(FRAGMENT, b"\x01\x3c" + bytes(60))
    assert _add(reassembler, _piece(half, False, b"b" * (0xFFFF - half))) is None
    first = packet(ipv6.DESTINATION_OPTIONS, head + fragment(ipv6.UDP, 1, 0, True, b"a" * half))
    assert fault(partial(_add, reassembler, first)) == ("fragment_length", 40 + 64 + 2, 0)
    assert len(reassembler) == 0


def test_headers_before_the_fragment_header_come_from_the_first_fragment() -> None:
    reassembler = Reassembler()
    options = extension(FRAGMENT, b"\x01\x04\0\0\0\0")
    assert _add(reassembler, _piece(8, False, b"b" * 5)) is None
    first = packet(ipv6.HOP_BY_HOP, options + fragment(ipv6.TCP, 1, 0, True, b"a" * 8), hop_limit=3)
    expected = packet(ipv6.HOP_BY_HOP, extension(ipv6.TCP, options[2:]) + b"aaaaaaaabbbbb", hop_limit=3)
    assert _add(reassembler, first) == expected


def test_a_fragment_of_a_fragment_is_refused() -> None:
    octets = packet(FRAGMENT, fragment(FRAGMENT, 1, 8, False, bytes(16)))
    assert fault(partial(_add, Reassembler(), octets)) == ("second_fragment_header", 40, None)


def test_a_packet_in_too_many_pieces_is_discarded() -> None:
    reassembler = Reassembler()
    for n in range(128):
        assert _add(reassembler, _piece(8 * n, True, b"a" * 8)) is None
    assert _refused(reassembler, _piece(8 * 128, False, b"a")) == "too_many_fragments"
    assert len(reassembler) == 0


def test_incomplete_packets_time_out() -> None:
    reassembler = Reassembler(timeout=60.0)
    assert _add(reassembler, _piece(0, True, b"a" * 8), 100.0) is None
    assert _add(reassembler, _piece(0, True, b"c" * 8, identification=2), 130.0) is None
    assert _add(reassembler, _piece(16, False, b"e"), 159.9) is None
    # The deadline is that of the first piece (RFC 8200 4.5), whatever came since.
    assert _add(reassembler, _piece(8, True, b"d" * 8), 160.0) is None
    assert len(reassembler) == 2
    assert _add(reassembler, _piece(8, False, b"d", identification=2), 189.9) == packet(
        ipv6.UDP, b"ccccccccd"
    )


def test_the_oldest_incomplete_packet_gives_way() -> None:
    reassembler = Reassembler(capacity=3)
    for identification in range(1, 5):
        assert _add(reassembler, _piece(0, True, b"a" * 8, identification), float(identification)) is None
    assert len(reassembler) == 3
    assert _add(reassembler, _piece(8, False, b"b", 2), 5.0) is not None
    assert _add(reassembler, _piece(8, False, b"b", 1), 5.0) is None


def test_random_fragments_never_raise_anything_else() -> None:
    source = random.Random(3)
    reassembler = Reassembler(capacity=8)
    complete = 0
    reasons = set()
    for now in range(20_000):
        offset = 8 * source.choice((0, 1, 2, 3, 0x1FFE, 0x1FFF))
        piece = bytes(source.choice((0, 1, 7, 8, 16, 24)))
        word = offset | source.randrange(8)
        head = bytes((source.choice((17, 44, 60, 0)), 0)) + word.to_bytes(2, "big")
        octets = packet(FRAGMENT, head + bytes((0, 0, 0, source.randrange(12))) + piece)
        try:
            parsed = ipv6.parse(octets)
            if parsed.next_header != FRAGMENT:
                continue
            whole = reassembler.add(octets, parsed, now / 100)
        except Malformed:
            continue
        except Refused as error:
            reasons.add(error.reason)
            continue
        assert len(reassembler) <= 8
        if whole is not None:
            complete += 1
            assert len(whole) == 40 + int.from_bytes(whole[4:6], "big")
    assert complete > 50
    assert reasons == {"overlapping_fragments"}
