"""ESP packets: what is sealed opens once, everything else is refused by name and moves nothing."""

from __future__ import annotations

import contextlib
import hmac
import random
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mip6ha.ipsec import esp
from mip6ha.ipsec.algorithms import Transform, transform
from mip6ha.ipsec.policy import Direction
from mip6ha.ipsec.sad import SecurityAssociation, counter_limit
from mip6ha.wire import Refused

from ..octets import fault, mutations
from .associations import TRANSFORMS, association, keys_for, pair

_BY_NAME = {chosen.name: chosen for chosen in TRANSFORMS}
_GCM, _CBC, _NULL = (
    transform("aes-gcm-16"),
    transform("aes-cbc", "hmac-sha2-256-128"),
    transform("null", "hmac-sha2-256-128"),
)
_EVERY = pytest.mark.parametrize("chosen", TRANSFORMS, ids=list(_BY_NAME))


def _zeros(count: int) -> bytes:
    return bytes(count)


def _no_random(count: int) -> bytes:
    raise AssertionError(f"{count} random octets wanted where a counter will do")


def _refused(receiver: SecurityAssociation, packet: bytes) -> str:
    """The reason for which ``packet`` is refused, having changed nothing."""
    window = receiver.window
    assert window is not None
    before = (window.top, window.bitmap, receiver.packets)
    with pytest.raises(Refused) as caught:
        esp.unprotect(receiver, packet)
    assert (window.top, window.bitmap, receiver.packets) == before
    return caught.value.reason


def _crafted(sender: SecurityAssociation, sequence: int, plaintext: bytes, *, high: bytes = b"") -> bytes:
    """A packet with any plaintext under the right key."""
    head = sender.spi.to_bytes(4, "big") + sequence.to_bytes(4, "big")
    chosen = sender.transform
    return chosen.seal(sender.keys, head, high, bytes(chosen.iv_length), plaintext)


@_EVERY
@pytest.mark.parametrize("esn", [False, True])
def test_what_is_sealed_opens_for_every_payload_length(chosen: Transform, esn: bool) -> None:
    source = random.Random(5)
    for size in chosen.encryption_lengths:
        sender, receiver = pair(chosen, esn=esn, keys=keys_for(chosen, size))
        for length in (*range(36), 1279, 1280):
            payload = source.randbytes(length)
            packet = esp.protect(sender, length % 256, payload, source.randbytes)
            assert esp.spi(packet) == 0x2000
            assert int.from_bytes(packet[4:8], "big") == sender.sequence
            body = len(packet) - 8 - chosen.iv_length - chosen.icv_length
            assert body % chosen.align == 0
            assert length + 2 <= body <= length + 1 + chosen.align
            assert len(packet) - length <= esp.overhead(sender)
            assert esp.unprotect(receiver, packet) == (length % 256, payload)
            assert _refused(receiver, packet) == "replayed"
        assert sender.packets == receiver.packets == sender.sequence == 38


@_EVERY
def test_overhead_is_reached(chosen: Transform) -> None:
    sender, _ = pair(chosen)
    added = [len(esp.protect(sender, 59, bytes(length), _zeros)) - length for length in range(64)]
    assert max(added) == esp.overhead(sender)


@_EVERY
@pytest.mark.parametrize("esn", [False, True])
def test_no_octet_can_be_changed(chosen: Transform, esn: bool) -> None:
    sender, receiver = pair(chosen, esn=esn)
    packet = esp.protect(sender, 135, b"a Binding Update", _zeros)
    for at in range(4, len(packet)):
        bad = bytearray(packet)
        bad[at] ^= 0x10
        assert _refused(receiver, bytes(bad)) == "bad_icv"
    assert esp.unprotect(receiver, packet) == (135, b"a Binding Update")


@_EVERY
def test_the_spi_is_authenticated(chosen: Transform) -> None:
    sender, _ = pair(chosen)
    other = association(chosen, Direction.IN, spi=0x2001)
    packet = esp.protect(sender, 135, b"for SPI 0x2000", _zeros)
    assert _refused(other, b"\0\0\x20\x01" + packet[4:]) == "bad_icv"
    # Found by a wrong SPI on our side, it does not open either.
    strange = association(chosen, Direction.IN, keys=keys_for(chosen), spi=0x2000)
    assert esp.unprotect(strange, packet)[1] == b"for SPI 0x2000"


@_EVERY
def test_another_key_opens_nothing(chosen: Transform) -> None:
    sender, receiver = pair(chosen)
    changed = keys_for(chosen)
    if chosen.integrity_length:
        changed.integrity = changed.integrity[:-1] + b"\0"
    else:
        changed.encryption = changed.encryption[:-1] + b"\0"  # the salt
    receiver.keys = changed
    assert _refused(receiver, esp.protect(sender, 135, b"payload", _zeros)) == "bad_icv"


@_EVERY
def test_truncated(chosen: Transform) -> None:
    sender, receiver = pair(chosen)
    packet = esp.protect(sender, 135, b"", _zeros)
    least = 10 + chosen.iv_length + chosen.icv_length
    for size in range(least):
        assert fault(partial(esp.unprotect, receiver, packet[:size])) == ("truncated_esp", size, None)
    for size in range(least, len(packet)):
        assert _refused(receiver, packet[:size]) == "bad_icv"
    assert receiver.window is not None
    assert receiver.window.top == 0


@pytest.mark.parametrize("size", range(8))
def test_an_spi_needs_its_header(size: int) -> None:
    assert fault(partial(esp.spi, bytes(size))) == ("truncated_esp", size, None)
    assert esp.spi(b"\xff\0\0\x01" + bytes(4)) == 0xFF000001


@_EVERY
@pytest.mark.parametrize("length", [0, 1, 2, 7, 14, 30, 255])
def test_padding_must_count_from_one(chosen: Transform, length: int) -> None:
    sender, receiver = pair(chosen)
    body = bytes(-(length + 2) % 16) + bytes(range(1, length + 1)) + bytes((length, 58))
    assert esp.unprotect(receiver, _crafted(sender, 1, body)) == (58, bytes(-(length + 2) % 16))
    for at in range(len(body) - 2 - length, len(body) - 2):
        bad = bytearray(body)
        bad[at] ^= 1
        assert _refused(receiver, _crafted(sender, 2, bytes(bad))) == "bad_padding"


@pytest.mark.parametrize("count", [15, 16, 100, 255])
def test_padding_longer_than_the_packet(count: int) -> None:
    for chosen in (_GCM, _CBC, _NULL):
        sender, receiver = pair(chosen)
        assert _refused(receiver, _crafted(sender, 1, bytes(14) + bytes((count, 58)))) == "bad_padding"


def test_ciphertext_that_is_no_whole_number_of_blocks() -> None:
    # Authentic, so a faulty peer's: an integrity-only packet under the key of the CBC SA.
    _, receiver = pair(_CBC)
    packet = b"\0\0\x20\0\0\0\0\x01" + bytes(16 + 17)
    icv = hmac.digest(receiver.keys.integrity, packet, "sha256")[:16]
    assert _refused(receiver, packet + icv) == "bad_padding"


def test_an_outbound_sa_opens_nothing() -> None:
    sender, _ = pair(_GCM)
    with pytest.raises(Refused, match="not_an_inbound_sa"):
        esp.unprotect(sender, esp.protect(sender, 135, b"", _zeros))


def test_reordered_packets_open_within_the_window_and_only_once() -> None:
    sender, receiver = pair(_GCM, window=64)
    packets = [esp.protect(sender, 135, bytes((n,)), _zeros) for n in range(70)]
    assert esp.unprotect(receiver, packets[69]) == (135, b"E")
    assert [_refused(receiver, packets[n]) for n in range(6)] == ["replayed"] * 6
    for n in random.Random(6).sample(range(6, 69), 63):
        assert esp.unprotect(receiver, packets[n]) == (135, bytes((n,)))
    for packet in packets:
        assert _refused(receiver, packet) == "replayed"


def test_sequence_number_zero_is_never_good() -> None:
    sender, receiver = pair(_NULL)
    assert _refused(receiver, _crafted(sender, 0, b"\0\0\0\x3b")) == "replayed"


@_EVERY
def test_forgeries_far_ahead_do_not_move_the_window(chosen: Transform) -> None:
    sender, receiver = pair(chosen)
    esp.unprotect(receiver, esp.protect(sender, 135, b"", _zeros))
    forged = bytearray(esp.protect(sender, 135, b"", _zeros))
    for sequence in (3, 1000, 0xFFFFFFFF):
        forged[4:8] = sequence.to_bytes(4, "big")
        assert _refused(receiver, bytes(forged)) == "bad_icv"
    assert esp.unprotect(receiver, esp.protect(sender, 135, b"still", _zeros)) == (135, b"still")


@_EVERY
def test_extended_sequence_numbers_cross_the_boundary(chosen: Transform) -> None:
    sender, receiver = pair(chosen, esn=True)
    assert receiver.window is not None
    sender.sequence = receiver.window.top = (1 << 32) - 3
    packets = [esp.protect(sender, 135, bytes((n,)), _zeros) for n in range(6)]
    assert [packet[4:8].hex() for packet in packets[:3]] == ["fffffffe", "ffffffff", "00000000"]
    for n in (3, 0, 2, 5, 1, 4):
        assert esp.unprotect(receiver, packets[n]) == (135, bytes((n,)))
    assert receiver.window.top == (1 << 32) + 3


@_EVERY
def test_a_receiver_in_another_epoch_does_not_open(chosen: Transform) -> None:
    sender, receiver = pair(chosen, esn=True)
    assert receiver.window is not None
    packet = esp.protect(sender, 135, b"epoch 0", _zeros)
    receiver.window.top = 5 << 32
    assert _refused(receiver, packet) == "bad_icv"
    without = association(chosen, Direction.IN)
    assert _refused(without, packet) == "bad_icv"


def test_the_end_of_all_sequence_numbers_is_a_replay() -> None:
    sender, receiver = pair(_CBC, esn=True)
    assert receiver.window is not None
    receiver.window.top = (1 << 64) - 1
    receiver.window.bitmap = 1
    assert _refused(receiver, esp.protect(sender, 135, b"", _zeros)) == "replayed"


@_EVERY
@pytest.mark.parametrize("esn", [False, True])
def test_a_used_up_key_spends_no_number(chosen: Transform, esn: bool) -> None:
    sender, _ = pair(chosen, esn=esn)
    assert sender.limit == counter_limit(chosen, esn=esn)
    assert sender.limit == (1 << 32) - 1 if not esn else (1 << 40) - 1 if chosen.counter_iv else (1 << 64) - 1
    sender.sequence = sender.limit - 1
    esp.protect(sender, 135, b"the last one", _zeros)
    for _ in range(3):
        with pytest.raises(Refused, match="sequence_exhausted"):
            esp.protect(sender, 135, b"", _zeros)
        assert (sender.sequence, sender.packets) == (sender.limit, 1)


def test_a_reservation_ends_and_goes_on_where_it_ended() -> None:
    sender, receiver = pair(_GCM)
    sender.limit = 2
    for expected in (1, 2):
        esp.unprotect(receiver, esp.protect(sender, 135, b"", _zeros))
        assert sender.sequence == expected
    with pytest.raises(Refused, match="sequence_exhausted"):
        esp.protect(sender, 135, b"", _zeros)
    sender.limit = 4
    assert esp.protect(sender, 135, b"", _zeros)[4:8] == b"\0\0\0\x03"


@pytest.mark.parametrize("name", ["aes-gcm-16", "chacha20-poly1305"])
@given(
    members=st.lists(st.integers(0, (1 << 24) - 1), min_size=2, max_size=3, unique=True),
    starts=st.lists(st.integers(0, (1 << 40) - 10), min_size=3, max_size=3),
)
def test_no_two_members_ever_make_the_same_nonce(name: str, members: list[int], starts: list[int]) -> None:
    chosen = transform(name)
    seen = set()
    for member, start in zip(members, starts, strict=False):
        sender = association(chosen, Direction.OUT, esn=True, iv_prefix=member)
        sender.sequence = start
        for _ in range(4):
            iv = esp.protect(sender, 135, b"", _no_random)[8:16]
            assert int.from_bytes(iv[:3], "big") == member
            assert int.from_bytes(iv[3:], "big") == sender.sequence
            seen.add(iv)
    assert len(seen) == 4 * len(members)


def test_cbc_takes_its_iv_from_the_source_of_randomness_and_null_takes_none() -> None:
    source = random.Random(7)
    sender, _ = pair(_CBC)
    ivs = {esp.protect(sender, 135, b"", source.randbytes)[8:24] for _ in range(50)}
    expected = random.Random(7)
    assert ivs == {expected.randbytes(16) for _ in range(50)}
    assert len(ivs) == 50
    assert esp.protect(association(_NULL, Direction.OUT), 135, b"x", _no_random)[8:9] == b"x"


@_EVERY
def test_any_octets_are_refused_and_move_nothing(chosen: Transform) -> None:
    source = random.Random(8)
    sender, receiver = pair(chosen, esn=True)
    good = [esp.protect(sender, 135, source.randbytes(source.randrange(60)), _zeros) for _ in range(4)]
    for packet in good[:2]:
        esp.unprotect(receiver, packet)
    reasons = set()
    for packet in good:
        for octets in mutations(packet, source.random, 400):
            if octets not in good and octets[4:] != packet[4:]:
                reasons.add(_refused(receiver, octets))
    assert reasons == {"bad_icv", "replayed", "truncated_esp"}
    for octets in (source.randbytes(source.randrange(80)) for _ in range(500)):
        with contextlib.suppress(Refused):
            esp.unprotect(receiver, octets)
            raise AssertionError("random octets opened")
    assert esp.unprotect(receiver, good[2])[0] == 135
