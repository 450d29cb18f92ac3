"""Keys of IKE SAs and of their children (RFC 7296 2.14, 2.17, 2.18).

Covered: SKEYSEED and the seven keys of an IKE SA, new or by re-key; KEYMAT of a child with and without a key
exchange of its own. Not covered: what the keys are for (``transforms``, ``authentication``, ``esp``).
"""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

from .transforms import Prf, Suite

__all__ = ["IkeKeys", "child_keys", "ike_keys", "rekeyed_ike_keys"]


class IkeKeys(NamedTuple):
    """SK_d, and for initiator and responder SK_a, SK_e and SK_p; ``ai`` and ``ar`` are empty with an AEAD."""

    d: bytes
    ai: bytes
    ar: bytes
    ei: bytes
    er: bytes
    pi: bytes
    pr: bytes

    def __repr__(self) -> str:
        return "IkeKeys(<hidden>)"


def ike_keys(  # noqa: PLR0917 - the inputs of the RFC's formula, in its order
    suite: Suite, nonce_i: bytes, nonce_r: bytes, shared: bytes, spi_i: bytes, spi_r: bytes
) -> IkeKeys:
    """The keys after IKE_SA_INIT (RFC 7296 2.14); ``shared`` is g^ir, the SPIs are eight octets each."""
    skeyseed = suite.prf(nonce_i + nonce_r, shared)
    return _expand(suite, skeyseed, nonce_i + nonce_r + spi_i + spi_r)


def rekeyed_ike_keys(  # noqa: PLR0917 - likewise
    old_prf: Prf,
    old_d: bytes,
    suite: Suite,
    nonce_i: bytes,
    nonce_r: bytes,
    shared: bytes,
    spi_i: bytes,
    spi_r: bytes,
) -> IkeKeys:
    """The keys of an IKE SA that replaces another (RFC 7296 2.18).

    SKEYSEED is made with the PRF and SK_d of the old SA, the rest with those of the new one; nonces, secret
    and SPIs are the new ones.
    """
    skeyseed = old_prf(old_d, shared + nonce_i + nonce_r)
    return _expand(suite, skeyseed, nonce_i + nonce_r + spi_i + spi_r)


def _expand(suite: Suite, skeyseed: bytes, seed: bytes) -> IkeKeys:
    prf = suite.prf.key_size
    integrity = suite.integrity.key_size if suite.integrity else 0
    encryption = suite.encryption.key_size
    sizes = (prf, integrity, integrity, encryption, encryption, prf, prf)
    return IkeKeys(*_cut(suite.prf.plus(skeyseed, seed, sum(sizes)), sizes))


def child_keys(  # noqa: PLR0917 - likewise
    prf: Prf,
    d: bytes,
    nonce_i: bytes,
    nonce_r: bytes,
    shared: bytes,
    encryption_size: int,
    integrity_size: int,
) -> tuple[bytes, bytes, bytes, bytes]:
    """KEYMAT of a child (RFC 7296 2.17): encryption and integrity key of what the initiator of the exchange
    sends, then of what the responder sends.

    ``shared`` is empty unless CREATE_CHILD_SA had a key exchange; sizes are octets, an AEAD's with its salt.
    """
    sizes = (encryption_size, integrity_size, encryption_size, integrity_size)
    keys = _cut(prf.plus(d, shared + nonce_i + nonce_r, sum(sizes)), sizes)
    return keys[0], keys[1], keys[2], keys[3]


def _cut(material: bytes, sizes: tuple[int, ...]) -> list[bytes]:
    ends = list(accumulate(sizes))
    return [material[end - size : end] for end, size in zip(ends, sizes, strict=True)]
