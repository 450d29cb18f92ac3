"""The anti-replay window of one inbound SA, with extended sequence numbers (RFC 4303 3.4.3, appendix A2).

Not covered: who may advance it. The caller checks, verifies the ICV, and only then advances.
"""

from __future__ import annotations

__all__ = ["DEFAULT_WINDOW", "ReplayWindow"]

DEFAULT_WINDOW = 1024


class ReplayWindow:
    """Which of the newest ``size`` sequence numbers have been seen.

    ``top`` is the highest number accepted so far (0: none); bit ``n`` of ``bitmap`` stands for ``top - n``.
    """

    __slots__ = ("bitmap", "size", "top")

    def __init__(self, size: int = DEFAULT_WINDOW, top: int = 0, bitmap: int = 0) -> None:
        if size < 64:
            raise ValueError("a replay window has at least 64 entries")
        self.size = size
        self.top = top
        self.bitmap = bitmap

    def extend(self, low: int) -> int:
        """The 64-bit sequence number whose low half is ``low`` (appendix A2.2)."""
        top = self.top
        edge = (top & 0xFFFFFFFF) - self.size + 1
        high = top >> 32
        if edge >= 0:
            if low < edge:
                # Past the last number of all it starts over at one that is too old.
                high = high + 1 & 0xFFFFFFFF
        elif low >= edge + 0x100000000 and high:
            high -= 1
        return high << 32 | low

    def is_new(self, sequence: int) -> bool:
        """Whether ``sequence`` is inside or right of the window and unseen; changes nothing."""
        behind = self.top - sequence
        if behind < 0:
            return True
        return sequence > 0 and behind < self.size and not self.bitmap >> behind & 1

    def merge(self, other: ReplayWindow) -> bool:
        """Mark all that ``other`` has seen; whether anything was new."""
        before = self.top, self.bitmap
        ahead = other.top - self.top
        seen = other.bitmap
        if ahead > 0:
            self.top = other.top
            self.bitmap <<= min(ahead, self.size)
        else:
            seen <<= min(-ahead, self.size)
        self.bitmap = (self.bitmap | seen) & (1 << self.size) - 1
        return (self.top, self.bitmap) != before

    def advance(self, sequence: int) -> None:
        """Mark ``sequence``, which :meth:`is_new` found new and whose ICV verified."""
        ahead = sequence - self.top
        if ahead <= 0:
            self.bitmap |= 1 << -ahead
        else:
            self.top = sequence
            size = self.size
            self.bitmap = (self.bitmap << ahead | 1) & (1 << size) - 1 if ahead < size else 1
