"""Mobility Header messages: every one survives, broken ones say where."""

from __future__ import annotations

import contextlib
import random
from functools import partial

import pytest
from hypothesis import given

from mip6ha.binding import messages
from mip6ha.binding.messages import (
    BindingAcknowledgement,
    BindingError,
    BindingRefreshRequest,
    BindingUpdate,
    Body,
    CareOfTest,
    CareOfTestInit,
    HomeTest,
    HomeTestInit,
    MobileNetworkPrefix,
    OptionType,
    UnknownMessage,
)
from mip6ha.mobility import Message, Option
from mip6ha.wire import Malformed, address

from ..octets import CARE_OF_ADDRESS, HOME_ADDRESS, HOME_AGENT, fault, mutations, reference_checksum
from ..strategies import ADDRESSES, MESSAGES

_BETWEEN = (HOME_ADDRESS, HOME_AGENT)
_COOKIE, _TOKEN = bytes(range(8)), bytes(range(8, 16))
_ALTERNATE = Option(OptionType.ALTERNATE_CARE_OF_ADDRESS, CARE_OF_ADDRESS)

# Each message without options and its octets behind the checksum, written out from RFC 6275 6.1.2 to 6.1.9.
_LAYOUTS: list[tuple[Body, int, str]] = [
    (BindingRefreshRequest(), 0, "0000"),
    (HomeTestInit(_COOKIE), 1, "0000 0001020304050607"),
    (CareOfTestInit(_COOKIE), 2, "0000 0001020304050607"),
    (HomeTest(0x1234, _COOKIE, _TOKEN), 3, "1234 0001020304050607 08090a0b0c0d0e0f"),
    (CareOfTest(0x1234, _COOKIE, _TOKEN), 4, "1234 0001020304050607 08090a0b0c0d0e0f"),
    (BindingUpdate(0x1234, 0xC000, 15), 5, "1234 c000 000f 01020000"),
    (BindingAcknowledgement(0x87, 0x80, 0x1234, 15), 6, "87 80 1234 000f 01020000"),
    (BindingError(1, HOME_ADDRESS), 7, "01 00" + HOME_ADDRESS.hex()),
]


@pytest.mark.parametrize(("message", "kind", "expected"), _LAYOUTS)
def test_layouts_are_those_of_the_rfc(message: Body, kind: int, expected: str) -> None:
    octets = messages.build(message, *_BETWEEN)
    assert octets[6:] == bytes.fromhex(expected)
    assert octets[:4] == bytes((59, len(octets) // 8 - 1, kind, 0))
    blank = octets[:4] + b"\0\0" + octets[6:]
    assert int.from_bytes(octets[4:6], "big") == reference_checksum(*_BETWEEN, 135, blank)


@given(MESSAGES, ADDRESSES, ADDRESSES)
def test_what_is_built_parses_to_the_same(message: Body, source: bytes, destination: bytes) -> None:
    octets = messages.build(message, source, destination)
    found = messages.parse(octets, source, destination)
    assert found == message
    assert type(found) is type(message)
    assert messages.build(found, source, destination) == octets


@pytest.mark.parametrize(("message", "kind", "expected"), _LAYOUTS)
def test_a_message_cut_short_points_at_the_header_length(message: Body, kind: int, expected: str) -> None:
    size = {0: 2, 5: 6, 6: 6}.get(kind, len(bytes.fromhex(expected)))
    body = bytes.fromhex(expected)
    assert messages.parse_body(Message(kind, body[:size])) == message
    for short in range(size):
        assert fault(partial(messages.parse_body, Message(kind, body[:short]))) == (
            "mobility_header_length",
            1,
            0,
        )


@pytest.mark.parametrize("kind", range(8, 256))
def test_unknown_types_ask_for_a_binding_error(kind: int) -> None:
    with pytest.raises(UnknownMessage) as caught:
        messages.parse_body(Message(kind, bytes(10)))
    assert (caught.value.reason, caught.value.offset) == ("unknown_mobility_header_type", 2)
    assert caught.value.parameter_problem is None


def test_reserved_fields_are_ignored() -> None:
    assert messages.parse_body(Message(0, b"\xff\xff")) == BindingRefreshRequest()
    assert messages.parse_body(Message(1, b"\xff\xff" + _COOKIE)) == HomeTestInit(_COOKIE)
    assert messages.parse_body(Message(7, b"\x02\xff" + HOME_ADDRESS)) == BindingError(2, HOME_ADDRESS)


def test_the_first_alternate_care_of_address_counts() -> None:
    other = Option(OptionType.ALTERNATE_CARE_OF_ADDRESS, HOME_AGENT)
    assert messages.alternate_care_of_address((Option(200, b"x"), _ALTERNATE, other)) == CARE_OF_ADDRESS
    assert messages.alternate_care_of_address((Option(200, b"x"),)) is None


def test_refresh_advice_is_seconds() -> None:
    assert messages.refresh_advice((_ALTERNATE, Option(2, b"\x00\x0f"))) == 60
    assert messages.refresh_advice((Option(2, b"\xff\xff"),)) == 262_140
    assert messages.refresh_advice((_ALTERNATE,)) is None


def test_mobile_network_prefixes() -> None:
    prefixes = (
        MobileNetworkPrefix(address("2001:db8:1::"), 48),
        MobileNetworkPrefix(address("2001:db8:2:3::"), 64),
    )
    options = tuple(map(messages.mobile_network_prefix_option, prefixes))
    assert options[0] == Option(6, b"\0\x30" + address("2001:db8:1::"))
    assert messages.mobile_network_prefixes((options[0], _ALTERNATE, options[1])) == prefixes
    assert messages.mobile_network_prefixes(()) == ()


def test_acknowledgement_flags() -> None:
    assert messages.acknowledgement_flags() == 0
    assert messages.acknowledgement_flags(key_management=True) == 0x80
    assert messages.acknowledgement_flags(key_management=True, mobile_router=True) == 0xC0


def test_the_reference_update_to_the_octet() -> None:
    # From vectors/umip-esp-gcm-foreign.pcap, first frame on SPI 0x2000.
    octets = bytes.fromhex("3b03050036e116e7c000000f0100031020010db8000b0000a826c9fffe33b2c7")
    care_of_address = bytes.fromhex("20010db8000b0000a826c9fffe33b2c7")
    update = BindingUpdate(0x16E7, 0xC000, 15, (Option(3, care_of_address),))
    assert messages.parse(octets, *_BETWEEN) == update
    assert messages.build(update, *_BETWEEN) == octets


def test_mutated_messages_parse_or_are_malformed() -> None:
    source = random.Random(2)
    seeds = [messages.build(message, *_BETWEEN)[6:] for message, _, _ in _LAYOUTS]
    seeds.append(
        messages.build(BindingUpdate(1, 0xC000, 15, (_ALTERNATE, Option(200, b"abc"))), *_BETWEEN)[6:]
    )
    for seed in seeds:
        for body in mutations(seed, source.random, 1000):
            for kind in range(8):
                with contextlib.suppress(Malformed):
                    found = messages.parse_body(Message(kind, body))
                    # What was taken in can be said again, and means the same.
                    again = messages.build(found, *_BETWEEN)
                    assert messages.parse(again, *_BETWEEN) == found
