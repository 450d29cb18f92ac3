"""The bodies of IKEv2's payloads (RFC 7296 3.4 to 3.16): octets to values and back.

Covered: every payload of RFC 7296 but SA (``proposals``), TS (``selectors``) and the encrypted ones
(``message``, ``fragments``). Not covered: what they mean. EAP and vendor IDs are octets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...wire import Malformed, Reader
from .numbers import ConfigurationKind, MobileAttribute, Notification, Protocol

__all__ = [
    "Authentication",
    "Certificate",
    "Configuration",
    "Delete",
    "KeyPayload",
    "Notify",
    "build_authentication",
    "build_certificate",
    "build_configuration",
    "build_delete",
    "build_identification",
    "build_key_payload",
    "build_notify",
    "error_of",
    "home_prefix",
    "internal_address",
    "parse_authentication",
    "parse_certificate",
    "parse_configuration",
    "parse_delete",
    "parse_identification",
    "parse_key_payload",
    "parse_nonce",
    "parse_notify",
]

_SPI_SIZES: dict[int, int] = {Protocol.NONE: 0, Protocol.IKE: 8, Protocol.AH: 4, Protocol.ESP: 4}

_DELETED_SIZES: dict[int, int] = {Protocol.IKE: 0, Protocol.AH: 4, Protocol.ESP: 4}


class KeyPayload(NamedTuple):
    """KE (3.4): a public value of a group."""

    group: int
    data: bytes


class Certificate(NamedTuple):
    """CERT or CERTREQ (3.6, 3.7); encoding 4 is X.509, whose CERTREQ data are SHA-1 hashes of CA keys."""

    encoding: int
    data: bytes


class Authentication(NamedTuple):
    """AUTH (3.8)."""

    method: int
    data: bytes

    def __repr__(self) -> str:
        return f"Authentication(method={self.method})"


class Notify(NamedTuple):
    """N (3.10); ``kind`` may be one that nobody here knows."""

    kind: int
    data: bytes = b""
    protocol: int = Protocol.NONE
    spi: bytes = b""


class Delete(NamedTuple):
    """D (3.11); of an IKE SA it names no SPI: the SA that it came under is meant."""

    protocol: int
    spis: tuple[bytes, ...] = ()


class Configuration(NamedTuple):
    """CP (3.15): attributes by type, in order."""

    kind: int
    attributes: tuple[tuple[int, bytes], ...]

    def first(self, kind: int) -> bytes | None:
        """The value of the first attribute of a type."""
        return next((value for each, value in self.attributes if each == kind), None)


def parse_key_payload(body: bytes) -> KeyPayload:
    """The body of KE."""
    reader = Reader(body)
    group, _ = reader.u16(), reader.u16()
    return KeyPayload(group, reader.rest())


def build_key_payload(payload: KeyPayload) -> bytes:
    """The body of KE."""
    return payload.group.to_bytes(2, "big") + b"\0\0" + payload.data


def parse_identification(body: bytes) -> tuple[int, bytes]:
    """Type and data of an ID payload's body."""
    reader = Reader(body)
    kind = reader.u8()
    reader.take(3)
    return kind, reader.rest()


def build_identification(kind: int, data: bytes) -> bytes:
    """The body of an ID payload, which AUTH covers."""
    return bytes((kind, 0, 0, 0)) + data


def parse_certificate(body: bytes) -> Certificate:
    """The body of CERT and CERTREQ."""
    reader = Reader(body)
    return Certificate(reader.u8(), reader.rest())


def build_certificate(payload: Certificate) -> bytes:
    """The body of CERT and CERTREQ."""
    return bytes((payload.encoding,)) + payload.data


def parse_authentication(body: bytes) -> Authentication:
    """The body of AUTH."""
    reader = Reader(body)
    method = reader.u8()
    reader.take(3)
    return Authentication(method, reader.rest())


def build_authentication(payload: Authentication) -> bytes:
    """The body of AUTH."""
    return bytes((payload.method, 0, 0, 0)) + payload.data


def parse_nonce(body: bytes) -> bytes:
    """The body of Ni and Nr, 16 to 256 octets (3.9)."""
    if not 16 <= len(body) <= 256:
        raise Malformed("nonce_length", len(body))
    return body


def parse_notify(body: bytes) -> Notify:
    """The body of N."""
    reader = Reader(body)
    protocol, size, kind = reader.u8(), reader.u8(), reader.u16()
    spi = reader.take(size)
    # The SPI may be left out even where a protocol is named, but it has no other size than its own.
    if size and size != _SPI_SIZES.get(protocol, size):
        raise Malformed("notify_spi", 1)
    return Notify(kind, reader.rest(), protocol, spi)


def build_notify(payload: Notify) -> bytes:
    """The body of N."""
    kind, data, protocol, spi = payload
    return bytes((protocol, len(spi))) + kind.to_bytes(2, "big") + spi + data


def parse_delete(body: bytes) -> Delete:
    """The body of D."""
    reader = Reader(body)
    protocol, size, count = reader.u8(), reader.u8(), reader.u16()
    if not protocol or size != _DELETED_SIZES.get(protocol) or (not size and count):
        raise Malformed("delete_spi", 1)
    if reader.remaining != size * count:
        raise Malformed("delete_length", 2)
    return Delete(protocol, tuple(reader.take(size) for _ in range(count)))


def build_delete(payload: Delete) -> bytes:
    """The body of D."""
    spis = payload.spis
    head = bytes((payload.protocol, 4 if spis else 0)) + len(spis).to_bytes(2, "big")
    return head + b"".join(spis)


def parse_configuration(body: bytes) -> Configuration:
    """The body of CP."""
    reader = Reader(body)
    kind = reader.u8()
    reader.take(3)
    if kind not in tuple(ConfigurationKind):
        raise Malformed("configuration_kind")
    attributes = []
    while reader.remaining:
        name, length = reader.u16() & 0x7FFF, reader.u16()
        attributes.append((name, reader.take(length)))
    return Configuration(kind, tuple(attributes))


def build_configuration(payload: Configuration) -> bytes:
    """The body of CP."""
    parts = [bytes((payload.kind, 0, 0, 0))]
    for name, value in payload.attributes:
        parts.append(name.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value)
    return b"".join(parts)


def internal_address(attributes: Configuration) -> tuple[bytes, int] | None:
    """Address and prefix length of INTERNAL_IP6_ADDRESS (3.15.1); ``None`` where there is none.

    An empty one, or one of zeros, asks for any address: it is sixteen zeros here.
    """
    value = attributes.first(MobileAttribute.INTERNAL_IP6_ADDRESS)
    if value is None:
        return None
    if not value:
        return bytes(16), 0
    if len(value) != 17 or value[16] > 128:
        raise Malformed("configuration_address")
    return value[:16], value[16]


def home_prefix(lifetime: int, prefix: bytes, length: int) -> bytes:
    """The value of MIP6_HOME_PREFIX (RFC 5026 7.2): seconds, prefix, length in bits."""
    return lifetime.to_bytes(4, "big") + prefix + bytes((length,))


def error_of(notifies: Sequence[Notify]) -> Notify | None:
    """The first notify that is an error (3.10.1)."""
    return next((each for each in notifies if each.kind < Notification.INITIAL_CONTACT), None)
