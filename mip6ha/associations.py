"""The home agent's SAs: from parameters to the SAD, and how far their counters may run.

Covered: admission and removal with a mobile node, negotiated SAs, sealing, reservation of outbound sequence
numbers. Not covered: negotiation. A restart must never repeat an outbound number under a manual key: one
high-water mark above every number in use stands on stable storage before any of them is spent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .effects import Effect, ReserveSequences
from .ipsec import esp
from .ipsec.policy import Direction, Mode
from .ipsec.replay import ReplayWindow
from .ipsec.sad import SecurityAssociation, SecurityAssociationDatabase, counter_limit
from .parameters import AssociationParameters
from .wire import Refused, text

__all__ = ["ALIGNMENT", "RESERVATION", "Associations", "aligned", "is_short"]

RESERVATION = 1 << 16
"""Numbers reserved at a time: what one restart skips."""
ALIGNMENT = 64
"""Inbound numbers are lent in multiples: so a dataplane can tell what is lent by a number's upper bits."""
_ON_ITS_WAY = 256
"""Outbound numbers that stay here when the following ones are lent, for as long as the loan waits."""


class Associations:
    """Every SA of one owner of addresses, with a common reservation of outbound sequence numbers.

    ``random`` yields that many random octets. ``floor`` is the highest number that may have been used before.
    ``is_home_agent`` says which way the SAs' selectors point.
    """

    lending_waits = False
    """Whether numbers that are lent have to be known elsewhere before."""

    def __init__(
        self, address: bytes, random: Callable[[int], bytes], floor: int = 0, *, is_home_agent: bool = True
    ) -> None:
        self.database = SecurityAssociationDatabase()
        self._address = address
        self._random = random
        self._floor = floor
        self._reserved = floor + RESERVATION
        self._is_home_agent = is_home_agent

    def admit(
        self,
        home_address: bytes,
        parameters: tuple[AssociationParameters, ...],
        before: tuple[SecurityAssociation, ...] = (),
    ) -> None:
        """Install the SAs of a mobile node; ``ValueError`` if an SPI is taken, and then none of them.

        One that is among those ``before`` with the same parameters goes on where it stood: its numbers and
        its replay window belong to its keys.
        """
        associations = [
            next((known for known in before if _is_made_of(known, each)), None)
            or self._association(home_address, each)
            for each in parameters
        ]
        taken = [
            each.spi
            for each in associations
            if each.direction is Direction.IN and self.database.inbound(self._address, each.spi)
        ]
        if taken:
            raise ValueError(f"SPI 0x{taken[0]:08x} is already in use")
        for association in associations:
            self.database.add(self._address, association)

    def dismiss(self, home_address: bytes) -> tuple[SecurityAssociation, ...]:
        """Forget the SAs of a mobile node, and return them. Those admitted later begin above their numbers,
        in case a key comes back.
        """
        associations = self.database.of(home_address)
        self.database.remove(self._address, home_address)
        self._floor = max((self._floor, *(each.sequence for each in associations)))
        return associations

    def are_made_of(self, home_address: bytes, parameters: tuple[AssociationParameters, ...]) -> bool:
        """Whether a home address has exactly the SAs of these parameters."""
        known = self.database.of(home_address)
        return len(known) == len(parameters) and all(
            any(_is_made_of(association, each) for association in known) for each in parameters
        )

    def install(self, association: SecurityAssociation, effects: list[Effect]) -> None:
        """Take in a negotiated SA, whose keys nobody ever used; ``ValueError`` if its SPI is taken.

        What its first packet may need goes into ``effects``.
        """
        self.database.add(self._address, association)
        if association.direction is Direction.OUT:
            association.limit = min(self._reserved, association.limit)

    def discard(self, home_address: bytes, direction: Direction, spi: int) -> None:
        """Forget a negotiated SA; no error if it is not there."""
        self.database.discard(self._address, home_address, direction, spi)

    def inbound(self, spi: int) -> SecurityAssociation | None:
        """The SA that opens packets to the owner's address with ``spi``."""
        return self.database.inbound(self._address, spi)

    def modes(self, home_address: bytes) -> set[Mode]:
        """The modes of a home address's SAs."""
        return {each.mode for each in self.database.of(home_address)}

    def demands(self, home_address: bytes, protocol: int, kind: int) -> bool:
        """Whether policy wants such a message from the mobile node protected in transport mode."""
        return self.database.select(home_address, Direction.IN, Mode.TRANSPORT, protocol, kind) is not None

    def protect(
        self, association: SecurityAssociation, next_header: int, payload: bytes, effects: list[Effect]
    ) -> bytes:
        """Seal a payload; the reservation that it may need goes into ``effects`` before what is sent.

        :class:`~.wire.Refused` ``sequence_exhausted`` when the key has no numbers left.
        """
        if association.lent:
            return self._protect_meanwhile(association, next_header, payload)
        if association.sequence >= association.limit:
            association.limit = self._above(association.limit, association, effects)
        return esp.protect(association, next_header, payload, self._random)

    def _above(self, number: int, association: SecurityAssociation, effects: list[Effect]) -> int:
        """The last outbound number under a reservation that goes beyond ``number``, or as far as keys do."""
        if self._reserved <= number:
            self._reserved += RESERVATION
            effects.append(ReserveSequences(self._reserved))
        return min(self._reserved, counter_limit(association.transform, esn=association.esn))

    def _protect_meanwhile(self, association: SecurityAssociation, next_header: int, payload: bytes) -> bytes:
        """Seal a payload while a loan waits, as long as numbers were kept for that."""
        if association.sequence >= association.limit:
            raise Refused("payload_is_lent")
        return esp.protect(association, next_header, payload, self._random)

    # Payload that the dataplane counts: ``lent`` is the last number it has, or was promised.

    def may_lend(self, association: SecurityAssociation, effects: list[Effect]) -> bool:
        """Whether a tunnel mode SA can be lent now; asks for what that lacks."""
        if association.direction is Direction.OUT and is_short(association):
            association.limit = self._above(association.limit, association, effects)
            return not is_short(association)
        return True

    def lend(self, association: SecurityAssociation, width: int) -> tuple[int, int]:
        """Leave numbers to the dataplane: the first and the last. Inbound ``width`` of them."""
        window = association.window
        if window is None:
            kept, association.lent = association.sequence + _ON_ITS_WAY, association.limit
        else:
            kept = aligned(window.top + 1)
            association.lent = kept + width
        association.limit = kept
        return kept + 1, association.lent

    def lend_more(
        self, association: SecurityAssociation, number: int, width: int, effects: list[Effect]
    ) -> tuple[int, int] | None:
        """The next numbers, now that the dataplane has come to ``number``; ``None`` if it needs none."""
        before = association.lent
        if association.window is None:
            association.lent = self._above(before, association, effects)
        elif number + width // 2 > before:
            most = counter_limit(association.transform, esn=association.esn)
            association.lent = min(aligned(max(before, number) + width), most)
        return (before + 1, association.lent) if association.lent > before else None

    def take_back(self, association: SecurityAssociation) -> None:
        """End a loan: all that was lent counts as used, inbound as seen."""
        lent, association.lent = association.lent, 0
        window = association.window
        if window is None:
            association.sequence = association.limit = lent
        else:
            window.merge(ReplayWindow(window.size, lent, (1 << window.size) - 1))
            association.limit = counter_limit(association.transform, esn=association.esn)

    def reservation(self) -> ReserveSequences:
        """What must be on stable storage now."""
        return ReserveSequences(self._reserved)

    def view(self) -> Iterator[dict[str, object]]:
        """Every SA without its keys, JSON-ready, made as it is asked for."""
        return (
            {
                "home_address": text(each.home_address),
                "spi": f"0x{each.spi:08x}",
                "direction": each.direction.value,
                "use": each.use.value,
                "mode": each.mode.value,
                "algorithm": each.transform.name,
                "esn": each.esn,
                "sequence": each.window.top if each.window is not None else each.sequence,
                "packets": each.packets,
                "lent": bool(each.lent),
            }
            for home_address in self.database.home_addresses()
            for each in self.database.of(home_address)
        )

    def _association(self, home_address: bytes, parameters: AssociationParameters) -> SecurityAssociation:
        association = SecurityAssociation(
            spi=parameters.spi,
            direction=parameters.direction,
            use=parameters.use,
            home_address=home_address,
            transform=parameters.transform,
            keys=parameters.keys,
            esn=parameters.esn,
            window=parameters.window,
            to_home_agent=(parameters.direction is Direction.IN) is self._is_home_agent,
        )
        if association.direction is Direction.OUT:
            most = association.limit
            association.sequence = min(self._floor, most)
            association.limit = min(self._reserved, most)
        return association


def aligned(number: int) -> int:
    """The next multiple of :data:`ALIGNMENT`, or the number itself."""
    return -(-number // ALIGNMENT) * ALIGNMENT


def is_short(association: SecurityAssociation) -> bool:
    """Whether too few outbound numbers are left to lend most of them."""
    return association.limit - association.sequence < 2 * _ON_ITS_WAY


def _is_made_of(association: SecurityAssociation, parameters: AssociationParameters) -> bool:
    window = association.window
    return (
        association.spi == parameters.spi
        and association.direction is parameters.direction
        and association.use is parameters.use
        and association.transform is parameters.transform
        and association.keys == parameters.keys
        and association.esn == parameters.esn
        and (window is None or window.size == parameters.window)
    )
