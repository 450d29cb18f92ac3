"""State that is longer than a message: an entry in parts, and whole again.

Covered: cutting an entry's context, putting parts together in any order, forgetting those that never get
whole. Not covered: sending them again (``sync`` sends everything anew), shorter contexts, which travel as
they are.

All parts but the last one go without a wish for acknowledgement; who gets the last one and has not all of
the others acknowledges nothing, and is sent all of it again.
"""

from __future__ import annotations

from struct import Struct
from zlib import crc32

from ..wire import Malformed
from .messages import StateEntry, StateReply, entry_size

__all__ = ["LARGEST_ENTRY", "Parts", "in_parts"]

LARGEST_ENTRY = 2016
"""Octets of the largest entry that a message of its own can carry."""

# No context begins so: MessagePack has no use for this octet.
_MARK = 0xC1
_HEAD = Struct(">BBBI")
_LONGEST = 1300
"""Octets of a context in one part: leaves room for as many prefixes as a mobile router may have."""
_MOST_WAITING = 64
"""Entries of one sender that wait for more of them."""


def in_parts(reply: StateReply) -> list[StateReply]:
    """The messages that say what ``reply`` says; just that one, unless its only entry fits none."""
    if len(reply.entries) != 1 or entry_size(reply.entries[0]) <= LARGEST_ENTRY:
        return [reply]
    (entry,) = reply.entries
    context = entry.context
    count = -(-len(context) // _LONGEST)
    sum_ = crc32(context)
    pieces = [
        _HEAD.pack(_MARK, index, count, sum_) + context[index * _LONGEST : (index + 1) * _LONGEST]
        for index in range(count)
    ]
    early = [
        reply._replace(acknowledge=False, entries=(entry._replace(context=piece, prefixes=()),))
        for piece in pieces[:-1]
    ]
    return [*early, reply._replace(entries=(entry._replace(context=pieces[-1]),))]


class Parts:
    """Parts from one sender."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[tuple[bytes, int, int, int], dict[int, bytes]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def join(self, entry: StateEntry) -> StateEntry | None:
        """``entry`` if it is whole, or what it makes whole; ``None`` while parts are missing."""
        octets = entry.context
        if not octets or octets[0] != _MARK:
            return entry
        if len(octets) <= _HEAD.size:
            raise Malformed("context_part")
        _, index, count, sum_ = _HEAD.unpack_from(octets)
        if index >= count:
            raise Malformed("context_part")
        key = entry.home_address, entry.generation, count, sum_
        parts = self._waiting.pop(key, {})
        parts[index] = octets[_HEAD.size :]
        if len(parts) < count:
            self._waiting[key] = parts
            if len(self._waiting) > _MOST_WAITING:
                del self._waiting[next(iter(self._waiting))]
            return None
        whole = b"".join([parts[each] for each in range(count)])
        if crc32(whole) != sum_:
            raise Malformed("context_part")
        return entry._replace(context=whole)
