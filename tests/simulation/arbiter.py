"""A consensus service in one object: it hands out terms by compare-and-swap, and holds the active's lease.

Covered: messages to it and back, lost and late ones, renewal as the edge does it. Not covered: its own
failures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .host import Seat
    from .life import Life
    from .world import World

__all__ = ["LEASE", "Arbiter"]

LEASE = 2.0


class _Record:
    def __init__(self) -> None:
        self.term = 0
        self.holder: Seat | None = None
        self.until = 0.0


class Arbiter:
    """One service for all groups."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._records: dict[int, _Record] = {}

    def claim(self, life: Life, term: int) -> None:
        """A member asks for a term; a lease is counted from when the question left."""
        asked = life.seat.host.clock()
        self._travel(life, self._decide, life, term, asked)

    def renew(self, life: Life, term: int) -> None:
        """Prolong, again and again, as long as that life serves under that term."""
        if not life.alive or not life.member.machine.serves or life.member.machine.term != term:
            return
        if not life.seat.host.paused:
            asked = life.seat.host.clock()
            self._travel(life, self._prolong, life, term, asked)
        self._world.at(LEASE / 4, self.renew, life, term)

    def _travel(self, life: Life, function: object, *arguments: object) -> None:
        network = self._world.network
        if not network.arbiter_cuts.get(life.seat.host.index):
            for delay in network.delays()[:1]:
                self._world.at(delay, function, *arguments)  # type: ignore[arg-type]

    def _decide(self, life: Life, term: int, asked: float) -> None:
        record = self._records.setdefault(life.seat.group.plan.number, _Record())
        now = self._world.now
        free = record.until <= now or record.holder is life.seat
        granted = free and term > record.term
        if granted:
            record.term, record.holder, record.until = term, life.seat, now + LEASE
        self._travel(life, life.claim_answered, record.term, granted, asked + LEASE * 0.99)

    def _prolong(self, life: Life, term: int, asked: float) -> None:
        record = self._records[life.seat.group.plan.number]
        if record.term == term and record.holder is life.seat and record.until > self._world.now:
            record.until = self._world.now + LEASE
            self._travel(life, life.lease_renewed, asked + LEASE * 0.99)
