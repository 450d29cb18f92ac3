"""Which member is active: election, terms, and when to claim.

Covered: what HELLOs and silence do to the role, ranking of standbys, terms that are unique by
construction. Not covered: state (``harp.sync``), what an active member does (``member``).

A term's low octet is the id of the member that takes it, so two members never take the same one,
whoever they can hear; terms are compared as numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..harp.hello import Neighbor
from .states import Event, Role, next_role

__all__ = ["HIGHEST_TERM", "Machine", "epoch", "taker"]

HIGHEST_TERM = (1 << 63) - 1
"""No set takes so many; whoever names a higher one would leave none to take."""


def epoch(term: int) -> int:
    """The part of a term that counts take-overs."""
    return term >> 8


def taker(term: int) -> int:
    """The member that serves under a term, or did."""
    return term & 0xFF


class Machine:
    """The role of one member in its group. Times are seconds.

    ``interval`` and ``factor`` are its own hello interval and failure factor; ``start_wait`` is how long it
    listens at the start. ``term`` is the highest term it knows, ``active`` the id of the member active under
    it. ``eligible``: the active member says that this one has all its state, and so it is: ``complete``, it
    has had all since it started. Who was restarted so fast that nobody missed it is still counted in.
    """

    def __init__(
        self,
        identity: int,
        rank: tuple[int, bytes],
        neighbors: Mapping[int, Neighbor],
        *,
        interval: float,
        factor: float,
        start_wait: float,
        term: int,
        now: float,
    ) -> None:
        self.identity = identity
        self.role = Role.STARTING
        self.term = term
        self.active: int | None = None
        self.complete = self.eligible = False
        self.orphaned = now
        """Since when no active member is known."""
        self.instead_of: int | None = None
        """The active member that agreed to the claim that an arbiter decides on."""
        self.detached = False
        """Its home link is down: it could not serve, and must not end the term of one that can."""
        self._rank = rank
        self._neighbors = neighbors
        self._interval = interval
        self._factor = factor
        self._start_wait = start_wait
        self._started = now
        self._ranked: frozenset[int] = frozenset()

    @property
    def serves(self) -> bool:
        """Whether this member is the one that mobile nodes talk to."""
        return self.role is Role.ACTIVE or self.role is Role.YIELDING

    def listen(self, now: float) -> None:
        """Begin to listen: it may have taken long to get here."""
        self._started = self.orphaned = now

    def do(self, event: Event) -> None:
        """Change the role as the table says."""
        self.role = next_role(self.role, event)

    def heard(self, neighbor: Neighbor, now: float) -> None:
        """Take in what a HELLO that was accepted says, of a term that is not above the one known."""
        # A member that knows only the draft has no terms: a standby follows it, an active one does not.
        term = neighbor.term if neighbor.term is not None else -1 if self.serves else self.term
        if neighbor.active and term == self.term:
            self.active = neighbor.identifier
            synchronized = neighbor.synchronized
            if synchronized is None:
                # It knows only the draft: whoever has got an answer to its request has all.
                synchronized = frozenset((*self._neighbors, self.identity))
            self._ranked = synchronized
            self.eligible = self.complete and self.identity in synchronized and not self.detached
            agreed = self.role is Role.CLAIMING and self.instead_of == neighbor.identifier
            if self.role in (Role.STARTING, Role.STANDBY, Role.CLAIMING) and not agreed:
                self.do(Event.ACTIVE_HEARD)
        elif self.active == neighbor.identifier:
            self._orphan(now)

    def learn(self, term: int, now: float) -> bool:
        """A higher term exists: whoever served under a lower one stops. Whether that was this member."""
        served = self.serves
        self.term = term
        self.eligible = False
        self.do(Event.HIGHER_TERM)
        self._orphan(now)
        return served

    def check(self, now: float) -> bool:
        """Whether the active member has just failed."""
        if self.active is None:
            return False
        neighbor = self._neighbors.get(self.active)
        if neighbor is None or neighbor.is_alive(now):
            return False
        self._orphan(now)
        return True

    def claim_at(self, now: float) -> float | None:
        """When to claim the next term if nothing is heard until then; ``None``: not at all.

        The first of the standbys that have all state goes at once, the next waits for it one interval, and so
        on. Those that lack state let the others go first.
        """
        if self.detached:
            return None
        alive = {each for each, neighbor in self._neighbors.items() if neighbor.is_alive(now)}
        if self.role is Role.STARTING:
            if not alive and not any(neighbor.suspected for neighbor in self._neighbors.values()):
                return self._started + self._start_wait
            return self._started + 2 * self._start_wait + self._place(alive) * self._interval
        if self.role is not Role.STANDBY or self.active is not None:
            return None
        if self.eligible:
            return self.orphaned + self._place(alive & self._ranked) * self._interval
        wait = 2 * self._factor * self._interval + len(self._neighbors) * self._interval
        return self.orphaned + wait + self._place(alive) * self._interval

    def next_term(self) -> int:
        """The term to claim: above all that is known."""
        return epoch(self.term) + 1 << 8 | self.identity

    def take(self, term: int) -> None:
        """The claimed term is ours."""
        self.do(Event.TERM_TAKEN)
        self.term = term
        self.active = self.identity
        self.complete = self.eligible = True

    def give_up(self, event: Event, now: float) -> None:
        """Serve no longer, or claim no longer, with nobody else known to serve."""
        self.do(event)
        self.eligible = False
        self._orphan(now)

    def _orphan(self, now: float) -> None:
        self.active = None
        self.orphaned = now

    def _place(self, among: set[int] | frozenset[int]) -> int:
        """How many of these members go before this one."""
        neighbors = self._neighbors
        return sum(neighbors[each].rank > self._rank for each in among if each in neighbors)
