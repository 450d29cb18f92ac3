"""IPv6 packets: the header walk with every way to break it, and building."""

from __future__ import annotations

import contextlib
import random
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mip6ha import ipv6
from mip6ha.wire import Malformed, address

from .octets import (
    CARE_OF_ADDRESS,
    CORRESPONDENT,
    HOME_ADDRESS,
    HOME_AGENT,
    extension,
    fault,
    mutations,
    packet,
)

_UDP = b"\x13\x88\x13\x88\x00\x08\x00\x00"
_HAO = bytes((201, 16)) + HOME_ADDRESS
_PAD4 = b"\x01\x02\0\0"
_RH2 = b"\x02\x01\0\0\0\0" + HOME_ADDRESS
_ALL_NODES = address("ff02::1")

_ROUTABLE = st.binary(min_size=14, max_size=14).map(lambda tail: b"\x20\x01" + tail) | st.just(HOME_ADDRESS)


def _options(
    content: bytes, next_header: int = ipv6.UDP, *, hop_by_hop: bool = False, **rest: bytes
) -> bytes:
    """A packet with one options header around ``content``."""
    kind = ipv6.HOP_BY_HOP if hop_by_hop else ipv6.DESTINATION_OPTIONS
    return packet(kind, extension(next_header, content) + _UDP, **rest)  # type: ignore[arg-type]


@given(
    addresses=st.tuples(_ROUTABLE, _ROUTABLE),
    next_header=st.sampled_from((ipv6.UDP, ipv6.ESP, ipv6.MOBILITY, ipv6.ICMPV6, ipv6.NO_NEXT_HEADER, 253)),
    payload=st.binary(max_size=80),
    fields=st.fixed_dictionaries(
        {
            "hop_limit": st.integers(0, 255),
            "flow": st.integers(0, 0xFFFFFFF),
            "home_address": st.none() | _ROUTABLE,
            "routing": st.none() | _ROUTABLE,
        }
    ),
)
def test_what_is_built_parses_to_the_same(
    addresses: tuple[bytes, bytes], next_header: int, payload: bytes, fields: dict[str, Any]
) -> None:
    octets = ipv6.build(*addresses, next_header, payload, **fields)
    offset = 40 + 24 * ((fields["home_address"] is not None) + (fields["routing"] is not None))
    assert len(octets) == offset + len(payload)
    assert ipv6.parse(octets) == ipv6.Packet(*addresses, next_header, payload, **fields, offset=offset)


def test_the_headers_are_the_octets_of_rfc_6275() -> None:
    octets = ipv6.build(HOME_AGENT, CARE_OF_ADDRESS, ipv6.ESP, b"payload", home_address=HOME_ADDRESS)
    assert octets[:8] == bytes.fromhex("60000000001f3c40")
    assert octets[40:64] == bytes((ipv6.ESP, 2, 1, 2, 0, 0, 201, 16)) + HOME_ADDRESS
    # The option starts at 8n+6 of its header (RFC 6275 6.3).
    assert octets[40:].index(201) == 6
    octets = ipv6.build(HOME_AGENT, CARE_OF_ADDRESS, ipv6.ESP, b"payload", routing=HOME_ADDRESS)
    assert octets[40:64] == bytes((ipv6.ESP, 2, 2, 1, 0, 0, 0, 0)) + HOME_ADDRESS


def test_logical_addresses_are_the_home_addresses() -> None:
    parsed = ipv6.parse(ipv6.build(CARE_OF_ADDRESS, HOME_AGENT, 135, b"", home_address=HOME_ADDRESS))
    assert (parsed.logical_source, parsed.logical_destination) == (HOME_ADDRESS, HOME_AGENT)
    parsed = ipv6.parse(ipv6.build(HOME_AGENT, CARE_OF_ADDRESS, 135, b"", routing=HOME_ADDRESS))
    assert (parsed.logical_source, parsed.logical_destination) == (HOME_AGENT, HOME_ADDRESS)
    parsed = ipv6.parse(ipv6.build(HOME_AGENT, CORRESPONDENT, 135, b""))
    assert (parsed.logical_source, parsed.logical_destination) == (HOME_AGENT, CORRESPONDENT)


def test_routing_header_stands_before_the_home_address_option() -> None:
    octets = ipv6.build(
        CORRESPONDENT, CARE_OF_ADDRESS, 17, _UDP, home_address=CORRESPONDENT, routing=HOME_ADDRESS
    )
    assert (octets[6], octets[40], octets[64]) == (ipv6.ROUTING, ipv6.DESTINATION_OPTIONS, ipv6.UDP)


def test_a_payload_too_long_for_a_packet_is_our_own_mistake() -> None:
    assert len(ipv6.build(HOME_AGENT, CORRESPONDENT, 17, bytes(65535))) == 65575
    with pytest.raises(ValueError, match="longer than an IPv6 packet"):
        ipv6.build(HOME_AGENT, CORRESPONDENT, 17, bytes(65535), routing=HOME_ADDRESS)


def test_octets_behind_the_payload_are_cut_off() -> None:
    assert ipv6.parse(packet(ipv6.UDP, _UDP) + b"link layer padding").payload == _UDP


def test_what_may_be_skipped_is_skipped() -> None:
    chain = (
        extension(ipv6.DESTINATION_OPTIONS, b"\x05\x02\0\0\x01\0")  # hop-by-hop: router alert
        + extension(ipv6.ROUTING, b"\x04\x01\x04\x1e\0\0")  # tunnel encapsulation limit, Pad1
        + extension(ipv6.FRAGMENT, b"\x00\x00\0\0\0\0")  # type 0 routing header with no segments left
        + bytes((ipv6.DESTINATION_OPTIONS, 0, 0, 0, 0, 0, 0, 9))  # atomic fragment
        + extension(ipv6.UDP, _PAD4 + _HAO)
    )
    parsed = ipv6.parse(packet(ipv6.HOP_BY_HOP, chain + _UDP))
    assert parsed.next_header == ipv6.UDP
    assert (parsed.payload, parsed.home_address, parsed.routing) == (_UDP, HOME_ADDRESS, None)
    assert parsed.offset == 40 + 8 + 8 + 8 + 8 + 24


@pytest.mark.parametrize("reserved", [0, 2, 4, 6])
def test_an_atomic_fragment_is_walked_through(reserved: int) -> None:
    parsed = ipv6.parse(packet(ipv6.FRAGMENT, bytes((ipv6.UDP, 0, 0, reserved, 1, 2, 3, 4)) + _UDP))
    assert (parsed.next_header, parsed.payload, parsed.offset) == (ipv6.UDP, _UDP, 48)


@pytest.mark.parametrize("word", [1, 8, 9, 0xFFF8, 0xFFF9])
def test_a_fragment_comes_back_with_its_header(word: int) -> None:
    piece = bytes((ipv6.UDP, 0)) + word.to_bytes(2, "big") + bytes(4) + _UDP
    parsed = ipv6.parse(packet(ipv6.FRAGMENT, piece))
    assert (parsed.next_header, parsed.payload, parsed.offset) == (ipv6.FRAGMENT, piece, 40)


_PADDING_HEADER = b"\x01\x04\0\0\0\0"


def _padding_chain(count: int) -> bytes:
    headers = [extension(ipv6.DESTINATION_OPTIONS, _PADDING_HEADER) for _ in range(count - 1)]
    return packet(ipv6.DESTINATION_OPTIONS, b"".join(headers) + extension(ipv6.UDP, _PADDING_HEADER) + _UDP)


def test_eight_extension_headers_pass() -> None:
    assert ipv6.parse(_padding_chain(8)).payload == _UDP


_BROKEN = {
    "empty": (b"", ("truncated_ipv6_header", 0, None)),
    "short header": (packet(17, b"")[:39], ("truncated_ipv6_header", 39, None)),
    "version 4": (b"\x40" + packet(17, b"")[1:], ("not_ipv6", 0, None)),
    "payload cut": (packet(17, _UDP)[:-1], ("truncated_ipv6_payload", 4, None)),
    "multicast source": (packet(17, _UDP, source=_ALL_NODES), ("multicast_source", 8, None)),
    "ninth header": (_padding_chain(9), ("too_many_extension_headers", 40 + 64, None)),
    "many headers": (_padding_chain(5000), ("too_many_extension_headers", 40 + 64, None)),
    "no room for a header": (packet(60, bytes(7)), ("truncated_extension_header", 40, None)),
    "nothing behind": (packet(43, b""), ("truncated_extension_header", 40, None)),
    "header longer than packet": (
        packet(60, b"\x11\x01" + bytes(6)),
        ("truncated_extension_header", 40, None),
    ),
    "jumbogram": (packet(0, b""), ("truncated_extension_header", 40, None)),
    "short fragment header": (packet(44, b"\x11\0\0\0\0\0\0"), ("truncated_extension_header", 40, None)),
    "header names itself for ever": (
        packet(60, b"\x3c\0" + bytes(6)),
        ("truncated_extension_header", 48, None),
    ),
    "hop-by-hop second": (
        packet(60, extension(0, _PADDING_HEADER) + extension(17, _PADDING_HEADER) + _UDP),
        ("misplaced_hop_by_hop", 40, 1),
    ),
    "hop-by-hop twice": (
        packet(0, extension(0, _PADDING_HEADER) + extension(17, _PADDING_HEADER) + _UDP),
        ("misplaced_hop_by_hop", 40, 1),
    ),
    "hop-by-hop behind a longer header": (
        packet(
            60, extension(60, _PADDING_HEADER) + extension(0, _PAD4 + _HAO) + extension(17, _PADDING_HEADER)
        ),
        ("misplaced_hop_by_hop", 48, 1),
    ),
    "hop-by-hop in an atomic fragment": (
        packet(44, bytes(8) + extension(17, _PADDING_HEADER)),
        ("misplaced_hop_by_hop", 40, 1),
    ),
    "fragment in an atomic fragment": (
        packet(44, b"\x2c" + bytes(7) + b"\x11\0\0\1" + bytes(4) + _UDP),
        ("second_fragment_header", 48, None),
    ),
    "option without length": (_options(b"\0" * 5 + b"\x01"), ("truncated_ipv6_option", 47, None)),
    "option past its header": (_options(b"\x01\x05\0\0\0\0"), ("truncated_ipv6_option", 42, None)),
    "home address past its header": (_options(b"\xc9\x10\0\0\0\0"), ("truncated_ipv6_option", 42, None)),
    "home address length": (
        _options(_PAD4 + b"\xc9\x0f" + HOME_ADDRESS[:15] + b"\0"),
        ("home_address_option_length", 47, None),
    ),
    "home address twice": (
        _options(_PAD4 + _HAO + _PAD4 + b"\x01\0" + _HAO),
        ("second_home_address_option", 40 + 30, None),
    ),
    "home address in two headers": (
        packet(60, extension(60, _PAD4 + _HAO) + extension(17, _PAD4 + _HAO) + _UDP),
        ("second_home_address_option", 64, None),
    ),
    "home address in hop-by-hop": (
        _options(_PAD4 + _HAO, hop_by_hop=True),
        ("unknown_ipv6_option", 46, 2),
    ),
    "routing type 0": (
        packet(43, extension(17, b"\0" + _RH2[1:]) + _UDP),
        ("routing_header_type", 42, 0),
    ),
    "routing type 4": (
        packet(43, extension(17, b"\x04" + _RH2[1:]) + _UDP),
        ("routing_header_type", 42, 0),
    ),
    "routing length 4": (
        packet(43, extension(17, _RH2 + HOME_ADDRESS) + _UDP),
        ("routing_header_length", 41, 0),
    ),
    "routing length 0": (
        packet(43, extension(17, _RH2[:6]) + _UDP),
        ("routing_header_length", 41, 0),
    ),
    "routing segments 2": (
        packet(43, extension(17, b"\x02\x02" + _RH2[2:]) + _UDP),
        ("routing_header_segments", 43, 0),
    ),
    "routing twice": (
        packet(43, extension(43, _RH2) + extension(17, _RH2) + _UDP),
        ("second_routing_header", 64, None),
    ),
}


@pytest.mark.parametrize("case", _BROKEN)
def test_broken_packets_say_what_where_and_which_answer(case: str) -> None:
    octets, expected = _BROKEN[case]
    assert fault(partial(ipv6.parse, octets)) == expected


_NOT_ROUTABLE = (
    "::",
    "::1",
    "ff02::1",
    "ff0e::1",
    "fe80::1",
    "febf:ffff::1",
    "::ffff:192.0.2.1",
    "::192.0.2.1",
)


@pytest.mark.parametrize("value", _NOT_ROUTABLE)
def test_not_routable(value: str) -> None:
    assert not ipv6.is_routable_unicast(address(value))
    bad = address(value)
    assert fault(partial(ipv6.parse, _options(_PAD4 + bytes((201, 16)) + bad))) == (
        "home_address_option_address",
        48,
        None,
    )
    routed = packet(43, extension(17, _RH2[:6] + bad) + _UDP)
    assert fault(partial(ipv6.parse, routed)) == ("routing_header_address", 48, None)


@pytest.mark.parametrize(
    "value", ["2001:db8::1", "fd00::1", "64:ff9b::c000:201", "fec0::1", "0:0:0:0:1::", "fe00::1", "1::"]
)
def test_routable(value: str) -> None:
    assert ipv6.is_routable_unicast(address(value))


@pytest.mark.parametrize("hop_by_hop", [False, True])
@pytest.mark.parametrize("kind", range(2, 256))
def test_unknown_options_do_what_their_two_top_bits_say(kind: int, hop_by_hop: bool) -> None:
    if kind == ipv6.HOME_ADDRESS_OPTION:
        return  # known, see above
    for destination, multicast in ((HOME_AGENT, False), (_ALL_NODES, True)):
        octets = _options(
            b"\0" + bytes((kind, 2)) + b"\1\2\0", hop_by_hop=hop_by_hop, destination=destination
        )
        action = kind >> 6
        if action == 0:
            assert ipv6.parse(octets).payload == _UDP
        else:
            answer = 2 if action == 2 or (action == 3 and not multicast) else None
            assert fault(partial(ipv6.parse, octets)) == ("unknown_ipv6_option", 43, answer)


@given(st.binary(max_size=120))
def test_any_octets_parse_or_are_malformed(data: bytes) -> None:
    for octets in (data, packet(60, data), packet(43, data), packet(0, data), packet(44, data)):
        with contextlib.suppress(Malformed):
            parsed = ipv6.parse(octets)
            assert parsed.payload == octets[parsed.offset : 40 + int.from_bytes(octets[4:6], "big")]


def test_mutated_packets_parse_or_are_malformed() -> None:
    source = random.Random(1)
    seeds = [
        ipv6.build(
            CORRESPONDENT, CARE_OF_ADDRESS, 17, _UDP, home_address=CORRESPONDENT, routing=HOME_ADDRESS
        ),
        _padding_chain(8),
        packet(44, b"\x3c" + bytes(7) + extension(17, _PAD4 + _HAO) + _UDP),
    ]
    reasons = set()
    for seed in seeds:
        for octets in mutations(seed, source.random, 4000):
            try:
                ipv6.parse(octets)
            except Malformed as error:
                reasons.add(error.reason)
    assert len(reasons) >= 10
