"""What a take-over leaves for later: the claims to the home addresses, paced.

Covered: which addresses to announce when. Not covered: the take-over itself (``member``), which owns the
home agent address and serves before the first of these is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

__all__ = ["Announcements"]

_NEVER = float("inf")
_TICK = 0.01


class Announcements:
    """``rate`` addresses a second, whatever their number."""

    __slots__ = ("_addresses", "_count", "deadline")

    def __init__(self, rate: float) -> None:
        self._count = max(1, round(rate * _TICK))
        self._addresses: Iterator[bytes] = iter(())
        self.deadline = _NEVER
        """When the next ones are due."""

    def begin(self, addresses: Iterable[bytes], now: float) -> None:
        """Announce these, soon but not before service has begun; they are read as they are needed."""
        self._addresses = iter(addresses)
        self.deadline = now + _TICK

    def end(self) -> None:
        """Announce no more, and hold on to nothing that the next take-over would have to free."""
        self._addresses = iter(())
        self.deadline = _NEVER

    def due(self, now: float) -> list[bytes]:
        """The addresses to announce now."""
        if self.deadline > now:
            return []
        addresses = list(islice(self._addresses, self._count))
        self.deadline = now + _TICK if len(addresses) == self._count else _NEVER
        return addresses
