"""What the mobile node's core may ask of the world, besides what it shares with the home agent.

Covered: its own effects, and the unions of all that it uses. Not covered: how the edge carries them out.
"""

from __future__ import annotations

from typing import NamedTuple

from ..effects import (
    AnnounceAddress,
    EndProbe,
    Event,
    LogKeys,
    ProbeAddress,
    RemoveTunnel,
    ReserveSequences,
    SendPacket,
    SetTunnel,
)

__all__ = [
    "AcknowledgedAt",
    "AnnounceAddress",
    "AtHome",
    "DropCareOfAddress",
    "EndProbe",
    "Event",
    "LeaveHome",
    "LinkEffect",
    "LogKeys",
    "MobileEffect",
    "ProbeAddress",
    "RemoveTunnel",
    "ReserveSequences",
    "SendMessage",
    "SendPacket",
    "SetTunnel",
    "SignallingEffect",
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


class SendMessage(NamedTuple):
    """Send a Mobility Header or ICMPv6 message from the home address to the home agent.

    From ``care_of_address`` with a home address option, or from home (``None``); under ESP where there is an
    SA for it. The checksum in ``octets`` is that between home address and home agent.
    """

    protocol: int
    octets: bytes
    care_of_address: bytes | None


class AcknowledgedAt(NamedTuple):
    """The home agent knows us at ``address``; with ``key_management`` (K, RFC 6275 6.1.8) its IKE too."""

    address: bytes
    key_management: bool


LinkEffect = (
    Event
    | ProbeAddress
    | EndProbe
    | AnnounceAddress
    | SolicitRouter
    | UseCareOfAddress
    | DropCareOfAddress
    | AtHome
    | LeaveHome
)
"""What is the same whoever makes the packets."""

SignallingEffect = LinkEffect | SendMessage | SetTunnel | RemoveTunnel | AcknowledgedAt
"""With the kernel making the packets: ``SetTunnel`` lets applications' packets into the tunnel."""

MobileEffect = LinkEffect | SendPacket | ReserveSequences | LogKeys
"""With ``mobile_node`` making the packets."""
