"""Traffic selectors: octets, narrowing, and the ways to say a message type."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mip6ha.ipsec.ike.selectors import (
    ANY_PORT,
    ICMPV6,
    MOBILITY,
    TrafficSelector,
    build_selectors,
    covers,
    icmp_ports,
    mobility_ports,
    mobility_type,
    narrow,
    parse_selectors,
)

from ...octets import CORRESPONDENT, HOME_ADDRESS, HOME_AGENT, fault
from .strategies import SELECTORS, parses_or_is_malformed

ALL = TrafficSelector(0, *ANY_PORT, bytes(16), b"\xff" * 16)


def one(protocol: int = 0, ports: tuple[int, int] = ANY_PORT, at: bytes = HOME_ADDRESS) -> TrafficSelector:
    return TrafficSelector(protocol, *ports, at, at)


@given(SELECTORS)
def test_what_is_built_parses(selectors: tuple[TrafficSelector, ...]) -> None:
    assert parse_selectors(build_selectors(selectors)) == selectors


@given(st.binary(max_size=120))
def test_anything_else_is_malformed(octets: bytes) -> None:
    parses_or_is_malformed(parse_selectors, octets)


@given(SELECTORS, SELECTORS)
def test_narrowing_stays_within_both(
    theirs: tuple[TrafficSelector, ...], ours: tuple[TrafficSelector, ...]
) -> None:
    found = narrow(theirs, ours)
    assert not found or covers(theirs, found)
    for each in found:
        assert any(
            len(each.first) == len(own.first) and own.first <= each.first <= each.last <= own.last
            for own in ours
        )
    assert narrow(theirs, theirs) or any(each.protocol == MOBILITY for each in theirs)


def test_a_range_is_narrowed_to_the_home_address() -> None:
    wide = TrafficSelector(0, *ANY_PORT, bytes(16), b"\xff" * 16)
    assert narrow([wide], [one(MOBILITY)]) == (one(MOBILITY),)
    assert narrow([one(MOBILITY)], [wide]) == (one(MOBILITY),)
    assert narrow([one(at=CORRESPONDENT)], [one()]) == ()
    assert narrow([one(17)], [one(MOBILITY)]) == ()
    assert narrow([one(17, (500, 600))], [one(17, (550, 700))]) == (one(17, (550, 600)),)
    assert narrow([one(17, (500, 500))], [one(17, (501, 501))]) == ()
    four = TrafficSelector(0, *ANY_PORT, bytes(4), b"\xff" * 4)
    assert narrow([four, wide], [one()]) == (one(),)


@pytest.mark.parametrize(
    ("ports", "kind"),
    [
        (ANY_PORT, None),
        ((5, 5), 5),
        ((0, 0), 0),
        ((5 << 8, 5 << 8), 5),
        ((5 << 8, 5 << 8 | 0xFF), 5),
        ((0xFF00, 0xFF00), 255),
    ],
)
def test_both_encodings_of_a_mobility_header_type(ports: tuple[int, int], kind: int | None) -> None:
    assert mobility_type(ports) == kind


@pytest.mark.parametrize("ports", [(5, 6), (0x0501, 0x0501), (0x0500, 0x0600), (0xFFFF, 0), (1, 0xFFFF)])
def test_no_type_at_all(ports: tuple[int, int]) -> None:
    assert fault(lambda: mobility_type(ports))[0] == "mobility_selector"
    assert narrow([one(MOBILITY, ports)], [one(MOBILITY, (5, 5))]) == ()


@pytest.mark.parametrize("offered", [(5, 5), (5 << 8, 5 << 8), (5 << 8, 5 << 8 | 0xFF)])
@pytest.mark.parametrize("allowed", [(5, 5), (5 << 8, 5 << 8)])
def test_the_encoding_of_the_offer_is_kept(offered: tuple[int, int], allowed: tuple[int, int]) -> None:
    assert narrow([one(MOBILITY, offered)], [one(MOBILITY, allowed)]) == (one(MOBILITY, offered),)
    assert narrow([one(MOBILITY, offered)], [one(MOBILITY, (6, 6))]) == ()
    assert narrow([one(MOBILITY, offered)], [one(MOBILITY)]) == (one(MOBILITY, offered),)


def test_ours_is_the_plain_port() -> None:
    assert mobility_ports(5) == (5, 5)
    assert mobility_ports(None) == ANY_PORT
    assert narrow([one(MOBILITY)], [one(MOBILITY, mobility_ports(5))]) == (one(MOBILITY, (5, 5)),)


def test_icmpv6_types_and_codes() -> None:
    solicitation = one(ICMPV6, icmp_ports(146))
    assert icmp_ports(146) == (0x9200, 0x92FF)
    assert icmp_ports(1, 4) == (0x0104, 0x0104)
    assert narrow([one(ICMPV6, icmp_ports(146, 0))], [solicitation]) == (one(ICMPV6, (0x9200, 0x9200)),)
    assert narrow([one(ICMPV6, icmp_ports(147))], [solicitation]) == ()


def test_opaque_ports_are_only_like_opaque_ports() -> None:
    opaque = one(6, (0xFFFF, 0))
    assert narrow([opaque], [one(6)]) == (opaque,)
    assert narrow([opaque], [one(6, (80, 80))]) == ()


def test_what_is_wrong_is_said() -> None:
    good = build_selectors([ALL])
    assert fault(lambda: parse_selectors(b"\0" + good[1:]))[0] == "selector_count"
    assert fault(lambda: parse_selectors(b"\x02" + good[1:]))[0] == "truncated"
    assert fault(lambda: parse_selectors(b"\x21" + good[1:]))[0] == "selector_count"
    assert fault(lambda: parse_selectors(good + b"\0"))[0] == "selector_count"
    assert fault(lambda: parse_selectors(good[:6] + b"\0\x27" + good[8:]))[0] == "selector_length"
    backwards = TrafficSelector(0, *ANY_PORT, HOME_ADDRESS, HOME_AGENT)
    assert fault(lambda: parse_selectors(build_selectors([backwards])))[0] == "selector_range"
    ports = TrafficSelector(17, 9, 3, HOME_ADDRESS, HOME_ADDRESS)
    assert fault(lambda: parse_selectors(build_selectors([ports])))[0] == "selector_range"


def test_a_selector_of_another_kind_is_passed_over() -> None:
    label = bytes.fromhex("0a 00 000c 0102030405060708")
    octets = b"\x02\0\0\0" + label + build_selectors([ALL])[4:]
    assert parse_selectors(octets) == (ALL,)
