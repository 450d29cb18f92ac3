"""Identities of IKEv2 peers (RFC 7296 3.5): from configuration, in ID payloads, in certificates.

Covered: domain names, mail addresses, IP addresses, distinguished names, opaque keys; when two of them are
the same (RFC 4945 3.1, RFC 5280 7); which of them a certificate vouches for. Not covered: ID_DER_ASN1_GN,
wildcards (RFC 4945 3.1.2 forbids them), internationalised names, whether the certificate is to be trusted
(``certificates``).
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from cryptography import x509

__all__ = ["Identity", "IdentityType"]


class IdentityType(IntEnum):
    """ID types that are spoken here."""

    IPV4_ADDR = 1
    FQDN = 2
    RFC822_ADDR = 3
    IPV6_ADDR = 5
    DER_ASN1_DN = 9
    KEY_ID = 11


_ALLOWED = (
    "an identity is a domain name, name@domain, an IP address, a distinguished name as in RFC 4514 "
    "(CN=...,O=...), or keyid: with hexadecimal digits"
)
_DOMAIN = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*"
)
_MAIL = re.compile(r"[!-?A-~]{1,64}@(?P<domain>[^@]+)")
_KEY_ID = "keyid:"
_SHOWN = 256


class Identity(NamedTuple):
    """Who somebody says to be: type and data of an ID payload. The data may be anything that a peer sent."""

    type: int
    data: bytes

    @classmethod
    def parse(cls, text: str) -> Identity:
        """The identity that configuration writes so; ``ValueError`` says what is allowed."""
        if text.startswith(_KEY_ID):
            return cls._key_id(text.removeprefix(_KEY_ID))
        if "=" in text:
            try:
                return cls(IdentityType.DER_ASN1_DN, x509.Name.from_rfc4514_string(text).public_bytes())
            except ValueError:
                raise ValueError(_ALLOWED) from None
        try:
            address = ip_address(text)
        except ValueError:
            pass
        else:
            kind = IdentityType.IPV6_ADDR if address.version == 6 else IdentityType.IPV4_ADDR
            return cls(kind, address.packed)
        mail = _MAIL.fullmatch(text)
        if not _DOMAIN.fullmatch(mail["domain"] if mail else text):
            raise ValueError(_ALLOWED)
        return cls(IdentityType.RFC822_ADDR if mail else IdentityType.FQDN, text.encode("ascii"))

    @classmethod
    def _key_id(cls, digits: str) -> Identity:
        try:
            data = bytes.fromhex(digits)
        except ValueError:
            raise ValueError(_ALLOWED) from None
        if not data:
            raise ValueError(_ALLOWED)
        return cls(IdentityType.KEY_ID, data)

    def __str__(self) -> str:
        return self.text

    @property
    def text(self) -> str:
        """For people and logs: printable whatever the peer sent, and not long."""
        shown = self._text()
        shown = "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in shown)
        return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."

    def _text(self) -> str:
        try:
            if self.type in (IdentityType.FQDN, IdentityType.RFC822_ADDR):
                return self.data.decode("ascii")
            if self.type == IdentityType.IPV6_ADDR:
                return str(IPv6Address(self.data))
            if self.type == IdentityType.IPV4_ADDR:
                return str(IPv4Address(self.data))
            if self.type == IdentityType.DER_ASN1_DN:
                return _shown(_name(self.data))
        except ValueError:
            pass
        return f"{_KEY_ID if self.type == IdentityType.KEY_ID else f'type {self.type}:'}{self.data.hex()}"

    def normal(self) -> Hashable:
        """Equal for two identities that are the same, though spelled or encoded differently.

        Domains compare without case, mail addresses so behind the @ (RFC 5280 7.2 and 7.5), distinguished
        names without case, surplus spaces and string types (7.1), all else octet by octet.
        """
        if self.type == IdentityType.FQDN:
            return self.type, self.data.lower()
        if self.type == IdentityType.RFC822_ADDR:
            local, at, domain = self.data.rpartition(b"@")
            return self.type, local + at + domain.lower()
        if self.type == IdentityType.DER_ASN1_DN:
            try:
                return self.type, tuple(
                    frozenset(
                        (kind, " ".join(_string(*value).casefold().split())) for kind, value in attributes
                    )
                    for attributes in _name(self.data)
                )
            except ValueError:
                pass
        return self.type, self.data

    def same(self, other: Identity) -> bool:
        """Whether both name the same."""
        return self.normal() == other.normal()

    def matches(self, certificate: x509.Certificate) -> bool:
        """Whether a certificate vouches for the identity: in its subject or a subject alternative name.

        An opaque key is in no certificate. ``ValueError`` and ``cryptography``'s own errors where the
        certificate's names are not what they should be.
        """
        return self.type != IdentityType.KEY_ID and any(map(self.same, _identities(certificate)))


def _identities(certificate: x509.Certificate) -> Iterator[Identity]:
    yield Identity(IdentityType.DER_ASN1_DN, certificate.subject.public_bytes())
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    for name in names:
        if isinstance(name, x509.DNSName):
            yield Identity(IdentityType.FQDN, name.value.encode())
        elif isinstance(name, x509.RFC822Name):
            yield Identity(IdentityType.RFC822_ADDR, name.value.encode())
        elif isinstance(name, x509.DirectoryName):
            yield Identity(IdentityType.DER_ASN1_DN, name.value.public_bytes())
        elif isinstance(name, x509.IPAddress):
            address = name.value
            if isinstance(address, IPv6Address):
                yield Identity(IdentityType.IPV6_ADDR, address.packed)
            elif isinstance(address, IPv4Address):
                yield Identity(IdentityType.IPV4_ADDR, address.packed)


# A distinguished name in DER (RFC 5280 4.1.2.4). The library writes one but reads none that stands alone.
_Value = tuple[int, bytes]
_Attribute = tuple[bytes, _Value]
_SEQUENCE, _SET, _OBJECT_IDENTIFIER = 0x30, 0x31, 0x06
_ENCODINGS = {
    0x0C: "utf-8",
    0x13: "ascii",
    0x14: "latin-1",
    0x16: "ascii",
    0x1C: "utf-32-be",
    0x1E: "utf-16-be",
}
# RFC 4514 3, and what else is common.
_TYPES = {
    bytes.fromhex("550403"): "CN",
    bytes.fromhex("550405"): "serialNumber",
    bytes.fromhex("550406"): "C",
    bytes.fromhex("550407"): "L",
    bytes.fromhex("550408"): "ST",
    bytes.fromhex("550409"): "STREET",
    bytes.fromhex("55040a"): "O",
    bytes.fromhex("55040b"): "OU",
    bytes.fromhex("0992268993f22c640119"): "DC",
    bytes.fromhex("0992268993f22c640101"): "UID",
}


def _elements(octets: bytes) -> Iterator[_Value]:
    """Tags and contents, one after the other; ``ValueError`` if that is not what there is."""
    at = 0
    while at < len(octets):
        head = octets[at : at + 2]
        if len(head) < 2:
            raise ValueError("no length")
        start, size = at + 2, head[1]
        if size >= 0x80:
            start += size & 0x7F
            size = int.from_bytes(octets[at + 2 : start], "big")
        at = start + size
        if at > len(octets):
            raise ValueError("cut off")
        yield head[0], octets[start:at]


def _inside(element: _Value, tag: int) -> list[_Value]:
    if element[0] != tag:
        raise ValueError("another type")
    return list(_elements(element[1]))


def _name(octets: bytes) -> list[list[_Attribute]]:
    """The relative distinguished names, each with its attributes."""
    (name,) = _elements(octets)
    found = []
    for relative in _inside(name, _SEQUENCE):
        attributes = []
        for attribute in _inside(relative, _SET):
            kind, value = _inside(attribute, _SEQUENCE)
            if kind[0] != _OBJECT_IDENTIFIER:
                raise ValueError("no attribute type")
            attributes.append((kind[1], value))
        found.append(attributes)
    return found


def _string(tag: int, content: bytes) -> str:
    """The characters; what is no string stands as hexadecimal digits (RFC 4514 2.4)."""
    encoding = _ENCODINGS.get(tag)
    return content.decode(encoding) if encoding else f"#{tag:02x}{content.hex()}"


def _shown(name: list[list[_Attribute]]) -> str:
    """RFC 4514 2: the last first."""
    return ",".join(
        "+".join(
            f"{_TYPES.get(kind, f'oid:{kind.hex()}')}=" + re.sub(r'([,+"\\<>;=])', r"\\\1", _string(*value))
            for kind, value in attributes
        )
        for attributes in reversed(name)
    )
