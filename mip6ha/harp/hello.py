"""Who of the set is there: HELLO sequence numbers, intervals, and failure after missed ones.

Covered: one :class:`Neighbor` per other member, its liveness from its own advertised interval.
Not covered: roles (``failover.machine``), building messages (``member``).
"""

from __future__ import annotations

from .messages import Hello

__all__ = ["Neighbor"]

_LONGEST_INTERVAL = 60.0


class Neighbor:
    """What HELLOs told about one other member.

    ``factor`` intervals of silence make it failed; ``interval`` is the one it last advertised, seconds.
    ``synchronized`` are the members that it says have all its state, ``None`` where it does not say.
    ``incarnation`` is the number of its present start, as far as heard (0: never, or it has none);
    ``proved``: it has echoed the own number, so what it says now cannot be from before the own start;
    ``suspected``: it, or somebody at its address, has said something, which may have been long ago.
    """

    __slots__ = (
        "_factor",
        "active",
        "address",
        "heard",
        "identifier",
        "incarnation",
        "interval",
        "preference",
        "proved",
        "sequence",
        "suspected",
        "synchronized",
        "term",
    )

    def __init__(
        self, identifier: int, address: bytes, preference: int, interval: float, factor: float
    ) -> None:
        self.identifier = identifier
        self.address = address
        self.preference = preference
        self.interval = interval
        self._factor = factor
        self.heard = float("-inf")
        self.sequence = -1
        self.active = False
        self.term: int | None = None
        self.synchronized: frozenset[int] | None = None
        self.incarnation = 0
        self.proved = self.suspected = False

    @property
    def rank(self) -> tuple[int, bytes]:
        """Higher goes first: preference, then the numerically higher address."""
        return self.preference, self.address

    @property
    def fails_at(self) -> float:
        """When silence becomes failure."""
        return self.heard + self._factor * self.interval

    def is_alive(self, now: float) -> bool:
        """Whether it was heard recently enough."""
        return now < self.fails_at

    def forgive(self, before: float, now: float) -> None:
        """Nobody listened from ``before`` until ``now``: it has one more interval to be heard in."""
        silence = self._factor * self.interval
        if now - before > silence / 2 and self.is_alive(before):
            self.heard = max(self.heard, now - silence + self.interval)

    def take(self, hello: Hello, now: float) -> bool:
        """Take in a HELLO; ``False`` for one that is not newer than the last, which changes nothing.

        After a failure the sequence may start anywhere: the member may have been restarted.
        """
        ahead = (hello.sequence - self.sequence) & 0xFFFF
        if self.sequence >= 0 and self.is_alive(now) and not 0 < ahead < 0x8000:
            return False
        self.sequence = hello.sequence
        self.heard = now
        self.interval = min(max(hello.interval, 1) / 1000, _LONGEST_INTERVAL)
        self.preference = hello.preference
        self.active = hello.active
        self.term = hello.term
        self.synchronized = None if hello.synchronized is None else frozenset(hello.synchronized)
        return True

    def prove(self, hello: Hello, own: int) -> bool:
        """Whether the member is proved, or proves itself by echoing the ``own`` incarnation.

        One that knows only the draft has no way to; it is believed.
        """
        self.proved = self.proved or hello.incarnation is None or hello.echo == own
        if not self.proved:
            self.suspected = True
            self.incarnation = hello.incarnation or 0
        return self.proved

    def restarted(self, hello: Hello) -> bool:
        """Whether a proved member says that it is not the one it was; its numbers start anew then."""
        before, self.incarnation = self.incarnation, hello.incarnation or 0
        if before in (0, self.incarnation):
            return False
        self.fail()
        self.sequence = -1
        return True

    def fail(self) -> None:
        """It said that it leaves: no need to wait."""
        self.heard = float("-inf")
        self.active = False
