"""Sequence numbers of SAs that a redundant set shares: numbers that no two members can ever use.

Covered: blocks of outbound numbers by member, what is replicated before use, the horizon of inbound
windows in tunnel mode, nonces that carry member and term. Not covered: replication itself (``member``).

Outbound numbers come in blocks, and a member only takes blocks whose index, modulo the size of the set,
is its own slot: even two members that both believe to be active never send one number twice. A new
active member starts above everything reserved that it knows of, which its peers have acknowledged before
the first number was used; so its numbers are also the higher ones, and no receiver takes them for replays.

Inbound, a signalling SA's window travels with the binding that its packet made, so it is exact. A tunnel
mode SA's window is not sent with each packet. Instead numbers are only accepted up to a horizon that the
others have acknowledged, and after a takeover everything up to it counts as seen.
"""

from __future__ import annotations

from collections.abc import Callable

from .associations import RESERVATION, Associations, aligned, is_short
from .effects import Effect, ReserveSequences
from .ipsec import esp
from .ipsec.policy import Direction, Mode
from .ipsec.replay import ReplayWindow
from .ipsec.sad import SecurityAssociation, counter_limit
from .parameters import AssociationParameters
from .wire import Refused

__all__ = ["HIGHEST_FLOOR", "HORIZON", "PAYLOAD_BLOCK", "SIGNALLING_BLOCK", "SharedAssociations"]

SIGNALLING_BLOCK = 64
"""Outbound numbers at a time for transport mode: one message each, and a message replicates anyway."""
PAYLOAD_BLOCK = 4096
"""Outbound numbers at a time for tunnel mode."""
HORIZON = 64
"""Inbound tunnel mode packets accepted ahead of replication: at most so many are lost by a takeover."""
HIGHEST_FLOOR = 1 << 31
"""What another member's floor may make this one skip: half of the numbers that there are without ESN."""


class SharedAssociations(Associations):
    """SAs whose numbers are shared with the other members of a set.

    ``identity`` is the member's id, ``slots`` the highest id of the set. ``alone`` says that no other member
    could acknowledge anything; ``wanting`` collects home addresses whose reservations must be replicated.
    """

    lending_waits = True

    def __init__(
        self, address: bytes, random: Callable[[int], bytes], floor: int, identity: int, slots: int
    ) -> None:
        super().__init__(address, random, floor)
        self._identity = identity
        self._slots = slots
        self.iv_prefix = 0
        self.epoch = 0
        self.alone = True
        self.wanting: dict[bytes, None] = {}

    def begin(self, term: int) -> None:
        """Serve from now on under ``term``: every SA goes to new numbers when it is next used."""
        self.epoch += 1
        # 24 bits above the 40 of the counter: 8 of the member's id, 16 of the term.
        self.iv_prefix = (self._identity & 0xFF) << 16 | term >> 8 & 0xFFFF
        self.wanting.clear()

    def inbound(self, spi: int) -> SecurityAssociation | None:
        """As :meth:`Associations.inbound`, in the present epoch, with a horizon that stays ahead."""
        association = super().inbound(spi)
        if association is None or association.mode is not Mode.TUNNEL or association.lent:
            return association
        if association.epoch != self.epoch:
            self._renumber(association)
        window = association.window
        if window is None:
            return association
        # When many packets were lost on their way, the mobile node is far ahead of what was accepted.
        top = max(window.top, association.ahead)
        if top + HORIZON // 2 > association.limit:
            if association.reserved == association.limit:
                association.reserved = max(association.reserved, top) + HORIZON
                self.wanting[association.home_address] = None
            if self.alone:
                association.limit = association.reserved
        return association

    def protect(
        self, association: SecurityAssociation, next_header: int, payload: bytes, effects: list[Effect]
    ) -> bytes:
        """Seal a payload with a number of an own block.

        A message in transport mode waits for the acknowledgement of its context, which holds the
        reservation, so it may use a block at once; payload only one that is acknowledged, but for the first
        of keys that are new: otherwise a third member that never heard of it might go on below.
        """
        if association.lent:
            return self._protect_meanwhile(association, next_header, payload)
        if association.epoch != self.epoch:
            self._renumber(association)
        sequence, limit = association.sequence, association.limit
        if sequence >= limit:
            if not self._next_block(association, effects):
                raise Refused("sequence_exhausted")
        elif (
            association.mode is Mode.TUNNEL
            and association.reserved == limit
            and limit - sequence < PAYLOAD_BLOCK // 2
        ):
            self._reserve(association, effects)
        return esp.protect(association, next_header, payload, self._random)

    def _next_block(self, association: SecurityAssociation, effects: list[Effect]) -> bool:
        """Go on in the next block, if it may be used; otherwise it is asked for."""
        limit = association.limit
        if association.reserved == limit:
            self._reserve(association, effects)
        waits = association.mode is Mode.TUNNEL and not self.alone and not association.ahead
        if association.reserved == limit or (waits and association.confirmed == limit):
            return False
        association.ahead = 0
        association.sequence = association.reserved - _block(association)
        association.limit = association.confirmed = association.reserved
        return True

    def install(self, association: SecurityAssociation, effects: list[Effect]) -> None:
        """As :meth:`Associations.install`: numbers come from blocks of this member's own.

        In tunnel mode the first ones are reserved at once: its context is about to be replicated anyway.
        """
        super().install(association, effects)
        self.place(association, 0)
        if association.mode is not Mode.TUNNEL:
            return
        self._renumber(association)
        if association.direction is Direction.OUT:
            self._reserve(association, effects)
            association.ahead = association.reserved
        else:
            association.reserved = HORIZON
            self.wanting[association.home_address] = None
            if self.alone:
                association.limit = HORIZON

    def outstanding(self, home_address: bytes) -> list[tuple[SecurityAssociation, int]]:
        """Reservations that stand in the context as it is now, and wait for its acknowledgement."""
        return [
            (each, each.reserved) for each in self.database.of(home_address) if each.reserved > each.confirmed
        ]

    def confirm(self, outstanding: list[tuple[SecurityAssociation, int]]) -> None:
        """What :meth:`outstanding` returned is acknowledged."""
        for association, reserved in outstanding:
            if association.epoch == self.epoch and association.reserved == reserved:
                association.confirmed = reserved
                if association.direction is Direction.IN and not association.lent:
                    association.limit = reserved

    def may_lend(self, association: SecurityAssociation, effects: list[Effect]) -> bool:
        """As :meth:`Associations.may_lend`: nothing may be on its way to the others or back."""
        if association.epoch != self.epoch:
            self._renumber(association)
        if association.direction is Direction.OUT:
            ready = not is_short(association) or self._next_block(association, effects)
            return ready and association.confirmed == association.reserved
        limit = association.limit
        if association.reserved == limit and limit != aligned(limit):
            association.reserved = aligned(limit)
            self.wanting[association.home_address] = None
            if self.alone:
                association.limit = association.reserved
        return association.limit == association.reserved == aligned(association.reserved)

    def lend(self, association: SecurityAssociation, width: int) -> tuple[int, int]:
        """As :meth:`Associations.lend`; inbound numbers are lent when the others know of them."""
        if association.direction is Direction.OUT:
            if association.reserved == association.limit:
                return super().lend(association, width)
            # The next block is there already; what is left of this one stays here meanwhile.
            association.lent = association.reserved
            return association.reserved - _block(association) + 1, association.lent
        association.lent = association.reserved = association.limit + width
        self.wanting[association.home_address] = None
        return association.limit + 1, association.lent

    def lend_more(
        self, association: SecurityAssociation, number: int, width: int, effects: list[Effect]
    ) -> tuple[int, int] | None:
        """As :meth:`Associations.lend_more`: when the others know of them."""
        before = association.reserved
        if association.confirmed < before:
            return None
        if association.direction is Direction.OUT:
            self._reserve(association, effects)
            first = association.reserved - _block(association) + 1
        else:
            if number + width // 2 <= before:
                return None
            first, reserved = before + 1, aligned(max(before, number) + width)
            if reserved <= counter_limit(association.transform, esn=association.esn):
                association.reserved = reserved
                self.wanting[association.home_address] = None
        if association.reserved == before:
            return None
        association.lent = association.reserved
        return first, association.lent

    def take_back(self, association: SecurityAssociation) -> None:
        """As :meth:`Associations.take_back`: it goes to new numbers when it is next used."""
        association.lent = 0
        association.epoch = -1

    def _association(self, home_address: bytes, parameters: AssociationParameters) -> SecurityAssociation:
        association = super()._association(home_address, parameters)
        self.place(association, 0)
        return association

    def place(self, association: SecurityAssociation, counter: int) -> None:
        """Start an SA where its context says: outbound nothing up to ``counter`` may be used again.

        Inbound in tunnel mode everything up to ``counter`` may have been accepted.
        """
        association.epoch = -1
        if association.direction is Direction.OUT:
            association.sequence = counter
        elif association.mode is not Mode.TUNNEL:
            return
        association.limit = association.reserved = association.confirmed = counter

    def note(self, counter: int, effects: list[Effect]) -> None:
        """Another member may have used outbound numbers up to ``counter``: nor may this one after a restart.

        Its mobile node would take them for replays, when all others that knew better are gone.
        """
        if counter > self._reserved:
            self._reserved = counter + RESERVATION
            effects.append(ReserveSequences(self._reserved))

    def skip(self, floor: int, effects: list[Effect]) -> bool:
        """A member that was restarted may have used any number up to ``floor``, and nobody knows.

        Bounded by :data:`HIGHEST_FLOOR`, or who names the highest of all would leave no number to any SA. Its
        own numbers are in nobody else's blocks: at worst a mobile node takes ours for replays. Whether that
        was news.
        """
        floor = min(floor, HIGHEST_FLOOR)
        if floor <= self._floor:
            return False
        self._floor = floor
        self.epoch += 1
        self.note(floor, effects)
        return True

    def _renumber(self, association: SecurityAssociation) -> None:
        association.epoch = self.epoch
        if association.direction is Direction.OUT:
            association.iv_prefix = self.iv_prefix
            association.sequence = association.limit = association.confirmed = association.reserved
            association.ahead = 0
            return
        association.limit = association.confirmed = association.reserved
        window = association.window
        if window is not None and association.limit:
            # Merged, not replaced: it may know of more than was ever announced here.
            window.merge(ReplayWindow(window.size, association.limit, (1 << window.size) - 1))

    def _reserve(self, association: SecurityAssociation, effects: list[Effect]) -> None:
        """Ask for the next block of the own slot above everything that anybody may have used.

        ``reserved`` becomes its last number; where the key has none left it stays.
        """
        block = _block(association)
        index = -(-max(association.reserved, self._floor) // block)
        index += (self._identity - index) % self._slots
        end = (index + 1) * block
        if end > counter_limit(association.transform, esn=association.esn):
            return
        association.reserved = end
        self.wanting[association.home_address] = None
        if end > self._reserved:
            # What is used while nobody listens is known to nobody else after a restart.
            self._reserved = end + RESERVATION
            effects.append(ReserveSequences(self._reserved))


def _block(association: SecurityAssociation) -> int:
    return PAYLOAD_BLOCK if association.mode is Mode.TUNNEL else SIGNALLING_BLOCK
