"""When which contexts are written to the journal: what changed, soon, and everything else once in a while.

Covered: batches, one under way at a time, segments that stand for themselves after a while, starting anew
after a failure. Not covered: what waits for a batch (``journaled``), octets (``failover.journal``), files
(``edge.journal``).

A segment is never rewritten. When one has grown, the next one begins, and besides what changes, all other
contexts are written to it little by little; then those before it are of no use any more. So nothing ever
takes long, however many mobile nodes there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from .effects import Effect, WriteJournal

__all__ = ["Journal"]

_NEVER = float("inf")
_BATCH = 64
"""Contexts at a time: well below two milliseconds."""
_COPIES = 16
"""Contexts at a time of those that did not change, and how many seconds apart."""
_PAUSE = 0.01
_AGAIN = 5.0
_LEAST = 4 << 20
"""Octets that a segment has before the next one begins, or twice what all contexts take, if that is more."""


class Journal:
    """What a home agent still has to write. Times are seconds.

    ``export`` yields the encoded context of a home address (``None``: there is none), ``known`` every home
    address that has one. Changes wait ``delay`` for others.
    """

    def __init__(
        self,
        export: Callable[[bytes], bytes | None],
        known: Callable[[], Iterable[bytes]],
        *,
        delay: float = 0.0,
    ) -> None:
        self._export = export
        self._known = known
        self._delay = delay
        self.changed: dict[bytes, None] = {}
        """Home addresses whose context is to be written."""
        self.ticket = 0
        """Of the last batch."""
        self.written = self.stored = 0
        """The last batch that outlives this process, and the host's boot."""
        self._whole_from: int | None = None
        self.failed = False
        """Whether there is no journal for the moment: nothing may wait for it."""
        self._copies: Iterator[bytes] | None = None
        self._begins = True
        self._due = -_NEVER
        self._copy_at = _NEVER
        self._octets = self._copied = 0
        self._again_at = _NEVER

    @property
    def waits(self) -> bool:
        """Whether a batch is under way."""
        return self.written < self.ticket

    @property
    def is_whole(self) -> bool:
        """Whether the last segment is stored and stands for itself."""
        return not self.failed and self._whole_from is not None and self._whole_from <= self.stored

    def next_deadline(self) -> float | None:
        """When :meth:`poll` has something to do."""
        if self.failed:
            return self._again_at
        if self.waits:
            return None
        due = self._due if self.changed or self._begins else _NEVER
        earliest = min(due, self._copy_at)
        return earliest if earliest < _NEVER else None

    def poll(self, now: float, effects: list[Effect]) -> tuple[bytes, ...]:
        """Write the next batch, if it is time for one; the home addresses in it."""
        if self.failed:
            if now < self._again_at:
                self.changed.clear()
                return ()
            self.failed, self._begins = False, True
            # All are copied, and nothing waits for any of them.
            self.changed.clear()
        deadline = self.next_deadline()
        if deadline is None or deadline > now:
            return ()
        begins, self._begins = self._begins, False
        if begins:
            # Every one is copied: whoever comes later has changed.
            self._copies = iter(list(self._known()))
            self._octets = self._copied = 0
            self._copy_at = now
        homes = list(islice(self.changed, _BATCH))
        for each in homes:
            del self.changed[each]
        own = len(homes)
        completes = self._copy(homes, now)
        exported = [self._export(each) or b"" for each in homes]
        contexts = tuple(filter(None, exported))
        self._octets += sum(map(len, contexts))
        self._copied += sum(map(len, exported[own:]))
        if begins:
            self._whole_from = None
        if completes:
            self._copies, self._copy_at = None, _NEVER
            self._whole_from = self.ticket + 1
        elif self._copies is None and self._octets > max(_LEAST, 2 * self._copied):
            self._begins = True
        self._due = now + self._delay
        self.ticket += 1
        effects.append(WriteJournal(self.ticket, now, contexts, begins, completes))
        return tuple(homes)

    def drain(self, now: float, effects: list[Effect]) -> None:
        """Write all that has changed, whatever is under way: there will be nothing more."""
        while self.changed and not self.failed:
            self.has_written(self.ticket)
            self._due = now
            self.poll(now, effects)

    def _copy(self, homes: list[bytes], now: float) -> bool:
        """Add some that did not change; whether those were the last ones."""
        if self._copies is None or self._copy_at > now:
            return False
        more = list(islice(self._copies, _COPIES))
        present = set(homes)
        # Also what has changed and waits: a segment that is complete lacks nobody.
        homes += [each for each in more if each not in present]
        self._copy_at = now + _PAUSE
        return len(more) < _COPIES

    def has_written(self, ticket: int) -> None:
        """Every batch up to ``ticket`` outlives this process."""
        self.written = max(self.written, ticket)

    def has_stored(self, ticket: int) -> None:
        """Every batch up to ``ticket`` is on stable storage."""
        self.stored = max(self.stored, ticket)

    def fail(self, now: float) -> None:
        """Nothing that was written is left. It is begun anew after a while."""
        self.failed = True
        self._again_at = now + _AGAIN
        self._copies, self._copy_at = None, _NEVER
        self.written = self.stored = self.ticket
        self.changed.clear()
