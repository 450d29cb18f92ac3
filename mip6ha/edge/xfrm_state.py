"""Security associations as the kernel keeps them: data, and both directions of encoding.

Covered: ESP with our transforms, home address options and type 2 routing headers, counters. Not covered:
IPv4, marks, interfaces, UDP encapsulation, compression; the conversation with the kernel (``xfrm``).

A "state" is the kernel's word for a security association, and for what inserts or accepts home address
options and type 2 routing headers.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from enum import IntFlag
from struct import Struct
from typing import NamedTuple

from ..ipsec.algorithms import Keys
from ..wire import UNSPECIFIED
from .netlink_messages import attribute
from .xfrm_layout import (
    A_AEAD,
    A_CARE_OF,
    A_CIPHER,
    A_INTEGRITY,
    A_REPLAY,
    A_REPLAY_ESN,
    ALGORITHM,
    ANY,
    FOREVER,
    ID,
    LONG_ALGORITHM,
    REPLAY,
    REPLAY_ESN,
    STATE,
    STATE_ID,
    STATISTICS,
    USAGE,
    Limits,
    Mode,
    Selector,
    Usage,
)

__all__ = ["Counters", "InstalledState", "Protection", "State", "StateFlag", "StateId"]


class StateFlag(IntFlag):
    """Switches of a state."""

    NONE = 0
    NO_ECN = 1
    DECAPSULATE_DSCP = 2
    NO_PATH_MTU_DISCOVERY = 4
    WILD_RECEIVE = 8
    """It stands for every address (only the state that accepts home address options)."""
    ICMP = 16
    ANY_FAMILY = 32
    ALIGN_4 = 64
    ESN = 128
    """Extended sequence numbers."""


@dataclass(frozen=True, slots=True)
class Protection:
    """The transform of an ESP state by the name that ``ipsec.algorithms`` has for it, and its keys.

    A transform that is not ours has the kernel's names for it.
    """

    transform: str
    keys: Keys

    def encoded(self) -> bytes:
        """The attributes with the algorithms; ``ValueError`` if the kernel has none of that name."""
        aead = _AEAD.get(self.transform)
        if aead is not None:
            key = self.keys.encryption
            name, length = aead
            return attribute(A_AEAD, LONG_ALGORITHM.pack(name.encode(), len(key) * 8, length) + key)
        encryption, _, integrity = self.transform.partition("+")
        if encryption not in _CIPHERS or integrity not in _HMACS:
            raise ValueError("no such transform in the kernel")
        name, length = _HMACS[integrity]
        key = self.keys.integrity
        authentication = LONG_ALGORITHM.pack(name.encode(), len(key) * 8, length) + key
        key = self.keys.encryption
        cipher = ALGORITHM.pack(_CIPHERS[encryption].encode(), len(key) * 8) + key
        return attribute(A_INTEGRITY, authentication) + attribute(A_CIPHER, cipher)

    @classmethod
    def decoded(cls, found: dict[int, bytes]) -> Protection | None:
        """From the attributes of a state; ``None`` for one that protects nothing."""
        if A_AEAD in found:
            data = found[A_AEAD]
            name, _, length = LONG_ALGORITHM.unpack_from(data)
            ours = _NAMES.get((_name(name), length), f"{_name(name)}/{length}")
            return cls(ours, Keys(data[LONG_ALGORITHM.size :]))
        if A_CIPHER not in found and A_INTEGRITY not in found:
            return None
        encryption = authentication = ""
        encryption_key = integrity_key = b""
        if A_CIPHER in found:
            data = found[A_CIPHER]
            name = _name(data[:64])
            encryption, encryption_key = _NAMES.get((name, 0), name), data[ALGORITHM.size :]
        if A_INTEGRITY in found:
            data = found[A_INTEGRITY]
            name, length = _name(data[:64]), LONG_ALGORITHM.unpack_from(data)[2]
            authentication = _NAMES.get((name, length), f"{name}/{length}")
            integrity_key = data[LONG_ALGORITHM.size :]
        return cls(f"{encryption}+{authentication}", Keys(encryption_key, integrity_key))


def _name(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode(errors="replace")


# Name in ipsec.algorithms -> (the kernel's name, bits of the ICV).
_AEAD = {
    "aes-gcm-16": ("rfc4106(gcm(aes))", 128),
    "chacha20-poly1305": ("rfc7539esp(chacha20,poly1305)", 128),
}
_HMACS = {
    "hmac-sha2-256-128": ("hmac(sha256)", 128),
    "hmac-sha2-384-192": ("hmac(sha384)", 192),
    "hmac-sha2-512-256": ("hmac(sha512)", 256),
    "hmac-sha1-96": ("hmac(sha1)", 96),
}
_CIPHERS = {"aes-cbc": "cbc(aes)", "null": "ecb(cipher_null)"}
_NAMES = {theirs: ours for ours, theirs in (_AEAD | _HMACS).items()} | {
    (theirs, 0): ours for ours, theirs in _CIPHERS.items()
}


@dataclass(frozen=True, slots=True)
class Counters:
    """Where the numbers of a state stand, 64 bits with ESN, otherwise 32.

    ``sent`` is the last number used. ``received`` is the highest number accepted; bit ``n`` of ``seen``
    stands for ``received - n`` (as in ``ipsec.replay.ReplayWindow``).
    """

    sent: int = 0
    received: int = 0
    seen: int = 0

    def encoded(self, window: int) -> bytes:
        """``XFRMA_REPLAY_ESN_VAL``: its bitmap is a ring, a number's place in it (number - 1) % window."""
        words = -(-window // 32)
        bits = self.seen & (1 << window) - 1
        ring = _rotated(_reversed(bits, window), (self.received - 1) % window + 1, window) if bits else 0
        return attribute(
            A_REPLAY_ESN,
            REPLAY_ESN.pack(
                words,
                self.sent & 0xFFFFFFFF,
                self.received & 0xFFFFFFFF,
                self.sent >> 32,
                self.received >> 32,
                window,
            )
            + Struct(f"={words}I").pack(*(ring >> 32 * word & 0xFFFFFFFF for word in range(words))),
        )

    @classmethod
    def decoded(cls, found: dict[int, bytes]) -> tuple[Counters, int]:
        """The counters and the size of the window, in either form that the kernel has for them."""
        if A_REPLAY_ESN in found:
            data = found[A_REPLAY_ESN]
            words, sent, received, sent_high, received_high, window = REPLAY_ESN.unpack_from(data)
            ring = sum(
                word << 32 * index
                for index, word in enumerate(Struct(f"={words}I").unpack_from(data, REPLAY_ESN.size))
            )
            received |= received_high << 32
            seen = 0
            if ring and window:
                seen = _reversed(_rotated(ring, -((received - 1) % window + 1), window), window)
            return cls(sent | sent_high << 32, received, seen), window
        if A_REPLAY in found:
            sent, received, seen = REPLAY.unpack_from(found[A_REPLAY])
            return cls(sent, received, seen), 0
        return cls(), 0


def _reversed(bits: int, size: int) -> int:
    return int(f"{bits:0{size}b}"[::-1], 2)


def _rotated(bits: int, left: int, size: int) -> int:
    left %= size
    return (bits << left | bits >> size - left) & (1 << size) - 1


class StateId(NamedTuple):
    """What a state is found by."""

    destination: bytes
    protocol: int
    spi: int = 0
    source: bytes = UNSPECIFIED
    """Only states without SPI need it."""

    def encoded(self) -> bytes:
        """``struct xfrm_usersa_id``."""
        return STATE_ID.pack(self.destination, self.spi.to_bytes(4, "big"), socket.AF_INET6, self.protocol)

    @classmethod
    def decoded(cls, data: bytes, source: bytes = UNSPECIFIED) -> StateId:
        """The other way."""
        destination, spi, _, protocol = STATE_ID.unpack_from(data)
        return cls(destination, protocol, int.from_bytes(spi, "big"), source)


@dataclass(frozen=True, slots=True)
class State:
    """A state as one wants it.

    ``window`` is the size of the replay window, 0 for protocols without sequence numbers. ``reqid`` ties it
    to policies, and says whose it is.
    """

    source: bytes
    destination: bytes
    protocol: int
    mode: Mode
    spi: int = 0
    reqid: int = 0
    selector: Selector = ANY
    protection: Protection | None = None
    care_of_address: bytes | None = None
    flags: StateFlag = StateFlag.NONE
    window: int = 0
    limits: Limits = FOREVER

    @property
    def id(self) -> StateId:
        """What it is found by."""
        return StateId(self.destination, self.protocol, self.spi, self.source)

    def head(self) -> bytes:
        """``struct xfrm_usersa_info``."""
        return b"".join(
            (
                self.selector.encoded(),
                ID.pack(self.destination, self.spi.to_bytes(4, "big"), self.protocol),
                self.source,
                self.limits.encoded(),
                bytes(USAGE.size + STATISTICS.size),
                STATE.pack(0, self.reqid, socket.AF_INET6, self.mode, 0, self.flags),
            )
        )

    def encoded(self, counters: Counters) -> bytes:
        """The body of a message that installs it."""
        parts = [self.head()]
        if self.protection is not None:
            parts.append(self.protection.encoded())
        if self.care_of_address is not None:
            parts.append(attribute(A_CARE_OF, self.care_of_address))
        if self.window:
            parts.append(counters.encoded(self.window))
        return b"".join(parts)


@dataclass(frozen=True, slots=True)
class InstalledState:
    """A state as the kernel has it. ``outside_window``, ``replayed`` and ``forged`` count refused packets."""

    state: State
    counters: Counters
    usage: Usage
    outside_window: int
    replayed: int
    forged: int

    @classmethod
    def decoded(cls, body: bytes, found: dict[int, bytes]) -> InstalledState:
        """From the body of a message and its attributes."""
        destination, spi, protocol = ID.unpack_from(body, 56)
        outside, replayed, forged = STATISTICS.unpack_from(body, 192)
        _, reqid, _, mode, short_window, flags = STATE.unpack_from(body, 204)
        counters, window = Counters.decoded(found)
        state = State(
            body[80:96],
            destination,
            protocol,
            Mode(mode),
            int.from_bytes(spi, "big"),
            reqid,
            Selector.decoded(body),
            Protection.decoded(found),
            found.get(A_CARE_OF),
            StateFlag(flags),
            window or short_window,
            Limits.decoded(body, 96),
        )
        return cls(state, counters, Usage.decoded(body, 160), outside, replayed, forged)
