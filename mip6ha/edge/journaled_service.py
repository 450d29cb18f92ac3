"""A home agent without peers that keeps a journal, in this process.

Covered: the journal at the start, its answers. Not covered: its files (``journal``), what waits for it
(``mip6ha.journaled``), members of a set (``member_service``).
"""

from __future__ import annotations

import os
import time

from ..effects import Effect, WriteJournal
from ..journaled import JournaledHomeAgent
from ..parameters import HomeAgentParameters
from .journal import JournalFiles, journal_key
from .service import HomeAgentService

__all__ = ["JournaledService"]


class JournaledService(HomeAgentService):
    """One home agent whose answers to mobile nodes wait for its journal."""

    _journaled: JournaledHomeAgent

    def _make_core(self, parameters: HomeAgentParameters) -> None:
        self._journaled = JournaledHomeAgent(parameters, os.urandom, time.monotonic())
        self._core = self._journaled
        self._home_agent = self._journaled.home_agent
        edge = self._configuration.edge
        key = edge.journal_secret or journal_key(self._state.path)
        answers = self._journal_written, self._journal_stored, self._journal_failed
        self._journal = JournalFiles(self._state.path, key, self._reactor, answers)
        self._closers.append(self._journal.close)
        self._carry_out[WriteJournal] = self._journal.append

    def _begin(self) -> list[Effect]:
        effects = super()._begin()
        restored = self._journal.read(alone=True)
        effects += self._journaled.restore(restored.contexts, time.monotonic())
        self._journal.begin()
        return effects

    def _settle(self) -> None:
        self._input(lambda: self._journaled.flush(time.monotonic()))
        super()._settle()

    def _journal_written(self, ticket: int) -> None:
        self._input(lambda: self._journaled.journal_written(ticket, time.monotonic()))
        self._settle()

    def _journal_stored(self, ticket: int) -> None:
        self._input(lambda: self._journaled.journal_stored(ticket, time.monotonic()))

    def _journal_failed(self, why: str) -> None:
        self._input(lambda: self._journaled.journal_failed(why, time.monotonic()))
        self._settle()
