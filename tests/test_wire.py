"""Octets: reader bounds, checksums against RFC 1071's own loop, text forms."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mip6ha.wire import Malformed, Reader, Refused, address, checksum, text, verifies

from .octets import CARE_OF_ADDRESS, HOME_AGENT, reference_checksum

_ADDRESSES = st.binary(min_size=16, max_size=16)


@given(_ADDRESSES, _ADDRESSES, st.integers(1, 255), st.binary(max_size=90))
@example(bytes(16), bytes(16), 1, b"")
@example(b"\xff" * 16, b"\xff" * 16, 135, b"\xff" * 7)
@example(bytes(16), bytes(15) + b"\x01", 58, b"\x01")
def test_checksum_is_rfc_1071s(source: bytes, destination: bytes, next_header: int, data: bytes) -> None:
    assert checksum(source, destination, next_header, data) == reference_checksum(
        source, destination, next_header, data
    )


@given(_ADDRESSES, _ADDRESSES, st.sampled_from((17, 58, 135)), st.binary(min_size=8, max_size=91))
def test_what_is_summed_verifies_and_one_changed_bit_does_not(
    source: bytes, destination: bytes, next_header: int, data: bytes
) -> None:
    blank = data[:4] + b"\0\0" + data[6:]
    sum_ = checksum(source, destination, next_header, blank)
    good = blank[:4] + sum_.to_bytes(2, "big") + blank[6:]
    assert verifies(source, destination, next_header, good)
    for at in range(len(good)):
        for bit in (1, 0x80):
            bad = bytearray(good)
            bad[at] ^= bit
            assert not verifies(source, destination, next_header, bytes(bad))


def test_a_sum_of_zero_goes_out_as_zero_and_verifies_in_both_forms() -> None:
    # Two octets chosen so that everything else adds up to 0xffff: the checksum is 0x0000.
    blank = bytes((59, 0, 5, 0, 0, 0, 0, 0))
    last = checksum(HOME_AGENT, CARE_OF_ADDRESS, 135, blank)
    data = blank[:6] + last.to_bytes(2, "big")
    assert reference_checksum(HOME_AGENT, CARE_OF_ADDRESS, 135, data) == 0
    assert checksum(HOME_AGENT, CARE_OF_ADDRESS, 135, data) == 0
    assert verifies(HOME_AGENT, CARE_OF_ADDRESS, 135, data)
    assert verifies(HOME_AGENT, CARE_OF_ADDRESS, 135, data[:4] + b"\xff\xff" + data[6:])


@pytest.mark.parametrize("size", [0, 1, 2, 1279, 1280, 65534, 65535])
def test_checksum_of_large_and_odd_sizes(size: int) -> None:
    data = bytes((7 * n + 3) & 0xFF for n in range(size))
    assert checksum(HOME_AGENT, CARE_OF_ADDRESS, 58, data) == reference_checksum(
        HOME_AGENT, CARE_OF_ADDRESS, 58, data
    )


def test_reader_reads_in_network_order_and_counts() -> None:
    reader = Reader(bytes(range(20)), 1)
    assert (reader.u8(), reader.u16(), reader.u32(), reader.u64()) == (
        0x01,
        0x0203,
        0x04050607,
        0x08090A0B0C0D0E0F,
    )
    assert (reader.offset, reader.remaining) == (16, 4)
    assert reader.rest() == bytes((16, 17, 18, 19))
    assert (reader.remaining, reader.rest()) == (0, b"")


@pytest.mark.parametrize(("method", "size"), [("u8", 1), ("u16", 2), ("u32", 4), ("u64", 8)])
def test_reader_stops_at_its_end_and_stays(method: str, size: int) -> None:
    reader = Reader(bytes(20), 5, 5 + size - 1)
    with pytest.raises(Malformed) as caught:
        getattr(reader, method)()
    assert (caught.value.reason, caught.value.offset) == ("truncated", 5)
    assert reader.offset == 5
    assert str(caught.value) == "truncated at octet 5"


@given(st.binary(max_size=12), st.integers(0, 20), st.integers(-3, 20), st.integers(0, 20))
def test_reader_yields_exactly_the_octets_or_raises(data: bytes, start: int, count: int, end: int) -> None:
    reader = Reader(data, start, end)
    if 0 <= count <= min(end, len(data)) - start:
        assert reader.take(count) == data[start : start + count]
    else:
        with pytest.raises(Malformed):
            reader.take(count)


def test_errors_say_reason_offset_and_answer() -> None:
    error = Malformed("reason", 7, parameter_problem=2)
    assert isinstance(error, Refused)
    assert (error.reason, error.offset, error.parameter_problem) == ("reason", 7, 2)
    assert Malformed("reason").parameter_problem is None
    assert str(Refused("replayed")) == "replayed"


@given(_ADDRESSES)
def test_addresses_survive_their_text_form(value: bytes) -> None:
    assert address(text(value)) == value


@pytest.mark.parametrize("value", ["", "2001:db8::/64", "192.0.2.1", "2001:db8::g"])
def test_what_is_no_address_is_a_value_error(value: str) -> None:
    with pytest.raises(ValueError, match=r"empty|Unexpected '/'|At least 3 parts|hex digits"):
        address(value)
