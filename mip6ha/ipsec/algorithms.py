"""ESP transforms: AES-GCM-16, ChaCha20-Poly1305, AES-CBC and NULL with HMAC.

RFC 8221, 4106, 7634, 4868, 2404. Covered: turning the octets behind SPI and sequence number into
plaintext and back, key lengths. Not covered: padding, windows, sequence numbers (``esp``). Every
primitive is ``cryptography``'s.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.constant_time import bytes_eq
from cryptography.hazmat.primitives.hmac import HMAC

from ..wire import Refused

__all__ = ["AEAD", "ENCRYPTION", "INTEGRITY", "Keys", "Transform", "by_name", "transform"]

_CACHED_CIPHERS = 1024


class Keys:
    """Key material of one SA; the salt of an AEAD stands at the end of ``encryption`` (RFC 4106 8.1)."""

    __slots__ = ("encryption", "integrity")

    def __init__(self, encryption: bytes = b"", integrity: bytes = b"") -> None:
        self.encryption = encryption
        self.integrity = integrity

    def __repr__(self) -> str:
        return "Keys(<hidden>)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Keys):
            return NotImplemented
        return self.encryption == other.encryption and self.integrity == other.integrity

    def __hash__(self) -> int:
        return hash((self.encryption, self.integrity))


class Transform(Protocol):
    """One way to protect ESP; stateless, so that one object serves every SA that uses it."""

    name: str
    encryption_lengths: tuple[int, ...]
    integrity_length: int
    iv_length: int
    icv_length: int
    align: int
    """Payload, padding and trailer together are a multiple of this many octets."""
    counter_iv: bool
    """The IV is a counter that must never repeat (AEAD); otherwise it is random."""

    def open(self, keys: Keys, packet: bytes, high: bytes) -> bytes:
        """The plaintext of an ESP packet; :class:`Refused` ``bad_icv`` if it does not verify.

        ``high`` is the upper half of an extended sequence number, empty without ESN.
        """

    def seal(self, keys: Keys, head: bytes, high: bytes, iv: bytes, plaintext: bytes) -> bytes:
        """The ESP packet for ``plaintext`` behind ``head`` (SPI and sequence number)."""


# A keyed cipher object takes about 2.5 KB, more than everything else that a binding needs, and
# making one costs less than a microsecond: keep the busy ones only.
@lru_cache(maxsize=_CACHED_CIPHERS)
def _aes_gcm(key: bytes) -> AESGCM:
    return AESGCM(key[:-4])


@lru_cache(maxsize=_CACHED_CIPHERS)
def _chacha20_poly1305(key: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(key[:-4])


class _Aead:
    integrity_length = 0
    iv_length = 8
    icv_length = 16
    align = 4
    counter_iv = True

    def __init__(
        self, name: str, lengths: tuple[int, ...], cipher: Callable[[bytes], AESGCM | ChaCha20Poly1305]
    ) -> None:
        self.name = name
        self.encryption_lengths = lengths
        self._cipher = cipher

    def open(self, keys: Keys, packet: bytes, high: bytes) -> bytes:
        key = keys.encryption
        head = packet[:4] + high + packet[4:8] if high else packet[:8]
        try:
            return self._cipher(key).decrypt(key[-4:] + packet[8:16], packet[16:], head)
        except InvalidTag:
            raise Refused("bad_icv") from None

    def seal(self, keys: Keys, head: bytes, high: bytes, iv: bytes, plaintext: bytes) -> bytes:
        key = keys.encryption
        data = head[:4] + high + head[4:] if high else head
        return head + iv + self._cipher(key).encrypt(key[-4:] + iv, plaintext, data)


class _Hmac(NamedTuple):
    name: str
    algorithm: hashes.HashAlgorithm
    key_length: int
    icv_length: int

    def code(self, key: bytes, data: bytes) -> bytes:
        code = HMAC(key, self.algorithm)
        code.update(data)
        return code.finalize()[: self.icv_length]


class _Authenticated:
    """NULL encryption (RFC 2410) with an HMAC, and what AES-CBC adds to it."""

    encryption_lengths: tuple[int, ...] = (0,)
    iv_length = 0
    align = 4
    counter_iv = False

    def __init__(self, encryption: str, integrity: _Hmac) -> None:
        self.name = f"{encryption}+{integrity.name}"
        self.integrity_length = integrity.key_length
        self.icv_length = integrity.icv_length
        self._integrity = integrity

    def open(self, keys: Keys, packet: bytes, high: bytes) -> bytes:
        covered, icv = packet[: -self.icv_length], packet[-self.icv_length :]
        if not bytes_eq(self._integrity.code(keys.integrity, covered + high), icv):
            raise Refused("bad_icv")
        start = 8 + self.iv_length
        return self.decrypt(keys, covered[8:start], covered[start:])

    def seal(self, keys: Keys, head: bytes, high: bytes, iv: bytes, plaintext: bytes) -> bytes:
        packet = head + iv + self.encrypt(keys, iv, plaintext)
        return packet + self._integrity.code(keys.integrity, packet + high)

    def decrypt(self, keys: Keys, iv: bytes, ciphertext: bytes) -> bytes:
        """Plaintext of a verified packet."""
        return ciphertext

    def encrypt(self, keys: Keys, iv: bytes, plaintext: bytes) -> bytes:
        """Ciphertext, as long as ``plaintext``."""
        return plaintext


class _AesCbc(_Authenticated):
    encryption_lengths = (16, 24, 32)
    iv_length = 16
    align = 16

    def decrypt(self, keys: Keys, iv: bytes, ciphertext: bytes) -> bytes:
        if len(ciphertext) % 16:
            raise Refused("bad_padding")
        cipher = Cipher(algorithms.AES(keys.encryption), modes.CBC(iv)).decryptor()
        return cipher.update(ciphertext) + cipher.finalize()

    def encrypt(self, keys: Keys, iv: bytes, plaintext: bytes) -> bytes:
        cipher = Cipher(algorithms.AES(keys.encryption), modes.CBC(iv)).encryptor()
        return cipher.update(plaintext) + cipher.finalize()


_HMACS = (
    _Hmac("hmac-sha2-256-128", hashes.SHA256(), 32, 16),
    _Hmac("hmac-sha2-384-192", hashes.SHA384(), 48, 24),
    _Hmac("hmac-sha2-512-256", hashes.SHA512(), 64, 32),
    # For old peers only: the configuration must ask for it by name (RFC 8221 6 discourages it).
    _Hmac("hmac-sha1-96", hashes.SHA1(), 20, 12),
)

_AEADS: dict[str, Transform] = {
    "aes-gcm-16": _Aead("aes-gcm-16", (20, 28, 36), _aes_gcm),
    "chacha20-poly1305": _Aead("chacha20-poly1305", (36,), _chacha20_poly1305),
}
_COMPOSED: dict[tuple[str, str], Transform] = {
    (name, integrity.name): kind(name, integrity)
    for name, kind in (("aes-cbc", _AesCbc), ("null", _Authenticated))
    for integrity in _HMACS
}

AEAD = tuple(_AEADS)
"""Names of the encryptions that bring their own integrity."""
ENCRYPTION = (*AEAD, "aes-cbc", "null")
"""Names of every encryption."""
INTEGRITY = tuple(integrity.name for integrity in _HMACS)
"""Names of every separate integrity algorithm."""


_BY_NAME: dict[str, Transform] = {each.name: each for each in (*_AEADS.values(), *_COMPOSED.values())}


def by_name(name: str) -> Transform:
    """The transform whose ``name`` is this; ``ValueError`` if there is none."""
    try:
        return _BY_NAME[name]
    except KeyError:
        raise ValueError("no such transform") from None


def transform(encryption: str, integrity: str | None = None) -> Transform:
    """The transform of those names; ``ValueError`` says what is allowed."""
    if encryption in _AEADS:
        if integrity is not None:
            raise ValueError(f"{encryption} takes no integrity algorithm")
        return _AEADS[encryption]
    if encryption not in ENCRYPTION:
        raise ValueError(f"encryption must be one of {', '.join(ENCRYPTION)}")
    found = _COMPOSED.get((encryption, integrity or ""))
    if found is None:
        raise ValueError(f"{encryption} needs an integrity algorithm, one of {', '.join(INTEGRITY)}")
    return found
