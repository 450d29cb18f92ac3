"""UDP to the octet, and what shares port 4500."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mip6ha import udp
from mip6ha.ipv6 import UDP
from mip6ha.udp import Datagram
from mip6ha.wire import Malformed

from .octets import CORRESPONDENT, HOME_AGENT, fault, reference_checksum
from .strategies import ADDRESSES, U16

_BETWEEN = (CORRESPONDENT, HOME_AGENT)


@given(st.builds(Datagram, U16, U16, st.binary(max_size=90)), ADDRESSES, ADDRESSES, st.binary(max_size=3))
def test_datagrams_survive(datagram: Datagram, source: bytes, destination: bytes, behind: bytes) -> None:
    octets = udp.build(source, destination, datagram)
    blank = octets[:6] + b"\0\0" + octets[8:]
    expected = reference_checksum(source, destination, UDP, blank) or 0xFFFF
    assert int.from_bytes(octets[6:8], "big") == expected
    assert udp.parse(octets + behind, source, destination) == datagram


@given(st.binary(max_size=40))
def test_anything_is_parsed_or_malformed(data: bytes) -> None:
    try:
        found = udp.parse(data, *_BETWEEN)
    except Malformed:
        return
    assert udp.build(*_BETWEEN, found)[:6] == data[:6]


def test_a_sum_of_zero_is_sent_as_ones() -> None:
    """RFC 8200 8.1."""
    sum_ = int.from_bytes(udp.build(*_BETWEEN, Datagram(500, 500, b"\0\0"))[6:8], "big")
    octets = udp.build(*_BETWEEN, Datagram(500, 500, sum_.to_bytes(2, "big")))
    assert octets[6:8] == b"\xff\xff"
    assert udp.parse(octets, *_BETWEEN).payload == sum_.to_bytes(2, "big")


def test_broken_datagrams() -> None:
    octets = udp.build(*_BETWEEN, Datagram(500, 4500, b"message"))

    def wrong(data: bytes) -> tuple[str, int, int | None]:
        return fault(partial(udp.parse, data, *_BETWEEN))

    assert wrong(octets[:7]) == ("truncated_udp", 7, None)
    assert wrong(octets[:-1]) == ("udp_length", 4, None)
    assert wrong(octets[:4] + b"\0\7" + octets[6:]) == ("udp_length", 4, None)
    assert wrong(octets[:6] + b"\0\0" + octets[8:]) == ("udp_checksum", 6, None)
    assert wrong(octets[:-1] + b"?") == ("udp_checksum", 6, None)


def test_what_is_too_long_is_not_built() -> None:
    assert len(udp.build(*_BETWEEN, Datagram(1, 2, bytes(65527)))) == 65535
    with pytest.raises(ValueError, match="65528 octets"):
        udp.build(*_BETWEEN, Datagram(1, 2, bytes(65528)))


def test_what_comes_to_port_4500() -> None:
    """RFC 3948 2."""
    message = udp.NON_ESP_MARKER + b"a message"
    assert not udp.is_esp(message)
    assert udp.unmarked(message) == b"a message"
    assert udp.is_esp(b"\0\0\1\0 and so on")
    assert udp.is_keep_alive(b"\xff")
    assert not udp.is_keep_alive(b"\xff\xff\xff\xff")
