"""RFC 4285's MN-HA option against vectors made with the standard library alone."""

from __future__ import annotations

import hmac
import struct
from hashlib import sha1

import pytest

from mip6ha.binding import messages
from mip6ha.binding.authentication import MessageAuthentication, authentication_data
from mip6ha.binding.messages import BindingAcknowledgement, BindingUpdate, OptionType, Status
from mip6ha.mobility import Option
from mip6ha.wire import Refused

from ..octets import CARE_OF_ADDRESS, HOME_ADDRESS, HOME_AGENT
from .signed import KEY, SOURCE, SPI, update

VECTOR = "fcaa2f9a793c513d3285faf1"


def parsed(octets: bytes) -> BindingUpdate:
    message = messages.parse(octets, HOME_ADDRESS, HOME_AGENT)
    assert isinstance(message, BindingUpdate)
    return message


def check(peer: MessageAuthentication, octets: bytes, source: bytes = SOURCE) -> Status:
    return peer.check(octets, parsed(octets), source, HOME_ADDRESS)


def test_a_vector_computed_elsewhere() -> None:
    # openssl dgst -sha1 -mac HMAC -macopt hexkey:... over care-of address, home address and these octets
    covered = bytes.fromhex("3b05050000000007c000000f000000000009110100000100")
    assert authentication_data(KEY, CARE_OF_ADDRESS, HOME_ADDRESS, covered).hex() == VECTOR
    checksum_set = covered[:4] + b"\xab\xcd" + covered[6:]
    assert authentication_data(KEY, CARE_OF_ADDRESS, HOME_ADDRESS, checksum_set).hex() == VECTOR


@pytest.mark.parametrize("timestamp", [None, 1, 0xE0000000_00000000])
@pytest.mark.parametrize("alternate", [CARE_OF_ADDRESS, None])
def test_an_update_verifies(timestamp: int | None, alternate: bytes | None) -> None:
    octets = update(timestamp=timestamp, alternate=alternate)
    source = SOURCE if alternate else CARE_OF_ADDRESS
    assert check(MessageAuthentication(SPI, KEY), octets, source) is Status.ACCEPTED


def test_octets_behind_the_mobility_header_do_not_matter() -> None:
    octets = update() + b"\5\5\5"
    assert check(MessageAuthentication(SPI, KEY), octets) is Status.ACCEPTED


@pytest.mark.parametrize(
    "octets",
    [
        update(key=KEY[:-1] + b"\0"),
        update(spi=SPI + 1),
        update(covered_address=SOURCE),
        update(covered_address=HOME_ADDRESS),
    ],
)
def test_status_146_for_another_key_spi_or_address(octets: bytes) -> None:
    peer = MessageAuthentication(SPI, KEY)
    assert check(peer, octets) is Status.AUTHENTICATION_FAILED
    assert peer.timestamp == 0


def test_every_covered_octet_counts() -> None:
    octets = update(timestamp=5)
    message = parsed(octets)
    covered = octets.index(struct.pack(">BBBI", 9, 17, 1, SPI)) + 7
    for at in (*range(4), *range(6, covered - 7), *range(covered, covered + 12)):
        if at == 1:
            continue  # the length: another frame altogether
        forged = bytearray(octets)
        forged[at] ^= 1
        peer = MessageAuthentication(SPI, KEY)
        if 12 <= at < covered - 7:
            try:
                status = peer.check(bytes(forged), message, SOURCE, HOME_ADDRESS)
            except (Refused, IndexError):
                continue  # options that no longer parse do not come this far
        else:
            status = peer.check(bytes(forged), message, SOURCE, HOME_ADDRESS)
        assert status is Status.AUTHENTICATION_FAILED


def test_without_the_option_or_with_the_one_for_aaa_there_is_silence() -> None:
    bare = messages.build(BindingUpdate(1, 0xC000, 15), HOME_ADDRESS, HOME_AGENT)
    aaa = Option(OptionType.AUTHENTICATION, b"\2" + SPI.to_bytes(4, "big") + bytes(12))
    other = messages.build(BindingUpdate(1, 0xC000, 15, (aaa,)), HOME_ADDRESS, HOME_AGENT)
    for octets in (bare, other):
        with pytest.raises(Refused, match="unprotected_binding_update"):
            check(MessageAuthentication(SPI, KEY), octets)


def test_nothing_but_padding_may_stand_behind_it() -> None:
    octets = update(behind=b"\x4d\2\0\0")
    with pytest.raises(Refused, match="authentication_option_not_last"):
        check(MessageAuthentication(SPI, KEY), octets)


def test_timestamps_must_grow() -> None:
    peer = MessageAuthentication(SPI, KEY)
    assert check(peer, update(timestamp=10 << 32)) is Status.ACCEPTED
    assert check(peer, update(timestamp=10 << 32)) is Status.ID_MISMATCH
    assert check(peer, update(timestamp=(10 << 32) - 1)) is Status.ID_MISMATCH
    assert check(peer, update()) is Status.MESSAGE_ID_REQUIRED
    assert peer.timestamp == 10 << 32
    assert check(peer, update(timestamp=(10 << 32) + 1)) is Status.ACCEPTED


def test_a_forgery_does_not_move_the_timestamp() -> None:
    peer = MessageAuthentication(SPI, KEY)
    assert check(peer, update(timestamp=1 << 63, key=bytes(20))) is Status.AUTHENTICATION_FAILED
    assert check(peer, update(timestamp=1)) is Status.ACCEPTED


def answer(peer: MessageAuthentication, status: int, destination: bytes = SOURCE) -> tuple[bytes, bytes]:
    """An acknowledgement, and the authentication data computed by hand for its update's care-of address."""
    octets = peer.build(BindingAcknowledgement(status, 0, 7, 15), HOME_AGENT, HOME_ADDRESS, destination)
    message = messages.parse(octets, HOME_AGENT, HOME_ADDRESS)
    assert isinstance(message, BindingAcknowledgement)
    kind, data = message.options[-1]
    assert (kind, data[:5]) == (9, b"\1" + SPI.to_bytes(4, "big"))
    end = octets.rindex(data)
    assert end % 4 == 3  # the option at 4n+1
    care_of_address = destination if status == 146 else CARE_OF_ADDRESS
    covered = octets[:4] + b"\0\0" + octets[6 : end + 5]
    return data[5:], hmac.digest(KEY, care_of_address + HOME_ADDRESS + covered, sha1)[:12]


@pytest.mark.parametrize("timestamp", [None, 99])
@pytest.mark.parametrize("status", [0, 1, 135, 144])
def test_an_acknowledgement_carries_it_over_the_care_of_address_of_the_update(
    timestamp: int | None, status: int
) -> None:
    peer = MessageAuthentication(SPI, KEY)
    check(peer, update(timestamp=timestamp))
    ours, expected = answer(peer, status)
    assert ours == expected


def test_a_failure_is_answered_over_where_it_goes() -> None:
    ours, expected = answer(MessageAuthentication(SPI, KEY), 146)
    assert ours == expected


def test_the_identification_goes_back() -> None:
    def identification() -> int | None:
        octets = peer.build(BindingAcknowledgement(0, 0, 7, 15), HOME_AGENT, HOME_ADDRESS, SOURCE)
        found = messages.parse(octets, HOME_AGENT, HOME_ADDRESS).options
        return next((int.from_bytes(data, "big") for kind, data in found if kind == 10), None)

    peer = MessageAuthentication(SPI, KEY)
    check(peer, update())
    assert identification() is None
    check(peer, update(timestamp=0x0000000A_11111111))
    assert identification() == 0x0000000A_11111111
    # A mismatch: its lower half, our upper half.
    check(peer, update(timestamp=0x00000009_22222222))
    assert identification() == 0x0000000A_22222222


def test_a_repr_without_the_key() -> None:
    assert repr(MessageAuthentication(SPI, KEY)) == "<MessageAuthentication 0x00000100>"
    assert MessageAuthentication(SPI, KEY).is_made_of(SPI, KEY)
    assert not MessageAuthentication(SPI, KEY).is_made_of(SPI, KEY[:-1])
