"""Certificates of IKEv2 peers: from CERT payloads to a public key that may sign AUTH (RFC 4945, RFC 5280 6).

Covered: chains to a configured anchor at a given time, key usage, CRLs, the identity that must stand in the
certificate, the hashes of CERTREQ. Signatures, validity, basic constraints, path length, name constraints and
unknown critical extensions are the business of ``cryptography.x509.verification``, under policies of ours:
its own are for the web, and want names and usages there that certificates for IKE do not have.
Not covered: fetching anything (hash and URL, OCSP, distribution points), certificate policies, indirect and
delta CRLs, CRLs in CERT payloads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import TypeGuard, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA1, Hash
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from ...wire import Malformed, Refused
from .authentication import PublicKey
from .identities import Identity, IdentityType

__all__ = [
    "X509_SIGNATURE",
    "Identity",
    "IdentityType",
    "Trust",
    "authority_hash",
    "certificate_chain",
]

X509_SIGNATURE = 4
"""Certificate encoding of RFC 7296 3.6: one certificate in DER."""
_HASH_AND_URL = (12, 13)

MAXIMUM_CERTIFICATES = 10
MAXIMUM_OCTETS = 1 << 16
"""Of all certificates of a peer together; a UDP datagram, reassembled or not, has no more either."""
_RSA_BITS = range(2048, 8193)
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
# RFC 4945 5.1.3.12: for IKE or anything; and what those who issue certificates for VPNs use instead.
_USAGES = {
    ExtendedKeyUsageOID.IPSEC_IKE,
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    ExtendedKeyUsageOID.SERVER_AUTH,
    ExtendedKeyUsageOID.CLIENT_AUTH,
}
# What the library raises over a certificate that only looks like one.
_BROKEN = (
    ValueError,
    TypeError,
    KeyError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom to believe: trust anchors, and the CRLs at hand.

    A certificate that a CRL lists is refused, however old the CRL is. ``require_crl``: so is one whose issuer
    has no CRL here that is valid now. ``ValueError`` for no anchor, or a CRL that needs more than is covered
    (RFC 5280 5.2).
    """

    anchors: tuple[x509.Certificate, ...]
    crls: tuple[x509.CertificateRevocationList, ...] = ()
    require_crl: bool = False
    _store: Store = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.anchors:
            raise ValueError("no trust anchor")
        for crl in self.crls:
            if any(extension.critical for extension in crl.extensions):
                raise ValueError(f"the CRL of {crl.issuer.rfc4514_string()} is indirect, partial or a delta")
        object.__setattr__(self, "_store", Store(list(self.anchors)))

    def key_hashes(self) -> bytes:
        """The data of CERTREQ (RFC 7296 3.7): a hash for each anchor."""
        return b"".join(map(authority_hash, self.anchors))

    def verify(self, chain: Sequence[bytes], identity: Identity, now: datetime) -> PublicKey:
        """The public key of ``chain``'s first certificate, which belongs to ``identity``.

        ``chain`` is DER, the others in any order; ``now`` has a time zone. :class:`Refused` with one of
        ``certificate_missing``, ``certificate_too_large``, ``certificate_malformed``, ``certificate_key``,
        ``certificate_usage``, ``certificate_expired``, ``certificate_not_yet_valid``,
        ``certificate_untrusted``, ``certificate_revoked``, ``certificate_not_in_crl``, ``certificate_name``.
        """
        if now.tzinfo is None:
            raise ValueError("a time without a time zone")
        if not chain:
            raise Refused("certificate_missing")
        if len(chain) > MAXIMUM_CERTIFICATES or sum(map(len, chain)) > MAXIMUM_OCTETS:
            raise Refused("certificate_too_large")
        try:
            leaf, *others = map(x509.load_der_x509_certificate, chain)
            return self._verify(leaf, others, identity, now)
        except _BROKEN:
            raise Malformed("certificate_malformed") from None

    def _verify(
        self, leaf: x509.Certificate, others: list[x509.Certificate], identity: Identity, now: datetime
    ) -> PublicKey:
        _check_validity(leaf, now)
        key = leaf.public_key()
        if not _is_usable(key):
            raise Refused("certificate_key")
        if not _may_sign(leaf.extensions):
            raise Refused("certificate_usage")
        path = self._path(leaf, others, now)
        for certificate, issuer in pairwise(path):
            self._check_revocation(certificate, issuer, now)
        if not identity.matches(leaf):
            raise Refused("certificate_name")
        return key

    def _path(
        self, leaf: x509.Certificate, others: list[x509.Certificate], now: datetime
    ) -> list[x509.Certificate]:
        """From the leaf to an anchor."""
        policy = PolicyBuilder().store(self._store).time(now)
        policy = policy.extension_policies(ca_policy=_AUTHORITY, ee_policy=_END_ENTITY)
        try:
            return policy.build_client_verifier().verify(leaf, others).chain
        except VerificationError:
            # Its text is all that the library says of why. Time is what operators need to be told.
            for authority in _authorities(leaf, [*others, *self.anchors]):
                _check_validity(authority, now)
            raise Refused("certificate_untrusted") from None

    def _check_revocation(
        self, certificate: x509.Certificate, issuer: x509.Certificate, now: datetime
    ) -> None:
        """RFC 5280 6.3.3, for CRLs that cover all that their issuer issues."""
        known = False
        for crl in self.crls:
            if crl.issuer != certificate.issuer or not _may_sign_crls(issuer):
                continue
            if not _is_signed_by(crl, issuer):
                continue
            if crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
                raise Refused("certificate_revoked")
            until = crl.next_update_utc
            known = known or (until is not None and crl.last_update_utc <= now <= until)
        if self.require_crl and not known:
            raise Refused("certificate_not_in_crl")


def certificate_chain(payloads: Iterable[tuple[int, bytes]]) -> list[bytes]:
    """The certificates in (encoding, data) of CERT payloads, the one that signs first (RFC 7296 3.6).

    :class:`Refused` ``certificate_encoding`` if that one is no X.509 certificate, or any is to be fetched.
    Other encodings behind it, such as CRLs, are passed over.
    """
    chain: list[bytes] = []
    for encoding, data in payloads:
        if encoding == X509_SIGNATURE:
            chain.append(data)
        elif not chain or encoding in _HASH_AND_URL:
            raise Refused("certificate_encoding")
    return chain


def authority_hash(authority: x509.Certificate) -> bytes:
    """What names an authority in CERTREQ: SHA-1 of its SubjectPublicKeyInfo (RFC 7296 3.7)."""
    digest = Hash(SHA1())
    digest.update(authority.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return digest.finalize()


def _check_validity(certificate: x509.Certificate, now: datetime) -> None:
    if now > certificate.not_valid_after_utc:
        raise Refused("certificate_expired")
    if now < certificate.not_valid_before_utc:
        raise Refused("certificate_not_yet_valid")


def _is_usable(key: object) -> TypeGuard[PublicKey]:
    """RFC 8247 3.1.1: RSA from 2048 bits on; the upper bound is for our own sake."""
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size in _RSA_BITS
    return isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES)


def _may_sign(extensions: x509.Extensions) -> bool:
    """Whether the key of a certificate may make AUTH payloads (RFC 4945 5.1.3.2 and 5.1.3.12)."""
    usage, extended = _get(extensions, x509.KeyUsage), _get(extensions, x509.ExtendedKeyUsage)
    if usage is not None and not (usage.digital_signature or usage.content_commitment):
        return False
    return extended is None or not _USAGES.isdisjoint(extended)


def _may_sign_crls(issuer: x509.Certificate) -> bool:
    """RFC 5280 6.3.3 (f)."""
    usage = _get(issuer.extensions, x509.KeyUsage)
    return usage is None or usage.crl_sign


def _is_signed_by(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    key = issuer.public_key()
    return _is_usable(key) and crl.is_signature_valid(key)


_E = TypeVar("_E", bound=x509.ExtensionType)


def _get(extensions: x509.Extensions, kind: type[_E]) -> _E | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _authorities(
    certificate: x509.Certificate, candidates: Sequence[x509.Certificate]
) -> Iterator[x509.Certificate]:
    """Those who say to be its issuer, their issuers, and so on."""
    names = [certificate.issuer]
    for name in names:
        for candidate in candidates:
            if candidate.subject == name:
                yield candidate
                if candidate.issuer not in names:
                    names.append(candidate.issuer)


def _issues_certificates(_: Policy, __: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    """RFC 5280 6.1.4 (n)."""
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("not an authority's key usage")


def _issues_for_ike(_: Policy, __: x509.Certificate, extended: x509.ExtendedKeyUsage | None) -> None:
    """An authority that is confined to other purposes vouches for nobody here."""
    if extended is not None and _USAGES.isdisjoint(extended):
        raise ValueError("an authority for another purpose")


_AUTHORITY = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _issues_certificates)
    .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _issues_for_ike)
)
_END_ENTITY = ExtensionPolicy.permit_all()
