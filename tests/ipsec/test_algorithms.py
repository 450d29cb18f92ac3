"""Transforms: vectors of the RFCs, names, lengths, and that keys stay out of sight."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from mip6ha.ipsec.algorithms import AEAD, ENCRYPTION, INTEGRITY, Keys, transform
from mip6ha.wire import Refused

_hex = bytes.fromhex


def test_chacha20_poly1305_of_rfc_7634_appendix_a() -> None:
    keys = Keys(bytes(range(0x80, 0xA0)) + _hex("a0a1a2a3"))
    plaintext = _hex(
        "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec10000736270809"
        "0a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f"
        "303132333435363701020204"
    )
    packet = _hex(
        "01020304000000051011121314151617"
        "24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c6"
        "14ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3"
        "cbec163fac469b502773f6fb94e664da9165b82829f641e0"
        "76aaa8266b7fb0f7b11b369907e1ad43"
    )
    chacha = transform("chacha20-poly1305")
    assert chacha.seal(keys, packet[:8], b"", packet[8:16], plaintext) == packet
    assert chacha.open(keys, packet, b"") == plaintext


def test_aes_gcm_with_an_extended_sequence_number_of_draft_mcgrew_gcm_test() -> None:
    keys = Keys(_hex("4c80cdefbb5d10da906ac73c3613a6342e443b68"))
    plaintext = _hex(
        "45000048699a000080114db7c0a80102c0a801010a9bf15638d3010000010000"
        "00000000045f736970045f756470037369700963796265726369747902646b00"
        "0021000101020201"
    )
    sealed = _hex(
        "fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34"
        "cfa2436f14a3f3cf65925bf1f4a13c5d15b21e1884f5ff6247aeabb786b93bce"
        "61bc17d768fd9732459018148f6cbe722fd04796562dfdb4"
    )
    # Authenticated data 00004321 87654321 00000000: SPI, high half, low half.
    head, high, iv = _hex("0000432100000000"), _hex("87654321"), _hex("4956ed7e3b244cfe")
    gcm = transform("aes-gcm-16")
    assert gcm.seal(keys, head, high, iv, plaintext) == head + iv + sealed
    assert gcm.open(keys, head + iv + sealed, high) == plaintext
    for wrong in (b"", _hex("87654322"), bytes(4)):
        with pytest.raises(Refused, match="bad_icv"):
            gcm.open(keys, head + iv + sealed, wrong)


def test_aes_cbc_of_rfc_3602_case_5() -> None:
    cbc = transform("aes-cbc", "hmac-sha2-256-128")
    keys = Keys(_hex("90d382b410eeba7ad938c46cec1a82bf"), bytes(32))
    head, iv = _hex("0000432100000001"), _hex("e96e8c08ab465763fd098d45dd3ff893")
    plaintext = _hex(
        "08000ebda70a00008e9c083db95b070008090a0b0c0d0e0f1011121314151617"
        "18191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637"
        "0102030405060708090a0b0c0d0e0e01"
    )
    ciphertext = _hex(
        "f663c25d325c18c6a9453e194e120849a4870b66cc6b9965330013b4898dc856"
        "a4699e523a55db080b59ec3a8e4b7e52775b07d1db34ed9c538ab50c551b874a"
        "a269add047ad2d5913ac19b7cfbad4a6"
    )
    packet = cbc.seal(keys, head, b"", iv, plaintext)
    assert packet[:-16] == head + iv + ciphertext
    assert packet[-16:] == hmac.digest(bytes(32), head + iv + ciphertext, hashlib.sha256)[:16]
    assert cbc.open(keys, packet, b"") == plaintext


@pytest.mark.parametrize(
    ("name", "length", "digest"),
    [
        # RFC 4868 2.7.2: AUTH256-1, AUTH384-1, AUTH512-1; RFC 2202 3, first case.
        ("hmac-sha2-256-128", 32, "198a607eb44bfbc69903a0f1cf2bbdc5"),
        ("hmac-sha2-384-192", 48, "b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee973"),
        ("hmac-sha2-512-256", 64, "637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8"),
        ("hmac-sha1-96", 20, "b617318655057264e28bc0b6"),
    ],
)
def test_integrity_of_rfc_4868_and_2202(name: str, length: int, digest: str) -> None:
    null = transform("null", name)
    assert null.seal(Keys(b"", b"\x0b" * length), b"Hi There", b"", b"", b"") == b"Hi There" + _hex(digest)
    assert (null.integrity_length, null.icv_length) == (length, len(_hex(digest)))


@pytest.mark.parametrize("integrity", INTEGRITY)
@pytest.mark.parametrize("encryption", ["aes-cbc", "null"])
def test_the_high_half_stands_behind_the_packet_in_the_icv(encryption: str, integrity: str) -> None:
    chosen = transform(encryption, integrity)
    assert chosen.name == f"{encryption}+{integrity}"
    key = bytes(range(chosen.integrity_length))
    keys = Keys(bytes(chosen.encryption_lengths[-1]), key)
    high, iv, plaintext = b"\0\0\0\x05", bytes(chosen.iv_length), bytes(32)
    packet = chosen.seal(keys, bytes(8), high, iv, plaintext)
    size = chosen.icv_length
    algorithm = {16: "sha256", 24: "sha384", 32: "sha512", 12: "sha1"}[size]
    assert packet[-size:] == hmac.digest(key, packet[:-size] + high, algorithm)[:size]
    assert chosen.open(keys, packet, high) == plaintext
    for wrong in (b"", b"\0\0\0\x04"):
        with pytest.raises(Refused, match="bad_icv"):
            chosen.open(keys, packet, wrong)


def test_verified_ciphertext_that_is_no_whole_number_of_blocks() -> None:
    cbc = transform("aes-cbc", "hmac-sha2-256-128")
    null = transform("null", "hmac-sha2-256-128")
    packet = null.seal(Keys(b"", bytes(32)), bytes(8), b"", b"", bytes(16 + 17))
    with pytest.raises(Refused, match="bad_padding"):
        cbc.open(Keys(bytes(16), bytes(32)), packet, b"")


@pytest.mark.parametrize("encryption", AEAD)
def test_an_aead_brings_its_own_integrity(encryption: str) -> None:
    assert transform(encryption).name == encryption
    assert transform(encryption) is transform(encryption)
    with pytest.raises(ValueError, match=f"^{encryption} takes no integrity algorithm$"):
        transform(encryption, "hmac-sha2-256-128")


@pytest.mark.parametrize("encryption", ["aes-cbc", "null"])
@pytest.mark.parametrize("integrity", [None, "", "hmac-md5-96", "HMAC-SHA2-256-128"])
def test_the_others_need_one(encryption: str, integrity: str | None) -> None:
    expected = (
        f"^{encryption} needs an integrity algorithm, one of hmac-sha2-256-128, hmac-sha2-384-192, hmac"
    )
    with pytest.raises(ValueError, match=expected):
        transform(encryption, integrity)


@pytest.mark.parametrize("encryption", ["", "aes", "AES-GCM-16", "des"])
def test_unknown_encryption_says_what_there_is(encryption: str) -> None:
    assert ENCRYPTION == ("aes-gcm-16", "chacha20-poly1305", "aes-cbc", "null")
    with pytest.raises(
        ValueError, match=r"^encryption must be one of aes-gcm-16, chacha20-poly1305, aes-cbc, null$"
    ):
        transform(encryption)


def test_keys_show_nothing_and_compare() -> None:
    keys = Keys(b"\x5a" * 20, b"secret integrity")
    for shown in (repr(keys), str(keys), f"{keys}", repr([keys])):
        assert "5a" not in shown.lower()
        assert "ZZ" not in shown
        assert "secret" not in shown
    assert keys == Keys(b"\x5a" * 20, b"secret integrity")
    assert hash(keys) == hash(Keys(b"\x5a" * 20, b"secret integrity"))
    assert keys != Keys(b"\x5a" * 20)
    assert keys != Keys(b"", b"secret integrity")
    assert keys != b"\x5a" * 20
