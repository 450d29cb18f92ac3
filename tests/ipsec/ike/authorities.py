"""Certificates and CRLs as tests want them, at a time of their own."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else [])


def key_usage(*which: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{each: each in which for each in _USAGES})


class End:
    """A key and its certificate, which may issue others."""

    def __init__(self, key: Any, certificate: x509.Certificate) -> None:
        self.key = key
        self.certificate = certificate
        self.der = der(certificate)

    def issue(
        self,
        common: str,
        *,
        key: Any = None,
        names: Iterable[x509.GeneralName] = (),
        extensions: Iterable[tuple[x509.ExtensionType, bool]] = (),
        begin: datetime = NOW - DAY,
        end: datetime = NOW + DAY,
        serial: int | None = None,
        subject: x509.Name | None = None,
    ) -> End:
        return certify(
            (self.certificate.subject, self.key),
            subject or name(common),
            key or ec.generate_private_key(ec.SECP256R1()),
            [*((x509.SubjectAlternativeName(list(names)), False),) * bool(names), *extensions],
            (begin, end),
            serial=serial,
        )

    def authority(self, common: str, *, path_length: int | None = None, **options: Any) -> End:
        extensions = options.pop("extensions", authority_extensions(path_length))
        return self.issue(common, extensions=extensions, **options)

    def crl(
        self,
        *revoked: x509.Certificate,
        begin: datetime = NOW - DAY,
        end: datetime = NOW + DAY,
        extensions: Iterable[tuple[x509.ExtensionType, bool]] = (),
        issuer: x509.Name | None = None,
    ) -> x509.CertificateRevocationList:
        builder = x509.CertificateRevocationListBuilder(
            issuer_name=issuer or self.certificate.subject, last_update=begin, next_update=end
        )
        for certificate in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder(certificate.serial_number, begin).build()
            )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.key, SHA256())


def authority_extensions(path_length: int | None = None) -> list[tuple[x509.ExtensionType, bool]]:
    return [
        (x509.BasicConstraints(ca=True, path_length=path_length), True),
        (key_usage("key_cert_sign", "crl_sign"), True),
    ]


def certify(
    issuer: tuple[x509.Name, Any],
    subject: x509.Name,
    key: Any,
    extensions: Iterable[tuple[x509.ExtensionType, bool]],
    validity: tuple[datetime, datetime],
    *,
    serial: int | None = None,
) -> End:
    builder = x509.CertificateBuilder(
        issuer[0], subject, key.public_key(), serial or x509.random_serial_number(), *validity
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return End(key, builder.sign(issuer[1], SHA256()))


def root(
    common: str = "Root",
    *,
    key: Any = None,
    extensions: Iterable[tuple[x509.ExtensionType, bool]] | None = None,
    begin: datetime = NOW - DAY,
    end: datetime = NOW + DAY,
) -> End:
    """A trust anchor."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    extensions = authority_extensions() if extensions is None else extensions
    return certify((name(common), key), name(common), key, extensions, (begin, end))
