"""Transforms of IKEv2: encryption, integrity, PRFs, and the protection of an Encrypted payload.

RFC 7296 3.3.2 and 3.14, RFC 5282 (AEAD), 7634 (ChaCha20-Poly1305), 4868 (HMAC-SHA2), numbers of RFC 8247
and IANA. Covered: what ``ENCRYPTIONS``, ``INTEGRITIES`` and ``PRFS`` list, prf+ (RFC 7296 2.13), sealing and
opening of an Encrypted payload or fragment. Not covered: key exchange (``groups``, named here too), choosing
transforms (``proposals``), ESP (``algorithms``, whose names these share).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.constant_time import bytes_eq
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from ...wire import Malformed, Refused
from .groups import GROUPS, Group, KeyExchange

__all__ = [
    "ENCRYPTIONS",
    "GROUPS",
    "INTEGRITIES",
    "PRFS",
    "Encryption",
    "Group",
    "Integrity",
    "KeyExchange",
    "Prf",
    "Protection",
    "Suite",
]

SALT_SIZE = 4
"""Octets at the end of an AEAD's key that begin each nonce (RFC 5282 4, RFC 7634 2)."""
IV_COUNTER_BITS = 40
"""Bits of a counter IV that count; the 24 above say who counts, as in ESP (``sad``)."""


class Encryption(NamedTuple):
    """An encryption algorithm with a key length. Sizes are octets; ``key_size`` has an AEAD's salt in it.

    ``key_bits`` is the Key Length attribute, ``None`` where the algorithm has one length only and the
    attribute must be absent (RFC 7296 3.3.5). ``family`` is its name in ``algorithms``.
    """

    id: int
    key_bits: int | None
    name: str
    family: str
    key_size: int
    iv_size: int
    icv_size: int
    block: int
    is_aead: bool


class Integrity(NamedTuple):
    """A separate integrity algorithm; sizes are octets. ``name`` is its name in ``algorithms`` too."""

    id: int
    name: str
    key_size: int
    icv_size: int
    algorithm: hashes.HashAlgorithm

    def code(self, key: bytes, data: bytes) -> bytes:
        """The truncated HMAC of ``data``."""
        return _hmac(self.algorithm, key, data)[: self.icv_size]


class Prf(NamedTuple):
    """A pseudorandom function; ``key_size`` is its preferred key length, ``size`` its output, octets."""

    id: int
    name: str
    key_size: int
    size: int
    algorithm: hashes.HashAlgorithm

    def __call__(self, key: bytes, data: bytes) -> bytes:
        """prf(key, data)."""
        return _hmac(self.algorithm, key, data)

    def plus(self, key: bytes, seed: bytes, length: int) -> bytes:
        """The first ``length`` octets of prf+(key, seed), RFC 7296 2.13; ``ValueError`` past 255 blocks."""
        # With an HMAC this is, octet for octet, the expansion of HKDF (RFC 5869 2.3).
        return HKDFExpand(self.algorithm, length, seed).derive(key)


class Suite(NamedTuple):
    """What an IKE SA has agreed on; ``integrity`` is ``None`` with an AEAD, and only then."""

    encryption: Encryption
    integrity: Integrity | None
    prf: Prf
    group: Group


def _hmac(algorithm: hashes.HashAlgorithm, key: bytes, data: bytes) -> bytes:
    code = HMAC(key, algorithm)
    code.update(data)
    return code.finalize()


class Protection:
    """The Encrypted payloads of one IKE SA in one direction (RFC 7296 3.14, RFC 5282).

    ``iv_prefix`` is the upper 24 bits of a counter IV: member id and term, since another member goes on with
    the same keys after a failover. ``counter`` is the rest of the next IV, ``None`` before the first. A
    prefix has one counter: who rebuilds this object for the same prefix carries the counter over.
    """

    __slots__ = ("counter", "encryption_key", "integrity_key", "iv_prefix", "suite")

    def __init__(
        self,
        suite: Suite,
        encryption_key: bytes,
        integrity_key: bytes = b"",
        iv_prefix: int = 0,
        counter: int | None = None,
    ) -> None:
        integrity = suite.integrity
        if len(encryption_key) != suite.encryption.key_size:
            raise ValueError(f"{suite.encryption.name} takes a key of {suite.encryption.key_size} octets")
        if len(integrity_key) != (integrity.key_size if integrity else 0):
            raise ValueError("an integrity key of the wrong size")
        if suite.encryption.is_aead == (integrity is not None):
            raise ValueError("an AEAD stands alone, any other encryption needs an integrity algorithm")
        self.suite = suite
        self.encryption_key = encryption_key
        self.integrity_key = integrity_key
        self.iv_prefix = iv_prefix
        self.counter = counter

    def __repr__(self) -> str:
        return f"Protection({self.suite.encryption.name}, <hidden>)"

    def sealed_size(self, plaintext_size: int) -> int:
        """Octets that :meth:`seal` makes of so many; the lengths in the header before them count these."""
        encryption, integrity = self.suite.encryption, self.suite.integrity
        padded = plaintext_size + 1 + -(plaintext_size + 1) % encryption.block
        return encryption.iv_size + padded + (integrity.icv_size if integrity else encryption.icv_size)

    def seal(self, head: bytes, plaintext: bytes, random: Callable[[int], bytes]) -> bytes:
        """IV, ciphertext and ICV that follow ``head``: the whole message up to there.

        ``head`` goes from the IKE header to the Encrypted payload's generic header, with the fragment's
        numbers (RFC 7383 2.5), and all its lengths are final.
        """
        encryption, integrity = self.suite.encryption, self.suite.integrity
        padding = -(len(plaintext) + 1) % encryption.block
        padded = plaintext + bytes(padding) + bytes((padding,))
        if integrity is None:
            iv = self._next_iv(random)
            nonce = self.encryption_key[-SALT_SIZE:] + iv
            return iv + self._aead().encrypt(nonce, padded, head)
        iv = random(encryption.iv_size)
        encryptor = Cipher(algorithms.AES(self.encryption_key), modes.CBC(iv)).encryptor()
        sealed = iv + encryptor.update(padded) + encryptor.finalize()
        return sealed + integrity.code(self.integrity_key, head + sealed)

    def open(self, head: bytes, octets: bytes) -> bytes:
        """The plaintext, without padding, of what follows ``head`` to the end of the message.

        :class:`Refused` ``ike_integrity`` if it does not verify; :class:`Malformed` if it is too short or,
        verified, breaks RFC 7296 3.14.
        """
        encryption, integrity = self.suite.encryption, self.suite.integrity
        if len(octets) < self.sealed_size(0):
            raise Malformed("truncated", len(head) + len(octets))
        iv = octets[: encryption.iv_size]
        if integrity is None:
            nonce = self.encryption_key[-SALT_SIZE:] + iv
            try:
                padded = self._aead().decrypt(nonce, octets[encryption.iv_size :], head)
            except InvalidTag:
                raise Refused("ike_integrity") from None
        else:
            covered, icv = octets[: -integrity.icv_size], octets[-integrity.icv_size :]
            if not bytes_eq(integrity.code(self.integrity_key, head + covered), icv):
                raise Refused("ike_integrity")
            if len(covered) % encryption.block:
                raise Malformed("ike_padding", len(head) + len(covered))
            decryptor = Cipher(algorithms.AES(self.encryption_key), modes.CBC(iv)).decryptor()
            padded = decryptor.update(covered[encryption.iv_size :]) + decryptor.finalize()
        # What the padding holds is the sender's business; only its length must fit.
        end = len(padded) - 1 - padded[-1]
        if end < 0:
            raise Malformed("ike_padding", len(head) + encryption.iv_size)
        return padded[:end]

    # A keyed cipher object costs a microsecond to make and two and a half kilobytes to keep.
    def _aead(self) -> AESGCM | ChaCha20Poly1305:
        kind = ChaCha20Poly1305 if self.suite.encryption.id == _CHACHA20_POLY1305 else AESGCM
        return kind(self.encryption_key[:-SALT_SIZE])

    def _next_iv(self, random: Callable[[int], bytes]) -> bytes:
        """An IV that this key never saw (RFC 5282 3.1).

        The count begins at random, so that even a counter that was not carried over repeats none but by a
        chance of one in 2^40.
        """
        if self.counter is None:
            self.counter = int.from_bytes(random(IV_COUNTER_BITS // 8), "big")
        iv = self.iv_prefix << IV_COUNTER_BITS | self.counter
        self.counter = (self.counter + 1) % (1 << IV_COUNTER_BITS)
        return iv.to_bytes(8, "big")


_AES_CBC = 12
_AES_GCM_16 = 20
_CHACHA20_POLY1305 = 28


def _aes_cbc(bits: int) -> Encryption:
    return Encryption(_AES_CBC, bits, f"aes-cbc-{bits}", "aes-cbc", bits // 8, 16, 0, 16, False)


def _aes_gcm(bits: int) -> Encryption:
    size = bits // 8 + SALT_SIZE
    return Encryption(_AES_GCM_16, bits, f"aes-gcm-16-{bits}", "aes-gcm-16", size, 8, 16, 1, True)


_CHACHA = "chacha20-poly1305"

ENCRYPTIONS: dict[tuple[int, int | None], Encryption] = {
    (encryption.id, encryption.key_bits): encryption
    for encryption in (
        *(_aes_gcm(bits) for bits in (128, 192, 256)),
        Encryption(_CHACHA20_POLY1305, None, _CHACHA, _CHACHA, 32 + SALT_SIZE, 8, 16, 1, True),
        *(_aes_cbc(bits) for bits in (128, 192, 256)),
    )
}
"""Encryption by (transform id, Key Length attribute or ``None``)."""

INTEGRITIES: dict[int, Integrity] = {
    integrity.id: integrity
    for integrity in (
        Integrity(12, "hmac-sha2-256-128", 32, 16, hashes.SHA256()),
        Integrity(13, "hmac-sha2-384-192", 48, 24, hashes.SHA384()),
        Integrity(14, "hmac-sha2-512-256", 64, 32, hashes.SHA512()),
    )
}
"""Integrity by transform id."""

PRFS: dict[int, Prf] = {
    prf.id: prf
    for prf in (
        Prf(5, "prf-hmac-sha2-256", 32, 32, hashes.SHA256()),
        Prf(6, "prf-hmac-sha2-384", 48, 48, hashes.SHA384()),
        Prf(7, "prf-hmac-sha2-512", 64, 64, hashes.SHA512()),
    )
}
"""PRF by transform id."""
