"""A consensus service in one object: it hands out terms by compare-and-swap, and holds the active's lease.

Covered: messages to it and back, lost and late ones, claims that are repeated while somebody else has the
lease, renewal and release as the edge does them. Not covered: its own failures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .host import Seat
    from .life import Life
    from .world import World

__all__ = ["LEASE", "Arbiter"]

LEASE = 2.0
_MARGIN = 0.1
_PATIENCE = 1.9
_LOOK_AGAIN = 0.05


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
        self._claims: dict[Life, int] = {}
        self._leases: dict[Life, int] = {}

    def claim(self, life: Life, term: int, instead_of: int | None) -> None:
        """A member asks for a term, until it has it, somebody has a higher one, or it takes too long."""
        self.release(life)
        self._claims[life] = term
        self._try(life, term, instead_of, self._world.now + _PATIENCE)

    def release(self, life: Life) -> None:
        """A member serves no longer, or asks anew."""
        self._claims.pop(life, None)
        term = self._leases.pop(life, None)
        if term is not None:
            self._travel(life, self._forget, life.seat, term)

    def _try(self, life: Life, term: int, instead_of: int | None, give_up: float) -> None:
        if self._claims.get(life) != term or not life.alive:
            return
        if self._world.now > give_up:
            del self._claims[life]
            life.claim_answered(0, False, 0.0)
            return
        if not life.seat.host.paused:
            # A lease is counted from when the question left.
            self._travel(life, self._decide, life, term, instead_of, life.seat.host.clock())
        self._world.at(_LOOK_AGAIN, self._try, life, term, instead_of, give_up)

    def _travel(self, life: Life, function: Callable[..., object], *arguments: Any) -> None:
        network = self._world.network
        if not network.arbiter_cuts.get(life.seat.host.index):
            for delay in network.delays()[:1]:
                self._world.at(delay, function, *arguments)

    def _record(self, seat: Seat) -> _Record:
        return self._records.setdefault(seat.group.plan.number, _Record())

    def _forget(self, seat: Seat, term: int) -> None:
        record = self._record(seat)
        if record.holder is seat and record.term == term:
            record.holder = None

    def _decide(self, life: Life, term: int, instead_of: int | None, asked: float) -> None:
        record, now = self._record(life.seat), self._world.now
        holder = record.holder if record.until > now else None
        if record.term >= term:
            self._travel(life, self._answer, life, term, record.term, 0.0)
        elif holder is None or holder.identity == instead_of:
            record.term, record.holder, record.until = term, life.seat, now + LEASE
            self._travel(life, self._answer, life, term, term, asked + LEASE - _MARGIN)

    def _answer(self, life: Life, asked_for: int, term: int, until: float) -> None:
        if self._claims.get(life) != asked_for:
            return
        del self._claims[life]
        if until > 0:
            self._leases[life] = asked_for
        life.claim_answered(term, until > 0, until)
        if until > 0:
            self._renew(life, asked_for)

    def _renew(self, life: Life, term: int) -> None:
        if not life.serves or life.member.machine.term != term:
            return
        if not life.seat.host.paused:
            self._travel(life, self._prolong, life, term, life.seat.host.clock())
        self._world.at(LEASE / 4, self._renew, life, term)

    def _prolong(self, life: Life, term: int, asked: float) -> None:
        record = self._record(life.seat)
        if record.term == term and record.holder is life.seat and record.until > self._world.now:
            record.until = self._world.now + LEASE
            self._travel(life, life.lease_renewed, asked + LEASE - _MARGIN)
