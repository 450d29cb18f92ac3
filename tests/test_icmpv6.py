"""ICMPv6: messages to the octet, errors that must not be sent, discovery options."""

from __future__ import annotations

import contextlib
import random
import struct
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mip6ha import icmpv6, ipv6
from mip6ha.icmpv6 import Icmp, NeighborMessage, PrefixInformation
from mip6ha.wire import UNSPECIFIED, Malformed, address

from .octets import (
    CARE_OF_ADDRESS,
    CORRESPONDENT,
    HOME_ADDRESS,
    HOME_AGENT,
    extension,
    fault,
    fragment,
    mutations,
    packet,
    reference_checksum,
)
from .strategies import ADDRESSES, U8, U16, U32

_BETWEEN = (HOME_AGENT, HOME_ADDRESS)
_LINK_LAYER = bytes.fromhex("02005e100001")

_PREFIXES = st.builds(PrefixInformation, ADDRESSES, st.integers(0, 128), U8, U32, U32)


def _opened(octets: bytes) -> tuple[ipv6.Packet, Icmp]:
    """A packet that we built, with its sum checked by RFC 1071's own loop."""
    parsed = ipv6.parse(octets)
    assert parsed.next_header == ipv6.ICMPV6
    payload = parsed.payload
    blank = payload[:2] + b"\0\0" + payload[4:]
    expected = reference_checksum(parsed.source, parsed.destination, ipv6.ICMPV6, blank)
    assert int.from_bytes(payload[2:4], "big") == expected
    return parsed, icmpv6.parse(payload, parsed.source, parsed.destination)


@given(U8, U8, st.binary(min_size=4, max_size=90), ADDRESSES, ADDRESSES)
def test_messages_survive(kind: int, code: int, body: bytes, source: bytes, destination: bytes) -> None:
    octets = icmpv6.message(kind, code, body, source, destination)
    blank = octets[:2] + b"\0\0" + octets[4:]
    assert int.from_bytes(octets[2:4], "big") == reference_checksum(source, destination, 58, blank)
    assert icmpv6.parse(octets, source, destination) == Icmp(kind, code, body)


def test_broken_messages() -> None:
    octets = icmpv6.message(128, 0, b"\0\1\0\1data", *_BETWEEN)
    assert fault(partial(icmpv6.parse, octets[:7], *_BETWEEN)) == ("truncated_icmpv6", 7, None)
    assert fault(partial(icmpv6.parse, octets[:-1], *_BETWEEN)) == ("icmpv6_checksum", 2, None)
    assert fault(partial(icmpv6.parse, octets, HOME_AGENT, HOME_AGENT)) == ("icmpv6_checksum", 2, None)


def test_an_error_quotes_what_fits_the_smallest_mtu() -> None:
    offending = packet(ipv6.UDP, bytes(1400), source=CORRESPONDENT)
    octets = icmpv6.error(icmpv6.PACKET_TOO_BIG, 0, 1460, HOME_AGENT, offending)
    assert octets is not None
    assert len(octets) == 1280
    parsed, icmp = _opened(octets)
    assert (parsed.source, parsed.destination) == (HOME_AGENT, CORRESPONDENT)
    assert icmp == Icmp(2, 0, struct.pack(">I", 1460) + offending[:1232])
    short = icmpv6.error(icmpv6.PARAMETER_PROBLEM, 1, 40, HOME_AGENT, packet(0, bytes(8)))
    assert short is not None
    assert _opened(short)[1] == Icmp(4, 1, struct.pack(">I", 40) + packet(0, bytes(8)))


@pytest.mark.parametrize("source", ["::", "::1", "ff02::1", "::ffff:192.0.2.1"])
def test_no_error_to_what_is_no_single_node(source: str) -> None:
    offending = packet(ipv6.UDP, bytes(8), source=address(source))
    assert icmpv6.error(icmpv6.DESTINATION_UNREACHABLE, 0, 0, HOME_AGENT, offending) is None


def test_an_error_to_a_link_local_source_is_fine() -> None:
    offending = packet(ipv6.UDP, bytes(8), source=address("fe80::1"))
    assert icmpv6.error(icmpv6.TIME_EXCEEDED, 0, 0, HOME_AGENT, offending) is not None


@pytest.mark.parametrize(
    ("kind", "code", "sent"),
    [(1, 0, False), (2, 0, True), (3, 0, False), (3, 1, False), (4, 0, False), (4, 1, False), (4, 2, True)],
)
def test_errors_about_multicast_are_two(kind: int, code: int, sent: bool) -> None:
    offending = packet(ipv6.UDP, bytes(8), destination=address("ff02::1"))
    assert (icmpv6.error(kind, code, 0, HOME_AGENT, offending) is not None) is sent


_ECHO = icmpv6.message(128, 0, bytes(8), CORRESPONDENT, HOME_ADDRESS)
_ERROR = icmpv6.message(1, 0, bytes(60), CORRESPONDENT, HOME_ADDRESS)
_REDIRECT = icmpv6.message(137, 0, bytes(36), CORRESPONDENT, HOME_ADDRESS)
_OPTIONS = b"\x01\x04\0\0\0\0"


@pytest.mark.parametrize(
    ("offending", "sent"),
    [
        (packet(58, _ECHO), True),
        (packet(58, _ERROR), False),
        (packet(58, _REDIRECT), False),
        (packet(58, b""), False),
        (packet(60, extension(58, _OPTIONS) + _ECHO), True),
        (packet(60, extension(58, _OPTIONS) + _ERROR), False),
        (packet(0, extension(43, _OPTIONS) + extension(58, _OPTIONS) + _REDIRECT), False),
        (packet(60, extension(58, _OPTIONS)), False),
        (packet(44, fragment(58, 1, 0, True, _ERROR)), False),
        (packet(44, fragment(58, 1, 0, True, _ECHO)), True),
        # Of a later fragment nobody can tell.
        (packet(44, fragment(58, 1, 8, False, _ERROR)), True),
        (packet(60, b"\x3a\xff" + bytes(6) + _ECHO), False),
        (packet(60, b"\x3a"), True),
        (packet(58, _ECHO)[:39], False),
    ],
)
def test_no_error_about_an_error(offending: bytes, sent: bool) -> None:
    assert (icmpv6.error(icmpv6.DESTINATION_UNREACHABLE, 0, 0, HOME_AGENT, offending) is not None) is sent


def test_echo_reply_gives_back_the_body() -> None:
    request = Icmp(icmpv6.ECHO_REQUEST, 0, b"\x12\x34\0\x01payload")
    parsed, icmp = _opened(icmpv6.echo_reply(request, HOME_AGENT, CORRESPONDENT))
    assert (parsed.source, parsed.destination) == (HOME_AGENT, CORRESPONDENT)
    assert icmp == Icmp(icmpv6.ECHO_REPLY, 0, request.body)


def test_solicited_node_address() -> None:
    assert icmpv6.solicited_node(address("4037::01:800:200e:8c6c")) == address("ff02::1:ff0e:8c6c")


def test_duplicate_address_probe() -> None:
    parsed, icmp = _opened(icmpv6.duplicate_address_probe(HOME_ADDRESS))
    assert (parsed.source, parsed.destination) == (UNSPECIFIED, address("ff02::1:ff00:100"))
    assert parsed.hop_limit == 255
    # No source link-layer address option may be there (RFC 4861 4.3).
    assert icmp == Icmp(icmpv6.NEIGHBOR_SOLICITATION, 0, bytes(4) + HOME_ADDRESS)
    assert icmpv6.parse_neighbor(icmp) == NeighborMessage(HOME_ADDRESS, 0)


def test_the_advertisement_that_claims_has_override_and_no_router() -> None:
    octets = icmpv6.unsolicited_advertisement(HOME_AGENT, HOME_ADDRESS, _LINK_LAYER)
    parsed, icmp = _opened(octets)
    assert (parsed.source, parsed.destination, parsed.hop_limit) == (HOME_AGENT, address("ff02::1"), 255)
    assert icmp == Icmp(136, 0, b"\x20\0\0\0" + HOME_ADDRESS + b"\x02\x01" + _LINK_LAYER)
    assert icmpv6.parse_neighbor(icmp) == NeighborMessage(HOME_ADDRESS, 0x20)


def test_router_solicitation_names_its_link_layer_only_with_an_address() -> None:
    source = address("fe80::1")
    parsed, icmp = _opened(icmpv6.router_solicitation(source, _LINK_LAYER))
    assert (parsed.source, parsed.destination, parsed.hop_limit) == (source, address("ff02::2"), 255)
    assert icmp == Icmp(133, 0, bytes(4) + b"\x01\x01" + _LINK_LAYER)
    assert _opened(icmpv6.router_solicitation(source, None))[1] == Icmp(133, 0, bytes(4))
    assert _opened(icmpv6.router_solicitation(UNSPECIFIED, _LINK_LAYER))[1] == Icmp(133, 0, bytes(4))


def _advertisement(options: bytes) -> Icmp:
    return Icmp(134, 0, struct.pack(">BBHII", 64, 0x20, 1800, 0, 0) + options)


def test_router_advertisement_with_everything() -> None:
    prefix = PrefixInformation(HOME_AGENT, 64, 0xE0, 86400, 43200)
    options = (
        b"\x01\x01"
        + _LINK_LAYER
        + b"\x05\x01\0\0"
        + struct.pack(">I", 1480)
        + icmpv6.prefix_option(prefix)
        + b"\x07\x01\0\0\0\0\0\x64"  # advertisement interval, of no interest
        + struct.pack(">BBHhH", 8, 1, 0, -5, 900)
    )
    found = icmpv6.parse_router_advertisement(_advertisement(options))
    assert found == icmpv6.RouterAdvertisement(64, 0x20, 1800, (prefix,), 1480, _LINK_LAYER, -5, 900)
    assert found.is_home_agent


def test_router_advertisement_defaults() -> None:
    found = icmpv6.parse_router_advertisement(Icmp(134, 0, struct.pack(">BBHII", 0, 0xC0, 30, 0, 0)))
    assert found == icmpv6.RouterAdvertisement(0, 0xC0, 30, (), None, None, 0, 30)
    assert not found.is_home_agent


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (b"\x01", ("truncated", 13)),
        (b"\x01\x00" + bytes(6), ("neighbor_discovery_option_length", 13)),
        (b"\x01\x02" + bytes(6), ("truncated", 14)),
        (b"\x03\x03" + bytes(22), ("prefix_information_option", 0)),
        (b"\x03\x04\x81" + bytes(29), ("prefix_information_option", 0)),
    ],
)
def test_broken_options(options: bytes, expected: tuple[str, int]) -> None:
    assert fault(partial(icmpv6.parse_router_advertisement, _advertisement(options)))[:2] == expected


@pytest.mark.parametrize("size", range(20))
def test_a_neighbor_message_needs_a_target(size: int) -> None:
    reason, offset, _ = fault(partial(icmpv6.parse_neighbor, Icmp(135, 0, bytes(size))))
    assert (reason, offset) == ("truncated", 0 if size < 4 else 4)


@given(_PREFIXES)
def test_prefix_options_survive(prefix: PrefixInformation) -> None:
    octets = icmpv6.prefix_option(prefix)
    assert octets == (
        struct.pack(">BBBBIII", 3, 4, prefix.length, prefix.flags, prefix.valid, prefix.preferred, 0)
        + prefix.prefix
    )
    assert icmpv6.parse_router_advertisement(_advertisement(octets)).prefixes == (prefix,)


@given(U16, st.sampled_from((0, 0x80, 0x40, 0xC0)), st.lists(_PREFIXES, max_size=4).map(tuple))
def test_mobile_prefix_advertisements_survive(
    identifier: int, flags: int, prefixes: tuple[PrefixInformation, ...]
) -> None:
    body = icmpv6.mobile_prefix_advertisement(identifier, flags, prefixes)
    assert body[:4] == struct.pack(">HBB", identifier, flags, 0)
    assert len(body) == 4 + 32 * len(prefixes)
    assert icmpv6.parse_prefixes(body) == prefixes


@given(st.binary(max_size=100))
def test_any_octets_parse_or_are_malformed(data: bytes) -> None:
    for kind in (134, 135, 136):
        with contextlib.suppress(Malformed):
            icmpv6.parse(data, *_BETWEEN)
        with contextlib.suppress(Malformed):
            icmpv6.parse_neighbor(Icmp(kind, 0, data))
        with contextlib.suppress(Malformed):
            icmpv6.parse_router_advertisement(Icmp(kind, 0, data))
        with contextlib.suppress(Malformed):
            icmpv6.parse_prefixes(data)
    icmpv6.error(icmpv6.PARAMETER_PROBLEM, 0, 0, HOME_AGENT, data)
    icmpv6.error(icmpv6.PARAMETER_PROBLEM, 0, 0, HOME_AGENT, packet(60, data, source=CARE_OF_ADDRESS))


def test_mutated_messages_parse_or_are_malformed() -> None:
    source = random.Random(4)
    prefix = PrefixInformation(HOME_AGENT, 64, 0xE0, 86400, 43200)
    options = b"\x01\x01" + _LINK_LAYER + b"\x05\x01" + bytes(6) + icmpv6.prefix_option(prefix)
    for body in mutations(_advertisement(options).body, source.random, 5000):
        with contextlib.suppress(Malformed):
            found = icmpv6.parse_router_advertisement(Icmp(134, 0, body))
            assert all(prefix.length <= 128 for prefix in found.prefixes)
        with contextlib.suppress(Malformed):
            icmpv6.parse_prefixes(body)
