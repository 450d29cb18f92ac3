"""Key exchange methods of IKEv2 (transform type 4): x25519, the NIST curves, and MODP groups.

RFC 8031, 5903, 3526; tests of the peer's value by RFC 6989. Covered: making a public value from injected
randomness, the shared secret, refusal of values that are not in the group. Not covered: choosing a group
(``proposals``). The arithmetic on secrets is ``cryptography``'s throughout.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import dh, ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning

from ...wire import Refused

__all__ = ["GROUPS", "Group", "KeyExchange"]

Random = Callable[[int], bytes]


class KeyExchange:
    """One side's half of an exchange: what is sent, and what makes a secret of the peer's half.

    ``private`` is enough to go on elsewhere with :meth:`Group.resume`; it is never printed.
    """

    __slots__ = ("_agree", "private", "public")

    def __init__(self, private: bytes, public: bytes, agree: Callable[[bytes], bytes]) -> None:
        self.private = private
        self.public = public
        self._agree = agree

    def __repr__(self) -> str:
        return "KeyExchange(<hidden>)"

    def shared(self, peer_public: bytes) -> bytes:
        """The shared secret (g^ir of RFC 7296 2.14) with the Key Exchange Data of the peer's KE payload.

        :class:`Refused` ``invalid_ke`` if that has the wrong size or is no member of the group (RFC 6989).
        """
        try:
            return self._agree(peer_public)
        except ValueError:
            raise Refused("invalid_ke") from None


class Group(ABC):
    """A key exchange method: ``id`` is its number with IANA, ``public_size`` the octets of a public value."""

    __slots__ = ("id", "name", "public_size")

    def __init__(self, number: int, name: str, public_size: int) -> None:
        self.id = number
        self.name = name
        self.public_size = public_size

    def __repr__(self) -> str:
        return f"Group({self.name})"

    def generate(self, random: Random) -> KeyExchange:
        """A fresh half of an exchange; ``random(n)`` returns n octets that nobody can guess."""
        return self.resume(self._private(random))

    @abstractmethod
    def resume(self, private: bytes) -> KeyExchange:
        """The half of an exchange whose :attr:`KeyExchange.private` this is."""

    @abstractmethod
    def _private(self, random: Random) -> bytes: ...


class _X25519(Group):
    """RFC 8031: 32 octets; a shared secret of zeros is refused (its section 2.3)."""

    __slots__ = ()

    def _private(self, random: Random) -> bytes:
        return random(32)

    def resume(self, private: bytes) -> KeyExchange:
        key = X25519PrivateKey.from_private_bytes(private)

        def agree(peer_public: bytes) -> bytes:
            return key.exchange(X25519PublicKey.from_public_bytes(peer_public))

        return KeyExchange(private, key.public_key().public_bytes_raw(), agree)


class _Ecp(Group):
    """RFC 5903: the coordinates x and y side by side; the secret is the x coordinate alone."""

    __slots__ = ("_curve", "_size")

    def __init__(self, number: int, name: str, curve: ec.EllipticCurve) -> None:
        self._curve = curve
        self._size = (curve.key_size + 7) // 8
        super().__init__(number, name, 2 * self._size)

    def _private(self, random: Random) -> bytes:
        # FIPS 186-5 A.2.1: 64 bits more than the order, so that the remainder has no bias to speak of.
        scalar = int.from_bytes(random(self._size + 8), "big") % (self._curve.group_order - 1) + 1
        return scalar.to_bytes(self._size, "big")

    def resume(self, private: bytes) -> KeyExchange:
        key = ec.derive_private_key(int.from_bytes(private, "big"), self._curve)
        public = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

        def agree(peer_public: bytes) -> bytes:
            if len(peer_public) != self.public_size:
                raise ValueError("a coordinate is missing or too long")
            # The leading 4 says "uncompressed"; a point off the curve, or at infinity, is a ValueError.
            point = ec.EllipticCurvePublicKey.from_encoded_point(self._curve, b"\x04" + peer_public)
            return key.exchange(ec.ECDH(), point)

        return KeyExchange(private, public[1:], agree)


# MODP-2048 is a MUST of RFC 8247 2.4 for IKEv2; that TLS has no more use for such groups is why
# cryptography 50 warns of them, once for each name.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", CryptographyDeprecationWarning)
    _ParameterNumbers, _PublicNumbers, _PrivateNumbers = (
        dh.DHParameterNumbers,
        dh.DHPublicNumbers,
        dh.DHPrivateNumbers,
    )

_GENERATOR = 2


class _Modp(Group):
    """RFC 3526: a safe prime and generator 2; public value and secret are padded to the prime's length."""

    __slots__ = ("_exponent_size", "_parameters", "_prime")

    def __init__(self, number: int, name: str, prime: int, exponent_bits: int) -> None:
        super().__init__(number, name, prime.bit_length() // 8)
        self._prime = prime
        self._exponent_size = exponent_bits // 8
        self._parameters = _ParameterNumbers(prime, _GENERATOR)

    def _private(self, random: Random) -> bytes:
        # The top bit makes the exponent as long as it is meant to be.
        exponent = bytearray(random(self._exponent_size))
        exponent[0] |= 0x80
        return bytes(exponent)

    def resume(self, private: bytes) -> KeyExchange:
        # A private key wants its public value, which only the library may compute (pow() takes a time that
        # depends on the exponent): it is the "secret" shared with somebody whose public value is g.
        generator = _PublicNumbers(_GENERATOR, self._parameters)
        key = _PrivateNumbers(int.from_bytes(private, "big"), generator).private_key()

        def agree(peer_public: bytes) -> bytes:
            value = int.from_bytes(peer_public, "big")
            # RFC 6989 2.1: for a safe prime this is the whole test; no other value has a small order.
            if len(peer_public) != self.public_size or not 1 < value < self._prime - 1:
                raise ValueError("outside 2 to p - 2")
            return key.exchange(_PublicNumbers(value, self._parameters).public_key())

        return KeyExchange(private, key.exchange(generator.public_key()), agree)


# floor(2^3966 * pi): the digits that every prime of RFC 3526 up to 4096 bits has in its middle.
_PI_BITS = 3968
_PI = int(
    "c90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e3404ddef9519b3cd3a431b302b"
    "0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a637ed6b0bff5cb6f406b7edee386bfb5a899fa5ae9f2411"
    "7c4b1fe649286651ece45b3dc2007cb8a163bf0598da48361c55d39a69163fa8fd24cf5f83655d23dca3ad961c62f3562085"
    "52bb9ed529077096966d670c354e4abc9804f1746c08ca18217c32905e462e36ce3be39e772c180e86039b2783a2ec07a28f"
    "b5c55df06f4c52c9de2bcbf6955817183995497cea956ae515d2261898fa051015728e5a8aaac42dad33170d04507a33a855"
    "21abdf1cba64ecfb850458dbef0a8aea71575d060c7db3970f85a6e1e4c7abf5ae8cdb0933d71e8c94e04a25619dcee3d226"
    "1ad2ee6bf12ffa06d98a0864d87602733ec86a64521f2b18177b200cbbe117577a615d6c770988c0bad946e208e24fa074e5"
    "ab3143db5bfce0fd108e4b82d120a92108011a723c12a787e6d788719a10bdba5b2699c327186af4e23c1a946834b6150bda"
    "2583e9ca2ad44ce8dbbbc2db04de8ef92e8efc141fbecaa6287c59474e6bc05d99b2964fa090c3a2233ba186515be7ed1f61"
    "2970cee2d7afb81bdd762170481cd0069127d5b05aa993b4ea988d8fddc186ffb7dc90a6c08f4df435c934028492",
    16,
)


def _prime(bits: int, offset: int) -> int:
    """2^bits - 2^(bits - 64) - 1 + 2^64 * (floor(2^(bits - 130) * pi) + offset), RFC 3526."""
    pi = _PI >> (_PI_BITS - (bits - 128))
    return (1 << bits) - (1 << bits - 64) - 1 + ((pi + offset) << 64)


# The exponents of MODP groups have the length of RFC 3526 8's higher estimate.
GROUPS: dict[int, Group] = {
    group.id: group
    for group in (
        _X25519(31, "x25519", 32),
        _Ecp(19, "ecp-256", ec.SECP256R1()),
        _Ecp(20, "ecp-384", ec.SECP384R1()),
        _Ecp(21, "ecp-521", ec.SECP521R1()),
        _Modp(14, "modp-2048", _prime(2048, 124476), 320),
        _Modp(15, "modp-3072", _prime(3072, 1690314), 424),
        _Modp(16, "modp-4096", _prime(4096, 240904), 480),
    )
}
"""Every key exchange method, by its number with IANA."""
