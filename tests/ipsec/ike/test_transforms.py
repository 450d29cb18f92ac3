"""Transforms: names and sizes, prf+, and the Encrypted payload, also as charon seals it."""

from __future__ import annotations

import hashlib
import hmac
import os

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from mip6ha.ipsec import algorithms
from mip6ha.ipsec.ike.transforms import ENCRYPTIONS, GROUPS, INTEGRITIES, PRFS, Protection, Suite
from mip6ha.wire import Malformed, Refused

from .recorded import AUTH, IDI, IDR, IKE_AUTH, NAMES, Recording

SUITES = [
    Suite(encryption, integrity, PRFS[5], GROUPS[31])
    for encryption in ENCRYPTIONS.values()
    for integrity in ([None] if encryption.is_aead else INTEGRITIES.values())
]
HEAD = bytes(range(32))


def suite_name(suite: Suite) -> str:
    return "+".join(each.name for each in suite[:2] if each)


each_suite = pytest.mark.parametrize("suite", SUITES, ids=suite_name)


def protection(suite: Suite, iv_prefix: int = 0, counter: int | None = None) -> Protection:
    key = bytes(range(1, suite.encryption.key_size + 1))
    integrity = b"\x55" * suite.integrity.key_size if suite.integrity else b""
    return Protection(suite, key, integrity, iv_prefix, counter)


@pytest.mark.parametrize("encryption", ENCRYPTIONS.values(), ids=lambda each: each.name)
def test_children_take_the_same_names(encryption) -> None:
    if encryption.is_aead:
        same = algorithms.transform(encryption.family)
        assert same.iv_length == encryption.iv_size
        assert same.icv_length == encryption.icv_size
        assert encryption.key_size in same.encryption_lengths
    else:
        for integrity in INTEGRITIES.values():
            same = algorithms.transform(encryption.family, integrity.name)
            assert encryption.key_size in same.encryption_lengths
            assert (same.iv_length, same.icv_length) == (encryption.iv_size, integrity.icv_size)
            assert same.integrity_length == integrity.key_size


@pytest.mark.parametrize("prf", PRFS.values(), ids=lambda each: each.name)
def test_prf_plus_is_rfc_7296_2_13(prf) -> None:
    key, seed = b"a key", b"a seed" * 9
    digest = {32: "sha256", 48: "sha384", 64: "sha512"}[prf.size]
    assert prf.key_size == prf.size == hashlib.new(digest).digest_size
    assert prf(key, seed) == hmac.digest(key, seed, digest)
    block = expected = b""
    for number in range(1, 256):
        block = hmac.digest(key, block + seed + bytes((number,)), digest)
        expected += block
    for length in (0, 1, prf.size - 1, prf.size, prf.size + 1, 7 * prf.size + 5, 255 * prf.size):
        assert prf.plus(key, seed, length) == expected[:length]
    with pytest.raises(ValueError, match="larger"):
        prf.plus(key, seed, 255 * prf.size + 1)


@pytest.mark.parametrize("integrity", INTEGRITIES.values(), ids=lambda each: each.name)
def test_integrity_is_rfc_4868(integrity) -> None:
    digest = {12: "sha256", 13: "sha384", 14: "sha512"}[integrity.id]
    key = b"k" * integrity.key_size
    assert integrity.code(key, b"data") == hmac.digest(key, b"data", digest)[: integrity.icv_size]
    assert integrity.icv_size == integrity.key_size // 2 == hashlib.new(digest).digest_size // 2


@pytest.mark.parametrize("name", NAMES)
def test_what_charon_sealed(name: str) -> None:
    recording = Recording(name)
    request, response = recording.exchange(IKE_AUTH)
    initiator = recording.protection(of_initiator=True)
    assert {IDI, IDR, AUTH} <= request.opened(initiator).keys()
    assert {IDR, AUTH} <= response.opened(recording.protection(of_initiator=False)).keys()
    with pytest.raises(Refused, match="ike_integrity"):
        response.opened(initiator)


@pytest.mark.parametrize("name", NAMES)
def test_what_we_seal_is_as_large_as_charon_s(name: str) -> None:
    recording = Recording(name)
    for message in recording.exchange(IKE_AUTH):
        protection = recording.protection(of_initiator=message.from_initiator)
        plaintext = protection.open(message.octets[:32], message.octets[32:])
        size = len(message.octets) - 32
        assert size - 3 <= protection.sealed_size(len(plaintext)) <= size


@each_suite
@given(plaintext=st.binary(max_size=200), head=st.binary(min_size=32, max_size=40))
def test_what_is_sealed_opens(suite: Suite, plaintext: bytes, head: bytes) -> None:
    sealed = protection(suite).seal(head, plaintext, os.urandom)
    assert len(sealed) == protection(suite).sealed_size(len(plaintext))
    assert protection(suite).open(head, sealed) == plaintext


@each_suite
@given(at=st.integers(min_value=0), bit=st.integers(0, 7), plaintext=st.binary(max_size=40))
def test_a_changed_bit_is_found(suite: Suite, at: int, bit: int, plaintext: bytes) -> None:
    sealed = protection(suite).seal(HEAD, plaintext, lambda size: b"\x77" * size)
    whole = bytearray(HEAD + sealed)
    whole[at % len(whole)] ^= 1 << bit
    with pytest.raises(Refused, match="ike_integrity"):
        protection(suite).open(bytes(whole[:32]), bytes(whole[32:]))


@each_suite
@given(octets=st.binary(max_size=150))
def test_anything_else_is_refused(suite: Suite, octets: bytes) -> None:
    with pytest.raises(Refused):
        protection(suite).open(HEAD, octets)


@each_suite
def test_what_is_too_short_is_not_even_verified(suite: Suite) -> None:
    sealed = protection(suite).seal(HEAD, b"", os.urandom)
    for size in range(len(sealed)):
        with pytest.raises(Malformed, match="truncated"):
            protection(suite).open(HEAD, sealed[:size])


def sealed_with(suite: Suite, padded: bytes) -> bytes:
    """What a peer sends that has the keys and pads as it likes."""
    peer = protection(suite)
    if suite.integrity is None:
        iv = bytes(8)
        return iv + AESGCM(peer.encryption_key[:-4]).encrypt(peer.encryption_key[-4:] + iv, padded, HEAD)
    keys = algorithms.Keys(peer.encryption_key, peer.integrity_key)
    return algorithms.transform("aes-cbc", suite.integrity.name).seal(keys, HEAD, b"", bytes(16), padded)[32:]


GCM = Suite(ENCRYPTIONS[20, 128], None, PRFS[5], GROUPS[31])
CBC = Suite(ENCRYPTIONS[12, 128], INTEGRITIES[12], PRFS[5], GROUPS[31])


@pytest.mark.parametrize("suite", [GCM, CBC], ids=suite_name)
def test_any_padding_that_fits_is_taken(suite: Suite) -> None:
    # RFC 7296 3.14: content and length of the padding are the sender's choice.
    for padding in (b"\xff" * 11 + b"\x0b", b"\1\2\3\4\5\6\7\x08\x09\x0a\x0b\x0b"):
        assert protection(suite).open(HEAD, sealed_with(suite, b"four" + padding)) == b"four"
    whole = bytes(255) + b"\xff"
    assert protection(suite).open(HEAD, sealed_with(suite, whole)) == b""


@pytest.mark.parametrize("suite", [GCM, CBC], ids=suite_name)
def test_padding_longer_than_what_there_is(suite: Suite) -> None:
    for last in (16, 17, 255):
        with pytest.raises(Malformed, match="ike_padding"):
            protection(suite).open(HEAD, sealed_with(suite, bytes(15) + bytes((last,))))


def test_a_verified_message_that_is_no_whole_number_of_blocks() -> None:
    keys = protection(CBC)
    covered = bytes(16 + 17)
    icv = INTEGRITIES[12].code(keys.integrity_key, HEAD + covered)
    with pytest.raises(Malformed, match="ike_padding"):
        keys.open(HEAD, covered + icv)


def test_a_counter_iv_says_who_counts() -> None:
    active = protection(GCM, iv_prefix=0x010002)
    first, second = (active.seal(HEAD, b"", lambda size: b"\xff" * size)[:8] for _ in range(2))
    assert first == bytes.fromhex("010002ffffffffff")
    # 2^40 messages are more than the 2^32 message ids of an IKE SA, with fragments: the count may go round.
    assert second == bytes.fromhex("0100020000000000")
    next_active = protection(GCM, iv_prefix=0x020003, counter=active.counter)
    assert next_active.seal(HEAD, b"", os.urandom)[:8] == bytes.fromhex("0200030000000001")


def test_a_counter_that_is_carried_over_goes_on() -> None:
    before = protection(GCM)
    ivs = [before.seal(HEAD, b"", os.urandom)[:8] for _ in range(3)]
    after = protection(GCM, counter=before.counter)
    ivs += [after.seal(HEAD, b"", os.urandom)[:8] for _ in range(3)]
    assert len(set(ivs)) == 6


def test_a_random_iv_comes_from_the_randomness_that_is_given() -> None:
    asked = []

    def random(size: int) -> bytes:
        asked.append(size)
        return bytes(size)

    assert protection(CBC).seal(HEAD, b"", random)[:16] == bytes(16)
    assert asked == [16]


def test_keys_of_the_wrong_size_and_wrong_combinations() -> None:
    for key, integrity in ((b"k" * 16, b""), (b"k" * 20, b"i" * 32), (b"", b"")):
        with pytest.raises(ValueError, match=r"octets|size"):
            Protection(GCM, key, integrity)
    with pytest.raises(ValueError, match="size"):
        Protection(CBC, b"k" * 16, b"i" * 31)
    with pytest.raises(ValueError, match="stands alone"):
        Protection(GCM._replace(integrity=INTEGRITIES[12]), b"k" * 20, b"i" * 32)
    with pytest.raises(ValueError, match="stands alone"):
        Protection(CBC._replace(integrity=None), b"k" * 16)


@each_suite
def test_keys_stay_out_of_sight(suite: Suite) -> None:
    shown = repr(protection(suite))
    assert "hidden" in shown
    assert suite.encryption.name in shown
    assert protection(suite).encryption_key.hex()[:8] not in shown
