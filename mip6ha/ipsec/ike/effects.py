"""What an IKE endpoint asks of the world: plain data, in the order in which it must become true.

Covered: every effect. Not covered: how one is carried out. UDP datagrams are without the non-ESP marker of
RFC 3948 2.2: who sends from or receives on port 4500 puts it on and takes it off.
"""

from __future__ import annotations

from typing import NamedTuple

from ..algorithms import Keys
from .sa import Address, ChildSa, IkeSa

__all__ = [
    "Changed",
    "ChildInstallation",
    "Closed",
    "Effect",
    "Established",
    "InstallChild",
    "KeyLog",
    "MoveChild",
    "Notice",
    "RemoveChild",
    "SendDatagram",
]


class SendDatagram(NamedTuple):
    """Send one UDP datagram. Where it is a response, the state that it speaks of came before it."""

    local: Address
    remote: Address
    octets: bytes


class ChildInstallation(NamedTuple):
    """What both SAs of a child need besides keys. ``transform`` is a name of ``algorithms``.

    ``local`` and ``remote`` are the ends of the IKE SA: the outer addresses in tunnel mode, and the ports of
    ESP in UDP where ``encapsulate``.
    """

    child: ChildSa
    peer: str
    transform: str
    local: Address
    remote: Address
    encapsulate: bool


class InstallChild(NamedTuple):
    """Put both SAs of a child into the SAD. ``replaces`` is the inbound SPI of the one it re-keys.

    ``initiator``: the request was ours, so the other end has the child already.
    """

    ike_spi: bytes
    installation: ChildInstallation
    inbound: Keys
    outbound: Keys
    replaces: int | None = None
    initiator: bool = False


class RemoveChild(NamedTuple):
    """Take both SAs of a child out of the SAD."""

    ike_spi: bytes
    child: ChildSa


class MoveChild(NamedTuple):
    """The ends of the IKE SA have changed: outer addresses, encapsulation."""

    ike_spi: bytes
    installation: ChildInstallation


class Changed(NamedTuple):
    """An IKE SA's state is another: it stands before the datagram that tells the peer.

    Who replicates holds back every effect behind it until a standby has acknowledged the state. It is the
    live object: read it at once.
    """

    ike_sa: IkeSa


class Established(NamedTuple):
    """Both ends have authenticated. Of a re-keyed IKE SA ``replaces`` is the old one's SPI."""

    ike_sa: IkeSa
    replaces: bytes | None = None


class Closed(NamedTuple):
    """An IKE SA is gone, and its children with it."""

    ike_sa: IkeSa
    reason: str


class Notice(NamedTuple):
    """Something an operator wants to read: a name, and fields that never hold keys."""

    name: str
    fields: dict[str, object]


class KeyLog(NamedTuple):
    """A line of Wireshark's decryption table; only where the parameters ask for it."""

    line: str

    def __repr__(self) -> str:
        return "KeyLog(<hidden>)"


Effect = (
    SendDatagram | InstallChild | RemoveChild | MoveChild | Changed | Established | Closed | Notice | KeyLog
)
