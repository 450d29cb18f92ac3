"""The mobile node's SAs: what must be protected, opening, sealing, reserved sequence numbers (RFC 4877 4).

Covered: transport and tunnel mode between one home address and its home agent, with manual keys. Not covered:
key negotiation, packets around what is protected (``mobile_node``).
"""

from __future__ import annotations

from collections.abc import Callable

from ..effects import ReserveSequences
from ..ipsec import esp
from ..ipsec.policy import Direction, Mode
from ..ipsec.sad import SecurityAssociation, SecurityAssociationDatabase, counter_limit
from ..ipv6 import ESP
from ..parameters import AssociationParameters
from ..wire import Refused

__all__ = ["RESERVATION", "Protection"]

RESERVATION = 1 << 16
"""Outbound sequence numbers that one :class:`ReserveSequences` makes available."""


class Protection:
    """SAs of one home address. Sequence numbers start above ``floor``, which an earlier run may have used."""

    def __init__(
        self,
        home_address: bytes,
        associations: tuple[AssociationParameters, ...],
        random: Callable[[int], bytes],
        floor: int = 0,
    ) -> None:
        self._home_address = home_address
        self._random = random
        self._reserved = floor
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

    def outbound(self, mode: Mode, protocol: int, kind: int | None) -> SecurityAssociation | None:
        """The SA that must protect such a message to the home agent."""
        return self._sad.select(self._home_address, Direction.OUT, mode, protocol, kind)

    def demands(self, mode: Mode, protocol: int, kind: int | None) -> bool:
        """Whether such a message from the home agent is accepted under ESP only."""
        return self._sad.select(self._home_address, Direction.IN, mode, protocol, kind) is not None

    def open(self, payload: bytes) -> tuple[SecurityAssociation, int, bytes]:
        """Open an ESP payload: (its SA, next header, plaintext); raises :class:`Refused`."""
        association = self._sad.inbound(self._home_address, esp.spi(payload))
        if association is None:
            raise Refused("unknown_spi")
        next_header, plaintext = esp.unprotect(association, payload)
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
