"""Selectors and policies on the home address (RFC 3776 4, RFC 4877 4, RFC 4301 4.4.1).

Covered: which SA protects a message to a mobile node, which traffic from it must come protected.
Not covered: general SPDs; every policy here is between one home address and its home agent.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

__all__ = ["Direction", "Mode", "Selector", "Use", "selector"]

_MOBILITY = 135
_ICMPV6 = 58


class Direction(StrEnum):
    """Seen from the owner of the SAD."""

    IN = "in"
    OUT = "out"


class Mode(StrEnum):
    """RFC 4303 3.1."""

    TRANSPORT = "transport"
    TUNNEL = "tunnel"


class Use(StrEnum):
    """What a pair of SAs is for; each fixes mode and selectors (RFC 4877 4.2 to 4.4)."""

    BINDING = "binding"
    """Binding Update and Acknowledgement only."""
    SIGNALLING = "signalling"
    """All of protocol 135 between the home address and the home agent."""
    PREFIX = "prefix"
    """Mobile Prefix Solicitation and Advertisement."""
    RETURN_ROUTABILITY = "return-routability"
    """HoTI and HoT through the tunnel."""
    PAYLOAD = "payload"
    """Everything through the tunnel."""
    HARP = "harp"
    """All of protocol 135 between two members of a redundant set."""

    @property
    def mode(self) -> Mode:
        """Transport between home address and home agent, or tunnel between care-of address and home agent."""
        return Mode.TUNNEL if self in (Use.RETURN_ROUTABILITY, Use.PAYLOAD) else Mode.TRANSPORT


class Selector(NamedTuple):
    """Upper-layer protocol and message type (MH type or ICMPv6 type); ``None`` is any."""

    protocol: int | None = None
    type: int | None = None

    def matches(self, protocol: int, kind: int | None) -> bool:
        """Whether a message of ``protocol`` and type ``kind`` is selected."""
        if self.type is not None and kind != self.type:
            return False
        return self.protocol is None or protocol == self.protocol


# (towards the home agent, towards the mobile node)
_SELECTORS = {
    Use.BINDING: (Selector(_MOBILITY, 5), Selector(_MOBILITY, 6)),
    Use.SIGNALLING: (Selector(_MOBILITY), Selector(_MOBILITY)),
    Use.PREFIX: (Selector(_ICMPV6, 146), Selector(_ICMPV6, 147)),
    Use.RETURN_ROUTABILITY: (Selector(_MOBILITY, 1), Selector(_MOBILITY, 3)),
    Use.PAYLOAD: (Selector(), Selector()),
    Use.HARP: (Selector(_MOBILITY), Selector(_MOBILITY)),
}


def selector(use: Use, *, to_home_agent: bool) -> Selector:
    """The selector of one direction of ``use``."""
    return _SELECTORS[use][0 if to_home_agent else 1]
