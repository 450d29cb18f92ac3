"""Bodies of payloads: what is built parses to the same, what is broken says why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mip6ha.ipsec.ike import payloads
from mip6ha.ipsec.ike.payloads import Configuration, Delete, Notify

from ...octets import HOME_ADDRESS, fault
from . import strategies


@pytest.mark.parametrize(
    ("strategy", "build", "parse"),
    [
        (strategies.KEYS, payloads.build_key_payload, payloads.parse_key_payload),
        (strategies.CERTIFICATES, payloads.build_certificate, payloads.parse_certificate),
        (strategies.AUTHENTICATIONS, payloads.build_authentication, payloads.parse_authentication),
        (strategies.NOTIFIES, payloads.build_notify, payloads.parse_notify),
        (strategies.DELETES, payloads.build_delete, payloads.parse_delete),
        (strategies.CONFIGURATIONS, payloads.build_configuration, payloads.parse_configuration),
    ],
    ids=["key", "certificate", "authentication", "notify", "delete", "configuration"],
)
@given(st.data())
def test_what_is_built_parses(
    strategy: st.SearchStrategy[Any],
    build: Callable[[Any], bytes],
    parse: Callable[[bytes], Any],
    data: st.DataObject,
) -> None:
    value = data.draw(strategy)
    octets = build(value)
    assert parse(octets) == value
    assert build(parse(octets)) == octets


@pytest.mark.parametrize(
    "parse",
    [
        payloads.parse_key_payload,
        payloads.parse_certificate,
        payloads.parse_authentication,
        payloads.parse_notify,
        payloads.parse_delete,
        payloads.parse_configuration,
        payloads.parse_identification,
        payloads.parse_nonce,
    ],
)
@given(octets=st.binary(max_size=40))
def test_anything_else_is_malformed(parse: Callable[[bytes], object], octets: bytes) -> None:
    strategies.parses_or_is_malformed(parse, octets)


def test_octets_of_a_notify() -> None:
    found = payloads.parse_notify(bytes.fromhex("03 04 4009 deadbeef 0102"))
    assert found == Notify(16393, b"\x01\x02", 3, bytes.fromhex("deadbeef"))


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: payloads.parse_notify(b"\x03\x03\x40\x09abc"), "notify_spi"),
        (lambda: payloads.parse_notify(b"\x03\x04\x40\x09abc"), "truncated"),
        (lambda: payloads.parse_delete(b"\x01\x08\x00\x01" + bytes(8)), "delete_spi"),
        (lambda: payloads.parse_delete(b"\x01\x00\x00\x01"), "delete_spi"),
        (lambda: payloads.parse_delete(b"\x03\x04\x00\x02" + bytes(4)), "delete_length"),
        (lambda: payloads.parse_delete(b"\x00\x00\x00\x00"), "delete_spi"),
        (lambda: payloads.parse_nonce(bytes(15)), "nonce_length"),
        (lambda: payloads.parse_nonce(bytes(257)), "nonce_length"),
        (lambda: payloads.parse_configuration(b"\x05\0\0\0"), "configuration_kind"),
        (lambda: payloads.parse_configuration(b"\x01\0\0\0\0\x08\0\x05abcd"), "truncated"),
        (lambda: payloads.internal_address(Configuration(1, ((8, bytes(16)),))), "configuration_address"),
        (
            lambda: payloads.internal_address(Configuration(1, ((8, bytes(16) + b"\x81"),))),
            "configuration_address",
        ),
    ],
)
def test_what_is_wrong_is_said(call: Callable[[], object], reason: str) -> None:
    assert fault(call)[0] == reason


def test_home_address_assignment() -> None:
    assert payloads.internal_address(Configuration(1, ())) is None
    assert payloads.internal_address(Configuration(1, ((8, b""),))) == (bytes(16), 0)
    wish = Configuration(1, ((16, b""), (8, HOME_ADDRESS + b"\x40")))
    assert payloads.internal_address(wish) == (HOME_ADDRESS, 64)
    # RFC 5026 7.2: lifetime, prefix, length.
    assert payloads.home_prefix(3600, HOME_ADDRESS, 64) == b"\0\0\x0e\x10" + HOME_ADDRESS + b"\x40"


def test_a_delete_of_the_ike_sa_names_no_spi() -> None:
    assert payloads.build_delete(Delete(1)) == b"\x01\0\0\0"


def test_authentication_data_are_not_shown() -> None:
    assert "secret" not in repr(payloads.Authentication(2, b"secret"))
