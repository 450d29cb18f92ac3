"""AUTH payloads: charon's, our own, and what must not pass."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from mip6ha.ipsec.ike.authentication import (
    HASHES,
    Method,
    PrivateKey,
    check_psk,
    psk_auth,
    sign,
    signed_octets,
    verify,
)
from mip6ha.ipsec.ike.transforms import PRFS
from mip6ha.wire import Refused

from .recorded import AUTH, IDI, IDR, IKE_AUTH, NONCE, WITH_CERTIFICATES, WITH_CHILDREN, Recording

OCTETS = b"octets that both ends know" * 20
RSA = rsa.generate_private_key(65537, 2048)
KEYS: dict[str, PrivateKey] = {
    "rsa": RSA,
    "ecdsa-256": ec.generate_private_key(ec.SECP256R1()),
    "ecdsa-384": ec.generate_private_key(ec.SECP384R1()),
    "ecdsa-521": ec.generate_private_key(ec.SECP521R1()),
}
# RFC 7427 appendix A, and charon's in the recordings.
RSA_SHA2_256 = bytes.fromhex("300d06092a864886f70d01010b0500")
RSA_SHA1 = bytes.fromhex("300d06092a864886f70d0101050500")
ECDSA_SHA2_384 = bytes.fromhex("300a06082a8648ce3d040303")
ECDSA_SHA1 = bytes.fromhex("300906072a8648ce3d0401")
PSS_EMPTY = bytes.fromhex("300d06092a864886f70d01010a3000")
PSS_DEFAULT = bytes.fromhex(
    "303e06092a864886f70d01010a3031a00b300906052b0e03021a0500a118301606092a864886f70d010108300906052b0e03021a0500"
    "a203020114a303020101"
)
PSS_SHA2_256 = bytes.fromhex(
    "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d0609608648"
    "0165030402010500a203020120"
)

each_key = pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)


def refuses(method: int, data: bytes, key: PrivateKey, **options: object) -> None:
    with pytest.raises(Refused, match=r"^authentication_failed$"):
        verify(method, data, OCTETS, key.public_key(), **options)


def both_ends(recording: Recording) -> list[tuple[bytes, int, bytes]]:
    """Signed octets, method and data of initiator and responder."""
    init, answer = recording.messages[:2]
    request, response = recording.exchange(IKE_AUTH)
    found = []
    for signed, peer, message, identity, side in (
        (init, answer, request, IDI, "i"),
        (answer, init, response, IDR, "r"),
    ):
        inner = message.opened(recording.protection(of_initiator=side == "i"))
        sk_p = recording.secrets(f"Sk_p{side} secret")[0]
        octets = signed_octets(
            signed.octets, peer.payloads()[NONCE], recording.suite.prf, sk_p, inner[identity]
        )
        found.append((octets, inner[AUTH][0], inner[AUTH][4:]))
    return found


@pytest.mark.parametrize("name", WITH_CHILDREN)
def test_charon_s_pre_shared_key(name: str) -> None:
    recording = Recording(name)
    ends = both_ends(recording)
    assert [octets for octets, _, _ in ends] == recording.secrets(
        "octets = message + nonce + prf(Sk_px, IDx')"
    )
    prf = recording.suite.prf
    for octets, method, data in ends:
        assert method == Method.SHARED_KEY
        assert psk_auth(prf, recording.psk, octets) == data
        check_psk(prf, recording.psk, octets, data)
        for psk, other in ((recording.psk + b"x", octets), (recording.psk, octets + b"\0")):
            with pytest.raises(Refused, match="authentication_failed"):
                check_psk(prf, psk, other, data)


@pytest.mark.parametrize("name", WITH_CERTIFICATES)
def test_charon_s_signatures(name: str) -> None:
    recording = Recording(name)
    keys = [x509.load_der_x509_certificate(each).public_key() for each in recording.certificates]
    ends = both_ends(recording)
    assert [octets for octets, _, _ in ends] == recording.secrets(
        "octets = message + nonce + prf(Sk_px, IDx')"
    )
    for (octets, method, data), key, other in zip(ends, keys, reversed(keys), strict=True):
        assert (method == Method.DIGITAL_SIGNATURE) is not name.endswith("classic")
        sha1 = name == "rsa-classic"
        verify(method, data, octets, key, sha1=sha1)
        for wrong_octets, wrong_key in ((octets + b"\0", key), (octets, other)):
            with pytest.raises(Refused, match="authentication_failed"):
                verify(method, data, wrong_octets, wrong_key, sha1=sha1)


def test_charon_s_sha_1_is_refused_unless_it_is_allowed() -> None:
    recording = Recording("rsa-classic")
    key = x509.load_der_x509_certificate(recording.certificates[0]).public_key()
    octets, method, data = both_ends(recording)[0]
    assert method == Method.RSA
    with pytest.raises(Refused, match="authentication_failed"):
        verify(method, data, octets, key)
    verify(method, data, octets, key, sha1=True)


@pytest.mark.parametrize(
    ("name", "identifier"), [("rsa", RSA_SHA2_256), ("rsa-pss", PSS_SHA2_256), ("ecdsa-384", ECDSA_SHA2_384)]
)
def test_the_identifiers_are_those_of_rfc_7427_and_charon(name: str, identifier: bytes) -> None:
    ours = sign(KEYS[name.removesuffix("-pss")], OCTETS, HASHES, pss="pss" in name)
    theirs = both_ends(Recording(name))[0]
    for method, data in (ours, theirs[1:]):
        assert method == 14
        assert data.startswith(bytes((len(identifier),)) + identifier)


def test_an_empty_pre_shared_key_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="empty"):
        check_psk(PRFS[5], b"", OCTETS, psk_auth(PRFS[5], b"x", OCTETS))


@each_key
@pytest.mark.parametrize("number", sorted(HASHES))
@pytest.mark.parametrize("pss", [False, True])
def test_digital_signature(key: PrivateKey, number: int, pss: bool) -> None:
    method, data = sign(key, OCTETS, {1, 5, number}, pss=pss)
    assert method == 14
    verify(method, data, OCTETS, key.public_key())
    verify(method, data, OCTETS, key.public_key(), {number})
    # A hash that was not announced, and a signature of another kind of key.
    refuses(method, data, key, our_hashes=HASHES - {number})
    refuses(method, data, key, our_hashes=())
    refuses(method, data, KEYS["ecdsa-256" if key is RSA else "rsa"])


@pytest.mark.parametrize(
    ("name", "peer", "expected"),
    [
        ("rsa", {2, 3, 4}, 2),
        ("rsa", {3, 4}, 3),
        ("ecdsa-256", {2, 3, 4}, 2),
        ("ecdsa-384", {2, 3, 4}, 3),
        ("ecdsa-384", {2, 4}, 4),
        ("ecdsa-521", {2, 3, 4}, 4),
        ("ecdsa-521", {2}, 2),
    ],
)
def test_the_hash_fits_the_key(name: str, peer: set[int], expected: int) -> None:
    method, data = sign(KEYS[name], OCTETS, peer)
    verify(method, data, OCTETS, KEYS[name].public_key(), {expected})


@each_key
@pytest.mark.parametrize("peer", [(), (1,), (5,), (1, 5, 99)])
def test_classic_methods_where_no_hash_is_common(key: PrivateKey, peer: tuple[int, ...]) -> None:
    method, data = sign(key, OCTETS, peer)
    expected = {"rsa": 1, "ecdsa-256": 9, "ecdsa-384": 10, "ecdsa-521": 11}
    assert method == next(expected[name] for name, each in KEYS.items() if each is key)
    verify(method, data, OCTETS, key.public_key(), ())
    for other in {1, 2, 9, 10, 11, 14} - {method}:
        refuses(other, data, key)


def test_method_1_with_each_hash() -> None:
    for algorithm in (hashes.SHA256(), hashes.SHA384(), hashes.SHA512()):
        verify(1, RSA.sign(OCTETS, padding.PKCS1v15(), algorithm), OCTETS, RSA.public_key())
    assert sign(RSA, OCTETS, sha1=True) == (1, RSA.sign(OCTETS, padding.PKCS1v15(), hashes.SHA1()))
    refuses(1, RSA.sign(OCTETS, padding.PKCS1v15(), hashes.MD5()), RSA, sha1=True)
    refuses(1, RSA.sign(OCTETS, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256()), RSA)


@pytest.mark.parametrize("identifier", [RSA_SHA1, ECDSA_SHA1, PSS_EMPTY, PSS_DEFAULT])
def test_sha_1_and_its_kin_are_no_digital_signature(identifier: bytes) -> None:
    """RFC 8247 3.2: MUST NOT."""
    signatures = {
        RSA_SHA1: RSA.sign(OCTETS, padding.PKCS1v15(), hashes.SHA1()),
        ECDSA_SHA1: KEYS["ecdsa-256"].sign(OCTETS, ec.ECDSA(hashes.SHA1())),
    }
    signature = signatures.get(
        identifier, RSA.sign(OCTETS, padding.PSS(padding.MGF1(hashes.SHA1()), 20), hashes.SHA1())
    )
    key = KEYS["ecdsa-256"] if identifier is ECDSA_SHA1 else RSA
    refuses(14, bytes((len(identifier),)) + identifier + signature, key, our_hashes={1, *HASHES}, sha1=True)


def test_absent_parameters_are_taken_like_null() -> None:
    """RFC 4055 2.1 and 5."""
    signature = RSA.sign(OCTETS, padding.PKCS1v15(), hashes.SHA256())
    identifier = bytes.fromhex("300b06092a864886f70d01010b")
    verify(14, bytes((len(identifier),)) + identifier + signature, OCTETS, RSA.public_key())
    signature = RSA.sign(OCTETS, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    identifier = bytes.fromhex(
        "303d06092a864886f70d01010a3030a00d300b0609608648016503040201a11a301806092a864886f70d010108300b0609608648"
        "016503040201a203020120"
    )
    verify(14, bytes((len(identifier),)) + identifier + signature, OCTETS, RSA.public_key())


def test_the_scheme_is_the_one_that_is_named() -> None:
    _, pss = sign(RSA, OCTETS, HASHES, pss=True)
    _, pkcs1 = sign(RSA, OCTETS, HASHES, pss=False)
    assert pss[1:68] == PSS_SHA2_256
    refuses(14, pkcs1[:16] + pss[68:], RSA)
    refuses(14, pss[:68] + pkcs1[16:], RSA)


@pytest.mark.parametrize("method", [0, 2, 3, 12, 13, 15, 201, 255])
def test_other_methods_are_refused(method: int) -> None:
    """3 is DSS, 13 NULL (RFC 7619): nobody gets in without a credential."""
    for data in (b"", psk_auth(PRFS[5], b"x", OCTETS), sign(RSA, OCTETS)[1]):
        refuses(method, data, RSA)


@each_key
def test_a_signature_cut_or_extended(key: PrivateKey) -> None:
    for method, data in (sign(key, OCTETS), sign(key, OCTETS, HASHES)):
        for size in (*range(0, len(data), 7), len(data) - 1):
            refuses(method, data[:size], key, sha1=True)
        refuses(method, data + b"\0", key, sha1=True)
        refuses(method, bytes(len(data)), key, sha1=True)


@each_key
@given(at=st.integers(min_value=0), bit=st.integers(0, 7), digital=st.booleans())
def test_a_changed_bit_is_found(key: PrivateKey, at: int, bit: int, digital: bool) -> None:
    method, data = sign(key, OCTETS, HASHES if digital else ())
    changed = bytearray(data)
    changed[at % len(data)] ^= 1 << bit
    refuses(method, bytes(changed), key, sha1=True)


@given(method=st.sampled_from([1, 9, 10, 11, 14]), data=st.binary(max_size=600))
def test_anything_else_is_refused(method: int, data: bytes) -> None:
    for key in KEYS.values():
        refuses(method, data, key, sha1=True)


@pytest.mark.parametrize("name", ["ecdsa-256", "ecdsa-384", "ecdsa-521"])
def test_the_method_names_the_curve(name: str) -> None:
    """RFC 4754: a key on another curve does not make a signature of the method's."""
    method, data = sign(KEYS[name], OCTETS)
    for other in set(KEYS) - {name}:
        refuses(method, data, KEYS[other])


def test_curves_without_a_method() -> None:
    key = ec.generate_private_key(ec.SECP256K1())
    with pytest.raises(ValueError, match="secp256k1"):
        sign(key, OCTETS, HASHES)
    r, s = decode_dss_signature(key.sign(OCTETS, ec.ECDSA(hashes.SHA256())))
    refuses(9, r.to_bytes(32, "big") + s.to_bytes(32, "big"), key)


def test_other_kinds_of_keys_are_refused() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    for method in (1, 9, 14):
        refuses(method, key.sign(OCTETS), key)
