"""Carrier events out of the kernel's link messages."""

from __future__ import annotations

import struct

import pytest

from mip6ha.edge.mobile_link import Carrier

UP = 0x11003
NO_CARRIER = 0x1003
ADMINISTRATIVELY_DOWN = 0x1002


def message(flags: int, ups: int | None, *, interface: int = 7, kind: int = 16) -> bytes:
    body = struct.pack("=BxHiII", 0, 1, interface, flags, 0)
    body += struct.pack("=HH6sxx", 10, 1, b"\x02mac..")
    if ups is not None:
        body += struct.pack("=HHI", 8, 47, ups)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def test_only_changes_are_events() -> None:
    carrier = Carrier(7)
    assert carrier.messages(message(UP, 1)) == [True]
    assert carrier.messages(message(UP, 1)) == []
    assert carrier.messages(message(NO_CARRIER, 1)) == [False]
    assert carrier.messages(message(ADMINISTRATIVELY_DOWN, 1)) == []
    assert carrier.messages(message(UP, 2)) == [True]


def test_a_change_that_the_kernel_merged_is_an_event() -> None:
    carrier = Carrier(7)
    carrier.messages(message(UP, 1))
    assert carrier.messages(message(UP, 2)) == [True]


def test_several_messages_in_one_read() -> None:
    octets = message(UP, 1, interface=8) + message(UP, 1, kind=17) + message(UP, 1) + message(NO_CARRIER, 1)
    assert Carrier(7).messages(octets) == [True, False]


@pytest.mark.parametrize("octets", [b"", bytes(15), bytes(64), message(UP, 1)[:20]])
def test_what_is_no_link_message_is_no_event(octets: bytes) -> None:
    assert Carrier(7).messages(octets) == []


def test_a_kernel_without_the_counter_still_tells_changes() -> None:
    carrier = Carrier(7)
    assert carrier.messages(message(UP, None)) == [True]
    assert carrier.messages(message(UP, None)) == []
