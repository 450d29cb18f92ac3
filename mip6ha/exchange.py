"""State that members ask each other for, and tell: SS-REQ answered, SS-REP applied or merged.

Covered: whose state is taken in which role, a message wholly or not at all, what is acknowledged. Not
covered: terms (``member``), sending (``harp.sync``), what a context does (``contexts``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from .contexts import Contexts
from .effects import Effect
from .failover.context import Context
from .failover.machine import Machine, taker
from .harp.hello import Neighbor
from .harp.messages import (
    Body,
    StateAcknowledge,
    StateEntry,
    StateReply,
    StateRequest,
    SynchronizationStatus,
)
from .harp.parts import Parts
from .harp.sync import Progress, Replication
from .inquiries import Inquiries
from .wire import Malformed, Refused

__all__ = ["StateExchange"]


class StateExchange:
    """One member's side of it; ``send`` takes (member, message, effects)."""

    def __init__(
        self,
        machine: Machine,
        neighbors: Mapping[int, Neighbor],
        contexts: Contexts,
        replication: Replication[Any],
        inquiries: Inquiries,
        *,
        counters: Counter[str],
        send: Callable[[int, Body, list[Effect]], None],
    ) -> None:
        self._machine = machine
        self._neighbors = neighbors
        self._contexts = contexts
        self._replication = replication
        self._inquiries = inquiries
        self._counters = counters
        self._send = send
        self._parts = {identity: Parts() for identity in neighbors}

    def asked(self, identity: int, request: StateRequest) -> None:
        """A member asks for state."""
        peer = self._replication.peers[identity]
        if peer.progress is Progress.ABSENT:
            raise Refused("request_of_absent_member")
        if identity == self._machine.active and self._neighbors[identity].term is None:
            # It asks whoever is new to it, and does not say so in any other way.
            self._machine.complete = False
        if peer.answering == request.identifier:
            return
        self._replication.doubt(identity)
        lacking = self._contexts.lacking(request.home_addresses, request.digest)
        self._replication.answer(identity, request.identifier, lacking)

    def told(self, identity: int, reply: StateReply, now: float, effects: list[Effect]) -> None:
        """Apply the contexts of an active member, or merge what another one had that we lack."""
        answers = self._inquiries.asked(identity) == reply.identifier
        self._check(identity, reply, answers=answers)
        # Everything is decoded before anything is applied.
        draft = self._neighbors[identity].term is None
        parts = self._parts[identity]
        entries = [each for each in map(parts.join, reply.entries) if each is not None]
        contexts = [self._contexts.read(entry, draft=draft) for entry in entries]
        if len(entries) < len(reply.entries):
            if reply.acknowledge:
                # Nothing is acknowledged, so that all of it comes again.
                raise Refused("context_part_missing")
            return
        statuses = []
        for entry, context in zip(entries, contexts, strict=True):
            status = SynchronizationStatus.SUCCESS
            try:
                self._take(entry, context, effects)
            except Malformed as bad:
                self._counters[f"harp_{bad.reason}"] += 1
                status = SynchronizationStatus.UNSPECIFIED
            statuses.append((int(status), entry.home_address))
        if answers:
            self._inquiries.answered(identity, now, whole=not reply.entries)
        if reply.acknowledge:
            self._send(identity, StateAcknowledge(reply.identifier, tuple(statuses)), effects)

    def _check(self, identity: int, reply: StateReply, *, answers: bool) -> None:
        machine, term = self._machine, reply.term
        if term is not None and term < machine.term:
            # Also what answers: a member that has not heard of our term may accept more under its own.
            raise Refused("stale_term")
        if machine.serves:
            # What it sends again while it answers has an identifier of its own.
            if self._inquiries.asked(identity) is None:
                raise Refused("unasked_state")
            if not answers and self._replication.peers[identity].pulled:
                raise Refused("unasked_state")
        elif term is not None and taker(term) != identity:
            # It answers what was asked by the active member that this one was, and may know less.
            raise Refused("unasked_state")

    def _take(self, entry: StateEntry, context: Context | None, effects: list[Effect]) -> None:
        contexts = self._contexts
        if not self._machine.serves:
            if context is None:
                contexts.apply_draft(entry, effects)
            else:
                contexts.apply(context, effects)
            return
        if context is None:
            changed = contexts.merge_draft(entry, effects)
        else:
            changed = contexts.merge(context, self._machine.term, effects)
        if changed:
            self._replication.change(entry.home_address)
