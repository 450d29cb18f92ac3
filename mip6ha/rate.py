"""A token bucket: how often something may happen.

Covered: one rate with a burst, on an injected clock. Not covered: fairness between those who ask.
"""

from __future__ import annotations

__all__ = ["TokenBucket"]


class TokenBucket:
    """``rate`` tokens a second, ``burst`` at most at once."""

    __slots__ = ("_burst", "_filled", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = self._tokens = burst
        self._filled = now

    def take(self, now: float) -> bool:
        """Whether one more may happen now; takes its token if so."""
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._filled) * self._rate)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
