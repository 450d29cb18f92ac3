"""What a member asks others for: all state that they have and it has not.

Covered: whom to ask when, asking again, what an answer answers. Not covered: answering (``harp.sync``), what
becomes of an answer (``member``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .effects import Effect
from .failover.machine import Machine
from .harp.messages import Body, StateRequest
from .harp.sync import Progress, Replication
from .parameters import GroupParameters

__all__ = ["Inquiries"]

_ASK_AGAIN = 2.0


class Inquiries:
    """Requests under way. ``digest`` says what is here; ``send`` takes (member, message, effects)."""

    def __init__(
        self,
        group: GroupParameters,
        machine: Machine,
        replication: Replication[Any],
        *,
        random: Callable[[int], bytes],
        digest: Callable[[], bytes],
        send: Callable[[int, Body, list[Effect]], None],
    ) -> None:
        self._machine = machine
        self._replication = replication
        self._digest = digest
        self._send = send
        self._patience = max(10 * group.retransmission, 2 * group.hello_interval)
        self._identifier = int.from_bytes(random(2), "big")
        self._asked: dict[int, tuple[int, float]] = {}

    def asked(self, identity: int) -> int | None:
        """The identifier of what a member was asked, ``None`` if it was not."""
        asked = self._asked.get(identity)
        return None if asked is None else asked[0]

    def ask(self, now: float, effects: list[Effect]) -> None:
        """Ask for state: a standby the active member until it has all, an active member whoever comes."""
        machine = self._machine
        for identity, peer in self._replication.peers.items():
            if peer.progress is Progress.ABSENT:
                continue
            if machine.serves:
                wanted = peer.progress is Progress.SYNCHRONIZING and not peer.pulled
            else:
                wanted = machine.active == identity and not machine.eligible
            asked = self._asked.get(identity)
            if not wanted or (asked is not None and asked[1] > now):
                continue
            if asked is None or peer.pulled:
                self._identifier = self._identifier + 1 & 0xFFFF
                asked = self._identifier, now
                peer.pulled = False
            # The same request again, if it is one: an answer under way goes on as it is.
            self._asked[identity] = asked[0], now + self._patience
            self._send(identity, StateRequest(asked[0], (), self._digest()), effects)

    def answered(self, identity: int, now: float, *, whole: bool) -> None:
        """A part of an answer came; with ``whole`` all of it has come."""
        again = now + self._patience
        if whole:
            # An active member that still does not count us in is asked anew later.
            again += _ASK_AGAIN
            self._replication.peers[identity].pulled = True
            self._machine.complete = True
        self._asked[identity] = self._asked[identity][0], again

    def forget(self, identity: int) -> None:
        """A member is another one than was asked, or gone."""
        self._asked.pop(identity, None)

    def forget_all(self) -> None:
        """What was asked was asked in another role."""
        self._asked.clear()
