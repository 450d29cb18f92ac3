"""What the mobile node's core may ask of the world, besides what it shares with the home agent.

Covered: its own effects, and the union of all that it uses. Not covered: how the edge carries them out.
"""

from __future__ import annotations

from typing import NamedTuple

from ..effects import AnnounceAddress, EndProbe, Event, ProbeAddress, ReserveSequences, SendPacket

__all__ = [
    "AnnounceAddress",
    "AtHome",
    "DropCareOfAddress",
    "EndProbe",
    "Event",
    "LeaveHome",
    "MobileEffect",
    "ProbeAddress",
    "ReserveSequences",
    "SendPacket",
    "SolicitRouter",
    "UseCareOfAddress",
]


class SolicitRouter(NamedTuple):
    """Send one Router Solicitation on the link (RFC 4861 6.3.7)."""


class UseCareOfAddress(NamedTuple):
    """Take packets to ``address`` from the link; what the core sends leaves by ``router`` (link-local)."""

    address: bytes
    router: bytes


class DropCareOfAddress(NamedTuple):
    """Stop taking packets to a care-of address, forget its router."""

    address: bytes


class AtHome(NamedTuple):
    """Answer for the home address on the link; its packets leave by ``router`` without a tunnel."""

    router: bytes


class LeaveHome(NamedTuple):
    """Undo :class:`AtHome`: the home address's packets go to the core again."""


MobileEffect = (
    SendPacket
    | ReserveSequences
    | Event
    | ProbeAddress
    | EndProbe
    | AnnounceAddress
    | SolicitRouter
    | UseCareOfAddress
    | DropCareOfAddress
    | AtHome
    | LeaveHome
)
