"""What a core may ask of the world: plain data that the edge turns into system calls, in order.

Covered: every effect of the home agent. Not covered: how a dataplane carries it out.
"""

from __future__ import annotations

from typing import NamedTuple

from .ipsec.algorithms import Keys

__all__ = [
    "AnnounceAddress",
    "ClaimTerm",
    "DefendAddress",
    "Effect",
    "EndProbe",
    "Event",
    "ExtendPayload",
    "LendPayload",
    "LentAssociation",
    "LogKeys",
    "NarrowPath",
    "ProbeAddress",
    "RecallPayload",
    "ReleaseAddress",
    "RemoveTunnel",
    "ReserveSequences",
    "RoutePrefix",
    "SendIkeToMember",
    "SendPacket",
    "SendToMember",
    "SetTunnel",
    "StandDown",
    "StoreTerm",
    "TakeOver",
    "UnroutePrefix",
    "WriteJournal",
]


class SendPacket(NamedTuple):
    """Route this whole IPv6 packet."""

    packet: bytes


class ProbeAddress(NamedTuple):
    """Send the Neighbor Solicitation of DAD (RFC 4862 5.4) on the home link, listen for conflicts.

    A conflict comes back as ``HomeAgent.address_conflict``, until :class:`EndProbe`.
    """

    address: bytes


class EndProbe(NamedTuple):
    """Stop listening for conflicts."""

    address: bytes


class DefendAddress(NamedTuple):
    """Intercept packets to a mobile node's address: answer for it on the home link, take its traffic."""

    address: bytes


class AnnounceAddress(NamedTuple):
    """One unsolicited Neighbor Advertisement with Override set and Router clear (RFC 6275 10.4.1)."""

    address: bytes


class ReleaseAddress(NamedTuple):
    """Stop intercepting an address."""

    address: bytes


class SetTunnel(NamedTuple):
    """Tunnel between the home agent and a care-of address for a home address; replaces an older one.

    Where payload is ``protected`` it needs ESP, which is the core's: it must come there, both ways.
    """

    home_address: bytes
    care_of_address: bytes
    protected: bool = False


class RemoveTunnel(NamedTuple):
    """End the tunnel of a home address."""

    home_address: bytes


class NarrowPath(NamedTuple):
    """The path to a care-of address takes packets of at most ``mtu`` octets, for ``seconds`` from now."""

    care_of_address: bytes
    mtu: int
    seconds: float


class RoutePrefix(NamedTuple):
    """Intercept packets to a mobile network prefix (RFC 3963): they take the tunnel of a home address."""

    prefix: bytes
    length: int
    home_address: bytes


class UnroutePrefix(NamedTuple):
    """Stop intercepting a mobile network prefix."""

    prefix: bytes
    length: int


class LentAssociation(NamedTuple):
    """A tunnel mode SA of payload that the dataplane counts: it may use numbers from ``first`` to ``limit``.

    Outbound no number may be used twice, and the dataplane says when half of them are. Inbound ``window`` is
    the size of the replay window, everything below ``first`` counts as seen, and how far it is the dataplane
    says every ``step`` numbers.
    """

    outbound: bool
    spi: int
    transform: str
    keys: Keys
    esn: bool
    window: int
    first: int
    limit: int
    step: int


class LendPayload(NamedTuple):
    """Open and seal a mobile node's payload, as long as its numbers last; nothing was lent before.

    The other end is that of its tunnel. How far it is, and what is gone there without having been
    called back, is told to ``HomeAgent.payload_news``.
    """

    home_address: bytes
    associations: tuple[LentAssociation, ...]


class ExtendPayload(NamedTuple):
    """One of the SAs of :class:`LendPayload` may go on to ``limit``; outbound from ``first``, not before."""

    home_address: bytes
    outbound: bool
    spi: int
    first: int
    limit: int
    step: int


class RecallPayload(NamedTuple):
    """The payload of a home address comes back here, both ways; nothing if it was not lent."""

    home_address: bytes


class ReserveSequences(NamedTuple):
    """Put on stable storage that outbound ESP numbers up to ``limit`` may be in use.

    It stands before the first packet that needs it; a restart begins above ``limit``.
    """

    limit: int


class SendToMember(NamedTuple):
    """Send this ESP packet (protocol 50) from the member's own address to another member."""

    address: bytes
    packet: bytes


class SendIkeToMember(NamedTuple):
    """Send this IKE message from port 500 of the member's own address to a port of another member."""

    address: bytes
    port: int
    datagram: bytes


class TakeOver(NamedTuple):
    """Own the home agent address and every defended address on the home link, from now on."""


class StandDown(NamedTuple):
    """Own nothing any more: no answer, no announcement.

    ``succeeded``: another member serves by now, so that what is on its way may go on. Otherwise nothing may.
    """

    succeeded: bool = True


class StoreTerm(NamedTuple):
    """Put a term on stable storage before anything is done under it."""

    term: int


class ClaimTerm(NamedTuple):
    """Ask the arbiter for a term; the answer is ``Member.claim_answered``.

    ``instead_of`` is the active member where that agreed to a planned switch: its lease need not end first.
    """

    term: int
    instead_of: int | None = None


class WriteJournal(NamedTuple):
    """Append encoded contexts, as they are at ``moment`` (monotonic seconds), to the journal.

    With ``begins`` in a new segment; with ``completes`` what was before that segment may go as soon as this
    is on stable storage. Answered with the ``ticket``: written (it outlives this process), then stored (and
    the boot of this host), or failed. It holds keys.
    """

    ticket: int
    moment: float
    contexts: tuple[bytes, ...]
    begins: bool
    completes: bool

    def __repr__(self) -> str:
        return f"WriteJournal({self.ticket}, {len(self.contexts)} contexts)"


class LogKeys(NamedTuple):
    """Append a line with keys, of an ESP SA or an IKE SA, to the key log that an operator asked for."""

    line: str
    esp: bool = False

    def __repr__(self) -> str:
        return "LogKeys(<hidden>)"


class Event(NamedTuple):
    """Something an operator wants to read: a name, and fields that never hold keys."""

    name: str
    fields: dict[str, object]


Effect = (
    SendPacket
    | ProbeAddress
    | EndProbe
    | DefendAddress
    | AnnounceAddress
    | ReleaseAddress
    | SetTunnel
    | RemoveTunnel
    | NarrowPath
    | RoutePrefix
    | UnroutePrefix
    | LendPayload
    | ExtendPayload
    | RecallPayload
    | ReserveSequences
    | SendToMember
    | SendIkeToMember
    | TakeOver
    | StandDown
    | StoreTerm
    | ClaimTerm
    | WriteJournal
    | LogKeys
    | Event
)
