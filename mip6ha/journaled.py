"""A home agent without peers whose journal stands where a standby would: a restart goes on where it was.

``receive`` -> the home agent decides -> the context goes to the journal -> written, its answer leaves.
Covered: what waits for the journal, restoring, a journal that cannot be written. Not covered: what is written
when (``journaling``), members of a set (``member``).

What is written outlives the process, so a killed one has told nobody of anything that its journal lacks. What
is stored outlives the host as well: numbers of payload are accepted only up to a horizon that is stored. Of
signalling, a host that went down may have answered what its journal lacks; then bindings are fenced.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from . import replica
from .associations import Associations
from .effects import Effect, ExtendPayload, LendPayload, ReserveSequences
from .effects import Event as Notice
from .failover.context import Context, Version, encode
from .ipsec.policy import Direction, Mode
from .ipsec.replay import ReplayWindow
from .ipsec.sad import SecurityAssociation, counter_limit
from .journaling import Journal
from .lending import PayloadNews
from .node import HomeAgent
from .numbering import HORIZON, SharedAssociations
from .parameters import HomeAgentParameters, MobileNodeParameters

__all__ = ["JournaledHomeAgent"]

_MOST_HELD = 20_000
"""Answers that wait for the journal; beyond that mobile nodes get none until some have gone."""
_VERSION = Version(0, 1)
_TERM = 0x101


class _Waiting(NamedTuple):
    """What waits for a batch: reservations that stand in it, effects that rely on it.

    What is ``lent`` waits until it is stored: the dataplane goes on when this process is gone.
    """

    ticket: int
    outstanding: list[tuple[SecurityAssociation, int]]
    effects: list[Effect]
    lent: list[Effect]


class _Numbers(SharedAssociations):
    """Inbound horizons, which the journal confirms, and outbound numbers of one's own."""

    def protect(
        self, association: SecurityAssociation, next_header: int, payload: bytes, effects: list[Effect]
    ) -> bytes:
        """As :meth:`Associations.protect`: the mark on stable storage is all that a restart needs."""
        return Associations.protect(self, association, next_header, payload, effects)

    def place(self, association: SecurityAssociation, counter: int) -> None:
        """As :meth:`SharedAssociations.place`; outbound above the mark as well.

        Inbound in tunnel mode the next horizon is asked for: it goes along with the next record.
        """
        super().place(association, counter)
        association.epoch = self.epoch
        window = association.window
        if window is None:
            most = counter_limit(association.transform, esn=association.esn)
            association.sequence = min(max(counter, self._floor), most)
            association.limit = association.reserved = association.confirmed = min(self._reserved, most)
            association.iv_prefix = self.iv_prefix
        elif association.mode is Mode.TUNNEL:
            association.reserved = counter + HORIZON
            if counter:
                window.merge(ReplayWindow(window.size, counter, (1 << window.size) - 1))

    def may_lend(self, association: SecurityAssociation, effects: list[Effect]) -> bool:
        """As :meth:`SharedAssociations.may_lend`; outbound as :meth:`Associations.may_lend`."""
        numbers = Associations if association.direction is Direction.OUT else SharedAssociations
        return numbers.may_lend(self, association, effects)

    def lend(self, association: SecurityAssociation, width: int) -> tuple[int, int]:
        """As :meth:`SharedAssociations.lend`; outbound as :meth:`Associations.lend`."""
        numbers = Associations if association.direction is Direction.OUT else SharedAssociations
        return numbers.lend(self, association, width)

    def lend_more(
        self, association: SecurityAssociation, number: int, width: int, effects: list[Effect]
    ) -> tuple[int, int] | None:
        """As :meth:`SharedAssociations.lend_more`; outbound as :meth:`Associations.lend_more`."""
        numbers = Associations if association.direction is Direction.OUT else SharedAssociations
        return numbers.lend_more(self, association, number, width, effects)

    def take_back(self, association: SecurityAssociation) -> None:
        """As :meth:`SharedAssociations.take_back`; outbound as :meth:`Associations.take_back`."""
        numbers = Associations if association.direction is Direction.OUT else SharedAssociations
        numbers.take_back(self, association)


class JournaledHomeAgent:
    """One home agent, as :class:`HomeAgent`, and its journal; :meth:`flush` comes after a batch of inputs."""

    def __init__(self, parameters: HomeAgentParameters, random: Callable[[int], bytes], now: float) -> None:
        self.associations = _Numbers(parameters.address, random, parameters.sequence_floor, 1, 1)
        self.associations.alone = False
        self.associations.begin(_TERM)
        self.home_agent = HomeAgent(parameters, random, now, self.associations)
        self.counters = self.home_agent.counters
        self._changed: list[bytes] = []
        self.home_agent.collect_changes(self._changed)
        self._now = now
        self._known: dict[bytes, None] = {}
        self.journal = Journal(self._record, lambda: self._known)
        self._pending: dict[bytes, list[Effect]] = {}
        self._lent: dict[bytes, list[Effect]] = {}
        self._unwritten: deque[_Waiting] = deque()
        self._unstored: deque[_Waiting] = deque()
        self._whole = True
        """Not after a failure, until everything is written again."""

    # -- inputs ------------------------------------------------------------------------------------

    def start(self, now: float) -> list[Effect]:
        """See :meth:`HomeAgent.start`."""
        return self.home_agent.start(now)

    def restore(self, contexts: Iterable[Context], now: float) -> list[Effect]:
        """Go on with what a journal has; the effects make forwarding what it was."""
        self._now = now
        effects: list[Effect] = []
        for context in replica.usable(self.home_agent, contexts):
            effects += replica.install(self.home_agent, context, now)
            self._known[context.home_address] = None
        return effects

    def receive(self, packet: bytes, now: float) -> list[Effect]:
        """See :meth:`HomeAgent.receive`."""
        if len(self._pending) + len(self._unwritten) > _MOST_HELD and not self.home_agent.frozen:
            self.home_agent.frozen = "journal_too_slow"
        return self._commit(self.home_agent.receive(packet, now))

    def address_conflict(self, address: bytes, now: float) -> list[Effect]:
        """See :meth:`HomeAgent.address_conflict`."""
        return self._commit(self.home_agent.address_conflict(address, now))

    def payload_news(self, news: PayloadNews, now: float) -> list[Effect]:
        """See :meth:`HomeAgent.payload_news`."""
        return self._commit(self.home_agent.payload_news(news, now))

    def next_deadline(self) -> float | None:
        """When :meth:`on_timer` is due."""
        times = [
            each
            for each in (self.home_agent.next_deadline(), self.journal.next_deadline())
            if each is not None
        ]
        return min(times, default=None)

    def on_timer(self, now: float) -> list[Effect]:
        """Do what the clock asks for."""
        effects: list[Effect] = []
        for each in self.home_agent.timeouts(now):
            effects += self._commit(each)
        return effects + self.flush(now)

    def ask_ike(self, home_address: bytes, what: str, now: float) -> tuple[bool, list[Effect]]:
        """See :meth:`HomeAgent.ask_ike`."""
        found, effects = self.home_agent.ask_ike(home_address, what, now)
        return found, self._commit(effects)

    def reconfigure(self, mobile_nodes: tuple[MobileNodeParameters, ...], now: float) -> list[Effect]:
        """See :meth:`HomeAgent.reconfigure`."""
        before = [each for each in self._known if each in self.home_agent.mobile_nodes]
        effects = self.home_agent.reconfigure(mobile_nodes, now)
        for each in before:
            if each in self.home_agent.mobile_nodes:
                self.journal.changed[each] = None
            else:
                # Nobody is asked about it again: a restart looks at what is configured.
                del self._known[each]
        return effects

    def flush(self, now: float) -> list[Effect]:
        """Write what has changed, if nothing is under way."""
        self._now = now
        effects: list[Effect] = []
        homes = self.journal.poll(now, effects)
        if not homes:
            return effects
        outstanding = [each for home in homes for each in self.associations.outstanding(home)]
        held = [effect for home in homes for effect in self._pending.pop(home, ())]
        lent = [effect for home in homes for effect in self._lent.pop(home, ())]
        waiting = _Waiting(self.journal.ticket, outstanding, held, lent)
        self._unwritten.append(waiting)
        self._unstored.append(waiting)
        return effects

    def stop(self, now: float) -> list[Effect]:
        """See :meth:`HomeAgent.stop`; what the journal lacks is written. Answers that wait are not sent."""
        effects: list[Effect] = []
        self._now = now
        self.journal.drain(now, effects)
        return effects + self.home_agent.stop(now)

    def status(self, now: float) -> dict[str, object]:
        """See :meth:`HomeAgent.status`."""
        state = "failed" if self.journal.failed else "whole" if self._whole else "begun anew"
        return {**self.home_agent.status(now), "journal": state, "waiting": len(self._unwritten)}

    # -- the journal -------------------------------------------------------------------------------

    def journal_written(self, ticket: int, now: float) -> list[Effect]:
        """Everything up to a batch outlives this process: what waited for it may go."""
        self.journal.has_written(ticket)
        effects: list[Effect] = []
        while self._unwritten and self._unwritten[0].ticket <= ticket:
            waiting = self._unwritten.popleft()
            effects += waiting.effects
        if self.home_agent.frozen == "journal_too_slow" and len(self._unwritten) < _MOST_HELD // 2:
            self.home_agent.frozen = ""
        return effects

    def journal_stored(self, ticket: int, now: float) -> list[Effect]:
        """Everything up to a batch is on stable storage: more payload may be accepted."""
        self.journal.has_stored(ticket)
        effects: list[Effect] = []
        while self._unstored and self._unstored[0].ticket <= ticket:
            waiting = self._unstored.popleft()
            self.associations.confirm(waiting.outstanding)
            effects += self.home_agent.lending.let_go(waiting.lent)
        if not self._whole and self.journal.is_whole:
            self._whole = True
            self.associations.alone = False
        return effects

    def journal_failed(self, why: str, now: float) -> list[Effect]:
        """There is no journal, nor anything of the one before: serve as if there never had been one."""
        self.counters["journal_failures"] += 1
        effects: list[Effect] = [Notice("journal_failed", {"reason": why})]
        effects += self.journal_written(self.journal.ticket, now)
        effects += self.journal_stored(self.journal.ticket, now)
        for home_address, held in self._pending.items():
            self.associations.confirm(self.associations.outstanding(home_address))
            effects += held
        self._pending.clear()
        for home_address, lent in self._lent.items():
            self.associations.confirm(self.associations.outstanding(home_address))
            effects += self.home_agent.lending.let_go(lent)
        self._lent.clear()
        self.journal.fail(now)
        self._whole = False
        self.associations.alone = True
        return effects

    def _commit(self, effects: list[Effect]) -> list[Effect]:
        """A context changed: it goes to the journal, and the effects wait for it."""
        changed, wanting = self._changed, self.associations.wanting
        if not changed and not wanting:
            return effects
        homes = dict.fromkeys(changed) | wanting
        first = changed[0] if changed else None
        changed.clear()
        wanting.clear()
        self._known |= homes
        if self.journal.failed:
            for home_address in homes:
                self.associations.confirm(self.associations.outstanding(home_address))
            return self.home_agent.lending.let_go(effects)
        self.journal.changed |= homes
        out: list[Effect] = []
        for each in effects:
            if isinstance(each, LendPayload | ExtendPayload):
                self._lent.setdefault(each.home_address, []).append(each)
            elif first is None or type(each) is ReserveSequences:
                # A reservation is on stable storage of its own.
                out.append(each)
            else:
                self._pending.setdefault(first, []).append(each)
        return out

    def _record(self, home_address: bytes) -> bytes | None:
        if home_address not in self.home_agent.mobile_nodes:
            return None
        return encode(replica.export(self.home_agent, home_address, _VERSION, self._now))
