"""The simulated network: two access routers on the home side, one path for each pair of members.

Covered: loss, duplication, delay and with it reordering, cuts one way or both, which member a router
believes to own a home agent address. Not covered: queues (``host``), what is sent (``mobile``, ``life``).
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from .plan import Quality

if TYPE_CHECKING:
    from .host import Seat
    from .life import Life

__all__ = ["Datagram", "Network", "Router"]

_UNREACHABLE_AFTER = 2.0
"""Seconds after which a router no longer believes in a neighbour that does not answer (RFC 4861 7.3)."""


class Datagram:
    """One packet that was sent, once: its copies share it.

    ``sender`` is the life of the member that sent it, ``None`` for a mobile node; ``term`` is the one that
    the member served under, ``counted`` whom it relied on then. ``addressee`` is the member it is for;
    ``arrived`` says that a copy was delivered there.
    """

    __slots__ = ("addressee", "arrived", "counted", "octets", "sender", "sent_at", "sequence", "spi", "term")

    def __init__(self, octets: bytes, sent_at: float, sender: Life | None = None) -> None:
        self.octets = octets
        self.sent_at = sent_at
        self.sender = sender
        self.term = 0
        self.counted: frozenset[int] = frozenset()
        self.arrived = False
        self.addressee: Seat | None = None
        self.spi = self.sequence = 0


class Network:
    """Decides what becomes of each packet. Cuts count, for several faults may cut the same path."""

    def __init__(self, random: Random, quality: Quality) -> None:
        self._random = random
        self.quality = quality
        self.sync_cuts: dict[tuple[int, int], int] = {}
        """(from host, to host) -> how many faults cut it."""
        self.home_cuts: dict[tuple[int, int, bool], int] = {}
        """(router, host, towards the host) -> how many faults cut it."""
        self.arbiter_cuts: dict[int, int] = {}

    def heal(self, quality: Quality) -> None:
        """Nothing is wrong any more."""
        self.quality = quality
        self.sync_cuts.clear()
        self.home_cuts.clear()
        self.arbiter_cuts.clear()

    def sync_delays(self, source: int, destination: int) -> list[float]:
        """When the copies of a message between two hosts arrive; none if it is lost."""
        return [] if self.sync_cuts.get((source, destination)) else self.delays()

    def home_delays(self, router: int, host: int, *, inwards: bool) -> list[float]:
        """The same between a router and a host."""
        return [] if self.home_cuts.get((router, host, inwards)) else self.delays()

    def delays(self) -> list[float]:
        """What becomes of one packet where nothing is cut."""
        random, quality = self._random, self.quality
        if quality.loss and random.random() < quality.loss:
            return []
        copies = 2 if quality.duplicate and random.random() < quality.duplicate else 1
        span = quality.longest - quality.shortest
        # Most packets are fast, some are slow.
        return [quality.shortest + span * random.random() ** 3 for _ in range(copies)]


class Router:
    """An access router: mobile nodes are behind it, members' home links in front.

    ``owners`` is its neighbour cache: which seat it sends packets for a group's home agent address to.
    """

    def __init__(self, index: int, random: Random, network: Network) -> None:
        self.index = index
        self._random = random
        self._network = network
        self.owners: dict[int, Seat] = {}
        self._silent_since: dict[int, float] = {}

    def announced(self, seat: Seat) -> None:
        """An unsolicited advertisement with the override flag came in."""
        self.owners[seat.group.plan.number] = seat
        self._silent_since.pop(seat.group.plan.number, None)

    def owner(self, number: int, seats: list[Seat], now: float) -> Seat | None:
        """Where a packet to group ``number`` goes, ``None``: nowhere. Asks the link when that is silent."""
        seat = self.owners.get(number)
        if seat is not None and self._answers(seat):
            self._silent_since.pop(number, None)
            return seat
        since = self._silent_since.setdefault(number, now)
        if now - since < _UNREACHABLE_AFTER and seat is not None:
            return None
        answering = [each for each in seats if self._answers(each)]
        if not answering:
            return None
        self.owners[number] = self._random.choice(answering)
        self._silent_since.pop(number, None)
        return self.owners[number]

    def _answers(self, seat: Seat) -> bool:
        cuts = self._network.home_cuts
        index = seat.host.index
        return (
            seat.owns and not cuts.get((self.index, index, True)) and not cuts.get((self.index, index, False))
        )
