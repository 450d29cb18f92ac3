"""Somebody who records every packet on all links, and sends them again, forged or not.

Covered: packets of mobile nodes to any member, messages between members to their own and to other members, in
bursts after a takeover too; bits flipped, octets cut off or added, messages without ESP. Not covered: holding
back what is on its way (loss and delay of ``network`` do that).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from .network import Datagram

if TYPE_CHECKING:
    from .host import Seat
    from .life import Life
    from .world import Group, World

__all__ = ["Attacker"]

_RECORDED = 3000


class Attacker:
    """What it has recorded, and what it does with it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._packets: deque[tuple[Group, Datagram]] = deque(maxlen=_RECORDED)
        self._messages: deque[tuple[Seat, int, Datagram]] = deque(maxlen=_RECORDED)

    # -- ears --------------------------------------------------------------------------------------

    def saw_packet(self, group: Group, datagram: Datagram) -> None:
        """A mobile node's packet."""
        self._packets.append((group, datagram))

    def saw_message(self, seat: Seat, identity: int, datagram: Datagram) -> None:
        """A message from the member ``identity`` to the one in ``seat``."""
        self._messages.append((seat, identity, datagram))

    # -- hands -------------------------------------------------------------------------------------

    def strike(self) -> None:
        """Do something, and again later."""
        world = self._world
        if world.now > world.plan.faulty:
            return
        world.at(world.random.expovariate(1 / world.plan.replay_gap), self.strike)
        what = world.random.random()
        if what < 0.4:
            self._replay_packet()
        elif what < 0.75:
            self._replay_message()
        elif what < 0.87:
            self._forge_packet()
        elif what < 0.98:
            self._forge_message()
        else:
            life = self._any_life()
            if life is not None and not life.seat.host.paused:
                life.member.receive_unprotected()

    def took_over(self, life: Life) -> None:
        """The moment to try: what the member before has seen is new to this one, if anything is."""
        random = self._world.random
        recent = [each for group, each in self._packets if group is life.seat.group]
        chosen = recent[-12:] + random.sample(recent, min(8, len(recent)))
        for datagram in chosen:
            self._world.at(random.uniform(0.0005, 0.5), self._bring_packet, life.seat, datagram)

    def _any_life(self) -> Life | None:
        lives = [life for group in self._world.groups for life in group.lives]
        return self._world.random.choice(lives) if lives else None

    def _replay_packet(self) -> None:
        if not self._packets:
            return
        group, datagram = self._world.random.choice(self._packets)
        serving = [life for life in group.lives if life.serves]
        if serving:
            self._bring_packet(self._world.random.choice(serving).seat, datagram)

    def _bring_packet(self, seat: Seat, datagram: Datagram) -> None:
        seat.host.take((seat, datagram, 0, "attacker"))

    def _replay_message(self) -> None:
        random = self._world.random
        if not self._messages:
            return
        recent = random.random() < 0.5
        index = random.randrange(max(0, len(self._messages) - 50) if recent else 0, len(self._messages))
        seat, identity, datagram = self._messages[index]
        if random.random() < 0.25:
            seat = random.choice(seat.group.seats)
            if seat.identity == identity:
                return
        # A few in their order: what was said once, as it was said.
        for count in range(random.choice((1, 1, 4, 20))):
            if index + count >= len(self._messages):
                break
            other, source, following = self._messages[index + count]
            if other is seat or count == 0:
                chosen = (seat, datagram, identity) if count == 0 else (other, following, source)
                chosen[0].host.take((*chosen, "attacker"))

    def _forge_packet(self) -> None:
        if not self._packets:
            return
        group, datagram = self._world.random.choice(self._packets)
        at = 64 if datagram.octets[6] != 50 else 40
        forged = Datagram(self._spoil(datagram.octets, at), self._world.now)
        forged.spi, forged.sequence = datagram.spi, datagram.sequence
        for life in group.lives:
            if life.serves:
                life.seat.host.take((life.seat, forged, 0, "forger"))

    def _forge_message(self) -> None:
        if not self._messages:
            return
        seat, identity, datagram = self._world.random.choice(self._messages)
        forged = Datagram(self._spoil(datagram.octets, 0), self._world.now)
        seat.host.take((seat, forged, identity, "forger"))

    def _spoil(self, octets: bytes, start: int) -> bytes:
        random = self._world.random
        how = random.randrange(4)
        if how == 0:
            return octets[: random.randrange(start, len(octets))]
        if how == 1:
            # Behind the IPv6 payload nobody looks: only the length of a message counts.
            return octets + random.randbytes(random.randint(1, 40)) if start == 0 else octets[:-1]
        spoiled = bytearray(octets)
        if how == 2:
            # A later number, so that no window refuses it.
            number = int.from_bytes(spoiled[start + 4 : start + 8], "big") + random.randint(1, 1000)
            spoiled[start + 4 : start + 8] = (number & 0xFFFFFFFF).to_bytes(4, "big")
        else:
            spoiled[random.randrange(start, len(spoiled))] ^= 1 << random.randrange(8)
        return bytes(spoiled)
