"""HARP messages between members, in transport-mode ESP.

Covered: opening and sealing, the peer that an SA proves, SAs with manual keys. Not covered: sockets;
negotiated SAs (``member_keys``). What comes without ESP never reaches this module.
"""

from __future__ import annotations

from collections.abc import Callable

from .associations import Associations
from .effects import Effect, SendToMember
from .harp import messages
from .ipsec import esp
from .ipsec.policy import Direction, Mode
from .ipsec.replay import ReplayWindow
from .ipv6 import MOBILITY
from .parameters import GroupParameters
from .wire import Refused

__all__ = ["Channel"]


class Channel:
    """The protected paths of one member to its peers. A peer stands where a home address stands elsewhere."""

    def __init__(self, group: GroupParameters, random: Callable[[int], bytes], floor: int) -> None:
        self.associations = Associations(group.address, random, floor)
        self._group = group
        self._identities = {peer.address: peer.identity for peer in group.peers}
        self._addresses = {peer.identity: peer.address for peer in group.peers}
        for peer in group.peers:
            self.associations.admit(peer.address, peer.associations)

    def open(self, source: bytes, packet: bytes) -> tuple[int, int, messages.Body]:
        """Who sent an ESP packet, the SPI that proves it, and the message in it.

        :class:`Refused` says why it is nobody's.
        """
        association = self.associations.inbound(esp.spi(packet))
        if association is None:
            raise Refused("unknown_spi")
        if association.home_address != source:
            raise Refused("not_the_peer_of_sa")
        next_header, octets = esp.unprotect(association, packet)
        if next_header != MOBILITY:
            raise Refused("selector_mismatch")
        message = messages.parse(octets, source, self._group.address, self._group.numbers)
        return self._identities[source], association.spi, message

    def close(self, identity: int) -> None:
        """Accept nothing more from a peer that it sent before what it sent last."""
        for association in self.associations.database.of(self._addresses[identity]):
            window = association.window
            if window is not None:
                association.window = ReplayWindow(window.size, window.top, (1 << window.size) - 1)

    def send(self, identity: int, message: messages.Body, effects: list[Effect]) -> None:
        """Seal a message to a peer."""
        group, address = self._group, self._addresses[identity]
        octets = messages.build(message, group.address, address, group.numbers, extensions=group.extensions)
        association = self.associations.database.select(
            address, Direction.OUT, Mode.TRANSPORT, MOBILITY, octets[2]
        )
        if association is None:
            raise Refused("no_sa_with_member")
        packet = self.associations.protect(association, MOBILITY, octets, effects)
        effects.append(SendToMember(address, packet))
