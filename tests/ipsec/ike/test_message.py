"""Headers, chains of payloads, Encrypted payloads and fragments."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mip6ha.ipsec.ike.fragments import (
    MOST_FRAGMENTS,
    Fragment,
    Reassembly,
    fragment_numbers,
    open_fragment,
    seal_within,
)
from mip6ha.ipsec.ike.message import (
    HEADER_SIZE,
    Header,
    Payload,
    build_clear,
    build_payloads,
    open_encrypted,
    parse_chain,
    parse_header,
    seal,
)
from mip6ha.ipsec.ike.transforms import ENCRYPTIONS, GROUPS, INTEGRITIES, PRFS, Protection, Suite
from mip6ha.wire import Malformed, Refused

from ...octets import fault, mutations
from .strategies import PAYLOADS, U8, parses_or_is_malformed

HEADERS = st.builds(
    Header,
    st.binary(min_size=8, max_size=8).filter(any),
    st.binary(min_size=8, max_size=8),
    U8,
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**32 - 1),
    st.just(0x20),
)
HEADER = Header(b"initiate", b"responds", 37, True, False, 7)
SUITES = {
    "gcm": Suite(ENCRYPTIONS[20, 128], None, PRFS[5], GROUPS[31]),
    "chacha": Suite(ENCRYPTIONS[28, None], None, PRFS[5], GROUPS[31]),
    "cbc": Suite(ENCRYPTIONS[12, 256], INTEGRITIES[12], PRFS[5], GROUPS[19]),
    "cbc-512": Suite(ENCRYPTIONS[12, 128], INTEGRITIES[14], PRFS[7], GROUPS[14]),
}
EACH_SUITE = pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)


def protection(suite: Suite) -> Protection:
    integrity = bytes(suite.integrity.key_size) if suite.integrity else b""
    return Protection(suite, bytes(range(suite.encryption.key_size)), integrity)


@given(HEADERS, PAYLOADS)
def test_a_message_in_the_clear(header: Header, payloads: tuple[Payload, ...]) -> None:
    octets = build_clear(header, payloads)
    found, first = parse_header(octets)
    assert found == header
    chain = parse_chain(octets, HEADER_SIZE, first)
    assert chain.payloads == payloads
    assert chain.encrypted is None


@EACH_SUITE
@settings(max_examples=30)
@given(header=HEADERS, payloads=PAYLOADS)
def test_a_protected_message(suite: Suite, header: Header, payloads: tuple[Payload, ...]) -> None:
    octets = seal(header, payloads, protection(suite), random.Random(1).randbytes)
    found, first = parse_header(octets)
    assert found == header
    outer = parse_chain(octets, HEADER_SIZE, first)
    assert not outer.payloads
    assert outer.encrypted is not None
    inner = open_encrypted(octets, outer.encrypted, protection(suite))
    assert parse_chain(inner, 0, outer.encrypted.first).payloads == payloads


@EACH_SUITE
def test_nothing_changed_on_the_way_is_opened(suite: Suite) -> None:
    sealed = seal(HEADER, [Payload(41, b"\0\0\x40\0")], protection(suite), random.Random(1).randbytes)
    for at in range(len(sealed)):
        octets = bytearray(sealed)
        octets[at] ^= 1
        try:
            _, first = parse_header(bytes(octets))
            encrypted = parse_chain(bytes(octets), HEADER_SIZE, first).encrypted
        except Malformed:
            continue
        if encrypted is None:
            continue
        opening = open_encrypted if encrypted.kind == 46 else open_fragment
        with pytest.raises(Refused):
            opening(bytes(octets), encrypted, protection(suite))


@given(st.binary(max_size=120))
def test_arbitrary_octets(octets: bytes) -> None:
    parses_or_is_malformed(lambda data: parse_chain(data, HEADER_SIZE, parse_header(data)[1]), octets)


@settings(max_examples=40)
@given(PAYLOADS, st.integers(0, 2**32))
def test_mutated_chains(payloads: tuple[Payload, ...], seed: int) -> None:
    octets = build_payloads(payloads)
    first = payloads[0].kind if payloads else 0
    for data in mutations(octets, random.Random(seed).random, 20):
        chain = parses_or_is_malformed(lambda octets: parse_chain(octets, 0, first), data)
        assert chain is None or sum(4 + len(each.body) for each in chain.payloads) <= len(data)


def test_what_is_wrong_is_said() -> None:
    good = build_clear(HEADER, [Payload(40, bytes(16))])
    assert fault(lambda: parse_header(good[:27]))[0] == "truncated"
    assert fault(lambda: parse_header(good + b"\0"))[0] == "ike_length"
    assert fault(lambda: parse_header(bytes(8) + good[8:]))[0] == "ike_spi"
    assert fault(lambda: parse_chain(good[:-17], HEADER_SIZE, 40))[0] == "truncated"
    assert fault(lambda: parse_chain(good, HEADER_SIZE, 0))[0] == "trailing_octets"
    assert fault(lambda: parse_chain(b"\0\0\0\x03", 0, 40))[0] == "payload_length"
    assert fault(lambda: parse_chain(b"\0\0\0\x05", 0, 40))[0] == "payload_length"
    assert fault(lambda: parse_chain(b"\0\0\0\x04\0", 0, 46))[0] == "payload_length"
    assert fault(lambda: parse_chain(b"\x2b\0\0\x04" * 200, 0, 43))[0] == "ike_payloads"


@EACH_SUITE
@pytest.mark.parametrize("limit", [130, 131, 145, 576, 1232])
def test_fragments_are_as_large_as_allowed_and_come_together_in_any_order(suite: Suite, limit: int) -> None:
    payloads = (Payload(39, b"auth" * 20), Payload(37, random.Random(2).randbytes(1000)), Payload(43, b"v"))
    datagrams = seal_within(HEADER, payloads, protection(suite), random.Random(1).randbytes, limit)
    assert len(datagrams) > 1 or limit == 1232
    assert all(len(each) <= limit for each in datagrams)
    if len(datagrams) == 1:
        return
    # Nothing more would have fitted into any but the last.
    assert all(len(each) > limit - suite.encryption.block for each in datagrams[:-1])
    order = list(datagrams)
    random.Random(3).shuffle(order)
    reassembly, whole = Reassembly(7), None
    for datagram in order:
        assert whole is None
        encrypted = parse_chain(datagram, HEADER_SIZE, parse_header(datagram)[1]).encrypted
        assert encrypted is not None
        assert encrypted.kind == 53
        whole = reassembly.add(open_fragment(datagram, encrypted, protection(suite)))
    assert whole is not None
    assert parse_chain(whole[1], 0, whole[0]).payloads == payloads


def test_one_datagram_where_the_peer_knows_no_fragments() -> None:
    payloads = [Payload(37, bytes(3000))]
    [datagram] = seal_within(HEADER, payloads, protection(SUITES["gcm"]), random.Random(1).randbytes, None)
    assert len(datagram) > 3000


def test_what_fits_no_fragments_is_an_error() -> None:
    payloads = [Payload(37, bytes(65 * 600))]
    for limit in (60, 70, 600):
        with pytest.raises(ValueError, match="does not fit"):
            seal_within(HEADER, payloads, protection(SUITES["cbc"]), random.Random(1).randbytes, limit)


def test_limits_of_reassembly() -> None:
    reassembly = Reassembly(1)
    assert reassembly.add(Fragment(1, 3, 41, b"a")) is None
    with pytest.raises(Refused, match="duplicate_fragment"):
        reassembly.add(Fragment(1, 3, 41, b"b"))
    with pytest.raises(Refused, match="stale_fragment"):
        reassembly.add(Fragment(2, 2, 0, b"b"))
    # RFC 7383 2.6: smaller pieces begin anew.
    assert reassembly.add(Fragment(2, 4, 0, b"2")) is None
    assert reassembly.add(Fragment(1, 4, 41, b"1")) is None
    with pytest.raises(Refused, match="fragments_too_long"):
        reassembly.add(Fragment(3, 4, 0, bytes(0x10000)))
    assert reassembly.add(Fragment(3, 4, 0, b"3")) is None
    assert reassembly.add(Fragment(4, 4, 0, b"4")) == (41, b"1234")


@pytest.mark.parametrize("numbers", [(0, 1), (2, 1), (1, 0), (1, MOST_FRAGMENTS + 1)])
def test_impossible_numbers(numbers: tuple[int, int]) -> None:
    body = b"".join(each.to_bytes(2, "big") for each in numbers) + bytes(40)
    octets = build_clear(HEADER, [Payload(53, body)])
    encrypted = parse_chain(octets, HEADER_SIZE, 53).encrypted
    assert encrypted is not None
    assert fault(lambda: fragment_numbers(octets, encrypted))[0] == "fragment_number"
