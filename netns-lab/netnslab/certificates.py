"""An authority and its certificates, made anew for every run.

Not covered: authorities between the anchor and whoever has a certificate.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

__all__ = ["DAY", "Authority", "PrivateKey", "key_pem", "new_ecdsa_key", "new_rsa_key", "pem", "write_key"]

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
DAY = timedelta(days=1)


def new_rsa_key() -> rsa.RSAPrivateKey:
    """An RSA key of 2048 bits."""
    return rsa.generate_private_key(65537, 2048)


def new_ecdsa_key() -> ec.EllipticCurvePrivateKey:
    """A key on P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: PrivateKey) -> bytes:
    """A private key in PEM, without a password."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def pem(certificate: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    """A certificate or a CRL in PEM."""
    return certificate.public_bytes(Encoding.PEM)


def write_key(path: Path, key: PrivateKey) -> None:
    """Write a private key into a file that only its owner may read."""
    path.touch(mode=0o600)
    path.write_bytes(key_pem(key))


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


class Authority:
    """Issues certificates and revokes them."""

    def __init__(self, name: str = "Interop CA", key: PrivateKey | None = None) -> None:
        self.key = key or new_ecdsa_key()
        self._name = _name(name)
        self._revoked: list[int] = []
        self.certificate = (
            self._builder(self._name, self._name, self.key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=False,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    key_cert_sign=True,
                    crl_sign=True,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .sign(self.key, SHA256())
        )

    @staticmethod
    def _builder(
        subject: x509.Name, issuer: x509.Name, key: PrivateKey, *, until: timedelta = DAY
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 2 * DAY)
            .not_valid_after(now + until)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )

    def issue(
        self, name: str, key: PrivateKey, *, until: timedelta = DAY, more_names: int = 0
    ) -> x509.Certificate:
        """A certificate for a domain name; ``more_names`` makes it large."""
        names = [name, *(f"alias-{number:04}.{name}" for number in range(more_names))]
        return (
            self._builder(_name(name), self._name, key, until=until)
            .add_extension(x509.SubjectAlternativeName(map(x509.DNSName, names)), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
            .sign(self.key, SHA256())
        )

    def revoke(self, certificate: x509.Certificate) -> None:
        """List a certificate from the next CRL on."""
        self._revoked.append(certificate.serial_number)

    def revocations(self) -> x509.CertificateRevocationList:
        """A CRL with all that were revoked so far."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(now - DAY)
            .next_update(now + DAY)
            .add_extension(x509.CRLNumber(1 + len(self._revoked)), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
        )
        for serial in self._revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - DAY).build()
            )
        return builder.sign(self.key, SHA256())
