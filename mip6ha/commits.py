"""What leaves a member only when the others know why: effects that wait for their context's generation.

Covered: the next generation of what changed, what waits for it, what becomes of that. Not covered: how a
generation gets there (``harp.sync``), who serves (``member``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from .contexts import Contexts
from .effects import AnnounceAddress, Effect, ExtendPayload, LendPayload, ReserveSequences, SendPacket
from .harp.sync import Replication
from .ipsec.sad import SecurityAssociation
from .node import HomeAgent
from .numbering import SharedAssociations

__all__ = ["Commits", "Held"]

_MOST_HELD = 20_000
"""Answers that wait for standbys; beyond that mobile nodes get none until some have gone."""
_TOO_SLOW = "standby_too_slow"
_SERVING = (SendPacket, AnnounceAddress, LendPayload, ExtendPayload)
"""What only a member that serves may do."""


class Held(NamedTuple):
    """What waits for a generation: reservations that stand in it, effects that rely on it."""

    outstanding: list[tuple[SecurityAssociation, int]]
    effects: list[Effect]


class Commits:
    """Changes of one member's home agent; ``may_answer`` says whether it still serves.

    With ``synchronous`` effects wait for the other members, otherwise only reservations do.
    """

    def __init__(
        self,
        home_agent: HomeAgent,
        associations: SharedAssociations,
        contexts: Contexts,
        replication: Replication[Held],
        *,
        synchronous: bool,
        may_answer: Callable[[], bool],
    ) -> None:
        self._home_agent = home_agent
        self._associations = associations
        self._contexts = contexts
        self._replication = replication
        self._synchronous = synchronous
        self._may_answer = may_answer
        self._counters: Counter[str] = home_agent.counters
        self._changed: list[bytes] = []
        home_agent.collect_changes(self._changed)

    def bound(self) -> None:
        """Take no more signalling while too many answers wait."""
        if self._replication.holding > _MOST_HELD and not self._home_agent.frozen:
            self._home_agent.frozen = _TOO_SLOW

    def commit(self, effects: list[Effect], term: int) -> list[Effect]:
        """An input was processed under ``term``: what changed goes out, and the effects wait for it."""
        wanting = self._associations.wanting
        if not self._changed and not wanting:
            return effects
        homes = dict.fromkeys(self._changed) | wanting if wanting else dict.fromkeys(self._changed)
        changed = self._changed[0] if self._changed else None
        self._changed.clear()
        wanting.clear()
        out: list[Effect] = []
        held: dict[bytes, list[Effect]] = {}
        for each in effects:
            if isinstance(each, LendPayload | ExtendPayload):
                # Numbers are lent when the others know of them, whatever else may go at once.
                held.setdefault(each.home_address, []).append(each)
            elif changed is None or not self._synchronous or type(each) is ReserveSequences:
                # A reservation on stable storage is nobody else's business.
                out.append(each)
            else:
                held.setdefault(changed, []).append(each)
        for home_address in homes:
            version = self._contexts.grow(home_address, term)
            self._replication.change(home_address)
            outstanding = self._associations.outstanding(home_address)
            item = Held(outstanding, held.get(home_address, []))
            if not self._replication.hold(home_address, version, [item]):
                self.let_go([item], out)
                self._counters["commits_alone"] += 1
        return out

    def let_go(self, items: list[Held], effects: list[Effect]) -> None:
        """Nothing waits for these any more: an answer leaves only from a member that serves."""
        serves = self._may_answer()
        for outstanding, held in items:
            self._associations.confirm(outstanding)
            if serves:
                effects += self._home_agent.lending.let_go(held)
            else:
                effects += [each for each in held if not isinstance(each, _SERVING)]
        if self._home_agent.frozen == _TOO_SLOW and self._replication.holding < _MOST_HELD // 2:
            self._home_agent.frozen = ""
