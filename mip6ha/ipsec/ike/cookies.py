"""Stateless cookies and rates: what a stranger's IKE_SA_INIT costs us (RFC 7296 2.6).

Covered: a cookie that proves an address, kept by nobody; how often one source may ask. Not covered: when a
cookie is demanded (``endpoint``).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.constant_time import bytes_eq
from cryptography.hazmat.primitives.hmac import HMAC

from ...rate import TokenBucket

__all__ = ["SECRET_LIFETIME", "Cookies", "SourceRates"]

SECRET_LIFETIME = 60.0
"""Seconds until a new secret; the one before is still good for as long."""


class Cookies:
    """Cookies under a secret that changes; nothing is kept for those that got one."""

    def __init__(self, random: Callable[[int], bytes], now: float) -> None:
        self._random = random
        self._secrets = [random(32), random(32)]
        self._version = 0
        self._since = now

    def _rotate(self, now: float) -> None:
        if now - self._since >= SECRET_LIFETIME:
            # After a long silence both secrets are too old.
            both = now - self._since >= 2 * SECRET_LIFETIME
            self._secrets = [self._random(32), self._random(32) if both else self._secrets[0]]
            self._version = self._version + 1 & 0xFF
            self._since = now

    def make(self, nonce: bytes, address: bytes, spi: bytes, now: float) -> bytes:
        """The cookie that an initiator must return: the secret's number and a code."""
        self._rotate(now)
        return bytes((self._version,)) + _code(self._secrets[0], nonce, address, spi)

    def holds(self, cookie: bytes, nonce: bytes, address: bytes, spi: bytes, now: float) -> bool:
        """Whether we made this cookie for that nonce, address and SPI, not long ago."""
        self._rotate(now)
        age = self._version - cookie[0] & 0xFF if cookie else 2
        return age < 2 and bytes_eq(_code(self._secrets[age], nonce, address, spi), cookie[1:])


def _code(secret: bytes, nonce: bytes, address: bytes, spi: bytes) -> bytes:
    code = HMAC(secret, hashes.SHA256())
    code.update(spi + address + nonce)
    return code.finalize()[:16]


class SourceRates:
    """A token bucket for each /64 (or IPv4 address) that asked lately, for so many of them."""

    def __init__(self, rate: float, burst: float, sources: int) -> None:
        self._rate, self._burst, self._most = rate, burst, sources
        self._buckets: OrderedDict[bytes, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, address: bytes, now: float) -> bool:
        """Whether a source may ask once more."""
        source = address[:8]
        bucket = self._buckets.get(source)
        if bucket is None:
            bucket = self._buckets[source] = TokenBucket(self._rate, self._burst, now)
            if len(self._buckets) > self._most:
                # Who asked least recently has had the longest time to fill up again.
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(source)
        return bucket.take(now)
