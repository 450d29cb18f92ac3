"""What a member says of itself: HELLO, when it is due and whenever something changed.

Covered: its content, its sequence numbers, when the next one is due. Not covered: what others' say
(``harp.hello``), who asks for one (``member``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .effects import Effect
from .failover.machine import Machine
from .harp.hello import Neighbor
from .harp.messages import Body, Hello
from .harp.sync import Replication
from .parameters import GroupParameters

__all__ = ["Hellos"]

_LIFETIME = 1800


class Hellos:
    """The HELLOs of one start of a member; ``incarnation`` tells that start from all others.

    ``floor`` is what ESP numbers of this start begin above; ``send`` takes (member, message, effects).
    """

    def __init__(
        self,
        group: GroupParameters,
        machine: Machine,
        neighbors: Mapping[int, Neighbor],
        replication: Replication[Any],
        *,
        random: Callable[[int], bytes],
        now: float,
        floor: int,
        send: Callable[[int, Body, list[Effect]], None],
    ) -> None:
        self._group = group
        self._machine = machine
        self._neighbors = neighbors
        self._replication = replication
        self._floor = floor
        self._send = send
        self.incarnation = int.from_bytes(random(8), "big")
        self._sequence = int.from_bytes(random(2), "big")
        self.due = now
        """When the next one to everybody is due."""

    def say(
        self, now: float, effects: list[Effect], *, solicit: bool = False, lifetime: int = _LIFETIME
    ) -> None:
        """One to everybody, that counts as the one that was due; a ``lifetime`` of 0 says that we leave."""
        self._sequence = self._sequence + 1 & 0xFFFF
        interval = self._group.hello_interval
        on_time = 0 <= now - self.due < interval
        self.due = (self.due if on_time else now) + interval
        for identity in self._neighbors:
            self._say(identity, effects, solicit=solicit, lifetime=lifetime)

    def answer(self, identity: int, effects: list[Effect], *, solicit: bool = False) -> None:
        """One to a single member, besides those that are due; with ``solicit`` it is to answer."""
        self._sequence = self._sequence + 1 & 0xFFFF
        self._say(identity, effects, solicit=solicit, lifetime=_LIFETIME)

    def _say(self, identity: int, effects: list[Effect], *, solicit: bool, lifetime: int) -> None:
        group, serves = self._group, self._machine.serves
        hello = Hello(
            self._sequence,
            group.preference,
            lifetime,
            max(1, round(group.hello_interval * 1000)),
            group.group,
            serves,
            solicit,
            True,
            self._machine.term,
            self._replication.synchronized() if serves else None,
            (),
            self.incarnation,
            self._neighbors[identity].incarnation,
            self._floor,
        )
        self._send(identity, hello, effects)
