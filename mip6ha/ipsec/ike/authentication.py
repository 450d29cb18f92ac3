"""The AUTH payload: pre-shared keys and signatures (RFC 7296 2.15 and 3.8, RFC 4754, RFC 7427).

Covered: what is signed, pre-shared keys, RSA with PKCS#1 v1.5 and PSS, ECDSA, each in the classic methods and
in Digital Signature. Not covered: whose key it is (``certificates``), EAP, DSS, NULL (RFC 7619), EdDSA.

SHA-1 is in nothing but RSA Digital Signature (method 1), where it is the default of RFC 7296 and all that
strongSwan speaks; it is neither made nor taken unless the caller says ``sha1``. Without, method 1 is signed
with SHA2-256, which the RFC leaves to the signer. Who supports RFC 7427, as RFC 8247 3.1 wants, needs none of
this.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum, IntEnum
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.constant_time import bytes_eq

from ...wire import Refused
from .transforms import Prf

__all__ = [
    "HASHES",
    "Method",
    "PrivateKey",
    "PublicKey",
    "check_psk",
    "psk_auth",
    "sign",
    "signed_octets",
    "verify",
]

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


class Method(IntEnum):
    """Authentication methods that are spoken here (RFC 7296 3.8, RFC 4754 4, RFC 7427 3)."""

    RSA = 1
    SHARED_KEY = 2
    ECDSA_256 = 9
    ECDSA_384 = 10
    ECDSA_521 = 11
    DIGITAL_SIGNATURE = 14


_HASHES: dict[int, hashes.HashAlgorithm] = {2: hashes.SHA256(), 3: hashes.SHA384(), 4: hashes.SHA512()}

HASHES = frozenset(_HASHES)
"""What SIGNATURE_HASH_ALGORITHMS announces (RFC 7427 4): SHA2-256, SHA2-384 and SHA2-512."""

_CLASSIC: dict[Method, tuple[type[ec.EllipticCurve], hashes.HashAlgorithm]] = {
    Method.ECDSA_256: (ec.SECP256R1, hashes.SHA256()),
    Method.ECDSA_384: (ec.SECP384R1, hashes.SHA384()),
    Method.ECDSA_521: (ec.SECP521R1, hashes.SHA512()),
}
# A hash as strong as the key, where the peer knows it, else a stronger one, else a weaker one.
_PREFERENCE = {ec.SECP384R1: (3, 4, 2), ec.SECP521R1: (4, 3, 2)}
_USUAL_PREFERENCE = (2, 3, 4)
_KEY_PAD = b"Key Pad for IKEv2"


def signed_octets(message: bytes, nonce: bytes, prf: Prf, sk_p: bytes, id_body: bytes) -> bytes:
    """InitiatorSignedOctets or ResponderSignedOctets (RFC 7296 2.15).

    ``message`` is the signer's IKE_SA_INIT message from the header on, ``nonce`` the other end's; ``sk_p``
    and ``id_body``, the ID payload without its generic header, are the signer's.
    """
    return message + nonce + prf(sk_p, id_body)


def psk_auth(prf: Prf, psk: bytes, octets: bytes) -> bytes:
    """The Authentication Data of method 2; ``ValueError`` for an empty key."""
    if not psk:
        raise ValueError("an empty pre-shared key authenticates nobody")
    return prf(prf(psk, _KEY_PAD), octets)


def check_psk(prf: Prf, psk: bytes, octets: bytes, data: bytes) -> None:
    """:class:`Refused` ``authentication_failed`` unless the peer knows the key; in constant time."""
    if not bytes_eq(psk_auth(prf, psk, octets), data):
        raise Refused("authentication_failed")


class _Kind(Enum):
    PKCS1 = "RSASSA-PKCS1-v1_5"
    PSS = "RSASSA-PSS"
    ECDSA = "ECDSA"


class _Scheme(NamedTuple):
    kind: _Kind
    hash: int


def _der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return bytes((tag, len(content))) + content


def _sequence(*parts: bytes) -> bytes:
    return _der(0x30, *parts)


_NULL = _der(0x05)
# Object identifiers, the last octet but for the hash's part: PKCS #1, ANSI X9.62, NIST hashes.
_PKCS1 = bytes.fromhex("2a864886f70d0101")
_ECDSA_SHA2 = bytes.fromhex("2a8648ce3d0403")
_SHA2 = bytes.fromhex("6086480165030402")
_MGF1, _RSASSA_PSS = 8, 10
_PKCS1_WITH = {2: 11, 3: 12, 4: 13}
_ECDSA_WITH = {2: 2, 3: 3, 4: 4}
_SHA2_ITSELF = {2: 1, 3: 2, 4: 3}


def _oid(arc: bytes, last: int) -> bytes:
    return _der(0x06, arc, bytes((last,)))


def _pss_identifier(number: int, null: bytes) -> bytes:
    """RSASSA-PSS with one hash throughout, and a salt as long as that (RFC 7427 A.4)."""
    algorithm = _sequence(_oid(_SHA2, _SHA2_ITSELF[number]), null)
    return _sequence(
        _oid(_PKCS1, _RSASSA_PSS),
        _sequence(
            _der(0xA0, algorithm),
            _der(0xA1, _sequence(_oid(_PKCS1, _MGF1), algorithm)),
            _der(0xA2, _der(0x02, bytes((_HASHES[number].digest_size,)))),
        ),
    )


# RFC 7427 3: an AlgorithmIdentifier is compared as octets. RFC 4055 2.1 and 5 want the parameters of RSA and
# of the hashes to be NULL, and taken when they are absent. The first of a scheme is what we send.
_IDENTIFIERS: dict[bytes, _Scheme] = {}
for _number in _HASHES:
    for _null in (_NULL, b""):
        _IDENTIFIERS[_pss_identifier(_number, _null)] = _Scheme(_Kind.PSS, _number)
        _IDENTIFIERS[_sequence(_oid(_PKCS1, _PKCS1_WITH[_number]), _null)] = _Scheme(_Kind.PKCS1, _number)
    _IDENTIFIERS[_sequence(_oid(_ECDSA_SHA2, _ECDSA_WITH[_number]))] = _Scheme(_Kind.ECDSA, _number)

_SENT: dict[_Scheme, bytes] = {}
for _identifier, _scheme in _IDENTIFIERS.items():
    _SENT.setdefault(_scheme, _identifier)


def _rsa_padding(scheme: _Scheme) -> padding.AsymmetricPadding:
    if scheme.kind is _Kind.PKCS1:
        return padding.PKCS1v15()
    algorithm = _HASHES[scheme.hash]
    return padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)


def sign(
    private_key: PrivateKey,
    octets: bytes,
    peer_hashes: Collection[int] = (),
    *,
    pss: bool = True,
    sha1: bool = False,
) -> tuple[int, bytes]:
    """Authentication method and data with our private key.

    Digital Signature (14) where the peer announced a hash that we have, otherwise the classic method of the
    key. ``pss``: an RSA key signs with RSASSA-PSS in method 14 (RFC 8247 3.2: PKCS#1 v1.5 is for old peers).
    ``sha1``: in method 1 with SHA-1. ``ValueError`` for a key of another kind or curve.
    """
    if isinstance(private_key, rsa.RSAPrivateKey):
        number = next((each for each in _USUAL_PREFERENCE if each in peer_hashes), None)
        if number is None:
            algorithm = hashes.SHA1() if sha1 else hashes.SHA256()
            return Method.RSA, private_key.sign(octets, padding.PKCS1v15(), algorithm)
        scheme = _Scheme(_Kind.PSS if pss else _Kind.PKCS1, number)
        signature = private_key.sign(octets, _rsa_padding(scheme), _HASHES[number])
        return Method.DIGITAL_SIGNATURE, _with_identifier(scheme, signature)
    curve = type(private_key.curve)
    method = next((method for method, (known, _) in _CLASSIC.items() if known is curve), None)
    if method is None:
        raise ValueError(f"no signatures are made on the curve {private_key.curve.name}")
    preference = _PREFERENCE.get(curve, _USUAL_PREFERENCE)
    number = next((each for each in preference if each in peer_hashes), None)
    if number is not None:
        signature = private_key.sign(octets, ec.ECDSA(_HASHES[number]))
        return Method.DIGITAL_SIGNATURE, _with_identifier(_Scheme(_Kind.ECDSA, number), signature)
    # RFC 4754 7: r and s side by side.
    size = (private_key.curve.key_size + 7) // 8
    r, s = decode_dss_signature(private_key.sign(octets, ec.ECDSA(_CLASSIC[method][1])))
    return method, r.to_bytes(size, "big") + s.to_bytes(size, "big")


def _with_identifier(scheme: _Scheme, signature: bytes) -> bytes:
    """RFC 7427 3: length of the AlgorithmIdentifier, itself, the signature."""
    identifier = _SENT[scheme]
    return bytes((len(identifier),)) + identifier + signature


def verify(
    method: int,
    data: bytes,
    octets: bytes,
    public_key: PublicKey,
    our_hashes: Collection[int] = HASHES,
    *,
    sha1: bool = False,
) -> None:
    """Whether the owner of ``public_key`` signed; :class:`Refused` ``authentication_failed`` if not.

    ``our_hashes``: what we announced, and all that method 14 may use. ``sha1``: method 1 may use SHA-1.
    NULL authentication, pre-shared keys and methods that are not known are refused like a bad signature.
    """
    try:
        if method == Method.DIGITAL_SIGNATURE:
            _verify_digital(data, octets, public_key, our_hashes)
        elif method == Method.RSA and isinstance(public_key, rsa.RSAPublicKey):
            _verify_rsa(data, octets, public_key, sha1=sha1)
        elif method in _CLASSIC and isinstance(public_key, ec.EllipticCurvePublicKey):
            _verify_ecdsa(Method(method), data, octets, public_key)
        else:
            raise Refused("authentication_failed")
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        raise Refused("authentication_failed") from None


def _verify_digital(data: bytes, octets: bytes, public_key: PublicKey, our_hashes: Collection[int]) -> None:
    end = 1 + data[0] if data else 0
    scheme, signature = _IDENTIFIERS.get(data[1:end]), data[end:]
    # RFC 7427 4: a hash that we did not announce would be the peer's choice against ours.
    if scheme is None or scheme.hash not in our_hashes:
        raise Refused("authentication_failed")
    algorithm = _HASHES[scheme.hash]
    if scheme.kind is _Kind.ECDSA and isinstance(public_key, ec.EllipticCurvePublicKey):
        public_key.verify(signature, octets, ec.ECDSA(algorithm))
    elif scheme.kind is not _Kind.ECDSA and isinstance(public_key, rsa.RSAPublicKey):
        public_key.verify(signature, octets, _rsa_padding(scheme), algorithm)
    else:
        raise Refused("authentication_failed")


def _verify_rsa(data: bytes, octets: bytes, public_key: rsa.RSAPublicKey, *, sha1: bool) -> None:
    """RFC 7296 3.8: the signer chose the hash, PKCS#1 says which; it is one of these or none."""
    algorithms = [*_HASHES.values(), *([hashes.SHA1()] if sha1 else [])]
    for algorithm in algorithms:
        try:
            return public_key.verify(data, octets, padding.PKCS1v15(), algorithm)
        except InvalidSignature:
            continue
    raise Refused("authentication_failed")


def _verify_ecdsa(method: Method, data: bytes, octets: bytes, public_key: ec.EllipticCurvePublicKey) -> None:
    curve, algorithm = _CLASSIC[method]
    size = (public_key.curve.key_size + 7) // 8
    if not isinstance(public_key.curve, curve) or len(data) != 2 * size:
        raise Refused("authentication_failed")
    r, s = (int.from_bytes(each, "big") for each in (data[:size], data[size:]))
    public_key.verify(encode_dss_signature(r, s), octets, ec.ECDSA(algorithm))
