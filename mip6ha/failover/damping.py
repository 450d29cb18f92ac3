"""Hold-down against ping-pong: each role change in a window doubles the wait before a voluntary one.

Covered: when a planned switch or a pre-emption may happen. Not covered: taking over from a failed
member, which never waits for this.
"""

from __future__ import annotations

__all__ = ["HoldDown"]


class HoldDown:
    """``base`` seconds after one change, doubled for each further one in ``window``, at most ``cap``."""

    __slots__ = ("_base", "_cap", "_changes", "_window", "until")

    def __init__(self, base: float = 1.0, cap: float = 300.0, window: float = 600.0) -> None:
        self._base = base
        self._cap = cap
        self._window = window
        self._changes: list[float] = []
        self.until = float("-inf")

    def changed(self, now: float) -> None:
        """Note a role change."""
        self._changes = [each for each in self._changes if each > now - self._window]
        self._changes.append(now)
        # Doubling stops mattering long before the exponent would.
        factor = 1 << min(len(self._changes) - 1, 30)
        self.until = now + min(self._cap, self._base * factor)

    def allows(self, now: float) -> bool:
        """Whether a voluntary change may happen now."""
        return now >= self.until
