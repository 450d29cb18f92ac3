"""The mobile node's SAs: what must be protected, opening, sealing, reserved sequence numbers (RFC 4877 4).

Covered: transport and tunnel mode between one home address and its home agent, with manual keys and with
those that IKE brought. Not covered: key negotiation (``key_exchange``), packets around what is protected
(``mobile_node``).
"""

from __future__ import annotations

from collections.abc import Callable

from ..effects import ReserveSequences
from ..ipsec import esp
from ..ipsec.algorithms import Keys, by_name
from ..ipsec.ike.sa import ChildSa
from ..ipsec.policy import Direction, Mode, Use, selector
from ..ipsec.sad import SecurityAssociation, SecurityAssociationDatabase, counter_limit
from ..ipv6 import ESP, ICMPV6, IPV6, MOBILITY, Packet
from ..mobility import message_type as mobility_type
from ..parameters import AssociationParameters
from ..wire import Refused

__all__ = ["RESERVATION", "Protection", "message_type"]

RESERVATION = 1 << 16
"""Outbound sequence numbers that one :class:`ReserveSequences` makes available."""


class Protection:
    """SAs of one home address. Sequence numbers start above ``floor``, which an earlier run may have used.

    What ``negotiated`` names is demanded and promised whether there are SAs for it or not.
    """

    def __init__(
        self,
        home_address: bytes,
        associations: tuple[AssociationParameters, ...],
        random: Callable[[int], bytes],
        floor: int = 0,
        negotiated: tuple[Use, ...] = (),
    ) -> None:
        self._home_address = home_address
        self._random = random
        self._reserved = floor
        self._negotiated = tuple(sorted(negotiated, key=list(Use).index))
        self._sad = SecurityAssociationDatabase()
        self._outbound: list[SecurityAssociation] = []
        for given in associations:
            outbound = given.direction is Direction.OUT
            association = SecurityAssociation(
                spi=given.spi,
                direction=given.direction,
                use=given.use,
                home_address=home_address,
                transform=given.transform,
                keys=given.keys,
                esn=given.esn,
                window=given.window,
                to_home_agent=outbound,
            )
            if outbound:
                association.sequence = association.limit = floor
                self._outbound.append(association)
            self._sad.add(home_address, association)

    def __len__(self) -> int:
        return len(self._sad)

    def install(self, child: ChildSa, transform: str, inbound: Keys, outbound: Keys) -> None:
        """Take in both SAs of a child. Nobody has used their keys, so no number has to be reserved."""
        for spi, direction, keys in (
            (child.spi_in, Direction.IN, inbound),
            (child.spi_out, Direction.OUT, outbound),
        ):
            association = SecurityAssociation(
                spi=spi,
                direction=direction,
                use=child.use,
                home_address=self._home_address,
                transform=by_name(transform),
                keys=keys,
                esn=child.esn,
                to_home_agent=direction is Direction.OUT,
            )
            self._sad.add(self._home_address, association)

    def retire(self, child: ChildSa) -> None:
        """Send nothing more under a child; what is under way may still come. No error if it is not there."""
        self._sad.discard(self._home_address, self._home_address, Direction.OUT, child.spi_out)

    def discard(self, child: ChildSa) -> None:
        """Forget both SAs of a child; no error if they are not there."""
        self.retire(child)
        self._sad.discard(self._home_address, self._home_address, Direction.IN, child.spi_in)

    def negotiated(
        self, mode: Mode, protocol: int, kind: int | None, *, to_home_agent: bool = True
    ) -> Use | None:
        """What IKE has to bring SAs for before there may be such a message; ``None``: nothing."""
        for use in self._negotiated:
            if use.mode is mode and selector(use, to_home_agent=to_home_agent).matches(protocol, kind):
                return use
        return None

    def outbound(self, mode: Mode, protocol: int, kind: int | None) -> SecurityAssociation | None:
        """The SA that must protect such a message to the home agent."""
        return self._sad.select(self._home_address, Direction.OUT, mode, protocol, kind)

    def demands(self, mode: Mode, protocol: int, kind: int | None) -> bool:
        """Whether such a message from the home agent is accepted under ESP only."""
        if self.negotiated(mode, protocol, kind, to_home_agent=False) is not None:
            return True
        return self._sad.select(self._home_address, Direction.IN, mode, protocol, kind) is not None

    def open(self, payload: bytes, outer: Packet) -> tuple[SecurityAssociation, int, bytes]:
        """Open an ESP payload of a packet: (its SA, next header, plaintext); raises :class:`Refused`."""
        association = self._sad.inbound(self._home_address, esp.spi(payload))
        if association is None:
            raise Refused("unknown_spi")
        next_header, plaintext = esp.unprotect(association, payload)
        _check_selector(association, next_header, plaintext, outer)
        return association, next_header, plaintext

    def seal(
        self, association: SecurityAssociation | None, next_header: int, payload: bytes
    ) -> tuple[int, bytes, list[ReserveSequences]]:
        """(next header, payload, what must be done before it is sent); unchanged without an SA."""
        if association is None:
            return next_header, payload, []
        before = [self.reservation()] if association.sequence >= association.limit else []
        return ESP, esp.protect(association, next_header, payload, self._random), before

    def reservation(self) -> ReserveSequences:
        """Make the next :data:`RESERVATION` sequence numbers available to every outbound SA."""
        highest = max((association.sequence for association in self._outbound), default=0)
        self._reserved = max(self._reserved, highest) + RESERVATION
        for association in self._outbound:
            most = counter_limit(association.transform, esn=association.esn)
            association.limit = min(self._reserved, most)
        return ReserveSequences(self._reserved)


def message_type(protocol: int, payload: bytes) -> int | None:
    """The MH type or ICMPv6 type that selectors speak of; ``None`` where there is none."""
    if protocol == MOBILITY:
        return mobility_type(payload)
    return payload[0] if protocol == ICMPV6 and payload else None


def _check_selector(
    association: SecurityAssociation, next_header: int, payload: bytes, outer: Packet
) -> None:
    # RFC 4301 5.2 step 4: what came out must be what the SA is for.
    if association.mode is Mode.TUNNEL:
        if next_header != IPV6:
            raise Refused("selector")
        return
    kind = message_type(next_header, payload)
    to_home_address = outer.logical_destination == association.home_address
    if not to_home_address or not association.selector.matches(next_header, kind):
        raise Refused("selector")
