"""What a member's configuration changes in the contexts of its set.

Covered: whose configuration counts when. Not covered: reading it (``config``), what a change does (``node``).

The active member's word counts for the set: what its configuration changes, its contexts say. A standby
serves what those say, and brings in its own changes when it is active itself.
"""

from __future__ import annotations

from .contexts import Contexts
from .effects import Effect
from .failover.machine import Machine
from .mobile_nodes import Changes
from .node import HomeAgent
from .parameters import MobileNodeParameters

__all__ = ["Reconfiguration"]


class Reconfiguration:
    """Changes of one member's configuration, kept until they count."""

    def __init__(self, home_agent: HomeAgent, machine: Machine, contexts: Contexts) -> None:
        self._home_agent = home_agent
        self._machine = machine
        self._contexts = contexts
        self._changes: Changes = {}

    def configure(self, mobile_nodes: tuple[MobileNodeParameters, ...], effects: list[Effect]) -> list[bytes]:
        """Take note of what mobile nodes are configured now; the home addresses whose contexts changed."""
        self._changes |= self._home_agent.mobile_nodes.configure(mobile_nodes)
        return self.bring_in(effects, gently=False)

    def bring_in(self, effects: list[Effect], *, gently: bool = True) -> list[bytes]:
        """Do what this member may do now; the home addresses whose contexts changed.

        ``gently`` leaves a mobile node its registration that the active member of before reconfigured.
        """
        if not self._changes:
            return []
        serves = self._machine.serves
        changes = {
            home_address: wanted
            for home_address, wanted in self._changes.items()
            if serves or self._contexts.version(home_address) is None
        }
        for home_address in changes:
            del self._changes[home_address]
        effects += self._home_agent.replace(changes, gently=gently)
        if not serves:
            return []
        for home_address in changes:
            self._contexts.grow(home_address, self._machine.term)
        return list(changes)
