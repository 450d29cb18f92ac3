"""The layout of XFRM messages (linux/xfrm.h), and what states and policies have in common.

Covered: structures and attribute numbers, selectors, limits, usage. Where the kernel has host order, so have
we; only SPIs, ports and addresses are in network order. Not covered: IPv4, marks, interfaces.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import NamedTuple

from ..wire import UNSPECIFIED

__all__ = ["ANY", "FOREVER", "Limits", "Mode", "Selector", "Usage"]

PROTOCOL = 6
"""NETLINK_XFRM."""

NEW_STATE, DELETE_STATE, GET_STATE = 0x10, 0x11, 0x12
NEW_POLICY, DELETE_POLICY, GET_POLICY = 0x13, 0x14, 0x15
ALLOCATE_SPI, EXPIRE, UPDATE_POLICY, UPDATE_STATE = 0x16, 0x18, 0x19, 0x1A
POLICY_EXPIRE, FLUSH_STATES, FLUSH_POLICIES = 0x1B, 0x1C, 0x1D
NEW_EVENT, GET_EVENT, MIGRATE = 0x1E, 0x1F, 0x21
GROUP_EXPIRE, GROUP_STATE, GROUP_POLICY, GROUP_EVENTS = 2, 3, 4, 5

UNLIMITED = (1 << 64) - 1
_WHOLE = 128

SELECTOR = Struct("=16s16s8sHBBB3xiI")
ID = Struct("=16s4sB3x")
LIMITS = Struct("=8Q")
USAGE = Struct("=4Q")
STATE = Struct("=IIHBBB7x")
STATISTICS = Struct("=III")
STATE_ID = Struct("=16s4sHBx")
EVENT_ID = Struct("=16sII")
REPLAY = Struct("=III")
REPLAY_ESN = Struct("=6I")
POLICY = Struct("=IIBBBB4x")
POLICY_ID = Struct("=IB3x")
POLICY_TYPE = Struct("=BxHBx")
TEMPLATE = Struct("=16s4sB3xH2x16sIBBBxIII")
ALGORITHM = Struct("=64sI")
LONG_ALGORITHM = Struct("=64sII")
MIGRATION = Struct("=16s16s16s16sBBHIHH")
STATE_SIZE, POLICY_SIZE = 224, 168

A_CIPHER, A_TEMPLATES, A_STATE, A_POLICY, A_USAGE = 2, 5, 6, 7, 9
A_REPLAY, A_REPLAY_THRESHOLD, A_TIME_THRESHOLD, A_CARE_OF = 10, 11, 12, 14
A_SOURCE, A_POLICY_TYPE, A_MIGRATE, A_AEAD, A_INTEGRITY, A_REPLAY_ESN = 13, 16, 17, 18, 20, 23


class Mode(IntEnum):
    """How a state changes packets."""

    TRANSPORT = 0
    TUNNEL = 1
    ROUTE_OPTIMIZATION = 2
    """Home address option and type 2 routing header."""
    IN_TRIGGER, BEET, IP_TFS = 3, 4, 5
    """Only others' states have these."""


@dataclass(frozen=True, slots=True)
class Selector:
    """Which packets: prefixes, upper-layer protocol, and its type, of the Mobility Header or of ICMPv6.

    Protocol 0 is any. ``kind`` is a UDP or TCP packet's source port.
    """

    source: bytes = UNSPECIFIED
    source_length: int = 0
    destination: bytes = UNSPECIFIED
    destination_length: int = 0
    protocol: int = 0
    kind: int | None = None
    code: int | None = None
    """The code of ICMPv6, or a destination port."""

    @classmethod
    def between(
        cls, source: bytes, destination: bytes, protocol: int = 0, kind: int | None = None
    ) -> Selector:
        """Of two hosts."""
        return cls(source, _WHOLE, destination, _WHOLE, protocol, kind)

    def encoded(self) -> bytes:
        """``struct xfrm_selector``."""
        ports = b"".join(
            b"\0\0\0\0" if port is None else port.to_bytes(2, "big") + b"\xff\xff"
            for port in (self.code, self.kind)
        )
        return SELECTOR.pack(
            self.destination,
            self.source,
            ports,
            socket.AF_INET6,
            self.destination_length,
            self.source_length,
            self.protocol,
            0,
            0,
        )

    @classmethod
    def decoded(cls, data: bytes, offset: int = 0) -> Selector:
        """The other way."""
        destination, source, ports, _, to_length, from_length, protocol, _, _ = SELECTOR.unpack_from(
            data, offset
        )
        code, kind = (
            int.from_bytes(ports[at : at + 2], "big") if ports[at + 2 : at + 4] != b"\0\0" else None
            for at in (0, 4)
        )
        return cls(source, from_length, destination, to_length, protocol, kind, code)


ANY = Selector()
"""Every packet."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When a state expires: softly (an event), and for good (it is removed). ``None`` is never."""

    soft_octets: int | None = None
    hard_octets: int | None = None
    soft_packets: int | None = None
    hard_packets: int | None = None
    soft_seconds: int | None = None
    hard_seconds: int | None = None

    def encoded(self) -> bytes:
        """``struct xfrm_lifetime_cfg``; seconds count from the installation."""
        amounts = (self.soft_octets, self.hard_octets, self.soft_packets, self.hard_packets)
        return LIMITS.pack(
            *(UNLIMITED if amount is None else amount for amount in amounts),
            *(self.soft_seconds or 0, self.hard_seconds or 0, 0, 0),
        )

    @classmethod
    def decoded(cls, data: bytes, offset: int) -> Limits:
        """The other way."""
        values = LIMITS.unpack_from(data, offset)
        return cls(
            *(None if value == UNLIMITED else value for value in values[:4]),
            *(value or None for value in values[4:6]),
        )


FOREVER = Limits()
"""No limit."""


class Usage(NamedTuple):
    """What a state or policy was used for; the times are seconds since 1970, 0 for never."""

    octets: int = 0
    packets: int = 0
    added: int = 0
    first_used: int = 0

    @classmethod
    def decoded(cls, data: bytes, offset: int = 0) -> Usage:
        """``struct xfrm_lifetime_cur``."""
        return cls(*USAGE.unpack_from(data, offset))
